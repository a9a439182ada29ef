"""Asking and timing: rounds over all models, one after the other or several at once.

Contract: only `LoomstreamError`s of a model are caught, and become its sample or its row's `failure`; a cancellation
ends everything. While an answer streams, an event costs two clock-less comparisons and one reading of the clock. No
retry: a benchmark that hides failures is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import NamedTuple

import anyio
from msgspec.structs import replace

from loomstream.bench.samples import Kind, Report, Row, Sample
from loomstream.errors import BudgetExceeded, ConfigError, LoomstreamError, StreamTruncated
from loomstream.events import CONTENT_EVENTS, EventBase, TextDelta, Usage
from loomstream.handler import Middleware
from loomstream.messages import Response
from loomstream.middleware.budget import budget
from loomstream.middleware.store import MemoryStore
from loomstream.model import Model, connect
from loomstream.testing.pace import TYPICAL, typical_pace
from loomstream.testing.server import Simulator, simulator
from loomstream.testing.wires import Answer, Block

DEFAULT_PROMPT = "Write a short story about a river that forgets its way to the sea."
SIMULATED = "simulated"
_LOCAL = "local"
_CONTENT = frozenset(CONTENT_EVENTS)
_WORDS = ("river", "stone", "water", "light", "moss", "rain", "bank", "reed")
_EVENTS_TIMED = 20_000


class Progress(NamedTuple):
    """A sample that is there: of which row (by its number), and how many of how many are done."""

    row: int
    label: str
    sample: Sample | None
    done: int
    of: int


class _Spec(NamedTuple):
    text: str
    connect: str
    kind: Kind


class _Settings(NamedTuple):
    prompt: str
    max_tokens: int
    cold: bool
    limit_usd: Decimal | None
    store: MemoryStore
    began_s: float
    seed: int
    real_time: bool


def read_spec(text: str) -> _Spec:
    """Give what a spec names: `provider:model`, `local`, or `simulated:provider[:model]`."""
    first, _, rest = text.partition(":")
    if first == SIMULATED and not rest:
        msg = f"{text!r} names no provider to simulate: write {SIMULATED}:PROVIDER, or {SIMULATED}:PROVIDER:MODEL"
        raise ConfigError(msg)
    if first == SIMULATED:
        return _Spec(text, rest, "simulated")
    return _Spec(text, text, "local" if first == _LOCAL else "live")


class Recorder:
    """Notes when events came; `note` is all that measuring adds to an event."""

    __slots__ = ("_clock", "_stamps", "events", "first", "first_text")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stamps: list[float] = []
        self.events = 0
        self.first: float | None = None
        self.first_text: float | None = None

    def note(self, event: EventBase) -> None:
        """Take an event."""
        kind = event.__class__
        self.events += 1
        if self.first is None:
            self.first = self._clock()
        if kind not in _CONTENT:
            return
        now = self._clock()
        self._stamps.append(now)
        if self.first_text is None and kind is TextDelta:
            self.first_text = now

    def since(self, began: float) -> tuple[float, ...]:
        """Give the times of the events with content, in seconds from then."""
        return tuple(round(stamp - began, 6) for stamp in self._stamps)


def overhead_us(events: int = _EVENTS_TIMED) -> float:
    """Measure what measuring adds to an event here, in microseconds: the cheapest of five rounds."""
    event = TextDelta(0, "x")
    rounds: list[float] = []
    for _ in range(5):
        note = Recorder(time.perf_counter).note
        began = time.perf_counter()
        for _ in range(events):
            note(event)
        rounds.append(time.perf_counter() - began)
    return min(rounds) / events * 1e6


async def measure(  # noqa: PLR0913 (what is asked, how often, at what cost; all keyword-only but the specs)
    specs: Sequence[str],
    *,
    runs: int = 10,
    concurrency: int = 1,
    prompt: str = DEFAULT_PROMPT,
    max_tokens: int = 200,
    max_cost_usd: Decimal | float | str | None = None,
    cold: bool = False,
    seed: int = 0,
    real_time: bool = True,
    progress: Callable[[Progress], object] | None = None,
) -> Report:
    """Measure models side by side; give the report.

    A spec is `provider:model` (or a provider, for its default model), `local` for the embedded model, or
    `simulated:provider[:model]` for that provider's wire at a made-up pace, which says nothing about the provider.
    Each round asks every model once, in an order that turns from round to round; `concurrency` rounds run at once.
    There are `runs` rounds after a first one in which connections are opened: its samples are `cold` and not counted.
    With `cold` every request opens a connection of its own, and all are counted. `max_cost_usd` is never exceeded: the
    prompt and `max_tokens` are reserved before a request is sent. `progress` is called after each answer. Without
    `real_time` simulated models do not wait, for tests.

    Raises `ConfigError` for no specs, the same spec twice, and numbers below 1. What a provider refuses, an unknown
    model or a missing key among it, is in the report.
    """
    _check(specs, runs, concurrency, max_tokens)
    limit = None if max_cost_usd is None else Decimal(str(max_cost_usd))
    settings = _Settings(prompt, max_tokens, cold, limit, MemoryStore(), time.perf_counter(), seed, real_time)
    bench = _Bench([read_spec(spec) for spec in specs], settings, runs, concurrency, progress)
    rows = await bench.run()
    return Report(
        rows=rows,
        prompt=prompt,
        max_tokens=max_tokens,
        runs=runs,
        concurrency=concurrency,
        cold=cold,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("loomstream"),
        overhead_us=overhead_us(),
    )


def _check(specs: Sequence[str], runs: int, concurrency: int, max_tokens: int) -> None:
    if not specs or len(set(specs)) < len(specs):
        msg = "a benchmark needs specs that differ, such as openai:gpt-4o, anthropic or local"
        raise ConfigError(msg)
    for name, value in (("runs", runs), ("concurrency", concurrency), ("max_tokens", max_tokens)):
        if value < 1:
            msg = f"measure({name}={value}): give a whole number from 1"
            raise ConfigError(msg)


class _Bench:
    """The models of one benchmark, open while it runs."""

    def __init__(
        self,
        specs: list[_Spec],
        settings: _Settings,
        runs: int,
        concurrency: int,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._specs, self._settings = specs, settings
        self._runs, self._concurrency = runs, concurrency
        self._progress = progress
        self._rows = [Row(spec=spec.text, kind=spec.kind) for spec in specs]
        self._samples: list[list[Sample]] = [[] for _ in specs]
        self._models: dict[int, Model] = {}
        self._server: Simulator | None = None
        self._next = 0
        self._of = len(specs) * (runs + (0 if settings.cold else 1))
        self._done = 0

    async def run(self) -> tuple[Row, ...]:
        async with AsyncExitStack() as opened:
            self._server = server = await self._simulator(opened)
            for number, spec in enumerate(self._specs):
                await self._open(number, spec, server, opened)
            if not self._settings.cold:
                await self._round(0, cold=True)
            async with anyio.create_task_group() as tasks:
                for _ in range(min(self._concurrency, self._runs)):
                    tasks.start_soon(self._rounds)
        return tuple(
            replace(row, samples=tuple(sorted(samples, key=lambda sample: sample.number)))
            for row, samples in zip(self._rows, self._samples, strict=True)
        )

    async def _simulator(self, opened: AsyncExitStack) -> Simulator | None:
        if not any(spec.kind == "simulated" for spec in self._specs):
            return None
        server = simulated_providers(self._settings.max_tokens, self._settings.seed, real_time=self._settings.real_time)
        return await opened.enter_async_context(server)

    async def _open(self, number: int, spec: _Spec, server: Simulator | None, opened: AsyncExitStack) -> None:
        try:
            model = connected(spec, server, self._budget)
            await opened.enter_async_context(model)
            await model.prepare()
        except LoomstreamError as error:
            self._fail(number, error)
            return
        self._models[number] = model
        self._rows[number] = replace(self._rows[number], provider=model.provider, model=model.model)

    def _budget(self, provider: str, model: str) -> list[Middleware]:
        limit = self._settings.limit_usd
        if limit is None:
            return []
        return [
            budget(provider, model, limit_usd=limit, per="total", store=self._settings.store, name="bench", alerts=())
        ]

    def _fail(self, number: int, error: LoomstreamError) -> None:
        self._rows[number] = replace(self._rows[number], failure=str(error))
        self._models.pop(number, None)
        self._of -= self._runs + (0 if self._settings.cold else 1)
        self._tell(number, None)

    async def _rounds(self) -> None:
        while self._next < self._runs:
            self._next += 1
            await self._round(self._next, cold=self._settings.cold)

    async def _round(self, number: int, *, cold: bool) -> None:
        """Ask every model once; each round begins with another one."""
        count = len(self._specs)
        for turn in range(count):
            row = (turn + number) % count
            model = self._models.get(row)
            if model is None:
                continue
            sample = await self._ask(row, model, number, cold=cold)
            self._samples[row].append(sample)
            self._done += 1
            self._tell(row, sample)
            if sample.error == BudgetExceeded.__name__:
                self._give_up(row, sample)

    async def _ask(self, row: int, model: Model, number: int, *, cold: bool) -> Sample:
        if not self._settings.cold:
            return await timed(model, self._settings, number, cold=cold)
        async with connected(self._specs[row], self._server, self._budget) as fresh:
            await fresh.prepare()
            return await timed(fresh, self._settings, number, cold=cold)

    def _give_up(self, row: int, sample: Sample) -> None:
        """Ask a model no more that would pass the budget."""
        if self._models.pop(row, None) is not None:
            self._rows[row] = replace(self._rows[row], failure=f"the budget is used up: {sample.message}")

    def _tell(self, row: int, sample: Sample | None) -> None:
        if self._progress is not None:
            self._progress(Progress(row, self._rows[row].label, sample, self._done, self._of))


def connected(spec: _Spec, server: Simulator | None, limits: Callable[[str, str], list[Middleware]]) -> Model:
    """Give the model of a spec; a simulated one costs nothing, whatever its name's price is."""
    if spec.kind == "simulated" and server is not None:
        provider = spec.connect.partition(":")[0]
        return connect(spec.connect, **server.options(provider), middleware=[])
    bare = connect(spec.connect, middleware=[])
    held = limits(bare.provider, bare.model)
    return connect(spec.connect, middleware=held) if held else bare


