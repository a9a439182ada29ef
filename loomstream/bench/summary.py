"""From samples to figures and verdicts.

Contract: pure. A difference is claimed only where a test finds one; else the verdict says that there is none to see.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import combinations
from typing import NamedTuple

from msgspec import Struct

from loomstream.bench.samples import Report, Row, Sample
from loomstream.bench.statistics import ALPHA, FEWEST, Interval, adjusted, interval, paired, percentile, unpaired


class Gaps(NamedTuple):
    """The times between events with content, over all answers, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float
    longest_s: float


class Summary(Struct, frozen=True, kw_only=True):
    """The figures of one row; None for what was not measured. Times in seconds."""

    runs: int
    counted: int
    errors: int
    truncated: int
    first_event: Interval | None
    first_text: Interval | None
    cold_first_event: Interval | None
    total: Interval | None
    total_p95_s: float | None
    tokens_per_s: Interval | None
    gaps: Gaps | None
    output_tokens: float | None
    cost_usd: Decimal | None
    cost_is_whole: bool


def summary(row: Row) -> Summary:
    """Give a row's figures, of its whole answers; the cost is of all that is known."""
    counted = row.counted
    totals = _of(counted, lambda sample: sample.total_s)
    gaps = [gap for sample in counted for gap in sample.gaps_s]
    costs = [sample.cost_usd for sample in row.samples]
    tokens = _of(counted, lambda sample: sample.output_tokens)
    cold = [sample for sample in row.samples if sample.ok and sample.cold]
    return Summary(
        runs=len(row.samples),
        counted=len(counted),
        errors=sum(not sample.ok for sample in row.samples),
        truncated=sum(sample.truncated for sample in row.samples),
        first_event=interval(_of(counted, lambda sample: sample.first_event_s)),
        first_text=interval(_of(counted, lambda sample: sample.first_text_s)),
        cold_first_event=interval(_of(cold, lambda sample: sample.first_event_s)),
        total=interval(totals),
        total_p95_s=percentile(totals, 0.95) if totals else None,
        tokens_per_s=interval(_of(counted, lambda sample: sample.tokens_per_s)),
        gaps=_gaps(gaps),
        output_tokens=sum(tokens) / len(tokens) if tokens else None,
        cost_usd=sum((cost for cost in costs if cost is not None), Decimal(0))
        if any(costs) or None not in costs
        else None,
        cost_is_whole=None not in costs,
    )


def _gaps(gaps: list[float]) -> Gaps | None:
    if not gaps:
        return None
    return Gaps(percentile(gaps, 0.5), percentile(gaps, 0.95), percentile(gaps, 0.99), max(gaps))


def _of(samples: tuple[Sample, ...] | list[Sample], figure: Callable[[Sample], float | None]) -> list[float]:
    values = map(figure, samples)
    return [value for value in values if value is not None]


# --- verdicts ------------------------------------------------------------------------------------


class _Measure(Struct, frozen=True):
    name: str
    figure: Callable[[Sample], float | None]
    better: str
    worse: str
    less_is_better: bool = True


_MEASURES = (
    _Measure("first text", lambda sample: sample.first_text_s, "sooner", "later"),
    _Measure("total", lambda sample: sample.total_s, "shorter", "longer"),
    _Measure("tokens per second", lambda sample: sample.tokens_per_s, "more", "fewer", less_is_better=False),
)


class Verdict(Struct, frozen=True):
    """What can be said of one measure of two rows.

    `ratio` is that of the means. `probability` is that of such a difference by chance, corrected for how many
    comparisons were made (Holm); None where there are too few runs.
    """

    measure: str
    one: str
    other: str
    ratio: float | None
    probability: float | None
    words: str


class _Pair(NamedTuple):
    measure: _Measure
    one: str
    other: str
    left: list[float]
    right: list[float]


def verdicts(report: Report) -> list[Verdict]:
    """Compare the rows of a report round by round: each with each, or with the first where they are more than six."""
    rows = [row for row in report.rows if row.counted]
    several = len(rows) > _MOST_ROWS
    chosen = [(rows[0], row) for row in rows[1:]] if several else combinations(rows, 2)
    pairs = [_side_by_side(one, other, measure) for one, other in chosen for measure in _MEASURES]
    return _judged(pairs, [paired(pair.left, pair.right) for pair in pairs])


_MOST_ROWS = 6


def _side_by_side(one: Row, other: Row, measure: _Measure) -> _Pair:
    of_other = {sample.number: measure.figure(sample) for sample in other.counted}
    both = [(measure.figure(sample), of_other.get(sample.number)) for sample in one.counted]
    values = [(a, b) for a, b in both if a is not None and b is not None]
    return _Pair(measure, one.label, other.label, [a for a, _ in values], [b for _, b in values])


def compare(before: Report, after: Report) -> list[Verdict]:
    """Compare what two reports have in common: each row of the first with the row of that label in the second."""
    rows = {row.label: row for row in after.rows if row.counted}
    common = [(row, rows[row.label]) for row in before.rows if row.counted and row.label in rows]
    pairs = [
        _Pair(
            measure,
            f"{row.label} before",
            f"{row.label} after",
            _of(row.counted, measure.figure),
            _of(other.counted, measure.figure),
        )
        for row, other in common
        for measure in _MEASURES
    ]
    return _judged(pairs, [unpaired(pair.left, pair.right) for pair in pairs])


def _judged(pairs: list[_Pair], probabilities: list[float | None]) -> list[Verdict]:
    corrected = adjusted(probabilities)
    return [_verdict(pair, probability) for pair, probability in zip(pairs, corrected, strict=True)]


def _verdict(pair: _Pair, probability: float | None) -> Verdict:
    measure, name, other_name, left, right = pair
    if probability is None:
        words = f"{measure.name}: too few runs to tell {name} from {other_name} (at least {FEWEST} each)"
        return Verdict(measure.name, name, other_name, None, None, words)
    mean, other_mean = sum(left) / len(left), sum(right) / len(right)
    ratio = mean / other_mean if other_mean else None
    if probability >= ALPHA or ratio is None:
        words = f"{measure.name}: no difference to be seen between {name} and {other_name} (p = {probability:.2f})"
    else:
        good = (ratio < 1) == measure.less_is_better
        word = measure.better if good else measure.worse
        words = f"{measure.name}: {name} {abs(ratio - 1):.0%} {word} than {other_name} (p = {probability:.3f})"
    return Verdict(measure.name, name, other_name, ratio, probability, words)
