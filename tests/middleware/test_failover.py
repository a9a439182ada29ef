"""Failover: who answers, what the consumer sees, and which errors another provider would not cure."""

from __future__ import annotations

import pytest

from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ConfigError,
    ConnectionLost,
    ContextTooLong,
    LoomstreamError,
    MissingKey,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    StreamTruncated,
    UnexpectedContent,
)
from loomstream.events import Cost, Event, Notice, Start, TextDelta, TextStart, Usage
from loomstream.messages import Request
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.failover import failover
from loomstream.stream import Stream
from loomstream.testing import check_order, scripted_model, text_events

pytestmark = pytest.mark.anyio

REQUEST = Request(messages=())
ANSWER = text_events("ok", provider="b")


def candidate(name: str, *scripts: object) -> Candidate:
    return Candidate(name, scripted_model(*scripts).handler)  # type: ignore[arg-type]


def unpriced(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (its signature)
    return Cost(provider=provider, model=model)


async def run(*candidates: Candidate, **options: object) -> tuple[list[Event], LoomstreamError | None]:
    handler = failover(candidates, **options)  # type: ignore[arg-type]
    events: list[Event] = []
    async with Stream(handler, REQUEST, cost_of=unpriced) as stream:
        try:
            async for event in stream:
                events.append(event)  # noqa: PERF401 (what came before an error counts)
        except LoomstreamError as error:
            check_order(events, complete=False)
            return events, error
    check_order(events)
    return events, None


@pytest.mark.parametrize(
    "script",
    [
        [Overloaded("busy")],
        [AuthFailed("wrong key")],
        [QuotaExhausted("no money")],
        [ModelNotFound("gone")],
        [MissingKey("no key")],
        [UnexpectedContent("HTML")],
        [Start("a", "m"), Usage(input_tokens=1), TextStart(0), ConnectionLost("cut before content")],
        [Start("a", "m")],
    ],
)
async def test_the_next_one_answers_as_if_it_were_alone(script: list[object]) -> None:
    events, error = await run(candidate("a:m", script), candidate("b:m", ANSWER))
    assert error is None
    assert isinstance(events[0], Notice)
    assert events[0].kind == "failover"
    assert events[0].detail.startswith("a:m failed (")
    assert events[0].detail.endswith("b:m is asked")
    assert events[1:] == ANSWER


@pytest.mark.parametrize("kind", [BadRequest, ContextTooLong])
async def test_what_would_fail_everywhere_is_raised(kind: type[LoomstreamError]) -> None:
    events, error = await run(candidate("a", [kind("no")]), candidate("b", ANSWER))
    assert (events, type(error)) == ([], kind)


async def test_a_rule_of_one_s_own() -> None:
    def when(error: LoomstreamError) -> bool:
        return isinstance(error, ContextTooLong)

    events, error = await run(candidate("a", [ContextTooLong("no")]), candidate("b", ANSWER), when=when)
    assert (events[1:], error) == (ANSWER, None)
    _, error = await run(candidate("a", [Overloaded("no")]), candidate("b", ANSWER), when=when)
    assert isinstance(error, Overloaded)


async def test_after_the_first_content_nobody_else_is_asked() -> None:
    broken = [Start("a", "m"), TextStart(0), TextDelta(0, "x"), ConnectionLost("cut")]
    events, error = await run(candidate("a", broken), candidate("b", ANSWER))
    assert events == broken[:3]
    assert isinstance(error, ConnectionLost)


async def test_the_last_error_names_all_attempts() -> None:
    scripts = ([Overloaded("x", provider="a", model="m")], [Start("b", "n")], [AuthFailed("z", provider="c")])
    _, error = await run(*(candidate(name, script) for name, script in zip("abc", scripts, strict=True)))
    assert isinstance(error, AuthFailed)
    outcomes = [(attempt.provider, attempt.model, attempt.outcome) for attempt in error.attempts]
    truncated = ("b", "n", StreamTruncated.__name__)
    assert outcomes == [("a", "m", "Overloaded"), truncated, ("c", "", "AuthFailed")]


async def test_an_answer_that_broke_begins_anew_where_that_was_asked_for() -> None:
    broken = [Start("a", "m"), TextStart(0), TextDelta(0, "x"), ConnectionLost("cut")]
    events, error = await run(candidate("a", broken, [Overloaded("x")]), candidate("b", ANSWER), resume="restart")
    assert error is None
    assert [event.kind for event in events if isinstance(event, Notice)] == ["reset", "failover"]
    assert events[-len(ANSWER) :] == ANSWER


@pytest.mark.parametrize(
    ("names", "what"), [((), "failover has no candidates"), (("a", "b", "a"), "two candidates called 'a'")]
)
def test_what_is_no_chain_is_refused(names: tuple[str, ...], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        failover([candidate(name, ANSWER) for name in names])
