"""Every golden, whole and cut anywhere: the same bytes give the same events."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import cast

import pytest

from loomstream.accumulate import fold
from loomstream.errors import LoomstreamError
from loomstream.events import Cost, Event
from loomstream.providers import DIALECTS, dialects_of, look_up
from loomstream.testing import Recording, check_order, replay_model

sys.path.insert(0, str(Path(__file__).parent))

from cases import Case, Outcome, load, run

CASES = load()
STREAMS = [case for case in CASES if case.status < 300]
LIVE = [case for case in STREAMS if case.meta["dialect"] in dialects_of(look_up(str(case.meta["provider"])))]
"""What a model of the provider can be answered with."""
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(places)]


@each_case
def test_whole(case: Case) -> None:
    outcome = run(case, [case.body])
    assert outcome.events == case.expected()
    assert outcome.error == case.error, outcome.message
    check_order(outcome.events, complete=not case.error)


@each_case
def test_cut_anywhere(case: Case) -> None:
    """Byte by byte, and in pieces that are other ones for each golden but the same in each run."""
    chance = random.Random(case.name)  # noqa: S311 (repeatable, not secret)
    size, expected = len(case.body), case.expected()
    cuts = [list(range(size)), *([chance.randint(0, size) for _ in range(chance.randint(1, 6))] for _ in range(15))]
    for places in cuts:
        outcome = run(case, pieces(case.body, places))
        assert outcome.events == expected, places
        assert outcome.error == case.error, places


@pytest.mark.parametrize("case", STREAMS, ids=[case.name for case in STREAMS])
def test_truncated_at_every_line(case: Case) -> None:
    """A body that ends early is a whole answer or an error, never a part passed off as a whole."""
    whole = fold(case.expected())
    for end in case.ends():
        outcome = run(case, [case.body[:end]])
        check_order(outcome.events, complete=not outcome.error)
        partial = fold(outcome.events)
        assert partial.complete == (not outcome.error)
        assert whole.text.startswith(partial.text)
        assert whole.reasoning.startswith(partial.reasoning)
        if partial.complete:
            assert partial.message == whole.message


async def live(case: Case, chunks: list[bytes]) -> Outcome:
    """Read the chunks as the answer that a model gets; costs are left out."""
    headers = {"content-type": str(case.meta["content_type"]), **cast("dict[str, str]", case.meta.get("headers", {}))}
    recording = Recording(chunks, case.status, {name.lower(): value for name, value in headers.items()})
    meta = case.meta
    name, dialect = str(meta.get("model", "asked-model")), str(meta["dialect"])
    model = replay_model(str(meta["provider"]), recording, model=name, dialect=dialect)
    events: list[Event] = []
    async with model, model.stream("hi") as stream:
        try:
            async for event in stream:
                events.append(event)  # noqa: PERF401 (what came before an error must be kept)
        except LoomstreamError as error:
            return Outcome(without_cost(events), type(error).__name__, str(error))
    return Outcome(without_cost(events), "")


def without_cost(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, Cost)]


@pytest.mark.anyio
@pytest.mark.parametrize("case", LIVE, ids=[case.name for case in LIVE])
async def test_a_model_gives_the_same(case: Case) -> None:
    """The live path delivers what `decode` does, and the same error, whole and in three pieces."""
    third = len(case.body) // 3
    for chunks in ([case.body], pieces(case.body, [third, 2 * third])):
        outcome = await live(case, chunks)
        assert outcome.events == case.expected()
        assert outcome.error == case.error, outcome.message


def test_every_dialect_has_goldens() -> None:
    dialects = {case.path.parent.name for case in CASES}
    assert dialects == set(DIALECTS)