async def timed(model: Model, settings: _Settings, number: int, *, cold: bool) -> Sample:
    """Ask once and time it."""
    clock = time.perf_counter
    recorder = Recorder(clock)
    began = clock()
    failure: LoomstreamError | None = None
    async with model.stream(settings.prompt, max_tokens=settings.max_tokens) as stream:
        try:
            async for event in stream:
                recorder.note(event)
        except LoomstreamError as error:
            failure = error
        ended = clock()
        response = stream.response
    return _sample(recorder, response, failure, began, ended, (number, cold, settings.began_s))


def _sample(
    recorder: Recorder,
    response: Response,
    failure: LoomstreamError | None,
    began: float,
    ended: float,
    place: tuple[int, bool, float],
) -> Sample:
    number, cold, bench_began = place
    usage = response.usage
    return Sample(
        number=number,
        cold=cold,
        began_s=round(began - bench_began, 6),
        first_event_s=None if recorder.first is None else round(recorder.first - began, 6),
        first_text_s=None if recorder.first_text is None else round(recorder.first_text - began, 6),
        total_s=round(ended - began, 6),
        stamps_s=recorder.since(began),
        events=recorder.events,
        input_tokens=None if usage is None else usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
        cost_usd=response.cost.amount_usd,
        stop="" if response.stop is None else response.stop.reason,
        error="" if failure is None else type(failure).__name__,
        message="" if failure is None else str(failure),
        truncated=isinstance(failure, StreamTruncated),
    )


def simulated_providers(tokens: int, seed: int = 0, *, input_tokens: int = 500, real_time: bool = True) -> Simulator:
    """Give a simulator whose providers answer so many tokens, each at its made-up pace."""
    words = tuple(f"{_WORDS[number % len(_WORDS)]} " for number in range(tokens))
    usage = Usage(input_tokens=input_tokens, output_tokens=tokens, final=True)
    answer = Answer(blocks=(Block(kind="text", pieces=words),), usage=usage)
    return simulator(answer, pace=typical_pace(""), paces=TYPICAL, seed=seed, real_time=real_time)
