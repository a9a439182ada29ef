"""Every way in which a server or the network can fail gives one typed error, on both event loops."""
# ruff: noqa: PT012 (an error may come when a response is opened, read or left: a block is the unit here)

from __future__ import annotations

import gc
import gzip
import traceback
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest

from loomstream.errors import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    LimitExceeded,
    LoomstreamError,
    TLSFailed,
    UnexpectedContent,
)
from loomstream.transport import ByteResponse
from loomstream.transport.http import ConnectionLimits, HttpOptions, HttpTransport
from loomstream.wire import Secret, WireRequest

if TYPE_CHECKING:
    from tests.transport.conftest import Connection, Post, Script, Serve

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
CANARY = "sk-canary-1234567890"


def answering(*pieces: bytes) -> Script:
    """Give a script that reads one request, sends the pieces and ends the connection."""

    async def script(connection: Connection) -> None:
        await connection.request()
        for piece in pieces:
            await connection.send(piece)

    return script


async def read_all(
    transport: HttpTransport, request: WireRequest, **limits: float
) -> tuple[ByteResponse | None, bytes, LoomstreamError | None]:
    """Give the response and its body, and the error that ended it, if any."""
    received = []
    response = None
    try:
        async with transport.open(request, **limits) as response:
            async for chunk in response.chunks:  # a comprehension would lose them at an error
                received.append(chunk)  # noqa: PERF401 (see above)
    except LoomstreamError as error:
        return response, b"".join(received), error
    return response, b"".join(received), None


