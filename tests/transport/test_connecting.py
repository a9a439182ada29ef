"""How long connecting took is told once for a new connection, TLS included, and never for a kept one."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import anyio
import pytest

from loomstream.errors import ConnectFailed
from loomstream.transport.connecting import connections_told_to
from loomstream.transport.http import HttpOptions, HttpTransport

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.transport.conftest import Connection, Post, Serve

pytestmark = pytest.mark.anyio


async def answer_twice(connection: Connection) -> None:
    for _ in range(2):
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
    await connection.wait_closed()


async def test_a_kept_connection_says_nothing(serve: Serve, post: Post, authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    server = await serve(answer_twice, context)
    transport = HttpTransport(HttpOptions(ca_bundle=str(tmp_path / "ca.pem")))
    told: list[list[float]] = [[], []]
    for heard in told:
        began = anyio.current_time()
        with connections_told_to(heard.append):
            async with transport.open(post(server.url), connect_s=10) as response:
                assert b"".join([chunk async for chunk in response.chunks]) == b"hi"
        assert sum(heard) <= anyio.current_time() - began
    await transport.aclose()
    assert sum(told[0]) > 0
    assert told[1] == []


async def test_a_connection_that_failed_says_nothing(post: Post, free_tcp_port: int) -> None:
    told: list[float] = []
    transport = HttpTransport()
    with connections_told_to(told.append), pytest.raises(ConnectFailed):
        async with transport.open(post(f"http://127.0.0.1:{free_tcp_port}/"), connect_s=10):
            pass
    await transport.aclose()
    assert told == []
