"""Runs the measures: a server, and fresh processes that take turns: floor, ours, floor, ours.

Contract: `run` gives values; it prints nothing. A child that fails raises `BenchmarkError`, except a peer's, whose
failure is its figure. Every process that was started has ended when `run` returns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import IO, Protocol, Self, cast

from msgspec import Struct, field

from benchmarks.client import IMPORTS
from benchmarks.measures import GAP_US, HEAVY, PEER_GAP_US, Measure, Size

ROOT = Path(__file__).resolve().parent.parent
FLOOR = "floor"
OURS = "loomstream"
_CHILD_LIMIT_S = 120
_END_LIMIT_S = 5
_ONE_READ_EACH = 0.99
_DROPPED = ("PYTHONDONTWRITEBYTECODE", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONPROFILEIMPORTTIME")
"""Variables that would falsify the figures."""
ENVIRONMENT = {
    "NO_PROXY": "*",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "DO_NOT_TRACK": "1",
    "LOGFIRE_SEND_TO_LOGFIRE": "false",
}
"""What children see: no peer looks for a server elsewhere."""

_IMPORT = """
import json, sys, time
began = time.perf_counter()
import {module}
took = time.perf_counter() - began
heavy = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps({{"value": took * 1e3, "heavy": heavy}}))
"""

Result = dict[str, object]


class BenchmarkError(Exception):
    """A figure could not be had; the message says which and why."""


class Figures(Struct):
    """One client's figures for one measure, one a round, and their ratios to the floor's of the same round."""

    values: list[float] = field(default_factory=list[float])
    ratios: list[float] = field(default_factory=list[float])
    notes: dict[str, object] = field(default_factory=dict[str, object])
    failure: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return median(self.ratios)


class Outcome(Struct):
    """A measure, its size and every client's figures; the floor's are under `floor`."""

    measure: Measure
    size: Size
    clients: dict[str, Figures]

    @property
    def holds(self) -> bool | None:
        """Whether the bar holds, None where there is none."""
        ours, measure = self.clients[OURS], self.measure
        if measure.limit is not None:
            return ours.value <= measure.limit
        return None if measure.bar is None else ours.ratio <= measure.bar


def run(measure: Measure, *, quick: bool, peers: Sequence[str] = (), say: Callable[[str], None]) -> Outcome:
    """Take one measure: floor and ours in turn in every round, each peer beside a floor of its own afterwards.

    `say` is told what is being done. Raises `BenchmarkError`.
    """
    size = measure.quick if quick else measure.default
    clients = {name: Figures() for name in (FLOOR, OURS, *peers)}
    if measure.kind == "import":  # the first one may have to write the byte code
        for name in (measure.floor, measure.ours):
            _Import(name).turn()
    for number in range(size.rounds):
        say(f"{measure.title}: round {number + 1} of {size.rounds}")
        _round(measure, size, {name: clients[name] for name in (FLOOR, OURS)})
    for name in peers:
        say(f"{measure.title}: {name}")
        _peer(measure, size if quick else measure.peer, name, clients)
    return Outcome(measure, size, clients)


def _peer(measure: Measure, size: Size, name: str, clients: dict[str, Figures]) -> None:
    try:
        for _ in range(size.rounds):
            _round(measure, size, {FLOOR: Figures(), name: clients[name]}, gap_us=PEER_GAP_US)
    except BenchmarkError as error:
        clients[name].failure = str(error)


def _round(measure: Measure, size: Size, clients: dict[str, Figures], gap_us: int = GAP_US) -> None:
    with ExitStack() as stack:
        port = 0 if measure.kind == "import" else stack.enter_context(server())
        path = measure.path.format(events=size.events, streams=size.streams, gap_us=gap_us)
        own = {FLOOR: measure.floor, OURS: measure.ours}
        takers: dict[str, _Taker] = {
            name: _taker(stack, measure, size, own.get(name, name), f"http://127.0.0.1:{port}/{path}/v1")
            for name in clients
        }
        turns = [{name: taker.turn() for name, taker in takers.items()} for _ in range(size.turns)]
    best = {name: min((turn[name] for turn in turns), key=_rank) for name in clients}
    floor = _value(best[FLOOR])
    if floor <= 0:
        msg = f"{measure.floor}, {measure.name}: too small to be measured"
        raise BenchmarkError(msg)
    for name, figures in clients.items():
        figures.values.append(_value(best[name]))
        figures.ratios.append(_value(best[name]) / floor)
        figures.notes |= {note: noted for note, noted in best[name].items() if note != "value"}


def _value(result: Result) -> float:
    return cast("float", result["value"])


def _rank(result: Result) -> tuple[bool, float]:
    """Prefer the cheapest turn, of those in which no two events were read at once (a process was held up then)."""
    return cast("float", result.get("reads_per_event", 1.0)) < _ONE_READ_EACH, _value(result)


class _Taker(Protocol):
    def turn(self) -> Result: ...


def _taker(stack: ExitStack, measure: Measure, size: Size, client: str, base_url: str) -> _Taker:
    if measure.kind == "import":
        return _Import(client)
    job = {
        "kind": measure.kind,
        "client": client,
        "base_url": base_url,
        "events": size.events,
        "streams": size.streams,
        "settled": measure.settled,
    }
    return stack.enter_context(_Child(f"{client}, {measure.name}", "-m", "benchmarks.child", json.dumps(job)))


class _Child:
    """A process that takes a measurement for each line it gets; see `benchmarks.child`."""

    def __init__(self, what: str, *arguments: str) -> None:
        self._what = what
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed by `__exit__`)
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._late = False
        self._alarm = threading.Timer(_CHILD_LIMIT_S, self._kill)
        self._alarm.start()

    def _kill(self) -> None:
        self._late = True
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def turn(self) -> Result:
        """Have one measurement taken. Raises `BenchmarkError`."""
        process = self._process
        assert process.stdin is not None  # noqa: S101 (for the type checker: both are pipes)
        assert process.stdout is not None  # noqa: S101 (as above)
        with suppress(BrokenPipeError):  # it has ended already, perhaps after it had answered
            process.stdin.write("\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise BenchmarkError(self._reason())
        return json.loads(line)

    def _reason(self) -> str:
        if self._late:
            return f"{self._what}: not done within {_CHILD_LIMIT_S} s"
        self._process.wait(_END_LIMIT_S)
        self._errors.seek(0)
        last = (self._errors.read().strip() or f"it ended with code {self._process.returncode}").splitlines()[-1]
        return f"{self._what}: {last}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        _end(self._process)
        self._errors.close()


class _Import:
    """A fresh interpreter that imports one module."""

    def __init__(self, client: str) -> None:
        self._module = IMPORTS[client]

    def turn(self) -> Result:
        """Have it imported once. Raises `BenchmarkError`."""
        code = _IMPORT.format(module=self._module, heavy=HEAVY)
        with _Child(f"import {self._module}", "-c", code) as child:
            return child.turn()


def installed(name: str) -> bool:
    """Say whether a peer is there."""
    return find_spec(IMPORTS[name]) is not None


def environment() -> dict[str, str]:
    """Give the variables that children see."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _DROPPED and not name.lower().endswith("_proxy")
    }
    return kept | ENVIRONMENT


def _end(process: subprocess.Popen[str]) -> None:
    """End a process: all of ours end by themselves when their standard input closes."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # it has ended already
                pipe.close()
    try:
        process.wait(_END_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def server() -> Generator[int]:
    """Run a server; give its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
        yield int(process.stdout.readline())
    finally:
        _end(process)
