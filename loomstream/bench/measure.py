"""Asking and timing: rounds over all models, one after the other or several at once.

Contract: only `LoomstreamError`s of a model are caught, and become its sample or its row's `failure`; a cancellation
ends everything. While an answer streams, an event costs two clock-less comparisons and one reading of the clock. No
retry: a benchmark that hides failures is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import NamedTuple, TypedDict

import anyio
from msgspec.structs import replace

from loomstream.bench.prompts import DEFAULT_PROMPT, estimated_tokens, sized_prompt
from loomstream.bench.samples import Connection, Connections, Kind, Report, Row, Sample
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
from loomstream.transport.connecting import connections_told_to
from loomstream.wire import Secret

SIMULATED = "simulated"
_LOCAL = "local"
_CONTENT = frozenset(CONTENT_EVENTS)
_WORDS = ("river", "stone", "water", "light", "moss", "rain", "bank", "reed")
_EVENTS_TIMED = 20_000
_ROWS_OF: dict[Connections, tuple[Connection, ...]] = {"warm": ("warm",), "cold": ("cold",), "both": ("warm", "cold")}


class Progress(NamedTuple):
    """A sample that is there: of which row (by its number), and how many of how many are done.

    `so_far` gives the report of what has been measured.
    """

    row: int
    label: str
    kind: Kind
    sample: Sample | None
    done: int
    of: int
    so_far: Callable[[], Report]


class _Spec(NamedTuple):
    text: str
    connect: str
    kind: Kind


class _Settings(NamedTuple):
    prompt: str
    input_tokens: int | None
    max_tokens: int
    runs: int
    concurrency: int
    connections: Connections
    limit_usd: Decimal | None
    store: MemoryStore
    began_s: float
    seed: int
    real_time: bool

    @property
    def at_once(self) -> int:
        """How many rounds run at once, and how many answers open the connections of a warm row."""
        return min(self.concurrency, self.runs)


def read_spec(text: str) -> _Spec:
    """Give what a spec names: `provider:model`, `local`, or `simulated:provider[:model]`."""
    first, _, rest = text.partition(":")
    if first == SIMULATED and not rest:
        msg = f"{text!r} names no provider to simulate: write {SIMULATED}:PROVIDER, or {SIMULATED}:PROVIDER:MODEL"
        raise ConfigError(msg)
    if first == SIMULATED:
        return _Spec(text, rest, "simulated")
    return _Spec(text, text, "embedded" if first == _LOCAL else "live")


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
    prompt: str | None = None,
    input_tokens: int | None = None,
    max_tokens: int = 200,
    max_cost_usd: Decimal | float | str | None = None,
    connections: Connections = "warm",
    seed: int = 0,
    real_time: bool = True,
    progress: Callable[[Progress], object] | None = None,
) -> Report:
    """Measure models side by side; give the report.

    A spec is `provider:model` (or a provider, for its default model), `local` for the embedded model, or
    `simulated:provider[:model]` for that provider's wire at a made-up pace, which says nothing about the provider.
    What is asked is `prompt` (default: a short question), or a text of about `input_tokens` tokens.
    Each round asks every model once, in an order that turns from round to round; `concurrency` rounds run at once.
    There are `runs` rounds. `connections`: `warm` are kept ones, opened by answers that are not counted, as many as
    there are rounds at once; with `cold` every request opens one of its own; `both` gives each model a row of either,
    in the same rounds. `max_cost_usd` is never exceeded: the prompt and `max_tokens` are reserved before a request is
    sent. `progress` is called after each answer. Without `real_time` simulated models do not wait, for tests.

    Raises `ConfigError` for no specs, the same spec twice, numbers below 1, unknown `connections`, and `prompt` with
    `input_tokens`. What a provider refuses, an unknown model or a missing key among it, is in the report.
    """
    _check(specs, connections, {"runs": runs, "concurrency": concurrency, "max_tokens": max_tokens})
    settings = _Settings(
        prompt=_prompt(prompt, input_tokens),
        input_tokens=input_tokens,
        max_tokens=max_tokens,
        runs=runs,
        concurrency=concurrency,
        connections=connections,
        limit_usd=None if max_cost_usd is None else Decimal(str(max_cost_usd)),
        store=MemoryStore(),
        began_s=time.perf_counter(),
        seed=seed,
        real_time=real_time,
    )
    bench = _Bench([read_spec(spec) for spec in specs], settings, progress)
    await bench.run()
    return bench.report(complete=True)


def _prompt(text: str | None, tokens: int | None) -> str:
    if tokens is None:
        return DEFAULT_PROMPT if text is None else text
    if text is not None or tokens < 1:
        msg = f"measure(input_tokens={tokens}): give a whole number from 1, and no prompt beside it"
        raise ConfigError(msg)
    return sized_prompt(tokens)


def _check(specs: Sequence[str], connections: str, numbers: Mapping[str, int]) -> None:
    if not specs or len(set(specs)) < len(specs):
        msg = "a benchmark needs specs that differ, such as openai:gpt-4o, anthropic or local"
        raise ConfigError(msg)
    if connections not in _ROWS_OF:
        msg = f"measure(connections={connections!r}): give {', '.join(_ROWS_OF)}"
        raise ConfigError(msg)
    for name, value in numbers.items():
        if value < 1:
            msg = f"measure({name}={value}): give a whole number from 1"
            raise ConfigError(msg)


class _Bench:
    """The models of one benchmark, open while it runs."""

    def __init__(
        self,
        specs: list[_Spec],
        settings: _Settings,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._settings = settings
        self._progress = progress
        kinds = _ROWS_OF[settings.connections]
        self._specs = [spec for spec in specs for _ in kinds]
        self._rows = [Row(spec=spec.text, kind=spec.kind, connection=kind) for spec in specs for kind in kinds]
        self._samples: list[list[Sample]] = [[] for _ in self._rows]
        self._models: dict[int, Model] = {}
        self._addresses: dict[str, _Address] = {}
        self._next = 0
        self._of = sum(map(self._answers, self._rows))
        self._done = 0

    async def run(self) -> None:
        async with AsyncExitStack() as opened:
            server = await self._simulator(opened)
            for number, spec in enumerate(self._specs):
                await self._open(number, spec, server, opened)
            for row in [row for row in self._models if self._rows[row].connection == "warm"]:
                async with anyio.create_task_group() as tasks:
                    for _ in range(self._settings.at_once):
                        tasks.start_soon(self._sample, row, 0)
            async with anyio.create_task_group() as tasks:
                for _ in range(self._settings.at_once):
                    tasks.start_soon(self._rounds)

    def report(self, *, complete: bool = False) -> Report:
        """Give what has been measured."""
        settings = self._settings
        return Report(
            rows=tuple(
                replace(row, samples=tuple(sorted(samples, key=lambda sample: sample.number)))
                for row, samples in zip(self._rows, self._samples, strict=True)
            ),
            prompt=settings.prompt,
            input_tokens=settings.input_tokens,
            max_tokens=settings.max_tokens,
            runs=settings.runs,
            concurrency=settings.concurrency,
            connections=settings.connections,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version("loomstream"),
            overhead_us=overhead_us(),
            complete=complete,
        )

    def _answers(self, row: Row) -> int:
        """Give how many answers a row has."""
        return self._settings.runs + (self._settings.at_once if row.connection == "warm" else 0)

    async def _simulator(self, opened: AsyncExitStack) -> Simulator | None:
        if not any(spec.kind == "simulated" for spec in self._specs):
            return None
        settings = self._settings
        server = simulated_providers(
            settings.max_tokens,
            settings.seed,
            input_tokens=settings.input_tokens or estimated_tokens(settings.prompt),
            real_time=settings.real_time,
        )
        return await opened.enter_async_context(server)

    async def _open(self, number: int, spec: _Spec, server: Simulator | None, opened: AsyncExitStack) -> None:
        try:
            if spec.text not in self._addresses:
                self._addresses[spec.text] = await _address(spec, server, opened)
            model = connected(spec, self._addresses[spec.text], self._budget)
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
        self._of -= self._answers(self._rows[number])
        self._tell(number, None)

    async def _rounds(self) -> None:
        while self._next < self._settings.runs:
            self._next += 1
            await self._round(self._next)

    async def _round(self, number: int) -> None:
        """Ask every model once; each round begins with another one."""
        count = len(self._specs)
        for turn in range(count):
            await self._sample((turn + number) % count, number)

    async def _sample(self, row: int, number: int) -> None:
        """Ask the model of a row once, if it can be asked."""
        model = self._models.get(row)
        if model is None:
            return
        sample = await self._ask(row, model, number)
        self._samples[row].append(sample)
        self._done += 1
        self._tell(row, sample)
        if sample.error == BudgetExceeded.__name__:
            self._give_up(row, sample)

    async def _ask(self, row: int, model: Model, number: int) -> Sample:
        if self._rows[row].connection == "warm":
            return await timed(model, self._settings, number)
        began = time.perf_counter()
        try:
            spec = self._specs[row]
            async with connected(spec, self._addresses[spec.text], self._budget) as fresh:
                await fresh.prepare()
                return await timed(fresh, self._settings, number)
        except LoomstreamError as error:  # a key that has run out since, or a model that no longer starts
            place = (number, None, self._settings.began_s)
            return _sample(Recorder(time.perf_counter), Response(), error, began, time.perf_counter(), place)

    def _give_up(self, row: int, sample: Sample) -> None:
        """Ask a model no more that would pass the budget."""
        if self._models.pop(row, None) is not None:
            self._rows[row] = replace(self._rows[row], failure=f"the budget is used up: {sample.message}")

    def _tell(self, row: int, sample: Sample | None) -> None:
        told = self._rows[row]
        if self._progress is not None:
            self._progress(Progress(row, told.label, told.kind, sample, self._done, self._of, self.report))


class _Address(TypedDict, total=False):
    """What `connect` needs for a server of our own; nothing for a provider's."""

    base_url: str
    api_key: str | Secret
    settings: Mapping[str, str]


