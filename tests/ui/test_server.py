"""The page's server on a real socket, against clients that mean no good."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse

import pytest
from live_page import TOKEN, LivePage, live_page

from loomstream.ui.page import server as page_server

resource = pytest.importorskip("resource", reason="NOT TESTED: the limit of open files is known on POSIX alone")
MANY = 1_000
HUGE_BYTES = 50_000_000
KNOWN = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[LivePage]:
    with live_page() as page:
        yield page


def port_of(server: LivePage) -> int:
    return int(server.url.rpartition(":")[2])


def send(server: LivePage, method: str, path: str, body: bytes | None = None, **headers: str) -> HTTPResponse:
    with closing(HTTPConnection("127.0.0.1", port_of(server), timeout=20)) as client:
        client.request(method, path, body, {**KNOWN, **headers})
        response = client.getresponse()
        response.read()
        return response


def raw(server: LivePage, *pieces: bytes) -> bytes:
    """Give the beginning of what comes back; the server may hang up while it is written to."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=20) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
        except (ConnectionResetError, BrokenPipeError):
            pass  # it has answered before the end
        try:
            return client.recv(1_000)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../guard.py",
        "/app.js/../../guard.py",
        "//etc/passwd",
        "/app.js%00.css",
        "/index.html",
        "/login.html",
        "/api/conversations/../../etc/passwd",
        "/api/answers/..%2f..%2fetc%2fpasswd/events",
    ],
)
def test_no_path_leads_out_of_the_page(server: LivePage, path: str) -> None:
    assert send(server, "GET", path).status in (404, 204)
    assert b"root:" not in raw(server, f"GET {path} HTTP/1.0\r\nhost: 127.0.0.1:{port_of(server)}\r\n\r\n".encode())


def test_a_body_of_fifty_megabytes_is_refused_while_it_comes(server: LivePage) -> None:
    path = "/api/conversations/c/messages"
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port_of(server)}\r\nauthorization: Bearer {TOKEN}\r\n"
    told = f"{head}content-type: application/json\r\ncontent-length: {HUGE_BYTES}\r\n\r\n".encode()
    assert raw(server, told).startswith(b"HTTP/1.1 413")  # without a byte of it
    chunked = f"{head}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    chunk = b"%x\r\n%b\r\n" % (500_000, b"x" * 500_000)
    answered = raw(server, chunked, *[chunk] * (HUGE_BYTES // 500_000))
    assert answered.startswith(b"HTTP/1.1 413") or answered == b""  # reset while it was still sending
    assert send(server, "GET", "/api/models").status == 200


def test_a_thousand_silent_connections_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 3 * MANY:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == resource.RLIM_INFINITY or hard > 3 * MANY, "this needs 3,000 open files: ulimit -Hn"
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * MANY), hard))
    monkeypatch.setattr(page_server, "PATIENCE_S", 0.5)
    with live_page() as server, ExitStack() as stack:
        address = ("127.0.0.1", port_of(server))
        silent = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(MANY)]
        assert send(server, "GET", "/api/models").status == 200
        assert all(client.recv(1) == b"" for client in silent)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nhost: 127.",
        b"POST /login HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-length: 20\r\n\r\ntoken=",
        b"GET /style.css HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\nGET /app.js HTT",
    ],
    ids=["head", "body", "second head"],
)
def test_who_does_not_say_the_whole_of_a_request_is_let_go(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "PATIENCE_S", 0.2)
    with live_page() as server:
        with socket.create_connection(("127.0.0.1", port_of(server)), timeout=20) as client:
            client.sendall(said.replace(b"%d", str(port_of(server)).encode()))
            while client.recv(100_000):
                pass  # what it answers to the first of two
        assert send(server, "GET", "/api/models").status == 200


@pytest.mark.parametrize("last_id", ["garbage", "-1", "9" * 400, "1.5", "0x1", "1\t2", "é"])
def test_a_last_event_id_of_rubbish_is_refused(server: LivePage, last_id: str) -> None:
    with closing(HTTPConnection("127.0.0.1", port_of(server), timeout=20)) as client:
        body = json.dumps({"text": "Hi", "spec": "acme:weaver-1"}).encode()
        client.request("POST", f"/api/conversations/id-{abs(hash(last_id))}/messages", body, KNOWN)
        key = json.loads(client.getresponse().read())["answer"]["key"]
    headers = {"last-event-id": last_id}
    assert send(server, "GET", f"/api/answers/{key}/events", **headers).status == 400
    assert send(server, "POST", f"/api/answers/{key}/stop", b"{}").status == 204
