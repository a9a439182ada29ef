"""What the simulator does wrong: faults as values, and an answer with its fault as a list of steps.

Contract: pure; `plan` decides everything, the server only carries it out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from msgspec import Struct

from loomstream.errors import ConfigError
from loomstream.testing.wires.answers import Sent, Wire

FaultKind = Literal["status", "hang", "stall", "cut", "reset", "malformed", "error", "drip"]
Ending = Literal["whole", "close", "reset", "wait"]
_FORM = re.compile(r"(?P<kind>[a-z]+)(?::(?P<status>\d{3}))?(?:@(?P<at>\d{1,12}))?")
_DRIP_BYTES = 1
_LEAST_STATUS, _MOST_STATUS = 400, 599


class Fault(Struct, frozen=True):
    """A way to fail.

    `status`: the answer is an error of this HTTP status (with `body`, or the wire's own error), and `retry_after_s`
    where it is set. `hang`: nothing comes, not even headers. `stall`: nothing more comes after `at` frames. `cut`: the
    connection is closed after `at` bytes of the body, `reset`: it is reset there. `malformed`: a frame that cannot be
    read follows `at` frames. `error`: the wire's own error follows `at` frames. `drip`: every byte comes alone.
    """

    kind: FaultKind
    at: int = 0
    status: int = 500
    body: bytes | None = None
    retry_after_s: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            msg = f"there is no fault {self.kind!r}: there are {', '.join(get_args(FaultKind))}"
            raise ConfigError(msg)
        if self.at < 0 or not _LEAST_STATUS <= self.status <= _MOST_STATUS:
            msg = f"Fault({self.kind!r}, at={self.at}, status={self.status}): at is from 0, a status from 400 to 599"
            raise ConfigError(msg)


def read_fault(text: str) -> Fault | None:
    """Give the fault that a text says, `KIND[:STATUS][@AT]`: `status:429`, `stall@3`, `cut@500`; None for `none`.

    Raises `ConfigError` for any other text.
    """
    if text == "none":
        return None
    found = _FORM.fullmatch(text)
    if found is None or found["kind"] not in get_args(FaultKind) or (found["status"] and found["kind"] != "status"):
        kinds = ", ".join(get_args(FaultKind))
        msg = f"{text!r} is no fault: write KIND[:STATUS][@AT], as status:429, stall@3 or cut@500; kinds: {kinds}, none"
        raise ConfigError(msg)
    return Fault(found["kind"], at=int(found["at"] or 0), status=int(found["status"] or 500))  # pyright: ignore[reportArgumentType] (it is one of them)


class Step(NamedTuple):
    """Wait for so many seconds, then send these bytes of the body."""

    wait_s: float
    data: bytes


class Plan(NamedTuple):
    """A body in steps, and what follows: its proper end, a closed connection, a reset, or nothing at all."""

    steps: list[Step]
    ending: Ending = "whole"


def plan(wire: Wire, sent: list[Sent], waits: list[float], fault: Fault | None) -> Plan:
    """Give the steps of an answer with its fault; `status` and `hang` are the server's, before any body."""
    steps = [Step(wait_s, frame.data) for wait_s, frame in zip(waits, sent, strict=True)]
    if fault is None:
        return Plan(steps)
    return _PLANS[fault.kind](wire, steps, fault.at)


_PLANS: dict[FaultKind, Callable[[Wire, list[Step], int], Plan]] = {
    "status": lambda _wire, _steps, _at: Plan([], "wait"),
    "hang": lambda _wire, _steps, _at: Plan([], "wait"),
    "stall": lambda _, steps, at: Plan(steps[:at], "wait"),
    "cut": lambda _, steps, at: Plan(_first_bytes(steps, at), "close"),
    "reset": lambda _, steps, at: Plan(_first_bytes(steps, at), "reset"),
    "malformed": lambda wire, steps, at: Plan([*steps[:at], Step(0.0, wire.malformed), *steps[at:]]),
    "error": lambda wire, steps, at: Plan(
        [*steps[:at], Step(0.0, wire.failure(f"simulated failure after {at} frames"))]
    ),
    "drip": lambda _wire, steps, _at: Plan([single for step in steps for single in _dripped(step)]),
}


def _first_bytes(steps: list[Step], count: int) -> list[Step]:
    kept: list[Step] = []
    for step in steps:
        if count <= 0:
            break
        kept.append(Step(step.wait_s, step.data[:count]))
        count -= len(step.data)
    return kept


def _dripped(step: Step) -> list[Step]:
    pieces = [step.data[at : at + _DRIP_BYTES] for at in range(0, len(step.data), _DRIP_BYTES)]
    return [Step(0.0 if number else step.wait_s, piece) for number, piece in enumerate(pieces)]
