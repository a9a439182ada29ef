"""Resume: an answer that broke goes on, with no character doubled or lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Literal

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from loomstream.errors import Attempt, BadRequest, ConnectionLost, LoomstreamError, StreamTruncated
from loomstream.events import (
    Event,
    Notice,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallStart,
    Usage,
)
from loomstream.messages import Message, Request, Text
from loomstream.middleware.retry import RetryBudget, retry
from loomstream.testing import check_order, scripted_model, text_events
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

How = Literal["prefill", "prompt", "restart"]
LOST = ConnectionLost("gone")


def broken(*pieces: str) -> list[object]:
    return [Start("scripted", "m"), TextStart(0), *(TextDelta(0, piece) for piece in pieces), LOST]


async def run(how: How, *scripts: object) -> tuple[list[Event], ScriptedModel]:
    middleware = retry(wait=tenacity.wait_none(), resume=how)
    model = scripted_model(*scripts, middleware=[middleware])  # type: ignore[arg-type]
    async with model.stream("hi") as stream:
        events = [event async for event in stream]
    check_order(events)
    return events, model


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_prefill_goes_on_behind_the_last_character() -> None:
    events, model = await run("prefill", broken("Hello ", "wor "), text_events("ld ", "it is"))
    assert events == [
        Start("scripted", "m"),
        TextStart(0),
        TextDelta(0, "Hello "),
        TextDelta(0, "wor "),
        TextEnd(0),
        Notice(
            "resume",
            "the answer broke (ConnectionLost: gone): it goes on behind 10 characters",
            attempt=Attempt("scripted", "m", "ConnectionLost"),
        ),
        TextStart(1),
        TextDelta(1, "ld "),
        TextDelta(1, "it is"),
        TextEnd(1),
        Usage(input_tokens=1, output_tokens=2),
        Stop("end_turn", "stop"),
    ]
    assert model.requests[1].messages[-1] == Message("assistant", (Text("Hello wor"),))


async def test_a_blank_that_the_turn_could_not_end_in_is_not_doubled() -> None:
    events, _ = await run("prefill", broken("Hello "), text_events(" ", "world"))
    assert text_of(events) == "Hello world"


async def test_prompt_leaves_out_what_is_repeated() -> None:
    said = "The quick brown fox jumps over"
    events, model = await run("prompt", broken(said), text_events("brown fox ", "jumps ov", "er the dog."))
    assert text_of(events) == "The quick brown fox jumps over the dog."
    assert model.requests[1].messages[-2] == Message("assistant", (Text(said),))
    assert model.requests[1].messages[-1].role == "user"


async def test_a_short_agreement_is_chance() -> None:
    events, _ = await run("prompt", broken("one banana"), text_events("a", "nd another"))
    assert text_of(events) == "one bananaand another"


@pytest.mark.parametrize("rest", ["", "x", "he end", "is the end of it"])
async def test_a_rest_that_ends_within_the_seam_is_given(rest: str) -> None:
    events, _ = await run("prompt", broken("this is the end"), text_events(rest))
    assert text_of(events).endswith(rest if rest != "is the end of it" else " of it")


async def test_a_model_that_takes_no_beginning_is_asked_for_the_rest() -> None:
    refused = [BadRequest("This model does not support assistant message prefill")]
    events, model = await run("prefill", broken("Hello"), refused, text_events(" world"))
    assert text_of(events) == "Hello world"
    assert [request.messages[-1].role for request in model.requests] == ["user", "assistant", "user"]


async def test_restart_voids_what_was_delivered() -> None:
    events, model = await run("restart", broken("Hello"), text_events("Hi"))
    at = events.index(Start("scripted", "scripted-model"))
    assert isinstance(events[at - 1], Notice)
    assert events[at - 1].kind == "reset"  # type: ignore[union-attr]
    assert model.requests[0] == model.requests[1]


async def test_it_breaks_twice() -> None:
    second = [Start("scripted", "m"), TextStart(0), TextDelta(0, "bb"), LOST]
    events, _ = await run("prefill", broken("aa"), second, text_events("cc"))
    assert text_of(events) == "aabbcc"
    assert [event.index for event in events if isinstance(event, TextStart)] == [0, 1, 2]


async def test_reasoning_before_the_text_stays() -> None:
    first = [
        Start("scripted", "m"), ReasoningStart(0), ReasoningDelta(0, "hm"), ReasoningEnd(0), TextStart(1),
        TextDelta(1, "a"), Usage(input_tokens=5, output_tokens=7, reasoning_tokens=2), LOST,
    ]  # fmt: skip
    events, _ = await run("prefill", first, text_events("b"))
    assert Usage(input_tokens=6, output_tokens=8, reasoning_tokens=2) in events
    assert text_of(events) == "ab"


@pytest.mark.parametrize("how", ["prefill", "prompt"])
async def test_an_answer_that_calls_tools_is_not_pieced_together(how: How) -> None:
    first = [Start("scripted", "m"), ToolCallStart(0, "c", "f"), LOST]
    with pytest.raises(ConnectionLost):
        await run(how, first, text_events("b"))


@pytest.mark.parametrize("how", ["prefill", "prompt", "restart"])
async def test_it_is_given_up_after_some_breaks(how: How) -> None:
    with pytest.raises(ConnectionLost) as caught:
        await run(how, broken("a"))
    assert caught.value.committed


async def test_what_must_not_be_repeated_is_raised() -> None:
    error = LoomstreamError("no")
    with pytest.raises(LoomstreamError, match="no"):
        await run("restart", [Start("scripted", "m"), TextStart(0), TextDelta(0, "a"), error], text_events("b"))


@given(st.text("ab \n", min_size=1, max_size=40), st.data())
async def test_no_character_is_doubled_or_lost(whole: str, data: st.DataObject) -> None:
    """A model that goes on exactly, after a turn without the blanks at its end, gives the whole text."""
    cut = data.draw(st.integers(1, len(whole)))
    said = whole[:cut]
    rest = whole[len(said.rstrip()) :] if said.strip() else whole[cut:]
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=len(rest), max_size=len(rest)))
    pieces: list[str] = []
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    if said.strip():
        events, _ = await run("prefill", broken(said), text_events(*pieces))
        assert text_of(events) == whole


@pytest.mark.parametrize("ends", [[LOST], []], ids=["error", "no Stop"])
async def test_what_waits_at_the_seam_is_given_before_the_last_error(ends: list[object]) -> None:
    """It may have become a repetition; now that nothing follows, it is what came."""
    rest = [Start("scripted", "m"), TextStart(0), TextDelta(0, "brown fox jump"), *ends]
    middleware = retry(wait=tenacity.wait_none(), resume="prompt", budget=RetryBudget(ratio=0, free=1))
    model = scripted_model(broken("The quick brown fox jumps"), rest, middleware=[middleware])  # type: ignore[arg-type]
    with pytest.raises(ConnectionLost if ends else StreamTruncated) as caught:
        await model.complete("hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "The quick brown fox jumpsbrown fox jump"


@pytest.mark.parametrize("how", ["prefill", "prompt", "restart"])
async def test_a_piece_that_lost_its_stop_is_gone_on_with(how: How) -> None:
    lost = [Start("scripted", "m"), TextStart(0), TextDelta(0, "Hello"), TextEnd(0)]
    calls: list[Request] = []

    @asynccontextmanager
    async def handler(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        calls.append(request)
        yield _given(lost if len(calls) == 1 else text_events(" world"))

    async with retry(wait=tenacity.wait_none(), resume=how)(handler)(Request(messages=())) as events:
        given = [event async for event in events]
    check_order(given)
    assert text_of(given) == "Hello world"
    assert len(calls) == 2


async def _given(events: Iterable[Event]) -> AsyncGenerator[Event]:
    for event in events:
        yield event