async def _address(spec: _Spec, server: Simulator | None, opened: AsyncExitStack) -> _Address:
    """Give where a model is; the embedded one is started once for all its rows."""
    if spec.kind == "embedded":
        from loomstream import local  # noqa: PLC0415 (only where it is measured)

        named = spec.connect.partition(":")[2]
        launched = await local.launch(model_path=named if named.endswith(".gguf") else None, download=True)
        opened.push_async_callback(launched.aclose)
        return _Address(base_url=launched.base_url, api_key=launched.api_key)
    if spec.kind == "simulated" and server is not None:
        found = server.options(spec.connect.partition(":")[0])
        return _Address(base_url=found["base_url"], api_key=found["api_key"], settings=found.get("settings", {}))
    return _Address()


def connected(spec: _Spec, address: _Address, limits: Callable[[str, str], list[Middleware]]) -> Model:
    """Give the model of a spec; one of this machine costs nothing, whatever its name's price is."""
    if spec.kind != "live":
        return connect(spec.connect, **address, middleware=[])
    bare = connect(spec.connect, middleware=[])
    held = limits(bare.provider, bare.model)
    return connect(spec.connect, middleware=held) if held else bare


async def timed(model: Model, settings: _Settings, number: int) -> Sample:
    """Ask once and time it."""
    clock = time.perf_counter
    recorder = Recorder(clock)
    connects: list[float] = []
    failure: LoomstreamError | None = None
    with connections_told_to(connects.append):
        began = clock()
        async with model.stream(settings.prompt, max_tokens=settings.max_tokens) as stream:
            try:
                async for event in stream:
                    recorder.note(event)
            except LoomstreamError as error:
                failure = error
            ended = clock()
            response = stream.response
    kept = 0.0 if recorder.events else None
    connect_s = sum(connects) if connects else kept
    return _sample(recorder, response, failure, began, ended, (number, connect_s, settings.began_s))


