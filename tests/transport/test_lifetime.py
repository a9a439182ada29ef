"""Connections live as long as they should and no longer: nothing leaks, whatever way a response is left."""
# ruff: noqa: PT012 (an error may come when a response is opened, read or left: a block is the unit here)

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anyio
import pytest
import trio
from anyio.abc import Listener, SocketStream

from loomstream.errors import ConnectionLost, FirstEventTimeout, IdleTimeout, LoomstreamError
from loomstream.messages import Timeouts
from loomstream.transport.http import Exchange, HttpOptions, HttpTransport
from loomstream.transport.route import RECONNECTED
from loomstream.transport.watch import Watch, drain
from loomstream.wire import WireRequest

if TYPE_CHECKING:
    from tests.transport.conftest import Connection, CountSockets, Post, Serve

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"
LAST = b"0\r\n\r\n"

asynchronous = pytest.mark.anyio


@pytest.fixture(autouse=True)
def only_new_objects() -> Iterator[None]:
    """Hide what was there before from the garbage collector, which in a whole run takes seconds to go through it."""
    gc.freeze()
    yield
    gc.unfreeze()


def tasks_and_sockets(backend: str) -> tuple[int, int]:
    gc.collect()
    tasks = len(asyncio.all_tasks()) if backend == "asyncio" else trio.lowlevel.current_statistics().tasks_living
    bases = (type(item).__mro__ for item in gc.get_objects())
    return tasks, sum(any(base.__name__ == "StreamReader" for base in mro) for mro in bases)


async def streaming(connection: Connection) -> None:
    """Answer every request with one event, and wait."""
    while True:
        await connection.request()
        await connection.send(CHUNKED + EVENT)
        await connection.wait_closed()
        return


@asynchronous
async def test_leaving_early_closes_the_connection_before_the_next_statement(
    open_sockets: CountSockets, serve: Serve, transport: HttpTransport, post: Post
) -> None:
    gone = []

    async def script(connection: Connection) -> None:
        await streaming(connection)
        gone.append(True)

    server = await serve(script)
    async with transport.open(post(server.url)) as response:
        assert await anext(response.chunks) == b"data: 1\n\n"
        sockets = open_sockets(server.port)
        assert sockets == 1
    assert open_sockets(server.port) == 0
    await server.all_closed()
    assert gone == [True]


@asynchronous
async def test_a_body_read_to_its_end_keeps_the_connection(serve: Serve, transport: HttpTransport, post: Post) -> None:
    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(CHUNKED + EVENT + LAST)

    server = await serve(script)
    for _ in range(5):
        async with transport.open(post(server.url)) as response:
            assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
    assert (len(server.requests), server.connections) == (5, 1)


