"""The provider of the benchmarks: a loopback server in a process of its own, so that its CPU is not counted.

Contract: `python -m benchmarks.server` prints its port and serves until its standard input closes. The path says what
is answered, so that every client is driven by its base URL alone:

- `/burst/COUNT/PER_CHUNK/…`: COUNT text events, all at once, PER_CHUNK of them in each HTTP chunk.
- `/paced/COUNT/GROUP/GAP_US/…`: one text event at once; COUNT more follow once `GET /go` was asked: one event to each
  waiting stream in turn, with a pause after every GROUP events, so that they begin GAP_US microseconds apart.

A path that holds a dialect's name (see `benchmarks.wires`) is answered on that wire, another that ends in `/messages`
in Anthropic's words, every other in those of Chat Completions. It must not import loomstream.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from benchmarks.wires import WIRES, Wire

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncache-control: no-cache\r\n"
    b"x-request-id: req_0123456789\r\ntransfer-encoding: chunked\r\n\r\n"
)
_GO_DELAY_S = 0.1
"""From `/go` to the first event: the client takes the time meanwhile."""
_BACKLOG = 4096


def http_chunk(data: bytes) -> bytes:
    """Give the data as one chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(maxsize=8)
def burst(wire: Wire, count: int, per_chunk: int) -> bytes:
    """Give a whole response."""
    texts = [wire.text(position) for position in range(count)]
    chunks = [http_chunk(b"".join(texts[done : done + per_chunk])) for done in range(0, count, per_chunk)]
    opening = http_chunk(wire.opening) if wire.opening else b""
    return b"".join((_head(wire), opening, *chunks, http_chunk(wire.closing), b"0\r\n\r\n"))


def _head(wire: Wire) -> bytes:
    return _HEAD % wire.content_type.encode()


class _Paced(NamedTuple):
    transport: asyncio.WriteTransport
    wire: Wire
    events: int
    group: int
    gap_s: float


class _Server:
    """The streams that wait for `/go`."""

    def __init__(self) -> None:
        self.waiting: list[_Paced] = []

    def go(self) -> None:
        """Send everything. Blocks the loop on purpose: only so are gaps far below a millisecond kept."""
        streams, self.waiting = self.waiting, []
        streams = [stream for stream in streams if not stream.transport.is_closing()]
        due = time.perf_counter()
        for turn in range(max((stream.events for stream in streams), default=0)):
            for position, stream in enumerate(streams, 1):
                stream.transport.write(http_chunk(stream.wire.text(turn)))
                if position % stream.group == 0:
                    # A late group delays those behind it: never two at once to make up for it.
                    due = max(due + stream.gap_s, time.perf_counter())
                    time.sleep(max(0.0, due - time.perf_counter()))
        for stream in streams:
            stream.transport.write(http_chunk(stream.wire.closing) + b"0\r\n\r\n")


class _Connection(asyncio.Protocol):
    """One keep-alive connection; a request is answered as soon as its body is whole."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 (for the type checker: TCP can be written to)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        for path in self._requests():
            self._answer(path)

    def _requests(self) -> Iterator[str]:
        """Give the path of each request that is whole, and forget it."""
        while (end := self._received.find(b"\r\n\r\n") + 4) > 3:  # noqa: PLR2004 (not found, plus 4)
            head = self._received[:end]
            _, found, length = head.lower().partition(b"\r\ncontent-length:")
            size = int(length.split(b"\r\n", 1)[0]) if found else 0
            if len(self._received) < end + size:
                return
            self._received = self._received[end + size :]
            yield head.split(b" ", 2)[1].decode("latin-1")

    def _answer(self, path: str) -> None:
        wire = _wire(path)
        match path.split("/"):
            case ["", "burst", count, per_chunk, *_]:
                self._transport.write(burst(wire, int(count), int(per_chunk)))
            case ["", "paced", count, group, gap_us, *_]:
                self._transport.write(_head(wire) + http_chunk(wire.opening) + http_chunk(wire.text(0)))
                paced = _Paced(self._transport, wire, int(count), int(group), int(gap_us) / 1e6)
                self._server.waiting.append(paced)
            case ["", "go"]:
                self._transport.write(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n")
                asyncio.get_running_loop().call_later(_GO_DELAY_S, self._server.go)
            case _:
                self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")


def _wire(path: str) -> Wire:
    named = (WIRES[part] for part in path.split("/") if part in WIRES)
    return next(named, WIRES["anthropic_messages"] if path.endswith("/messages") else WIRES["openai_chat"])


async def serve() -> None:
    """Serve until the standard input closes."""
    server = _Server()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server), "127.0.0.1", 0, backlog=_BACKLOG)
    print(listening.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()

    def fail(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        print(f"the server ends: {context.get('exception') or context['message']}", file=sys.stderr)
        ended.set()

    loop.set_exception_handler(fail)  # asyncio would log the same again for every connection that it cannot accept
    loop.add_reader(sys.stdin.fileno(), ended.set)  # nothing is ever written to it: it becomes readable when it closes
    await ended.wait()
    listening.close()


if __name__ == "__main__":
    from benchmarks.limits import raise_open_files

    raise_open_files()
    asyncio.run(serve())
