"""The outcomes as a table for people and as JSON for programs.

Contract: pure; figures in, text out.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import msgspec

from benchmarks.client import IMPORTS
from benchmarks.runner import FLOOR, OURS, Figures, Outcome

_VERDICTS = {True: "holds", False: "MISSED", None: ""}
_PACKAGES = {"pydantic-ai": "pydantic-ai-slim", "any-llm": "any-llm-sdk"}


def _number(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2  # noqa: PLR2004 (three digits are meant)
    return f"{value:,.{digits}f}"


def _ratio(figures: Figures) -> str:
    ratios = figures.ratios
    span = f" ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{figures.ratio:.2f}{span}"


def _bar(outcome: Outcome) -> str:
    measure = outcome.measure
    if measure.limit is not None:
        return f"≤ {measure.limit:g} {measure.unit}"
    return "" if measure.bar is None else f"≤ {measure.bar:g}"


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def table(outcomes: Sequence[Outcome]) -> str:
    """Give the table of floor and ours, the notes, and the table of the peers where there are any."""
    rows = [("measure", "floor", "", OURS, "ratio (min-max)", "bar", "")]
    for outcome in outcomes:
        measure, floor, ours = outcome.measure, outcome.clients[FLOOR], outcome.clients[OURS]
        values = [f"{_number(figures.value)} {measure.unit}" for figures in (floor, ours)]
        rows.append(
            (
                measure.title,
                values[0],
                measure.floor_title,
                values[1],
                _ratio(ours),
                _bar(outcome),
                _VERDICTS[outcome.holds],
            )
        )
    sections = [_lines(rows), _notes(outcomes), _peers(outcomes)]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _notes(outcomes: Sequence[Outcome]) -> list[str]:
    lines: list[str] = []
    for outcome in outcomes:
        for name in (FLOOR, OURS):
            for note, value in outcome.clients[name].notes.items():
                shown = f"{value:.2f}" if isinstance(value, float) else value or "none"
                lines.append(f"{outcome.measure.name}, {name}: {note.replace('_', ' ')} {shown}")
    return lines


def _peers(outcomes: Sequence[Outcome]) -> list[str]:
    outcomes = [outcome for outcome in outcomes if outcome.measure.peers]
    names = [name for name in outcomes[0].clients if name not in (FLOOR, OURS)] if outcomes else []
    if not names:
        return []
    rows = [("client", *(f"{outcome.measure.name}, {outcome.measure.unit}" for outcome in outcomes))]
    rows += [
        (f"{name} {_version(name)}", *(_peer(outcome.clients[name]) for outcome in outcomes)) for name in (OURS, *names)
    ]
    failures = [figures.failure for outcome in outcomes for figures in outcome.clients.values() if figures.failure]
    return [*_lines(rows), *failures]


def _peer(figures: Figures) -> str:
    if figures.failure:
        return "failed"
    return f"{_number(figures.value)} ({_number(figures.ratio)} x)" if figures.values else "not measured"


def _version(name: str) -> str:
    try:
        return version(_PACKAGES.get(name, name))
    except PackageNotFoundError:
        return ""


def machine() -> dict[str, str]:
    """Say what the figures were taken on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": str(os.cpu_count()),
        "implementation": sys.implementation.name,
    } | {name: _version(name) for name in IMPORTS if _version(name)}


def as_json(outcomes: Sequence[Outcome]) -> bytes:
    """Give everything as one JSON object."""
    measures = [
        {
            "name": outcome.measure.name,
            "title": outcome.measure.title,
            "unit": outcome.measure.unit,
            "floor": outcome.measure.floor_title,
            "bar": outcome.measure.bar,
            "limit": outcome.measure.limit,
            "holds": outcome.holds,
            "size": outcome.size._asdict(),
            "clients": {name: _client(figures) for name, figures in outcome.clients.items()},
        }
        for outcome in outcomes
    ]
    return msgspec.json.format(msgspec.json.encode({"machine": machine(), "measures": measures}), indent=2)


def _client(figures: Figures) -> dict[str, object]:
    done = bool(figures.values)
    return {
        "median": figures.value if done else None,
        "ratio": figures.ratio if done else None,
        **msgspec.to_builtins(figures),
    }
