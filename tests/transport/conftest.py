"""A server on loopback that sends what a script says, byte for byte, and counts what reaches it."""

import gc
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest
import trustme
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream

from loomstream.transport.http import HttpOptions, HttpTransport
from loomstream.wire import Secret, WireRequest

HEAD_END = b"\r\n\r\n"


class Connection:
    """One accepted connection, as a script sees it."""

    def __init__(self, stream: ByteStream, server: "FaultServer") -> None:
        self.stream = stream
        self._server = server
        self._buffer = b""

    async def head(self) -> bytes:
        """Give the next request's head, without its body."""
        while HEAD_END not in self._buffer:
            self._buffer += await self.stream.receive()
        head, self._buffer = self._buffer.split(HEAD_END, 1)
        return head

    async def request(self) -> bytes:
        """Give the next request, head and body, and keep it."""
        head = await self.head()
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(self._buffer) < length:
            self._buffer += await self.stream.receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        self._server.requests.append(head + HEAD_END + body)
        return head + HEAD_END + body

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def reset(self) -> None:
        """Close with RST instead of FIN."""
        raw = self.stream.extra(SocketAttribute.raw_socket)  # noqa: S610 (anyio, not Django)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()

    async def wait_closed(self) -> None:
        """Return when the client has closed."""
        try:
            while True:
                await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return

    async def start_tls(self, context: ssl.SSLContext) -> "Connection":
        wrapped = await TLSStream.wrap(self.stream, server_side=True, ssl_context=context, standard_compatible=False)
        return Connection(wrapped, self._server)


Script = Callable[[Connection], Awaitable[None]]


class FaultServer:
    """Runs a script for each connection. A script that returns closes its connection with FIN."""

    def __init__(self, script: Script, context: ssl.SSLContext | None) -> None:
        self._script = script
        self._context = context
        self.port = 0
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self._changed = anyio.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://localhost:{self.port}"

    async def run(self, listener: Listener[SocketStream]) -> None:
        async with listener:
            await listener.serve(self.handle)

    async def handle(self, stream: ByteStream) -> None:
        self.connections += 1
        self.open += 1
        try:
            async with stream:
                connection = Connection(stream, self)
                if self._context is not None:
                    connection = await connection.start_tls(self._context)
                await self._script(connection)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError, OSError):
            pass  # the client went away, which some scripts are about
        finally:
            self.open -= 1
            self._changed.set()
            self._changed = anyio.Event()

    async def all_closed(self) -> None:
        """Return when no connection is open."""
        with anyio.fail_after(10):
            while self.open:
                await self._changed.wait()


Serve = Callable[..., Awaitable[FaultServer]]
Post = Callable[..., WireRequest]
CountSockets = Callable[[int], int]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with anyio.create_task_group() as tasks:

        async def start(script: Script, context: ssl.SSLContext | None = None) -> FaultServer:
            server = FaultServer(script, context)
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            server.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 (anyio, not Django)
            tasks.start_soon(server.run, listener)
            return server

        yield start
        tasks.cancel_scope.cancel()


@pytest.fixture
def open_sockets() -> CountSockets:
    """Give a count of this process's own client sockets to a port, taken without waiting for anybody."""

    def count(port: int) -> int:
        return sum(_is_connected_to(item, port) for item in gc.get_objects() if issubclass(type(item), socket.socket))

    return count


def _is_connected_to(item: socket.socket, port: int) -> bool:
    try:
        return item.fileno() >= 0 and item.getpeername()[1] == port
    except (OSError, IndexError):
        return False


@pytest.fixture
def closed_port() -> int:
    """Give a port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def no_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = HttpTransport(HttpOptions())
    yield made
    await made.aclose()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def post() -> Post:
    def make(url: str, **headers: str | Secret) -> WireRequest:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return WireRequest(url=url, headers={"content-type": "application/json", **named}, body=b'{"stream":true}')

    return make
