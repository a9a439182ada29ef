"""Which proxy a request takes, and what a proxy can do to it."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
import trustme
from anyio.abc import ByteStream

from loomstream.errors import ConfigError, ConnectFailed
from loomstream.transport.http import HttpOptions, HttpTransport
from loomstream.transport.proxies import Proxy, ProxyTable, Target
from loomstream.wire import WireRequest

if TYPE_CHECKING:
    from tests.transport.conftest import Connection, FaultServer, Post, Script, Serve

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
PASSWORD = "pa55word"

HTTPS = Target("https", "api.example.com", 443)
HTTP = Target("http", "api.example.com", 80)


def find(target: Target, environ: dict[str, str], proxy: str | None = None) -> str | None:
    found = ProxyTable(proxy=proxy, environ=environ).find(target)
    return found.url if found else None


@pytest.mark.parametrize(
    ("environ", "for_https", "for_http"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1", None),
        ({"https_proxy": "http://p:1"}, "http://p:1", None),
        ({"HTTP_PROXY": "http://p:1"}, None, "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "http://q:2", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:2"}, "http://q:2", None),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": ""}, None, None),
        ({"HTTPS_PROXY": "p:1"}, "http://p:1", None),
        ({"HTTPS_PROXY": "http://p"}, "http://p:80", None),
        ({"HTTPS_PROXY": "https://p"}, "https://p:443", None),
        ({"HTTPS_PROXY": "http://user:secret@[::1]:3128/"}, "http://[::1]:3128", None),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, None, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://p:1", None),
    ],
)
def test_variables(environ: dict[str, str], for_https: str | None, for_http: str | None) -> None:
    assert find(HTTPS, environ) == for_https
    assert find(HTTP, environ) == for_http


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "is_direct"),
    [
        ("", "api.example.com", 443, False),
        ("*", "api.example.com", 443, True),
        ("api.example.com", "api.example.com", 443, True),
        ("API.Example.COM", "api.example.com", 443, True),
        ("example.com", "api.example.com", 443, True),
        (".example.com", "api.example.com", 443, True),
        ("*.example.com", "api.example.com", 443, True),
        (".example.com", "example.com", 443, True),
        ("example.com", "badexample.com", 443, False),
        ("ample.com", "example.com", 443, False),
        ("example.com.", "api.example.com", 443, True),
        ("a.test, ,b.test , example.com", "api.example.com", 443, True),
        ("a.test b.test", "b.test", 443, True),
        ("example.com:443", "api.example.com", 443, True),
        ("example.com:8443", "api.example.com", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "ten.example", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:8443", "10.1.2.3", 8443, True),
        ("10.1.2.3:8443", "10.1.2.3", 443, False),
        ("fd00::/8", "fd00::1", 443, True),
        ("[fd00::1]:443", "fd00::1", 443, True),
        ("[fd00::1]:444", "fd00::1", 443, False),
        ("fd00::1", "fd00::1", 443, True),
        (".", "api.example.com", 443, False),
    ],
)
def test_no_proxy(no_proxy: str, host: str, port: int, is_direct: object) -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy}
    assert (find(Target("https", host, port), environ) is None) is is_direct


def test_an_explicit_proxy_wins_over_everything() -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}
    assert find(HTTPS, environ, proxy="http://mine:3") == "http://mine:3"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "app.localhost"])
def test_plain_http_to_this_machine_takes_no_proxy_from_the_environment(host: str) -> None:
    assert find(Target("http", host, 80), {"ALL_PROXY": "http://p:1"}) is None
    assert find(Target("https", host, 443), {"ALL_PROXY": "http://p:1"}) == "http://p:1"
    assert find(Target("http", host, 80), {}, proxy="http://mine:3") == "http://mine:3"


@pytest.mark.parametrize("text", ["socks5://p:1", "http://", "http://p:port", "http://p:0", "ftp://p"])
def test_a_proxy_that_cannot_be_used(text: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        find(HTTPS, {"HTTPS_PROXY": text})
    with pytest.raises(ConfigError, match="proxy="):
        find(HTTPS, {}, proxy=text)


def test_credentials_stand_in_no_message_and_no_repr() -> None:
    with pytest.raises(ConfigError) as caught:
        find(HTTPS, {"HTTPS_PROXY": f"socks5://user:{PASSWORD}@p:1"})
    assert PASSWORD not in str(caught.value)
    found = ProxyTable(proxy=f"http://user:{PASSWORD}@p:1", environ={}).find(HTTPS)
    assert isinstance(found, Proxy)
    assert PASSWORD not in repr(found)


@pytest.mark.parametrize("scheme", ["http://", ""])
@pytest.mark.parametrize("password", [PASSWORD, f"a/{PASSWORD}", f"a@{PASSWORD}"])
def test_the_settings_do_not_show_the_proxy_s_password(scheme: str, password: str) -> None:
    options = HttpOptions(proxy=f"{scheme}user:{password}@p:1", allow_http=True)
    assert PASSWORD not in repr(options)
    assert f"proxy='{scheme}…@p:1'" in repr(options)
    assert "allow_http=True" in repr(options)
    assert "proxy='http://p:1'" in repr(HttpOptions(proxy="http://p:1"))


# --- over the wire --------------------------------------------------------------------------------

asynchronous = pytest.mark.anyio


def proxying(upstream_port: int, *, seen: list[bytes]) -> Script:
    """Give the script of a proxy that connects every CONNECT to one port of loopback, and answers the rest itself."""

    async def script(connection: Connection) -> None:
        head = await connection.head()
        seen.append(head)
        if not head.startswith(b"CONNECT "):
            await connection.send(OK)
            await connection.wait_closed()
            return
        await connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with await anyio.connect_tcp("127.0.0.1", upstream_port) as upstream, anyio.create_task_group() as tasks:
            tasks.start_soon(copy, connection.stream, upstream)
            await copy(upstream, connection.stream)
            tasks.cancel_scope.cancel()

    return script


async def copy(source: ByteStream, target: ByteStream) -> None:
    try:
        async for data in source:
            await target.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


async def answer(connection: Connection) -> None:
    await connection.request()
    await connection.send(OK)
    await connection.wait_closed()


@pytest.fixture
async def tunnelled(serve: Serve, authority: trustme.CA, tmp_path: Path) -> tuple[FaultServer, str]:
    """Give a TLS server for model.example, which only a proxy can reach, and the options that trust it."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("model.example").configure_cert(context)
    return await serve(answer, context), str(bundle)


