"""Certificates are checked, and every way to say whom to trust is heard."""

from __future__ import annotations

import datetime as dt
import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography import x509
from cryptography.x509.name import _ASN1Type

from loomstream.errors import ConfigError, TLSFailed
from loomstream.transport.http import HttpOptions, HttpTransport

if TYPE_CHECKING:
    from tests.transport.conftest import Connection, CountSockets, FaultServer, Post, Serve

pytestmark = pytest.mark.anyio

LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


def server_context(cert: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    cert.configure_cert(context)
    return context


async def answer(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
    await connection.wait_closed()


async def fetch(server: FaultServer, post: Post, options: HttpOptions | None = None) -> bytes:
    transport = HttpTransport(options or HttpOptions())
    try:
        async with transport.open(post(server.url), connect_s=10) as response:
            return b"".join([chunk async for chunk in response.chunks])
    finally:
        await transport.aclose()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


async def test_an_unknown_authority_is_refused(serve: Serve, post: Post, authority: trustme.CA) -> None:
    server = await serve(answer, server_context(authority.issue_cert("localhost")))
    with pytest.raises(TLSFailed, match="ca_bundle= or set SSL_CERT_FILE") as caught:
        await fetch(server, post)
    assert caught.value.retry_safety == "no"
    assert server.requests == []


async def test_a_ca_bundle_replaces_the_authorities(
    serve: Serve, post: Post, authority: trustme.CA, bundle: str
) -> None:
    server = await serve(answer, server_context(authority.issue_cert("localhost")))
    assert await fetch(server, post, HttpOptions(ca_bundle=bundle)) == b"hi"


async def test_ssl_cert_file_is_honoured(
    serve: Serve, post: Post, authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", bundle)
    server = await serve(answer, server_context(authority.issue_cert("localhost")))
    assert await fetch(server, post) == b"hi"


async def test_ssl_cert_dir_is_honoured(
    serve: Serve, post: Post, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / f"{_subject_hash(authority)}.0")
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    server = await serve(answer, server_context(authority.issue_cert("localhost")))
    assert await fetch(server, post) == b"hi"


def _subject_hash(authority: trustme.CA) -> str:
    """Give the file name under which OpenSSL looks for an authority: the head of its canonical name's SHA-1."""
    subject = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    names = [x509.Name([x509.RelativeDistinguishedName([_canonical(item) for item in rdn])]) for rdn in subject.rdns]
    without_headers = b"".join(name.public_bytes()[2:] for name in names)
    digest = hashlib.sha1(without_headers, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _canonical(attribute: x509.NameAttribute) -> x509.NameAttribute:
    return x509.NameAttribute(attribute.oid, attribute.value.lower(), _ASN1Type.UTF8String)


async def test_a_certificate_for_another_host_is_refused(
    serve: Serve, post: Post, authority: trustme.CA, bundle: str
) -> None:
    server = await serve(answer, server_context(authority.issue_cert("other.example")))
    with pytest.raises(TLSFailed, match="the host that the certificate was issued for"):
        await fetch(server, post, HttpOptions(ca_bundle=bundle))


async def test_an_expired_certificate_is_refused(serve: Serve, post: Post, authority: trustme.CA, bundle: str) -> None:
    expired = authority.issue_cert("localhost", not_before=LONG_AGO, not_after=LONG_AGO + dt.timedelta(days=1))
    server = await serve(answer, server_context(expired))
    with pytest.raises(TLSFailed, match="expired"):
        await fetch(server, post, HttpOptions(ca_bundle=bundle))


async def test_old_tls_is_refused(
    post: Post, authority: trustme.CA, bundle: str, blocking_tls_server: Callable[[ssl.SSLContext], FaultServer]
) -> None:
    context = server_context(authority.issue_cert("localhost"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(TLSFailed, match="protocol version"):
        await fetch(blocking_tls_server(context), post, HttpOptions(ca_bundle=bundle))


@pytest.fixture
def blocking_tls_server() -> Iterator[Callable[[ssl.SSLContext], FaultServer]]:
    """Give a maker of TLS servers that end a failed handshake with an alert, as real ones do; anyio's only hang up."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=1))

        def start(context: ssl.SSLContext) -> FaultServer:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            pool.submit(_fail_handshake, listener, context)
            return SimpleNamespace(url=f"https://localhost:{listener.getsockname()[1]}")

        yield start


def _fail_handshake(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    with connection:
        wrapped = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with suppress(ssl.SSLError), wrapped:
            try:
                wrapped.do_handshake()
            finally:
                while socket.socket.recv(wrapped, 4096):  # closing over unread bytes would overtake the alert
                    pass


def requiring_client_cert(authority: trustme.CA) -> ssl.SSLContext:
    context = server_context(authority.issue_cert("localhost"))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_client_certificate_is_shown(
    serve: Serve, post: Post, authority: trustme.CA, bundle: str, tmp_path: Path
) -> None:
    mine = authority.issue_cert("me@example.com")
    one_file, cert, key = tmp_path / "both.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    mine.private_key_and_cert_chain_pem.write_to_path(one_file)
    mine.cert_chain_pems[0].write_to_path(cert)
    mine.private_key_pem.write_to_path(key)
    server = await serve(answer, requiring_client_cert(authority))
    for client_cert in (str(one_file), (str(cert), str(key))):
        assert await fetch(server, post, HttpOptions(ca_bundle=bundle, client_cert=client_cert)) == b"hi"


async def test_a_missing_client_certificate_is_tls_failed(
    post: Post, authority: trustme.CA, bundle: str, blocking_tls_server: Callable[[ssl.SSLContext], FaultServer]
) -> None:
    server = blocking_tls_server(requiring_client_cert(authority))
    with pytest.raises(TLSFailed, match="certificate required"):
        await fetch(server, post, HttpOptions(ca_bundle=bundle))


@pytest.mark.parametrize("setting", ["ca_bundle", "client_cert"])
@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "garbage"])
async def test_a_file_that_cannot_be_used_is_named(
    post: Post, tmp_path: Path, setting: str, content: str | None
) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    transport = HttpTransport(HttpOptions(**{setting: str(path)}))
    with pytest.raises(ConfigError, match=f"{setting}=") as caught:
        async with transport.open(post("https://localhost:1")):
            pass
    await transport.aclose()
    assert str(path) in str(caught.value)


async def test_a_missing_ssl_cert_file_is_named(post: Post, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    transport = HttpTransport(HttpOptions())
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        async with transport.open(post("https://localhost:1")):
            pass
    await transport.aclose()


async def test_the_key_log_variable_is_ignored(
    serve: Serve, post: Post, authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = await serve(answer, context)
    assert await fetch(server, post, HttpOptions(ca_bundle=bundle)) == b"hi"
    assert not log.exists()


async def test_leaving_a_tls_stream_early_closes_it_at_once(
    open_sockets: CountSockets, serve: Serve, post: Post, authority: trustme.CA, bundle: str
) -> None:
    """The peer never says goodbye; leaving must not wait for it."""

    async def endless(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")
        await connection.wait_closed()

    server = await serve(endless, server_context(authority.issue_cert("localhost")))
    transport = HttpTransport(HttpOptions(ca_bundle=bundle))
    async with transport.open(post(server.url)) as response:
        assert await anext(response.chunks) == b"data: 1\n\n"
    assert open_sockets(server.port) == 0
    await server.all_closed()
    await transport.aclose()
