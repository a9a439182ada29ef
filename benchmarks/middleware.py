"""`python -m benchmarks.middleware`: what each middleware costs beside the bare stack, in one run.

Contract: one process, one event loop, CPU time of this process. A handler gives events out of memory in lists, as a
read of a socket does: one in each (what a slow model sends) or `PER_READ` (what a fast one does); each middleware is
put around it alone, and read to its end through `__loomstream_batch__`, as the stream does. Rows take turns, the
cheapest turn of each counts, because other work can only add to it; what is shown is the difference to the bare
handler. No clock decides anything here.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import process_time
from typing import NamedTuple, Self

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from loomstream.events import Event, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.handler import Handler, Middleware, batches
from loomstream.messages import Request, user
from loomstream.middleware.balance import balance
from loomstream.middleware.budget import budget
from loomstream.middleware.cache import cache
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.circuit_breaker import circuit_breaker
from loomstream.middleware.cost import Ledger, cost
from loomstream.middleware.failover import failover
from loomstream.middleware.hedge import hedge
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.retry import retry
from loomstream.middleware.smooth import smooth
from loomstream.middleware.tap import tap
from loomstream.middleware.timeout import timeout
from loomstream.telemetry.audit import audit
from loomstream.telemetry.hawk import hawk
from loomstream.telemetry.hawk_exporter import HawkExporter, HawkSpan
from loomstream.telemetry.otel import otel

BAR_US = 0.5
"""No middleware may cost more than this for each event, in microseconds."""
TELEMETRY_BAR_US = 1.0
"""Nor telemetry, which folds the answer once more, than this."""
TELEMETRY = frozenset(("otel, no SDK", "otel", "hawk", "audit"))
PER_READ = 8
EVENTS = 20_000
CALLS = 1_000
TURNS = 7

PROVIDER, MODEL = "openai", "gpt-4o"
REQUEST = Request(messages=(user("Why is the sky blue?"),), max_tokens=500_000)
"""A request that a budget lets through."""


class Source:
    """A handler whose events are in memory."""

    def __init__(self, events: int, per_read: int = PER_READ) -> None:
        deltas: list[Event] = [TextDelta(0, " word") for _ in range(events)]
        usage = Usage(input_tokens=10, output_tokens=events, final=True)
        all_events = [Start(PROVIDER, MODEL), TextStart(0), *deltas, TextEnd(0), usage, Stop("end_turn")]
        self._reads = [all_events[at : at + per_read] for at in range(0, len(all_events), per_read)]

    def __call__(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Give the answer to any request."""
        del request
        return _Opened(self._reads)


class _Opened:
    def __init__(self, reads: list[list[Event]]) -> None:
        self._left = iter(reads)
        self._ahead: list[Event] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if not self._ahead:
            self._ahead = (await self.__loomstream_batch__())[::-1]
        return self._ahead.pop()

    async def __loomstream_batch__(self) -> list[Event]:
        for events in self._left:
            return list(events)
        raise StopAsyncIteration


def _see(event: Event) -> None:
    del event


def _around(combine: Callable[[Sequence[Candidate]], Handler]) -> Middleware:
    return lambda handler: combine([Candidate("a", handler), Candidate("b", handler)])


def rows() -> dict[str, Middleware]:
    """Give each middleware, made anew, under the name of its row."""
    return {
        "cost": cost(PROVIDER, MODEL),
        "cost with a ledger": cost(PROVIDER, MODEL, ledger=Ledger()),
        "retry": retry(),
        "rate_limit": rate_limit(PROVIDER, MODEL, requests_per_minute=1e9, tokens_per_minute=1e12),
        "timeout": timeout(total_s=600),
        "budget": budget(PROVIDER, MODEL, limit_usd=1_000_000),
        "failover": _around(failover),
        "balance": _around(balance),
        "hedge": _around(hedge),
        "circuit_breaker": circuit_breaker(),
        "cache, a new answer": cache(PROVIDER, MODEL, store=_Nothing()),
        "cache, a replay": cache(PROVIDER, MODEL),
        "smooth": smooth(),
        "tap": tap(_see),
        **_telemetry(),
    }


