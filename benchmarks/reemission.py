"""`python -m benchmarks.reemission`: what it costs to send streams on to browsers, beside reading them.

Contract: 200 streams of 50 events a second each come from the benchmarks' server. One process reads them; another reads
them and sends each on to a client of its own, by `loomstream.ui.respond` and uvicorn. Both are charged their CPU alone:
the provider and the clients are other processes. They take turns; the cheapest round is the figure. The bar: sending on
costs at most 2 times what reading costs. A missed bar is reported, not an error.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from benchmarks import measures
from benchmarks.client import API_KEY, MODEL, PROMPT
from benchmarks.runner import FLOOR, OURS, ROOT, BenchmarkError, Figures, Outcome, environment, server

BAR = 2.0
FORMATS = ("sse", "ndjson", "ai-sdk")
_PER_SECOND = 50
_END = {"sse": b'"end"', "ndjson": b'"end"', "ai-sdk": b"[DONE]"}
_TEXT = {"sse": b'"text_delta"', "ndjson": b'"text_delta"', "ai-sdk": b'"text-delta"'}


class Size(NamedTuple):
    """How many streams, events each, and rounds."""

    streams: int
    events: int
    rounds: int


DEFAULT = Size(200, 200, 3)
QUICK = Size(10, 5, 1)


# --- the process that is measured ----------------------------------------------------------------


def _tell_cpu() -> None:
    """Answer each line of standard input with the CPU so far."""
    for _ in sys.stdin:
        print(time.process_time(), flush=True)


async def _read(base_url: str, streams: int) -> None:
    """Read streams, and nothing else; say when each has begun, and when all are over."""
    import loomstream  # noqa: PLC0415 (in the child alone)
    from loomstream import TextDelta  # noqa: PLC0415 (the same)

    begun = 0

    async def read() -> None:
        nonlocal begun
        first = True
        async with model.stream(PROMPT) as stream:
            async for event in stream:
                if first and isinstance(event, TextDelta):
                    first = False
                    begun += 1
                    if begun == streams:
                        print("ready", flush=True)

    async with loomstream.connect(f"openai-compatible:{MODEL}", base_url=base_url, api_key=API_KEY) as model:
        await asyncio.gather(*(read() for _ in range(streams)))
        print("over", flush=True)
        await asyncio.Event().wait()


async def _send_on(base_url: str, kind: str) -> None:
    """Send a stream of the provider on to whoever asks; say at which port."""
    import uvicorn  # noqa: PLC0415 (in the child alone)

    import loomstream  # noqa: PLC0415 (the same)
    from loomstream import ui  # noqa: PLC0415 (the same)
    from loomstream.ui.page.server import bind  # noqa: PLC0415 (the same)

    async with loomstream.connect(f"openai-compatible:{MODEL}", base_url=base_url, api_key=API_KEY) as model:

        async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 (ASGI)
            await ui.respond(scope, receive, send, model.stream(PROMPT), format=cast("ui.Format", kind))

        bound = bind("127.0.0.1", 0)
        print(bound.getsockname()[1], flush=True)
        config = uvicorn.Config(app, lifespan="off", ws="none", log_level="critical", access_log=False)
        await uvicorn.Server(config).serve(sockets=[bound])


def _child(kind: str, base_url: str, streams: int) -> None:
    gc.collect()
    gc.freeze()
    work = _read(base_url, streams) if kind == "read" else _send_on(base_url, kind)
    threading.Thread(target=_tell_cpu, daemon=True).start()
    asyncio.run(work)


# --- the clients ---------------------------------------------------------------------------------


class _Taken(NamedTuple):
    """What a client took: text events, in how many reads."""

    events: int
    reads: int


async def _client(port: int, kind: str, begun: Callable[[], None]) -> _Taken:
    """Take a stream as it comes, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
    taken, reads = bytearray(), 0
    is_begun = False
    while data := await reader.read(65536):
        taken += data
        reads += 1
        if not is_begun and _TEXT[kind] in taken:
            is_begun = True
            begun()
    writer.close()
    if _END[kind] not in taken[-200:]:
        msg = f"re-emission as {kind}: a stream was cut"
        raise BenchmarkError(msg)
    return _Taken(taken.count(_TEXT[kind]), reads)


