"""From samples to figures and verdicts.

Contract: pure. A difference is claimed only where a test finds one; else the verdict says that there is none to see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import combinations
from typing import NamedTuple

from msgspec import Struct

from loomstream.bench.samples import Report, Row, Sample
from loomstream.bench.statistics import (
    ALPHA,
    Interval,
    adjusted,
    enough,
    interval,
    least_paired,
    least_unpaired,
    paired,
    percentile,
    unpaired,
)


class Gaps(NamedTuple):
    """The times between events with content, over all answers, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float
    longest_s: float


class Summary(Struct, frozen=True, kw_only=True):
    """The figures of one row; None for what was not measured. Times in seconds, tokens as the provider counted them.

    `connect` is of the answers that count, 0 over a kept connection; `cold_connect` and `cold_first_event` are of all
    that opened one.
    """

    runs: int
    counted: int
    errors: int
    truncated: int
    connect: Interval | None
    cold_connect: Interval | None
    first_event: Interval | None
    first_text: Interval | None
    cold_first_event: Interval | None
    total: Interval | None
    total_p95_s: float | None
    tokens_per_s: Interval | None
    gaps: Gaps | None
    input_tokens: float | None
    cached_tokens: float | None
    output_tokens: float | None
    cost_usd: Decimal | None
    cost_is_whole: bool


def summary(row: Row) -> Summary:
    """Give a row's figures, of its whole answers; the cost is of all that is known."""
    counted = row.counted
    totals = _of(counted, lambda sample: sample.total_s)
    gaps = [gap for sample in counted for gap in sample.gaps_s]
    costs = [sample.cost_usd for sample in row.samples]
    cold = [sample for sample in row.samples if sample.ok and sample.cold]
    return Summary(
        runs=len(row.samples),
        counted=len(counted),
        errors=sum(not sample.ok for sample in row.samples),
        truncated=sum(sample.truncated for sample in row.samples),
        connect=interval(_of(counted, lambda sample: sample.connect_s)),
        cold_connect=interval(_of(cold, lambda sample: sample.connect_s)),
        first_event=interval(_of(counted, lambda sample: sample.first_event_s)),
        first_text=interval(_of(counted, lambda sample: sample.first_text_s)),
        cold_first_event=interval(_of(cold, lambda sample: sample.first_event_s)),
        total=interval(totals),
        total_p95_s=percentile(totals, 0.95) if totals else None,
        tokens_per_s=interval(_of(counted, lambda sample: sample.tokens_per_s)),
        gaps=_gaps(gaps),
        input_tokens=_mean(_of(counted, lambda sample: sample.input_tokens)),
        cached_tokens=_mean(_of(counted, lambda sample: sample.cached_tokens)),
        output_tokens=_mean(_of(counted, lambda sample: sample.output_tokens)),
        cost_usd=sum((cost for cost in costs if cost is not None), Decimal(0))
        if any(costs) or None not in costs
        else None,
        cost_is_whole=None not in costs,
    )


def _gaps(gaps: list[float]) -> Gaps | None:
    if not gaps:
        return None
    return Gaps(percentile(gaps, 0.5), percentile(gaps, 0.95), percentile(gaps, 0.99), max(gaps))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


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
    comparisons were made (Holm); None where there are too few runs for any difference to show among so many, and
    `needed` is how many each must have.
    """

    measure: str
    one: str
    other: str
    ratio: float | None
    probability: float | None
    words: str
    needed: int = 0


class _Pair(NamedTuple):
    measure: _Measure
    one: str
    other: str
    left: list[float]
    right: list[float]


def verdicts(report: Report) -> list[Verdict]:
    """Compare the rows of a report round by round: each with each, or with the first where they are more than six.

    Where there are warm and cold rows, models are compared by their warm ones, and each model's two with each other.
    """
    rows = [row for row in report.rows if row.counted]
    alike = [row for row in rows if row.connection == "warm"] or rows
    several = len(alike) > _MOST_ROWS
    chosen = [(alike[0], row) for row in alike[1:]] if several else [*combinations(alike, 2)]
    chosen += [(one, row) for one in alike for row in rows if row not in alike and row.spec == one.spec]
    pairs = [_side_by_side(one, other, measure) for one, other in chosen for measure in _MEASURES]
    return _judged(pairs, [paired(pair.left, pair.right) for pair in pairs], least_paired)


def told(found: Sequence[Verdict]) -> list[str]:
    """Give the lines that say it: one for each that can be judged, and a single one for all that need more runs."""
    lines = [verdict.words for verdict in found if verdict.probability is not None]
    unjudged = {(verdict.one, verdict.other): verdict.needed for verdict in found if verdict.probability is None}
    if not unjudged:
        return lines
    some = f"{len(unjudged)} pair{'s' * (len(unjudged) > 1)}"
    return [*lines, f"too few runs to tell {some} apart: each needs at least {max(unjudged.values())} whole answers"]


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
    return _judged(pairs, [unpaired(pair.left, pair.right) for pair in pairs], least_unpaired)


def _judged(pairs: list[_Pair], probabilities: list[float | None], least: Callable[[int], float]) -> list[Verdict]:
    corrected = adjusted(probabilities)
    needed = enough(least, len(pairs))
    return [_verdict(pair, probability, needed) for pair, probability in zip(pairs, corrected, strict=True)]


def _verdict(pair: _Pair, probability: float | None, needed: int) -> Verdict:
    measure, name, other_name, left, right = pair
    unseen = probability is None or probability >= ALPHA
    if probability is None or (unseen and min(len(left), len(right)) < needed):
        words = f"{measure.name}: too few runs to tell {name} from {other_name} (at least {needed} each)"
        return Verdict(measure.name, name, other_name, None, None, words, needed)
    mean, other_mean = sum(left) / len(left), sum(right) / len(right)
    ratio = mean / other_mean if other_mean else None
    if unseen or ratio is None:
        words = f"{measure.name}: no difference to be seen between {name} and {other_name} (p = {probability:.2f})"
    else:
        good = (ratio < 1) == measure.less_is_better
        word = measure.better if good else measure.worse
        words = f"{measure.name}: {name} {abs(ratio - 1):.0%} {word} than {other_name} (p = {probability:.3f})"
    return Verdict(measure.name, name, other_name, ratio, probability, words)
