"""Plots as SVG text, made by hand: no library, no script, nothing from another host.

Contract: pure; every text from outside is escaped. Colours follow the reader's light or dark scheme, in a page and as
a file of its own. Simulated rows are hollow and dashed, and say so in their label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from statistics import median
from typing import NamedTuple

from loomstream.bench.statistics import percentile

_WIDTH, _LEFT, _RIGHT, _TOP, _LANE, _BOTTOM = 760, 250, 24, 40, 44, 44
_TICKS = 6
_STYLE = """
.plot{font:12px system-ui,sans-serif;--ink:#1c2430;--soft:#667085;--line:#d8dde6;--paper:#fff}
.plot text{fill:var(--ink)}.plot .soft{fill:var(--soft)}.plot .title{font-size:14px;font-weight:600}
.plot .count{font-size:10px}
.plot .grid{stroke:var(--line)}.plot .paper{fill:var(--paper)}
.c0{--c:#3366cc}.c1{--c:#d1495b}.c2{--c:#2a9d6f}.c3{--c:#b5831d}.c4{--c:#7b5cd6}.c5{--c:#1d8a99}
.dot{fill:var(--c);fill-opacity:.45}.bar{stroke:var(--c);stroke-width:2}.box{fill:var(--c);fill-opacity:.16}
.sim .dot{fill:none;stroke:var(--c);stroke-opacity:.8}.sim .box{fill:none;stroke:var(--c);stroke-dasharray:4 3}
.sim .bar{stroke-dasharray:4 3}
@media(prefers-color-scheme:dark){.plot{--ink:#e6eaf0;--soft:#98a2b3;--line:#364152;--paper:#151a21}
.c0{--c:#7aa5ff}.c1{--c:#ff8a97}.c2{--c:#5fd3a3}.c3{--c:#e5b755}.c4{--c:#b09cff}.c5{--c:#5ccbda}}
"""
_COLOURS = 6
SECONDS = "seconds"
"""The unit that becomes milliseconds where every value is below one."""


class Series(NamedTuple):
    """The values of one row; `simulated` where they are of no real provider."""

    label: str
    values: Sequence[float]
    simulated: bool = False


class Point(NamedTuple):
    """A row as a point."""

    label: str
    x: float
    y: float
    simulated: bool = False


class _Axis(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(least: float) -> float:
    power = 10 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _axis(values: Iterable[float], start: float, end: float) -> _Axis:
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    return _Axis(0.0, top * 1.05 or 1.0, start, end)


def _number(value: float) -> str:
    return f"{value:.4g}"


_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\ufdd0-\ufdef]")
"""What XML 1.0 does not allow (section 2.2), lone surrogates among it, and controls that it discourages."""


def shown(text: str) -> str:
    """Give text from outside for SVG and HTML: escaped, with a mark in place of each character that XML forbids."""
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text))


def _svg(title: str, height: int, body: Iterable[str]) -> str:
    name = shown(title)
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{name}"><style>{_STYLE}</style><rect class="paper" width="{_WIDTH}" height="{height}"/>'
        f'<text class="title" x="12" y="22">{name}</text>{"".join(body)}</svg>'
    )


def _across(axis: _Axis, top: int, bottom: int, unit: str, *, clear: int = 0) -> list[str]:
    """Draw the axis along the bottom, its words `clear` further down than they need be."""
    drawn: list[str] = []
    for tick in axis.ticks():
        x = axis.at(tick)
        drawn += [
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>',
            f'<text class="soft" x="{x:.1f}" y="{bottom + clear + 16}" text-anchor="middle">{_number(tick)}</text>',
        ]
    middle = (axis.start + axis.end) / 2
    return [
        *drawn,
        f'<text class="soft" x="{middle:.1f}" y="{bottom + clear + 34}" text-anchor="middle">{shown(unit)}</text>',
    ]


_LABEL_CHARS = 34


def _label(text: str, y: float) -> str:
    """Give a lane's label in two lines, the second its mark; a long name loses its middle, never the mark."""
    name, opening, mark = text.rpartition(" [")
    lines = (name, f"[{mark}") if opening else (mark,)
    top = y + 4 - 7 * (len(lines) - 1)
    drawn = "".join(
        f'<text class="{("name", "soft")[number]}" x="{_LEFT - 12}" y="{top + 14 * number:.1f}" text-anchor="end">'
        f"{shown(_short(line))}</text>"
        for number, line in enumerate(lines)
    )
    return f"<g>{drawn}<title>{shown(text)}</title></g>"


def _short(name: str) -> str:
    half = _LABEL_CHARS // 2
    return name if len(name) <= _LABEL_CHARS else f"{name[: half - 1]}…{name[-half:]}"


_MILLI = 1e3


def _scaled(unit: str, rows: Sequence[Series]) -> tuple[str, Sequence[Series]]:
    """Give short times in milliseconds."""
    if unit != SECONDS or any(value >= 1 for row in rows for value in row.values):
        return unit, rows
    return f"milli{SECONDS}", [row._replace(values=[value * _MILLI for value in row.values]) for row in rows]


def _lanes(title: str, unit: str, rows: Sequence[Series], draw: Callable[[Series, _Axis, float], list[str]]) -> str:
    unit, rows = _scaled(unit, rows)
    axis = _axis((value for row in rows for value in row.values), _LEFT, _WIDTH - _RIGHT)
    bottom = _TOP + _LANE * len(rows)
    body = _across(axis, _TOP, bottom, unit)
    for number, row in enumerate(rows):
        y = _TOP + _LANE * (number + 0.5)
        kind = f"c{number % _COLOURS}{' sim' if row.simulated else ''}"
        body += [_label(row.label, y), f'<g class="{kind}">', *draw(row, axis, y), "</g>"]
    return _svg(title, bottom + _BOTTOM, body)


def distributions(title: str, unit: str, rows: Sequence[Series]) -> str:
    """Draw each row's values as dots, with a box from the first to the third quartile and a bar at the median."""
    return _lanes(title, unit, rows, _distribution)


def _distribution(row: Series, axis: _Axis, y: float) -> list[str]:
    if not row.values:
        return [f'<text class="soft" x="{_LEFT + 8}" y="{y + 4:.1f}">no whole answer</text>']
    low, high = (axis.at(percentile(row.values, part)) for part in (0.25, 0.75))
    middle = axis.at(median(row.values))
    dots = [
        f'<circle class="dot" cx="{axis.at(value):.1f}" cy="{y + ((number * 7) % 5 - 2) * 3:.1f}" r="3.5"/>'
        for number, value in enumerate(row.values)
    ]
    return [
        f'<rect class="box" x="{low:.1f}" y="{y - 13:.1f}" width="{max(high - low, 1):.1f}" height="26" rx="3"/>',
        *dots,
        f'<line class="bar" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 15:.1f}" y2="{y + 15:.1f}"/>',
    ]


def timelines(title: str, unit: str, rows: Sequence[Series]) -> str:
    """Draw when each event of an answer came: a tick each, so that waits and stalls are gaps."""
    return _lanes(title, unit, rows, _timeline)


_MOST_TICKS = 600


def _timeline(row: Series, axis: _Axis, y: float) -> list[str]:
    every = max(1, math.ceil(len(row.values) / _MOST_TICKS))
    ticks = "".join(f"M{axis.at(value):.1f} {y - 11:.1f}v22" for value in row.values[::every])
    base = f'<line class="grid" x1="{axis.start}" x2="{axis.end}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return [base, f'<path d="{ticks}" stroke="var(--c)" stroke-width="1" fill="none"/>'] if ticks else [base]


def scatter(title: str, units: tuple[str, str], points: Sequence[Point]) -> str:
    """Draw rows as numbered points: across the first unit, upwards the second; near the corner is better."""
    bottom = 320
    across = _axis((point.x for point in points), 98, _WIDTH - _RIGHT)
    upwards = _axis((point.y for point in points), bottom, _TOP)
    body = _across(across, _TOP, bottom, units[0], clear=_MARK)
    words_end = across.start - _MARK - 4
    for tick in upwards.ticks():
        y = upwards.at(tick)
        body += [
            f'<line class="grid" x1="{across.start}" x2="{across.end}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text class="soft" x="{words_end}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>',
        ]
    body.append(
        f'<text class="soft" transform="translate(22 {(bottom + _TOP) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{shown(units[1])}</text>'
    )
    legend = bottom + _BOTTOM + _MARK + 12
    for number, point in enumerate(points):
        y = legend + _LINE * number
        body += [
            _numbered(number, point, across.at(point.x), upwards.at(point.y)),
            _numbered(number, point, 106, y),
            f'<text x="122" y="{y + 4:.1f}">{shown(point.label)}</text>',
        ]
    return _svg(title, legend + _LINE * len(points), body)


_LINE = 22
_MARK = 9
"""The radius of a numbered mark; the words of the axes keep clear of it where it stands at 0."""


def _numbered(number: int, point: Point, x: float, y: float) -> str:
    kind = f"c{number % _COLOURS}{' sim' if point.simulated else ''}"
    return (
        f'<g class="{kind}"><circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{_MARK}"/></g>'
        f'<text class="count" x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle">{number + 1}</text>'
    )