@asynchronous
async def test_draining_a_late_last_chunk_keeps_the_connection(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    """The last chunk comes when the reader has what it wants and drains."""
    late = anyio.Event()

    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(CHUNKED + EVENT)
            await late.wait()
            await connection.send(LAST)

    server = await serve(script)
    for _ in range(3):
        async with transport.open(post(server.url)) as response:
            assert await anext(response.chunks) == b"data: 1\n\n"
            late.set()
            await drain(response, limit_s=5)
    assert server.connections == 1


@asynchronous
async def test_without_draining_the_connection_is_closed(serve: Serve, transport: HttpTransport, post: Post) -> None:
    server = await serve(streaming)
    for _ in range(3):
        async with transport.open(post(server.url)) as response:
            assert await anext(response.chunks) == b"data: 1\n\n"
    await server.all_closed()
    assert server.connections == 3


@asynchronous
async def test_draining_is_bounded_and_never_raises(serve: Serve, transport: HttpTransport, post: Post) -> None:
    async def endless(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED)
        while True:
            await connection.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")

    async def cut(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + EVENT)

    async def silent(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED)
        await connection.wait_closed()

    for script in (endless, cut, silent):
        server = await serve(script)
        async with transport.open(post(server.url)) as response:
            await drain(response, max_bytes=20_000, limit_s=0.02)
        await server.all_closed()


@asynchronous
async def test_many_early_breaks_leak_nothing(
    open_sockets: CountSockets, serve: Serve, transport: HttpTransport, post: Post, anyio_backend: str
) -> None:
    server = await serve(streaming)
    before = None
    for round_number in range(200):
        async with transport.open(post(server.url)) as response:
            async for chunk in response.chunks:
                assert chunk == b"data: 1\n\n"
                break
        if round_number == 0:
            await server.all_closed()
            before = tasks_and_sockets(anyio_backend)
    await server.all_closed()
    assert open_sockets(server.port) == 0
    assert tasks_and_sockets(anyio_backend) == before


@asynchronous
@pytest.mark.parametrize("phase", ["connect", "headers", "body"])
async def test_cancelling_in_each_phase_leaves_nothing(
    open_sockets: CountSockets,
    serve: Serve,
    transport: HttpTransport,
    post: Post,
    anyio_backend: str,
    phase: str,
) -> None:
    reached = anyio.Event()

    async def script(connection: Connection) -> None:
        if phase != "connect":
            await connection.request()
        if phase == "body":
            await connection.send(CHUNKED + EVENT)
        reached.set()
        await connection.wait_closed()

    server = await serve(script)
    url = server.url.replace("http:", "https:") if phase == "connect" else server.url
    await anyio.wait_all_tasks_blocked()  # the server has started its own tasks
    before, _ = tasks_and_sockets(anyio_backend)

    async def use() -> None:
        async with transport.open(post(url)) as response:
            async for _ in response.chunks:
                pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        with anyio.fail_after(10):
            await reached.wait()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    await server.all_closed()
    assert open_sockets(server.port) == 0
    assert tasks_and_sockets(anyio_backend)[0] == before


@asynchronous
async def test_a_dead_kept_connection_is_replaced_once(serve: Serve, transport: HttpTransport, post: Post) -> None:
    """The server ends the kept connection just when the next request arrives: that request never counted.

    The answer says what had to be done for it.
    """

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + EVENT + LAST)
        await connection.head()  # the second request on this connection: closed without a byte

    server = await serve(script)
    told = []
    for _ in range(3):
        async with transport.open(post(server.url)) as response:
            assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
            told.append(response.notices)
    assert server.connections == 3
    assert told == [(), (RECONNECTED,), (RECONNECTED,)]


@asynchronous
async def test_a_kept_connection_that_the_server_has_closed_is_replaced_without_a_word(
    transport: HttpTransport, post: Post
) -> None:
    """Nothing was sent over it; also where the event loop had no turn since in which to learn that."""
    served: list[bytes] = []
    closed = threading.Event()

    def serve_twice(listening: socket.socket) -> None:
        for _ in range(2):
            accepted, _ = listening.accept()
            with accepted:
                served.append(accepted.recv(65_536))
                accepted.sendall(CHUNKED + EVENT + LAST)
            closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve_twice, args=(listening,), daemon=True)
        server.start()
        for _ in range(2):
            async with transport.open(post(f"http://127.0.0.1:{listening.getsockname()[1]}/")) as response:
                assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
                assert response.notices == ()
            assert closed.wait(10)  # the event loop stands still
            closed.clear()
        server.join(10)
    assert [request.split()[0] for request in served] == [b"POST", b"POST"]


@asynchronous
async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    kept, strayed = anyio.Event(), anyio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + EVENT + LAST)
        if server.connections == 1:
            await kept.wait()
            await connection.send(CHUNKED + b"5\r\nstray\r\n" + LAST)
            strayed.set()
        await connection.wait_closed()

    server = await serve(script)
    async with transport.open(post(server.url)) as response:
        assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
    kept.set()
    await strayed.wait()
    await anyio.wait_all_tasks_blocked()
    async with transport.open(post(server.url)) as response:
        assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
    assert server.connections == 2