async def fetch(options: HttpOptions | None, request: WireRequest) -> bytes:
    transport = HttpTransport(options)
    try:
        async with transport.open(request, connect_s=10) as response:
            return b"".join([chunk async for chunk in response.chunks])
    finally:
        await transport.aclose()


@asynchronous
@pytest.mark.parametrize("source", ["option", "environment"])
async def test_https_goes_through_a_tunnel(
    serve: Serve, post: Post, tunnelled: tuple[FaultServer, str], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    upstream, bundle = tunnelled
    seen = []
    proxy = await serve(proxying(upstream.port, seen=seen))
    url = proxy.url.replace("http://", f"http://us%40er:{PASSWORD}@")
    if source == "environment":
        monkeypatch.setenv("HTTPS_PROXY", url)
    options = HttpOptions(ca_bundle=bundle, proxy=url if source == "option" else None)
    assert await fetch(options, post("https://model.example/v1", authorization="Bearer k")) == b"hi"
    assert seen[0].startswith(b"CONNECT model.example:443 HTTP/1.1\r\n")
    credentials = base64.b64encode(f"us@er:{PASSWORD}".encode())
    assert b"proxy-authorization: basic " + credentials.lower() in seen[0].lower()
    assert b"Bearer k" not in seen[0]
    assert upstream.requests[0].startswith(b"POST /v1 HTTP/1.1\r\n")
    assert b"proxy-authorization" not in upstream.requests[0].lower()


@asynchronous
async def test_plain_http_is_handed_to_the_proxy_whole(serve: Serve, post: Post) -> None:
    seen = []
    proxy = await serve(proxying(0, seen=seen))
    url = proxy.url.replace("http://", f"http://user:{PASSWORD}@")
    assert await fetch(HttpOptions(proxy=url, allow_http=True), post("http://model.example/v1")) == b"hi"
    assert seen[0].startswith(b"POST http://model.example/v1 HTTP/1.1\r\n")
    credentials = base64.b64encode(f"user:{PASSWORD}".encode())
    assert seen[0].lower().count(b"proxy-authorization: basic " + credentials.lower()) == 1


@asynchronous
async def test_no_proxy_and_trust_env_proxies_keep_requests_direct(
    serve: Serve, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = await serve(answer)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert await fetch(HttpOptions(), post(direct.url)) == b"hi"
    assert ProxyTable(proxy=None, environ={"ALL_PROXY": "http://p:1"}).find(HTTPS)
    transport = HttpTransport(HttpOptions(trust_env_proxies=False))
    assert transport._proxies.find(HTTPS) is None


@asynchronous
@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("407", "https://model.example/v1"),
        ("407", "http://model.example/v1"),
        ("refused", "https://model.example/v1"),
        ("refused", "http://model.example/v1"),
        ("garbage", "https://model.example/v1"),
    ],
)
async def test_a_proxy_that_says_no_is_named_without_credentials(
    serve: Serve, post: Post, closed_port: int, kind: str, target: str
) -> None:
    async def script(connection: Connection) -> None:
        await connection.head()
        answers = {"407": b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"}
        await connection.send(answers.get(kind, b"garbage\r\n\r\n"))

    port = closed_port if kind == "refused" else (await serve(script)).port
    options = HttpOptions(proxy=f"http://user:{PASSWORD}@127.0.0.1:{port}", allow_http=True)
    with pytest.raises(ConnectFailed) as caught:
        await fetch(options, post(target))
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert PASSWORD not in str(caught.value) + repr(vars(caught.value))
    assert ("user and password" in str(caught.value)) is (kind == "407")


@asynchronous
async def test_a_proxy_that_closes_during_connect_is_connect_failed(serve: Serve, post: Post) -> None:
    async def script(connection: Connection) -> None:
        await connection.head()

    proxy = await serve(script)
    with pytest.raises(ConnectFailed, match=f"localhost:{proxy.port}"):
        await fetch(HttpOptions(proxy=proxy.url), post("https://model.example/v1"))
