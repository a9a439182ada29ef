"""Credential services on loopback that check what they are sent, and what else the tests of `auth` share."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from loomstream.auth import API_KEY, Authenticator, Origin
from loomstream.errors import LoomstreamError
from loomstream.wire import Secret, WireRequest


class Call(NamedTuple):
    """What a service was sent; the headers' names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    target: str

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


class Answer(NamedTuple):
    """What a service says."""

    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


def answer(value: object, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value), headers={name.replace("_", "-"): text for name, text in headers.items()})


class Service:
    """A server on loopback; `calls` is what it was sent."""

    def __init__(self, handle: Callable[[Call], Answer], tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self.complaints: list[Exception] = []
        self._handle = handle
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                parts = urlsplit(self.path)
                call = Call(
                    self.command,
                    parts.path,
                    {name: values[0] for name, values in parse_qs(parts.query).items()},
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(int(self.headers.get("content-length", 0))),
                    self.path,
                )
                service.calls.append(call)
                said = service._said(call)
                body = said.body.encode()
                self.send_response(said.status)
                for name, value in {"content-type": said.content_type, **said.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _serve  # noqa: N815 (the names that http.server looks for)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
                pass

        return Handler

    def _said(self, call: Call) -> Answer:
        try:
            return self._handle(call)
        except Exception as error:  # noqa: BLE001 (in a thread of the server: the test must hear of it)
            self.complaints.append(error)
            return Answer(418)

    @contextmanager
    def running(self) -> Iterator[Service]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
        for complaint in self.complaints:
            raise complaint


Start = Callable[[Callable[[Call], Answer]], Service]
"""The type of the fixture that starts a service."""


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Given:
    """The credentials that a test gives."""

    provider = "acme"

    def __init__(
        self,
        *,
        key: str = "",
        token: Callable[[], str] | None = None,
        settings: Mapping[str, str] | None = None,
        origins: Mapping[str, Origin] | None = None,
        **secrets: str,
    ) -> None:
        self._origins = dict(origins or {})
        self._key = key
        self._token = token
        self._secrets = secrets
        self.settings = dict(settings or {})

    @property
    def key_is_token(self) -> bool:
        return self._token is not None

    def origin(self, name: str) -> Origin:
        usual: Origin = "argument" if name == API_KEY and self.key_is_token else ""
        return self._origins.get(name, usual)

    async def key(self, *, required: bool = True) -> Secret | None:
        value = self._token() if self._token is not None else self._key
        assert value or not required, "asked for a key that is not there"
        return Secret(value) if value else None

    async def secret(self, name: str) -> Secret | None:
        value = self._secrets.get(name)
        return Secret(value) if value else None


REQUEST = WireRequest(
    url="https://host.example/v1/chat", headers={"content-type": "application/json"}, body=b'{"stream":true}'
)


def revealed(wire_request: WireRequest) -> dict[str, str]:
    """Give the headers as the transport writes them."""
    return {
        name: value.reveal() if isinstance(value, Secret) else value for name, value in wire_request.headers.items()
    }


async def error_of(authenticator: Authenticator, kind: type[LoomstreamError]) -> str:
    """Give the words of the error, once it is sure that it is typed, stands alone and shows no secret."""
    with pytest.raises(kind) as caught:
        await authenticator.authorize(REQUEST)
    assert type(caught.value) is kind
    assert caught.value.provider == "acme"
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "canary" not in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)
    return str(caught.value)