async def test_a_whole_answer_is_read(serve: Serve, transport: HttpTransport, post: Post) -> None:
    server = await serve(answering(CHUNKED, b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"))
    response, body, error = await read_all(transport, post(server.url, x_note="a b", authorization=Secret("Bearer k")))
    assert (response.status, body, error) == (200, b"hello world", None)
    assert response.headers["content-type"] == "text/event-stream"
    head = server.requests[0].lower()
    assert head.startswith(b"post / http/1.1\r\n")
    for line in (b"accept-encoding: identity", b"authorization: bearer k", b"x-note: a b", b"content-length: 15"):
        assert head.count(line + b"\r\n") == 1
    assert server.requests[0].endswith(b'\r\n\r\n{"stream":true}')


async def test_the_url_is_sent_as_it_was_written(serve: Serve, transport: HttpTransport) -> None:
    server = await serve(answering(OK + b"content-length: 0\r\n\r\n"))
    await read_all(transport, WireRequest(url=f"{server.url}/a%3Ab/c%2Fd~?q=%7E+1", headers={}))
    assert server.requests[0].startswith(b"POST /a%3Ab/c%2Fd~?q=%7E+1 HTTP/1.1\r\n")


async def test_a_get_without_body(serve: Serve, transport: HttpTransport) -> None:
    server = await serve(answering(OK + b"content-length: 2\r\n\r\nhi"))
    _, body, error = await read_all(transport, WireRequest(method="GET", url=f"{server.url}/v1/models", headers={}))
    assert (body, error) == (b"hi", None)
    assert server.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body(serve: Serve, transport: HttpTransport, post: Post, status: int) -> None:
    server = await serve(answering(b"HTTP/1.1 %d None\r\n\r\n" % status))
    response, body, error = await read_all(transport, post(server.url))
    assert (response.status, body, error) == (status, b"", None)


async def test_a_large_body_is_sent_whole(serve: Serve, transport: HttpTransport) -> None:
    server = await serve(answering(OK + b"content-length: 0\r\n\r\n"))
    large = bytes(range(256)) * 12_000
    _, _, error = await read_all(transport, WireRequest(url=server.url, headers={}, body=large))
    assert error is None
    assert server.requests[0].endswith(large)


async def test_repeated_headers_are_joined(serve: Serve, transport: HttpTransport, post: Post) -> None:
    server = await serve(answering(OK + b"X-Note: one\r\nx-note: two\r\ncontent-length: 0\r\n\r\n"))
    response, _, _ = await read_all(transport, post(server.url))
    assert response.headers["x-note"] == "one, two"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_handed_out_not_followed(
    serve: Serve, transport: HttpTransport, post: Post, status: int
) -> None:
    server = await serve(answering(b"HTTP/1.1 %d Moved\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n" % status))
    response, _, error = await read_all(transport, post(server.url))
    assert (response.status, response.headers["location"], error) == (status, "/other", None)
    assert len(server.requests) == 1


async def test_cookies_are_neither_kept_nor_sent(serve: Serve, transport: HttpTransport, post: Post) -> None:
    answer = OK + b"set-cookie: session=1; Path=/\r\ncontent-length: 0\r\n\r\n"

    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(answer)

    server = await serve(script)
    for _ in range(2):
        await read_all(transport, post(server.url))
    assert b"cookie" not in server.requests[1].lower()


async def test_refused(transport: HttpTransport, post: Post, closed_port: int) -> None:
    response, _, error = await read_all(transport, post(f"http://127.0.0.1:{closed_port}"))
    assert response is None
    assert type(error) is ConnectFailed
    assert error.retry_safety == "yes"
    assert f"refused by 127.0.0.1:{closed_port}" in str(error)


async def test_a_host_without_address_is_named(transport: HttpTransport, post: Post) -> None:
    _, _, error = await read_all(transport, post("https://no-such-host.invalid/v1"))
    assert type(error) is ConnectFailed
    assert "no-such-host.invalid" in str(error)


async def test_tls_that_is_never_answered_is_a_connect_timeout(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    async def silent(connection: Connection) -> None:
        await connection.wait_closed()

    server = await serve(silent)
    url = server.url.replace("http:", "https:")
    _, _, error = await read_all(transport, post(url), connect_s=0.05)
    assert type(error) is ConnectTimeout
    assert "Timeouts(connect_s=" in str(error)
    await server.all_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\ncontent-type: te",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
    ids=["fin", "garbage", "binary", "cut-status", "cut-headers", "only-1xx", "other-protocol"],
)
async def test_no_http_answer_is_connection_lost(
    serve: Serve, transport: HttpTransport, post: Post, answer: bytes
) -> None:
    server = await serve(answering(answer) if answer else answering())
    response, _, error = await read_all(transport, post(server.url))
    assert response is None
    assert type(error) is ConnectionLost
    assert error.retry_safety == "maybe"
    assert f"localhost:{server.port}" in str(error)
    assert server.connections == 1


async def test_reset_before_headers(serve: Serve, transport: HttpTransport, post: Post) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.reset()

    server = await serve(script)
    _, _, error = await read_all(transport, post(server.url))
    assert type(error) is ConnectionLost


CUTS = {
    "short content-length": OK + b"content-length: 100\r\n\r\nhello",
    "chunked, no last chunk": CHUNKED + b"5\r\nhello\r\n",
    "chunked, cut in a chunk": CHUNKED + b"10\r\nhello",
}


@pytest.mark.parametrize("answer", CUTS.values(), ids=CUTS.keys())
async def test_a_cut_body_gives_what_came_and_is_connection_lost(
    serve: Serve, transport: HttpTransport, post: Post, answer: bytes
) -> None:
    server = await serve(answering(answer))
    response, body, error = await read_all(transport, post(server.url))
    assert response.status == 200
    assert body == b"hello"
    assert type(error) is ConnectionLost


async def test_a_reset_in_the_body_is_connection_lost(serve: Serve, transport: HttpTransport, post: Post) -> None:
    delivered = anyio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + b"5\r\nhello\r\n")
        await delivered.wait()
        await connection.reset()

    server = await serve(script)
    with pytest.raises(ConnectionLost):
        async with transport.open(post(server.url)) as response:
            assert await anext(response.chunks) == b"hello"
            delivered.set()
            await anext(response.chunks)


async def test_bytes_that_arrived_before_a_cut_are_given_to_a_slow_reader(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    """The reader comes back only when the connection is gone; nothing that came over it may be lost."""
    server = await serve(answering(CHUNKED + b"5\r\nhello\r\n"))
    received = []
    with pytest.raises(ConnectionLost):
        async with transport.open(post(server.url)) as response:
            await server.all_closed()
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            async for chunk in response.chunks:
                received.append(chunk)  # noqa: PERF401 (a comprehension would lose them at the error)
    assert b"".join(received) == b"hello"


async def test_a_body_in_http_chunks_of_one_byte_comes_whole(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    """Tens of thousands of them, in the read that brought the head and in later ones."""
    text = b"0123456789" * 5_000
    server = await serve(answering(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n"))
    response, body, error = await read_all(transport, post(server.url))
    assert (response.status, body, error) == (200, text, None)


async def test_a_malformed_chunk_header_in_its_own_segment_does_not_hang(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    delivered = anyio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + b"5\r\nhello\r\n")
        await delivered.wait()
        await connection.send(b"zz\r\nnot a chunk\r\n")
        await connection.wait_closed()

    server = await serve(script)
    with anyio.fail_after(10), pytest.raises(ConnectionLost):
        async with transport.open(post(server.url)) as response:
            assert await anext(response.chunks) == b"hello"
            delivered.set()
            await anext(response.chunks)


async def test_endless_headers_are_stopped(serve: Serve, transport: HttpTransport, post: Post) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await connection.send(b"x-filler: " + b"a" * 8000 + b"\r\n")

    server = await serve(script)
    _, _, error = await read_all(transport, post(server.url))
    assert type(error) is LimitExceeded
    assert "headers" in str(error)


async def test_one_endless_header_line_is_stopped(serve: Serve, transport: HttpTransport, post: Post) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nx-filler: ")
        while True:
            await connection.send(b"a" * 8000)

    server = await serve(script)
    _, _, error = await read_all(transport, post(server.url))
    assert type(error) is LimitExceeded


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
    ],
    ids=["gzip", "x-gzip", "deflate", "raw-deflate"],
)
async def test_an_unasked_coding_is_undone(
    serve: Serve, transport: HttpTransport, post: Post, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    body = encode(b"data: hello\n\n" * 3)
    server = await serve(answering(OK + f"content-encoding: {coding}\r\n\r\n".encode() + body))
    _, received, error = await read_all(transport, post(server.url))
    assert (received, error) == (b"data: hello\n\n" * 3, None)


async def test_a_compressed_event_stream_stays_live(serve: Serve, transport: HttpTransport, post: Post) -> None:
    """Each event must be readable when it came, not when the stream ends."""
    seen = anyio.Event()
    packer = zlib.compressobj(wbits=31)

    async def script(connection: Connection) -> None:
        await connection.request()
        first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
        await connection.send(OK + b"content-encoding: gzip\r\n\r\n" + first)
        await seen.wait()
        await connection.send(packer.compress(b"data: 2\n\n") + packer.flush())

    server = await serve(script)
    async with transport.open(post(server.url)) as response:
        assert await anext(response.chunks) == b"data: 1\n\n"
        seen.set()
        assert [chunk async for chunk in response.chunks] == [b"data: 2\n\n"]


async def test_a_gzip_bomb_is_stopped(serve: Serve, transport: HttpTransport, post: Post) -> None:
    bomb = gzip.compress(b":" * (64 * 1024 * 1024))
    server = await serve(answering(OK + b"content-encoding: gzip\r\n\r\n", bomb))
    _, body, error = await read_all(transport, post(server.url))
    assert type(error) is LimitExceeded
    assert len(body) <= 100 * len(bomb)
    await server.all_closed()


@pytest.mark.parametrize(
    ("coding", "body", "expected"),
    [
        ("gzip", gzip.compress(b"hello hello hello")[:-9], ConnectionLost),
        ("gzip", b"this is no gzip", UnexpectedContent),
        ("rot13", b"uryyb", UnexpectedContent),
    ],
    ids=["truncated", "broken", "unknown"],
)
async def test_a_coding_that_cannot_be_undone(
    serve: Serve, transport: HttpTransport, post: Post, coding: str, body: bytes, expected: type[LoomstreamError]
) -> None:
    server = await serve(answering(OK + f"content-encoding: {coding}\r\n\r\n".encode() + body))
    _, _, error = await read_all(transport, post(server.url))
    assert type(error) is expected
    await server.all_closed()


async def test_a_refusal_in_an_unknown_coding_still_has_its_status(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    server = await serve(answering(b"HTTP/1.1 401 Unauthorized\r\ncontent-encoding: rot13\r\n\r\nuryyb"))
    response, body, error = await read_all(transport, post(server.url))
    assert response is not None
    assert (response.status, body, error) == (401, b"", None)
    await server.all_closed()


async def test_a_request_cancelled_while_it_is_sent_abandons_nothing(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    """An abandoned generator is a warning of the event loop's, and so an error here."""
    reached = anyio.Event()

    async def script(connection: Connection) -> None:
        await connection.head()
        reached.set()
        await anyio.sleep_forever()

    server = await serve(script)
    request = msgspec.structs.replace(post(server.url), body=b"x" * 16_000_000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_all, transport, request)
        await reached.wait()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    gc.collect()


@pytest.mark.parametrize(
    "value",
    [f"{CANARY}\r\nx-injected: 1", f"{CANARY}\n", f"{CANARY}\0", f"{CANARY}é", f"{CANARY}\u2026", f"{CANARY}\x7f"],
    ids=["crlf", "lf", "nul", "latin", "beyond-latin", "del"],
)
async def test_a_header_value_that_is_not_allowed_is_never_shown(
    serve: Serve, transport: HttpTransport, post: Post, value: str
) -> None:
    server = await serve(answering(OK + b"content-length: 0\r\n\r\n"))
    _, _, error = await read_all(transport, post(server.url, authorization=Secret(value)))
    assert type(error) is ConfigError
    assert "'authorization'" in str(error)
    assert_hidden(error)
    assert server.connections == 0


async def test_space_around_a_key_is_not_part_of_it(serve: Serve, transport: HttpTransport, post: Post) -> None:
    server = await serve(answering(OK + b"content-length: 0\r\n\r\n"))
    _, _, error = await read_all(transport, post(server.url, x_api_key=Secret(f"{CANARY} \t")))
    assert error is None
    assert f"x-api-key: {CANARY}\r\n".encode() in server.requests[0].replace(b"X-Api-Key", b"x-api-key")


async def test_a_bad_header_name_is_refused(transport: HttpTransport) -> None:
    _, _, error = await read_all(transport, WireRequest(url="http://localhost", headers={"x y": "1"}))
    assert type(error) is ConfigError


FAILURES = {
    "refused": None,
    "fin": answering(),
    "garbage": answering(b"garbage\r\n\r\n"),
    "cut": answering(CUTS["short content-length"]),
    "headers": answering(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("script", FAILURES.values(), ids=FAILURES.keys())
async def test_no_error_holds_the_key(
    serve: Serve, transport: HttpTransport, post: Post, closed_port: int, script: Script
) -> None:
    url = f"http://127.0.0.1:{closed_port}" if script is None else (await serve(script)).url
    request = post(url, authorization=Secret(f"Bearer {CANARY}"), x_api_key=Secret(CANARY))
    _, _, error = await read_all(transport, request)
    assert isinstance(error, LoomstreamError)
    assert_hidden(error)


def assert_hidden(error: BaseException) -> None:
    """Look for the canary where a key could leak: text, chain, arguments, and the locals of every frame."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    frames = [frame for frame in shown.split("  File ") if "/tests/" not in frame]
    assert CANARY not in "".join(frames) + repr(error) + repr(vars(error))


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("https://user:pa55word@api.example.com/v1", "credentials"),
        ("ftp://api.example.com/v1", "scheme"),
        ("file:///etc/passwd", "not a URL"),
        ("api.example.com/v1", "not a URL"),
        ("https://", "not a URL"),
        ("https://api.example.com:port/v1", "not a URL"),
        ("https://api.example.com/a b", "not a URL"),
        ("https://api.example.com/a\r\nx: 1", "not a URL"),
        ("http://api.example.com/v1", "allow_http"),
        ("http://2130706433/v1", "allow_http"),
        ("http://169.254.169.254/latest", "allow_http"),
        ("http://localhost.evil.example/v1", "allow_http"),
    ],
)
async def test_a_url_that_must_not_be_used(transport: HttpTransport, url: str, part: str) -> None:
    _, _, error = await read_all(transport, WireRequest(url=url, headers={}))
    assert type(error) is ConfigError
    assert part in str(error)
    assert "pa55word" not in str(error)


async def test_plain_http_beyond_this_machine_can_be_allowed(serve: Serve, post: Post) -> None:
    server = await serve(answering(OK + b"content-length: 0\r\n\r\n"))
    options = HttpOptions(allow_http=True, proxy=server.url)
    transport = HttpTransport(options)
    response, _, error = await read_all(transport, post("http://model.example/v1"))
    await transport.aclose()
    assert (response.status, error) == (200, None)


async def test_the_limit_on_connections_makes_a_request_wait(serve: Serve, post: Post) -> None:
    release = anyio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK + b"\r\n")
        await release.wait()

    server = await serve(script)
    transport = HttpTransport(HttpOptions(limits=ConnectionLimits(max_connections=1)))
    async with transport.open(post(server.url)):
        _, _, error = await read_all(transport, post(server.url), connect_s=0.05)
        assert type(error) is ConnectTimeout
    release.set()
    await transport.aclose()
    assert server.connections == 1


async def test_tls_to_a_port_that_speaks_plain_http(serve: Serve, transport: HttpTransport, post: Post) -> None:
    async def script(connection: Connection) -> None:
        await connection.stream.receive()
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await serve(script)
    _, _, error = await read_all(transport, post(server.url.replace("http:", "https:")))
    assert type(error) is TLSFailed
    assert "does not speak TLS" in str(error)
