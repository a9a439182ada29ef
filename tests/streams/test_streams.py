"""Every golden, whole and cut anywhere: the same bytes give the same events."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loomstream.accumulate import fold
from loomstream.testing import check_order

sys.path.insert(0, str(Path(__file__).parent))

from cases import Case, load, run

CASES = load()
STREAMS = [case for case in CASES if case.status < 300]
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
FRAME_END = re.compile(rb"(?:\r\n|\n|\r)")


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(places)]


@each_case
def test_whole(case: Case) -> None:
    outcome = run(case, [case.body])
    assert outcome.events == case.expected()
    assert outcome.error == case.error, outcome.message
    check_order(outcome.events, complete=not case.error)


@each_case
def test_byte_by_byte(case: Case) -> None:
    outcome = run(case, [case.body[i : i + 1] for i in range(len(case.body))])
    assert outcome.events == case.expected()
    assert outcome.error == case.error


@each_case
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.differing_executors])
@given(cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_random_cuts(case: Case, cuts: list[int]) -> None:
    outcome = run(case, pieces(case.body, cuts))
    assert outcome.events == case.expected()
    assert outcome.error == case.error


@pytest.mark.parametrize("case", STREAMS, ids=[case.name for case in STREAMS])
def test_truncated_at_every_line(case: Case) -> None:
    """A body that ends early is a whole answer or an error, never a part passed off as a whole."""
    whole = fold(case.expected())
    for match in FRAME_END.finditer(case.body):
        outcome = run(case, [case.body[: match.end()]])
        check_order(outcome.events, complete=not outcome.error)
        partial = fold(outcome.events)
        assert partial.complete == (not outcome.error)
        assert whole.text.startswith(partial.text)
        assert whole.reasoning.startswith(partial.reasoning)
        if partial.complete:
            assert partial.message == whole.message


def test_every_dialect_has_goldens() -> None:
    dialects = {case.path.parent.name for case in CASES}
    assert dialects >= {"openai_chat", "anthropic_messages", "ollama_chat"}
