"""One client's measurements in a process of its own: `python -m benchmarks.child '{"kind": …, "client": …, …}'`.

Contract: for each line on standard input one measurement is taken and one line of JSON printed: `value`, and what else
was noted. So the clients of a run take turns within fractions of a second, and a busy moment of the machine hits all of
them alike. CPU is this process's own, by `process_time`; the server is another process. Every count is checked: a
client that loses an event has no figure.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import time
from asyncio import selector_events
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from benchmarks.client import PEERS, Answer, Client, client_class
from benchmarks.limits import raise_open_files, resident_bytes

_PROBE_S = 0.01
_CLOSING_S = 0.02
_SETTLE_S = 0.5
_LOOPBACK = ("127.", "::1", "localhost", "/")
_HOST_OF = {"socket.connect": 1, "socket.getaddrinfo": 0}
"""By audit event: the argument that names the host; a path is a socket of this machine."""
_ALLOCATOR_BYTES = 16 * 1024 * 1024


class Job(NamedTuple):
    """What to measure; `base_url` is the server's with the path for `events`.

    `settled` is whether the process first frees a large block; see `_settle_allocator`.
    """

    kind: str
    client: str
    base_url: str
    events: int
    streams: int
    settled: bool = True


Result = dict[str, float]


async def at_once(job: Job, client: Client) -> Result:
    """Give the CPU per event of one stream whose events all came at once, in µs."""
    cpu_s = await _timed(lambda: _read_all(client, job.events))
    return {"value": cpu_s * 1e6 / job.events}


async def request(job: Job, client: Client) -> Result:
    """Give the CPU of a request with a short answer, in µs; one after the other."""

    async def ask() -> None:
        for _ in range(job.streams):
            await _read_all(client, job.events)

    await _read_all(client, job.events)
    return {"value": await _timed(ask) * 1e6 / job.streams}


async def paced(job: Job, client: Client) -> Result:
    """Give the CPU per event of many streams whose events come one by one, in µs.

    Opening and closing the streams is not counted.
    """
    answers = await _open(client, job.streams)
    _go(job.base_url)
    reads_before = _Reads.count
    cpu_s = await _timed(lambda: _take_all(answers, job.events))
    reads = _Reads.count - reads_before
    await _close(answers)
    events = job.events * job.streams
    return {"value": cpu_s * 1e6 / events, "reads_per_event": reads / events}


async def memory(job: Job, client: Client) -> Result:
    """Give the memory of open streams above that of the client with none, in MB."""
    await _close(await _open(client, 1))
    gc.collect()
    before = resident_bytes()
    answers = await _open(client, job.streams)
    gc.collect()
    grown = resident_bytes() - before
    await _close(answers)
    return {"value": grown / 1e6, "kB_per_stream": grown / 1e3 / max(1, job.streams)}


async def many(job: Job, client: Client) -> Result:
    """Give the 99th percentile of the event loop's lag while events come on very many streams, in ms."""
    answers = await _open(client, job.streams)
    reading = asyncio.gather(*(_take(answer, job.events) for answer in answers))
    await asyncio.sleep(_SETTLE_S)  # all of them begin to wait
    _go(job.base_url)
    cpu_s, began = time.process_time(), time.perf_counter()
    lags = sorted(await _lags(reading))
    busy = (time.process_time() - cpu_s) / (time.perf_counter() - began)
    await _close(answers)
    return {"value": 1e3 * lags[len(lags) * 99 // 100], "worst": 1e3 * lags[-1], "busy": busy}


KINDS: dict[str, Callable[[Job, Client], Awaitable[Result]]] = {
    "at_once": at_once,
    "request": request,
    "paced": paced,
    "memory": memory,
    "many": many,
}


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    gc.collect()
    before = time.process_time()
    await work()
    return time.process_time() - before


async def _read_all(client: Client, events: int) -> None:
    _check(await client.read_all(), events)


async def _take(answer: Answer, events: int) -> None:
    _check(await answer.take(events), events)


def _check(came: int, events: int) -> None:
    if came != events:
        msg = f"{came} text events came of {events}"
        raise ValueError(msg)


async def _take_all(answers: list[Answer], events: int) -> None:
    await asyncio.gather(*(_take(answer, events) for answer in answers))


async def _open(client: Client, streams: int) -> list[Answer]:
    return [await client.begin() for _ in range(streams)]


async def _close(answers: list[Answer]) -> None:
    """Close them, last opened first and in the task that opened them: some clients bear no other way."""
    for answer in reversed(answers):
        await answer.aclose()


class _Reads:
    """Counts how often asyncio reads a socket, whatever the client does with the bytes; costs each read 0.1 µs."""

    count = 0
    _TRANSPORT, _METHOD = "_SelectorSocketTransport", "_read_ready"

    @classmethod
    def watch(cls) -> None:
        """Begin to count; before the first connection is made."""
        transport = getattr(selector_events, cls._TRANSPORT)
        read = cast("Callable[[object], None]", getattr(transport, cls._METHOD))

        def counted(self: object) -> None:
            cls.count += 1
            read(self)

        setattr(transport, cls._METHOD, counted)


async def _lags(reading: asyncio.Future[list[None]]) -> list[float]:
    """Sleep again and again until the future is done; give by how many seconds each sleep was too long."""
    lags: list[float] = []
    while not reading.done():
        began = time.perf_counter()
        await asyncio.sleep(_PROBE_S)
        lags.append(time.perf_counter() - began - _PROBE_S)
    await reading
    return lags


def _go(base_url: str) -> None:
    """Tell the server to begin, and wait until it has understood."""
    parts = urlsplit(base_url)
    with socket.create_connection((str(parts.hostname), parts.port or 80)) as connection:
        connection.sendall(b"GET /go HTTP/1.1\r\nhost: benchmark\r\n\r\n")
        connection.recv(1024)


def refuse_other_hosts(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse every connection and look-up that leaves this machine; an audit hook for the peers' processes."""
    position = _HOST_OF.get(event)
    if position is None:
        return
    host = arguments[position]
    if isinstance(host, tuple):
        host = cast("tuple[object, ...]", host)[0]
    name = host.decode() if isinstance(host, bytes) else str(host)
    if not name.startswith(_LOOPBACK):
        msg = f"a benchmark stays on this machine: {name} was refused"
        raise PermissionError(msg)


def _settle_allocator() -> None:
    """Free one large block, so that glibc keeps blocks of asyncio's read size (256 KiB) instead of mapping each anew.

    Whether it does so by itself depends on what was imported, and is worth 20 µs per read.
    """
    bytes(_ALLOCATOR_BYTES)


async def _serve(job: Job) -> None:
    async with aclosing(client_class(job.client)(job.base_url)) as client:
        for _ in sys.stdin:
            result = await KINDS[job.kind](job, client)
            await asyncio.sleep(_CLOSING_S)  # what was closed ends in the loop's next turns
            print(json.dumps(result), flush=True)


def main() -> None:
    """Take the measurements that the first argument describes."""
    job = Job(**json.loads(sys.argv[1]))
    if job.client in PEERS:
        sys.addaudithook(refuse_other_hosts)
    raise_open_files()
    if job.settled:
        _settle_allocator()
    if job.kind == "paced":
        _Reads.watch()
    asyncio.run(_serve(job))


if __name__ == "__main__":
    main()