async def _go(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /go HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    await writer.drain()
    writer.close()


class _Measured:
    """A child; its standard input asks for its CPU."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None  # noqa: S101 (for the type checker: it is a pipe)
        assert process.stdout is not None  # noqa: S101 (the same)
        self._in, self._out = process.stdin, process.stdout

    async def line(self) -> str:
        return (await asyncio.to_thread(self._out.readline)).strip()

    async def cpu_s(self) -> float:
        self._in.write("\n")
        self._in.flush()
        return float(await self.line())


@contextmanager
def _measured(kind: str, base_url: str, size: Size) -> Generator[_Measured]:
    command = [sys.executable, "-m", "benchmarks.reemission", "--child", kind, base_url, str(size.streams)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield _Measured(process)
    finally:
        process.kill()
        process.communicate()


# --- a round -------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """CPU per event in µs, and how many pieces the clients took for an event (below 1 where events came together)."""

    cpu_us: float
    pieces: float = 0.0


async def _round(kind: str, size: Size, provider: int) -> Figure:
    """Take one figure; opening and closing the streams is not counted."""
    gap_us = 1_000_000 // _PER_SECOND // size.streams
    base_url = f"http://127.0.0.1:{provider}/paced/{size.events}/1/{gap_us}"
    with _measured(kind, base_url, size) as child:
        run = _round_of_reading if kind == "read" else _round_of_sending
        cpu_s, reads = await run(child, kind, size, provider)
    events = size.streams * size.events
    return Figure(cpu_s * 1e6 / events, reads / events)


async def _round_of_reading(child: _Measured, kind: str, size: Size, provider: int) -> tuple[float, int]:
    del kind, size
    _expect(await child.line(), "ready")
    before_s = await child.cpu_s()
    await _go(provider)
    _expect(await child.line(), "over")
    return await child.cpu_s() - before_s, 0


async def _round_of_sending(child: _Measured, kind: str, size: Size, provider: int) -> tuple[float, int]:
    port = int(await child.line())
    waiting, all_begun = size.streams, asyncio.Event()

    def begun() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            all_begun.set()

    clients = [asyncio.ensure_future(_client(port, kind, begun)) for _ in range(size.streams)]
    await all_begun.wait()
    before_s = await child.cpu_s()
    await _go(provider)
    took = await asyncio.gather(*clients)
    counts = [taken.events for taken in took]
    if set(counts) != {size.events + 1}:
        msg = f"re-emission as {kind}: {min(counts)} to {max(counts)} events came of {size.events + 1}"
        raise BenchmarkError(msg)
    return await child.cpu_s() - before_s, sum(taken.reads for taken in took)


def _expect(line: str, wanted: str) -> None:
    if line != wanted:
        msg = f"reading {wanted!r}: the process says {line!r}"
        raise BenchmarkError(msg)


def measure(size: Size, formats: Sequence[str] = FORMATS) -> dict[str, Figure]:
    """Give the CPU per event of reading, and of reading and sending on in each format."""
    best: dict[str, Figure] = {}
    with server() as provider:
        for _ in range(size.rounds):
            for kind in ("read", *formats):
                value = asyncio.run(_round(kind, size, provider))
                best[kind] = min(value, best.get(kind, value))
    return best


def outcome(line: measures.Measure, *, quick: bool, say: Callable[[str], None]) -> Outcome:
    """Give the line of the table of `python -m benchmarks`: what sending on costs beside what reading costs."""
    size = line.quick if quick else line.default
    floor, ours = Figures(), Figures()
    for number in range(size.rounds):
        say(f"{line.title}: round {number + 1} of {size.rounds}")
        figures = measure(Size(size.streams, size.events, 1), ["sse"])
        read, sent = figures["read"].cpu_us, figures["sse"].cpu_us
        floor.values.append(read)
        floor.ratios.append(1.0)
        ours.values.append(sent - read)
        ours.ratios.append((sent - read) / read)
        ours.notes["pieces_per_event"] = figures["sse"].pieces
    return Outcome(line, size, {FLOOR: floor, OURS: ours})


def table(size: Size, figures: dict[str, Figure]) -> str:
    """Give the figures as a table in Markdown."""
    read = figures["read"].cpu_us
    lines = [
        f"{size.streams} streams, {_PER_SECOND} events a second each; CPU per event in µs",
        "",
        "| | in all | for sending on | of reading | bar | pieces per event |",
        "|---|---|---|---|---|---|",
        f"| read | {read:.1f} | | | | |",
    ]
    for kind in (kind for kind in FORMATS if kind in figures):
        figure = figures[kind]
        own = figure.cpu_us - read
        verdict = f"{BAR:g} x met" if own <= BAR * read else f"{BAR:g} x MISSED"
        cells = (f"read, sent on as {kind}", f"{figure.cpu_us:.1f}", f"{own:.1f}", f"{own / read:.2f} x", verdict)
        lines.append(f"| {' | '.join(cells)} | {figure.pieces:.2f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reemission", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts: that it runs, not what it costs")
    parser.add_argument("--streams", type=int, default=DEFAULT.streams, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--child", nargs=3, metavar=("KIND", "URL", "STREAMS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        kind, url, streams = options.child
        _child(kind, url, int(streams))
        return 0
    size = QUICK if options.quick else DEFAULT._replace(streams=options.streams)
    try:
        print(table(size, measure(size)))
    except BenchmarkError as error:
        print(f"no figure for {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