@asynchronous
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # on trio a request goes out whole before its answer is read
async def test_a_connection_whose_request_is_still_going_is_not_kept(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    answered = anyio.Event()

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(CHUNKED + EVENT + LAST)
        await answered.wait()
        await connection.wait_closed()

    server = await serve(script)
    large = WireRequest(url=server.url, headers={}, body=bytes(32 * 1024 * 1024))
    async with transport.open(large) as response:
        assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
    answered.set()
    await server.all_closed()
    async with transport.open(post(server.url)) as response:
        assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
    assert server.connections == 2


@asynchronous
async def test_a_fresh_connection_that_dies_is_not_retried(serve: Serve, transport: HttpTransport, post: Post) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()

    server = await serve(script)
    with pytest.raises(ConnectionLost):
        async with transport.open(post(server.url)):
            pass
    assert server.connections == 1


@asynchronous
async def test_a_kept_connection_that_answered_in_part_is_not_retried(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    """Bytes of an answer came: the provider did work, and a second try could bill twice."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + EVENT + LAST)
        await connection.request()
        await connection.send(b"HTTP/1.1 200 O")

    server = await serve(script)
    async with transport.open(post(server.url)) as response:
        assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
    with pytest.raises(ConnectionLost):
        async with transport.open(post(server.url)):
            pass
    assert len(server.requests) == 2


@asynchronous
async def test_responses_may_be_closed_in_any_order_and_by_another_task(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    server = await serve(streaming)
    contexts = [transport.open(post(server.url)) for _ in range(4)]
    for context in contexts:
        response = await context.__aenter__()
        assert await anext(response.chunks) == b"data: 1\n\n"

    async def leave(context: Exchange) -> None:
        await context.__aexit__(None, None, None)

    await leave(contexts.pop(1))
    async with anyio.create_task_group() as tasks:
        for context in contexts:
            tasks.start_soon(leave, context)
    await server.all_closed()


@asynchronous
async def test_an_error_in_the_body_of_the_with_passes_and_closes(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    server = await serve(streaming)
    with pytest.raises(ZeroDivisionError):
        async with transport.open(post(server.url)) as response:
            await anext(response.chunks)
            raise ZeroDivisionError
    await server.all_closed()


@asynchronous
async def test_many_responses_at_once_do_not_mix(serve: Serve, transport: HttpTransport) -> None:
    """More than aiohttp's usual hundred, each with its own text, delivered in small cuts."""
    together = anyio.Event()

    async def script(connection: Connection) -> None:
        request = await connection.request()
        name = request.split(b" ")[1].strip(b"/")
        await connection.send(CHUNKED)
        if server.connections == 150:
            together.set()
        await together.wait()
        for _ in range(5):
            await connection.send(b"%x\r\n%b\r\n" % (len(name), name))
        await connection.send(LAST)

    server = await serve(script)
    texts = {}

    async def use(number: int) -> None:
        async with transport.open(WireRequest(url=f"{server.url}/n{number}", headers={})) as response:
            texts[number] = b"".join([chunk async for chunk in response.chunks])

    async with anyio.create_task_group() as tasks:
        for number in range(150):
            tasks.start_soon(use, number)
    assert texts == {number: f"n{number}".encode() * 5 for number in range(150)}


async def _two_requests(transport: HttpTransport) -> int:
    accepted = 0

    async def handle(stream: SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        async with stream:
            try:
                while True:
                    await stream.receive()
                    await stream.send(CHUNKED + EVENT + LAST)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    async def run(listener: Listener[SocketStream]) -> None:
        async with listener:
            await listener.serve(handle)

    async with anyio.create_task_group() as tasks:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (anyio, not Django)
        tasks.start_soon(run, listener)
        for _ in range(2):
            request = WireRequest(method="GET", url=f"http://127.0.0.1:{port}", headers={})
            async with transport.open(request) as response:
                assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
        tasks.cancel_scope.cancel()
    return accepted


def test_one_transport_serves_several_event_loops_one_after_another() -> None:
    """Each loop has its own connections, and closes them at its end although nobody said so."""
    transport = HttpTransport(HttpOptions())
    for backend in ("asyncio", "trio", "asyncio", "trio"):
        assert anyio.run(_two_requests, transport, backend=backend) == 1
    gc.collect()


def test_importing_the_transport_loads_no_http_client() -> None:
    code = (
        "import sys, loomstream.transport.http, loomstream.transport.watch\n"
        "loomstream.transport.http.HttpTransport()\n"
        "print(sorted({'httpx', 'aiohttp', 'httpcore', 'asyncio', 'trio', 'ssl'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@asynchronous
async def test_a_closed_transport_opens_anew(serve: Serve, transport: HttpTransport, post: Post) -> None:
    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(CHUNKED + EVENT + LAST)

    server = await serve(script)
    for _ in range(2):
        async with transport.open(post(server.url)) as response:
            assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
        await transport.aclose()
        await server.all_closed()
    assert server.connections == 2


@asynchronous
async def test_errors_are_ours_even_when_the_transport_closes_under_a_reader(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    server = await serve(streaming)
    with pytest.raises(LoomstreamError):
        async with transport.open(post(server.url)) as response:
            assert await anext(response.chunks) == b"data: 1\n\n"
            await transport.aclose()
            await anext(response.chunks)


@asynchronous
async def test_a_live_answer_that_stalls_trips_the_idle_limit(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    server = await serve(streaming)
    watch = Watch(Timeouts(idle_s=0.02))
    with pytest.raises(IdleTimeout):
        async with watch.open(transport, post(server.url)) as response:
            assert await watch.read(response.chunks) == b"data: 1\n\n"
            watch.progress()
            await watch.read(response.chunks)
    await server.all_closed()


@asynchronous
async def test_headers_that_never_come_trip_the_first_event_limit(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    async def silent(connection: Connection) -> None:
        await connection.request()
        await connection.wait_closed()

    server = await serve(silent)
    with pytest.raises(FirstEventTimeout):
        async with Watch(Timeouts(first_event_s=0.02)).open(transport, post(server.url)):
            pass
    await server.all_closed()


@asynchronous
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # `wake` exists on asyncio only
async def test_waking_a_reader_that_waits(serve: Serve, transport: HttpTransport, post: Post) -> None:
    server = await serve(streaming)
    async with transport.open(post(server.url)) as response, anyio.create_task_group() as tasks:
        assert await anext(response.chunks) == b"data: 1\n\n"
        caught = []

        async def read() -> None:
            with pytest.raises(IdleTimeout) as error:
                await anext(response.chunks)
            caught.append(error.value)

        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        mine = IdleTimeout("enough")
        response.wake(mine)
        await anyio.wait_all_tasks_blocked()
        assert caught == [mine]


@asynchronous
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # `wake` exists on asyncio only
async def test_waking_does_not_cost_bytes_that_have_arrived(serve: Serve, transport: HttpTransport, post: Post) -> None:
    """A busy event loop lets timer and bytes come together: the bytes win."""

    first_read = anyio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + EVENT)
        await first_read.wait()
        await connection.send(EVENT)
        await connection.wait_closed()

    server = await serve(script)
    async with transport.open(post(server.url)) as response:
        await anyio.wait_all_tasks_blocked()  # the event is in the buffer, unread
        response.wake(IdleTimeout("too late"))
        assert await anext(response.chunks) == b"data: 1\n\n"
        first_read.set()
        assert await anext(response.chunks) == b"data: 1\n\n"


@asynchronous
async def test_a_reader_that_does_not_read_holds_the_sender_back_and_loses_nothing(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    """However large an answer is, no more of it waits in memory than buffers hold; 32 MiB fill every one of them."""
    piece = bytes(range(256)) * 256
    pieces = 512
    sent = 0

    async def script(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(CHUNKED)
        for _ in range(pieces):
            await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            sent += 1
        await connection.send(LAST)

    server = await serve(script)
    async with transport.open(post(server.url)) as response:
        before, quiet = -1, 0
        while quiet < 200:  # turns of the loop in which the server got nothing rid
            await anyio.lowlevel.checkpoint()
            quiet = quiet + 1 if sent == before else 0
            before = sent
        held_back = sent
        received = [chunk async for chunk in response.chunks]
    assert held_back < pieces // 2
    assert b"".join(received) == piece * pieces