def _telemetry() -> dict[str, Middleware]:
    """Give the rows of telemetry: with an SDK that keeps its metrics, a Hawk that nobody runs, a log in no file."""
    meters = MeterProvider(metric_readers=[InMemoryMetricReader()])
    return {
        "otel, no SDK": otel(PROVIDER, MODEL),
        "otel": otel(PROVIDER, MODEL, tracer_provider=TracerProvider(), meter_provider=meters),
        "hawk": hawk(_NoHawk("http://localhost"), provider=PROVIDER, model=MODEL),
        "audit": audit(os.devnull, provider=PROVIDER, model=MODEL),
    }


class _NoHawk(HawkExporter):
    """Takes spans and sends none: what a call costs is not to depend on a thread's turns."""

    def put(self, spans: Sequence[HawkSpan]) -> None:
        del spans


class _Nothing:
    """A cache that is always empty."""

    async def get(self, key: str) -> None:
        del key

    async def put(self, key: str, events: Sequence[Event]) -> None:
        del key, events


class Figures(NamedTuple):
    """Microseconds of CPU: for each event of a long answer, by how many a read brings, and for each short call."""

    single_us: float
    event_us: float
    call_us: float


_NOT_YET = Figures(*[float("inf")] * 3)


async def _read(handler: Handler) -> None:
    async with handler(REQUEST) as events:
        following = batches(events)
        while True:
            try:
                await following()
            except StopAsyncIteration:
                return


async def _turn(handler: Handler, calls: int) -> float:
    gc.collect()
    began_s = process_time()
    for _ in range(calls):
        await _read(handler)
    return (process_time() - began_s) * 1e6


async def measure(*, events: int = EVENTS, calls: int = CALLS, turns: int = TURNS) -> dict[str, Figures]:
    """Give the figures of the bare handler, as `bare`, and of each middleware around it."""
    single = _stacks(Source(events, per_read=1))
    long = _stacks(Source(events))
    short = _stacks(Source(1))
    for handler in (*single.values(), *long.values(), *short.values()):
        await _read(handler)
    best = dict.fromkeys(long, _NOT_YET)
    for _ in range(turns):
        for name, known in best.items():
            taken = (
                await _turn(single[name], 1) / events,
                await _turn(long[name], 1) / events,
                await _turn(short[name], calls) / calls,
            )
            best[name] = Figures(*map(min, known, taken))
    return best


def _stacks(source: Handler) -> dict[str, Handler]:
    return {"bare": source, **{name: wrap(source) for name, wrap in rows().items()}}


def table(figures: dict[str, Figures]) -> str:
    """Give the table: the bare handler first, then what each middleware adds."""
    bare = figures["bare"]
    lines = [f"{'middleware':<22}{'µs/event, 1 a read':>20}{f'{PER_READ} a read':>12}{'µs per call':>14}", "-" * 68]
    lines.append(f"{'(bare handler)':<22}{bare.single_us:>20.3f}{bare.event_us:>12.3f}{bare.call_us:>14.1f}")
    for name, one in figures.items():
        if name != "bare":
            single, event, call = (more - less for more, less in zip(one, bare, strict=True))
            bar = TELEMETRY_BAR_US if name in TELEMETRY else BAR_US
            verdict = "" if max(single, event) <= bar else "  MISSED"
            lines.append(f"{name:<22}{single:>20.3f}{event:>12.3f}{call:>14.1f}{verdict}")
    return "\n".join([*lines, "", f"bar: {BAR_US} µs per event, telemetry {TELEMETRY_BAR_US}"])


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.middleware", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts: that it runs, not what it costs")
    quick = parser.parse_args(arguments).quick
    sizes = {"events": 20, "calls": 1, "turns": 1} if quick else {}
    print(table(asyncio.run(measure(**sizes))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