def _sample(
    recorder: Recorder,
    response: Response,
    failure: LoomstreamError | None,
    began: float,
    ended: float,
    place: tuple[int, float | None, float],
) -> Sample:
    number, connect_s, bench_began = place
    usage = response.usage
    return Sample(
        number=number,
        cold=bool(connect_s),
        began_s=round(began - bench_began, 6),
        connect_s=None if connect_s is None else round(connect_s, 6),
        first_event_s=None if recorder.first is None else round(recorder.first - began, 6),
        first_text_s=None if recorder.first_text is None else round(recorder.first_text - began, 6),
        total_s=round(ended - began, 6),
        stamps_s=recorder.since(began),
        events=recorder.events,
        input_tokens=None if usage is None else usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        cached_tokens=None if usage is None else usage.cache_read_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
        cost_usd=response.cost.amount_usd,
        stop="" if response.stop is None else response.stop.reason,
        error="" if failure is None else type(failure).__name__,
        message="" if failure is None else str(failure),
        truncated=isinstance(failure, StreamTruncated),
    )


def simulated_providers(tokens: int, seed: int = 0, *, input_tokens: int, real_time: bool = True) -> Simulator:
    """Give a simulator whose providers answer so many tokens, each at its made-up pace."""
    words = tuple(f"{_WORDS[number % len(_WORDS)]} " for number in range(tokens))
    usage = Usage(input_tokens=input_tokens, output_tokens=tokens, final=True)
    answer = Answer(blocks=(Block(kind="text", pieces=words),), usage=usage)
    return simulator(answer, pace=typical_pace(""), paces=TYPICAL, seed=seed, real_time=real_time)
