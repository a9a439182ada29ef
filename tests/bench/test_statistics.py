"""Intervals and tests: they find what is there, and nothing where nothing is."""

from __future__ import annotations

import random

import pytest

from loomstream.bench.statistics import (
    ALPHA,
    adjusted,
    enough,
    interval,
    least_paired,
    least_unpaired,
    paired,
    percentile,
    unpaired,
)


def test_percentiles_lie_between_neighbours() -> None:
    assert [percentile([4, 1, 3, 2], part) for part in (0, 0.5, 1)] == [1, 2.5, 4]
    assert percentile([7], 0.99) == 7


def test_an_interval_holds_the_median_and_shrinks() -> None:
    draw = random.Random(1)  # noqa: S311 (no secret)
    few, many = ([draw.gauss(10, 1) for _ in range(count)] for count in (8, 80))
    short, long = interval(many), interval(few)
    assert short is not None
    assert long is not None
    assert None not in (short.low, short.high, long.low, long.high)
    assert short.low < short.value < short.high
    assert short.high - short.low < long.high - long.low
    assert interval([]) is None
    assert interval([3]) == (3, None, None)


def test_pairs_show_a_difference_that_drift_would_hide() -> None:
    drift = [10.0, 20, 30, 40, 50, 60, 70, 80]
    later = [value + 1 + 0.1 * (number % 3) for number, value in enumerate(drift)]
    assert paired(drift, later) == pytest.approx(2 / 2**8)
    unseen = unpaired(drift, later)
    assert unseen is not None
    assert unseen > 0.5


def test_no_difference_is_no_difference() -> None:
    draw = random.Random(2)  # noqa: S311 (no secret)
    one, other = ([draw.gauss(5, 1) for _ in range(20)] for _ in range(2))
    told = paired(one, other)
    assert told is not None
    assert told > 0.05
    assert paired([1.0] * 6, [1.0] * 6) == 1


def test_too_few_runs_tell_nothing() -> None:
    assert paired([1.0] * 5, [9.0] * 5) is None
    assert unpaired([1.0] * 3, [9.0] * 9) is None


@pytest.mark.parametrize("comparisons", [1, 3, 9, 45])
def test_with_enough_runs_the_greatest_difference_shows_and_with_one_less_it_does_not(comparisons: int) -> None:
    runs = enough(least_paired, comparisons)
    for count, shows in ((runs, True), (runs - 1, False)):
        probability = paired([1.0] * count, [9.0 + number for number in range(count)])
        assert (probability is not None and probability * comparisons < ALPHA) is shows
    assert enough(least_unpaired, comparisons) <= runs


def test_many_comparisons_are_corrected() -> None:
    assert adjusted([0.04, None, 0.01, 0.02]) == pytest.approx([0.04, None, 0.03, 0.04])
    assert adjusted([0.5, 0.6]) == [1.0, 1.0]
