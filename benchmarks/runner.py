"""Runs the measures: a server and a fresh child for each figure, floor and ours in turn.

Contract: `run` gives values; it prints nothing. A child that fails raises `BenchmarkError`, except a peer's, whose
failure is its figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import cast

from msgspec import Struct, field

from benchmarks.client import IMPORTS
from benchmarks.measures import GAP_US, HEAVY, PEER_GAP_US, Measure, Size

ROOT = Path(__file__).resolve().parent.parent
OURS = "loomstream"
_CHILD_LIMIT_S = 180
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


class BenchmarkError(Exception):
    """A figure could not be had; the message says which and why."""


class Figures(Struct):
    """One client's figures for one measure, and their ratios to the floor of the same round."""

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
    """Take one measure: floor, ours, peers, again and again.

    `say` is told what is being done. Raises `BenchmarkError`.
    """
    size = measure.quick if quick else measure.default
    clients = {"floor": Figures(), OURS: Figures()} | {name: Figures() for name in peers}
    with _server() as port:
        if measure.kind == "import":  # the first one writes the byte code
            for name in (measure.floor, OURS, *peers):
                _import(name)
        for round_number in range(size.rounds):
            say(f"{measure.title}: round {round_number + 1} of {size.rounds}")
            _round(measure, size, port, clients, quick=quick, with_peers=round_number < measure.peer.rounds)
    return Outcome(measure, size, clients)


def _round(
    measure: Measure, size: Size, port: int, clients: dict[str, Figures], *, quick: bool, with_peers: bool
) -> None:
    floor = 0.0
    for name, figures in clients.items():
        is_peer = name not in ("floor", OURS)
        if figures.failure or (is_peer and not with_peers):
            continue
        own_size = measure.peer if is_peer and not quick else size
        try:
            result = _figure(measure, own_size, measure.floor if name == "floor" else name, port, is_peer=is_peer)
        except BenchmarkError as error:
            if not is_peer:
                raise
            figures.failure = str(error)
            continue
        value = cast("float", result.pop("value"))
        floor = value if name == "floor" else floor
        figures.values.append(value)
        figures.ratios.append(value / floor)
        figures.notes |= result


def _figure(measure: Measure, size: Size, client: str, port: int, *, is_peer: bool) -> dict[str, object]:
    if measure.kind == "import":
        return _import(client)
    gap_us = PEER_GAP_US if is_peer else GAP_US
    path = measure.path.format(events=size.events, streams=size.streams, gap_us=gap_us)
    job = {
        "kind": measure.kind,
        "client": client,
        "base_url": f"http://127.0.0.1:{port}/{path}/v1",
        "events": size.events,
        "streams": size.streams,
    }
    return _child(f"{client}, {measure.name}", "-m", "benchmarks.child", json.dumps(job))


def _import(client: str) -> dict[str, object]:
    return _child(f"import {IMPORTS[client]}", "-c", _IMPORT.format(module=IMPORTS[client], heavy=HEAVY))


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


def _child(what: str, *arguments: str) -> dict[str, object]:
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=_CHILD_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        msg = f"{what}: not done within {_CHILD_LIMIT_S} s"
        raise BenchmarkError(msg) from None
    if done.returncode:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        msg = f"{what}: {last}"
        raise BenchmarkError(msg)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def _server() -> Generator[int]:
    """Run a server; give its port. It ends by itself when its standard input closes."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None  # noqa: S101 (for the type checker: both are pipes)
        assert process.stdout is not None  # noqa: S101 (as above)
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:  # it may be in the middle of a paced round
                process.kill()
