"""Percentiles, intervals and tests, without assumptions about how times are distributed.

Contract: pure and deterministic: every resampling begins from the same seed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from itertools import product
from statistics import fmean, median
from typing import NamedTuple

RESAMPLES = 2_000
ALPHA = 0.05
FEWEST = 6
"""With fewer pairs no difference can be told at `ALPHA`: 2 of 2⁵ sign patterns are 0.06 of all."""
_EXACT_PAIRS = 11


class Interval(NamedTuple):
    """A median, and between what bounds it lies in 95 of 100 cases; the bounds are None for one value."""

    value: float
    low: float | None
    high: float | None


def percentile(values: Sequence[float], part: float) -> float:
    """Give the value below which this part (0 to 1) of the values lies, linear between neighbours."""
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def interval(values: Sequence[float]) -> Interval | None:
    """Give the median with its bootstrap interval; None for no values."""
    if not values:
        return None
    if len(values) == 1:
        return Interval(values[0], None, None)
    draw = random.Random(0)  # noqa: S311 (no secret)
    medians = [median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return Interval(median(values), percentile(medians, ALPHA / 2), percentile(medians, 1 - ALPHA / 2))


def paired(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Give the probability of so great a mean difference by chance alone, of values measured side by side.

    Signs are flipped: all patterns up to 11 pairs, else as many by chance. None for too few pairs.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    count = len(differences)
    if count < FEWEST:
        return None
    found = abs(fmean(differences)) * (1 - 1e-9)
    if count <= _EXACT_PAIRS:
        patterns = list(product((1, -1), repeat=count))
        hits = sum(abs(_signed(differences, pattern)) >= found for pattern in patterns)
        return hits / len(patterns)
    draw = random.Random(0)  # noqa: S311 (no secret)
    hits = sum(abs(_signed(differences, draw.choices((1, -1), k=count))) >= found for _ in range(RESAMPLES))
    return (hits + 1) / (RESAMPLES + 1)


def _signed(differences: Sequence[float], signs: Sequence[int]) -> float:
    return fmean(difference * sign for difference, sign in zip(differences, signs, strict=True))


def unpaired(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Give the same of values that were measured at different times, by shuffling them; None for too few."""
    if min(len(one), len(other)) < FEWEST - 2:
        return None
    together, size = [*one, *other], len(one)
    found = abs(fmean(one) - fmean(other)) * (1 - 1e-9)
    draw = random.Random(0)  # noqa: S311 (no secret)
    hits = 0
    for _ in range(RESAMPLES):
        draw.shuffle(together)
        hits += abs(fmean(together[:size]) - fmean(together[size:])) >= found
    return (hits + 1) / (RESAMPLES + 1)


def least_paired(count: int) -> float:
    """Give the smallest probability that so many pairs can have: one pattern of signs, and its opposite."""
    return 2 / 2**count


def least_unpaired(count: int) -> float:
    """Give the smallest probability that two groups of so many values can have: one division, and its opposite."""
    return 2 / math.comb(2 * count, count)


def enough(least: Callable[[int], float], comparisons: int) -> int:
    """Give how many runs each must have for any of so many comparisons to show a difference at `ALPHA`."""
    return next(count for count in itertools.count(FEWEST) if least(count) * comparisons < ALPHA)


def adjusted(probabilities: Sequence[float | None]) -> list[float | None]:
    """Give the probabilities as Holm corrects them: with many comparisons some are small by chance alone."""
    order = sorted((value, place) for place, value in enumerate(probabilities) if value is not None)
    corrected: list[float | None] = [None] * len(probabilities)
    highest = 0.0
    for rank, (value, place) in enumerate(order):
        highest = max(highest, min(1.0, value * (len(order) - rank)))
        corrected[place] = highest
    return corrected
