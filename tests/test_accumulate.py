"""The fold: any valid list of events gives the message that they spell, at every moment."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw as RawJSON

from loomstream.accumulate import Accumulator, fold, total_cost, with_cost
from loomstream.errors import UsageError
from loomstream.events import (
    Citation,
    Cost,
    Event,
    File,
    Limits,
    Logprobs,
    Notice,
    Opaque,
    Raw,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    ServerToolCall,
    ServerToolResult,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Unknown,
    Usage,
)
from loomstream.messages import (
    Choice,
    ContentBlock,
    FileBlock,
    Message,
    Reasoning,
    Refusal,
    Response,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    ToolCall,
)
from loomstream.testing import check_order, text_events, tool_call_events

SIGNATURE = Opaque("anthropic", "signature", "sig")


class Block:
    """One block of a random answer: the events it still has to send, and what they spell."""

    def __init__(self, events: list[Event], meaning: ContentBlock | None) -> None:
        self.events = events
        self.meaning = meaning


pieces = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), max_size=4)


def text_block(index: int, parts: list[str]) -> Block:
    deltas: list[Event] = [TextDelta(index, part) for part in parts]
    return Block([TextStart(index), *deltas, TextEnd(index)], Text("".join(parts)) if parts else None)


def reasoning_block(index: int, parts: list[str]) -> Block:
    deltas: list[Event] = [ReasoningDelta(index, part) for part in parts]
    meaning = Reasoning("".join(parts), (SIGNATURE,))
    return Block([ReasoningStart(index), *deltas, ReasoningEnd(index, (SIGNATURE,))], meaning)


def tool_block(index: int, parts: list[str]) -> Block:
    arguments = "".join(parts) or "{}"
    deltas: list[Event] = [ToolCallDelta(index, part) for part in parts]
    end = ToolCallEnd(index, f"id{index}", "f", "{}" if not arguments.strip() else arguments)
    return Block([ToolCallStart(index, f"id{index}", "f"), *deltas, end], ToolCall(end.id, "f", end.arguments))


def refusal_block(index: int, parts: list[str]) -> Block:
    parts = parts or ["no"]
    return Block([RefusalDelta(index, part) for part in parts], Refusal("".join(parts)))


def file_block(index: int, parts: list[str]) -> Block:
    file = File(index, "image/png", "".join(parts).encode())
    return Block([file], FileBlock("image/png", file.data))


MAKERS = (text_block, reasoning_block, tool_block, refusal_block, file_block)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Event], list[ContentBlock]]:
    """Give the events of a random answer whose blocks grow side by side, and the blocks that they spell."""
    blocks = [draw(st.sampled_from(MAKERS))(index, draw(pieces)) for index in range(draw(st.integers(0, 6)))]
    meanings = [block.meaning for block in blocks if block.meaning is not None]
    waiting, growing = blocks[:], list[Block]()
    events: list[Event] = [Start("p", "m")]
    while waiting or growing:
        if waiting and (not growing or draw(st.booleans())):
            growing.append(waiting.pop(0))
            block = growing[-1]
        else:
            block = draw(st.sampled_from(growing))
        events.append(block.events.pop(0))
        if not block.events:
            growing.remove(block)
        if draw(st.integers(0, 9)) == 0:
            events.append(draw(st.sampled_from([Usage(output_tokens=1), Notice("warning", "x"), Raw("r", "d")])))
    return [*events, Usage(output_tokens=7, final=True), Stop("end_turn", "stop")], meanings


@settings(max_examples=80, deadline=None)
@given(answers())
def test_the_fold_is_what_the_events_spell(answer: tuple[list[Event], list[ContentBlock]]) -> None:
    events, meanings = answer
    check_order(events)
    response = fold(events)
    assert list(response.message.content) == meanings
    assert response.usage == Usage(output_tokens=7, final=True)
    assert response.complete


@settings(max_examples=40, deadline=None)
@given(answers())
def test_a_snapshot_is_the_fold_of_what_came_so_far_and_disturbs_nothing(
    answer: tuple[list[Event], list[ContentBlock]],
) -> None:
    events, _ = answer
    watched, whole = Accumulator(), fold(events)
    for position, event in enumerate(events):
        watched.add(event)
        snapshot = watched.response
        assert snapshot == fold(events[: position + 1])
        assert whole.text.startswith(snapshot.text) or not snapshot.complete
    assert watched.response == whole


def test_an_old_snapshot_does_not_grow() -> None:
    accumulator = Accumulator()
    accumulator.add(Start())
    accumulator.add(TextStart(0))
    accumulator.add(TextDelta(0, "a"))
    before = accumulator.response
    accumulator.add(TextDelta(0, "b"))
    assert before.text == "a"
    assert accumulator.response.text == "ab"


def test_nothing_folds_to_an_empty_response() -> None:
    assert fold([]) == Response()
    assert not Response().complete


def test_a_hundred_thousand_deltas() -> None:
    accumulator = Accumulator()
    for event in (Start(), TextStart(0)):
        accumulator.add(event)
    for position in range(100_000):
        accumulator.add(TextDelta(0, str(position % 10)))
    assert accumulator.response.text == "0123456789" * 10_000


def test_the_cost_of_an_epoch_is_not_that_of_the_next() -> None:
    events = [Start(), Usage(output_tokens=1), Cost(provider="p", model="m", amount_usd=Decimal(1), exact=True)]
    accumulator = Accumulator()
    for event in (*events, Notice("reset"), Start()):
        accumulator.add(event)
    assert not accumulator.cost_is_current
    assert [usage is None for _, usage in accumulator.bills] == [False, True]


def test_a_reset_empties_the_fold() -> None:
    first = [
        *text_events("void")[:-1],
        Unknown("x", "y"),
        Notice("reset", "another provider goes on"),
    ]
    accumulator = Accumulator()
    for event in first:
        accumulator.add(event)
    emptied = accumulator.response
    assert emptied.message == Message("assistant", ())
    assert (emptied.provider, emptied.choices, emptied.unknown_frames, emptied.warnings) == ("", (), 0, ())
    for event in tool_call_events("f", provider="other"):
        accumulator.add(event)
    assert accumulator.response.provider == "other"
    assert accumulator.response.message.content == (ToolCall("call_0", "f", "{}"),)


def test_other_notices_leave_the_fold_alone() -> None:
    events = text_events("a")
    noisy = [event for kind in ("heartbeat", "resume", "warning") for event in (Notice(kind), *events)]
    assert fold([*noisy[: len(events)], events[-1]]).text == "a"


def test_the_head_and_the_end_are_kept() -> None:
    start = Start("p", "m", "response-1", "request-1", Limits(remaining_requests=3), ("top_k is not sent",))
    cost = Cost(provider="p", model="m")
    response = fold([start, Unknown("ping", "{}"), cost, Stop("pause", "pause_turn")])
    assert (response.provider, response.model) == ("p", "m")
    assert (response.response_id, response.request_id) == ("response-1", "request-1")
    assert response.limits == Limits(remaining_requests=3)
    assert response.warnings == ("top_k is not sent",)
    assert response.unknown_frames == 1
    assert response.cost is cost
    assert response.stop == Stop("pause", "pause_turn")


def test_a_call_that_is_cut_is_not_executable() -> None:
    (call,) = fold([Start(), ToolCallStart(0, "id", "f"), ToolCallDelta(0, '{"x"')]).tool_calls
    assert call == ToolCall("id", "f", '{"x"', executable=False)


def test_the_end_of_a_call_has_the_last_word() -> None:
    end = ToolCallEnd(0, "id", "f", " {} ", (SIGNATURE,), executable=False)
    (call,) = fold([Start(), ToolCallStart(0, "", ""), ToolCallDelta(0, " {} "), end]).tool_calls
    assert call == ToolCall("id", "f", " {} ", (SIGNATURE,), executable=False)


def test_reasoning_without_text_is_kept_for_its_signature() -> None:
    response = fold([Start(), ReasoningStart(0), ReasoningEnd(0, (SIGNATURE,))])
    assert response.message.content == (Reasoning("", (SIGNATURE,)),)


@pytest.mark.parametrize(
    "events", [[TextStart(0)], [TextStart(0), TextEnd(0)], [ReasoningStart(0)], [ReasoningStart(0), ReasoningEnd(0)]]
)
def test_a_block_that_holds_nothing_is_no_block(events: list[Event]) -> None:
    assert fold([Start(), *events]).message.content == ()


def test_citations_stay_with_their_text_also_after_its_end() -> None:
    one, two = Citation(0, "web", "https://a"), Citation(0, "web", "https://b")
    response = fold([Start(), TextStart(0), one, TextDelta(0, "a"), TextEnd(0), two])
    assert response.message.content == (Text("a", (one, two)),)
    assert fold([Start(), TextStart(0), one]).message.content == (Text("", (one,)),)


def test_token_probabilities_stay_with_their_text_also_after_its_end() -> None:
    one, two = TokenLogprob("a", -0.5, (("a", -0.5), ("b", -1.0))), TokenLogprob("c", -2.0)
    response = fold([Start(), TextStart(0), TextDelta(0, "ac"), Logprobs(0, (one,)), TextEnd(0), Logprobs(0, (two,))])
    assert response.message.content == (Text("ac", logprobs=(one, two)),)


def test_what_the_provider_ran_is_kept_whole() -> None:
    call = ServerToolCall(0, "id", "web_search", '{"q":1}', raw=RawJSON(b'{"a":1}'))
    result = ServerToolResult(1, "id", "web_search", RawJSON(b"[]"), is_error=True, raw=RawJSON(b"{}"))
    content = fold([Start(), call, result]).message.content
    assert content == (
        ServerToolCallBlock("id", "web_search", '{"q":1}', RawJSON(b'{"a":1}')),
        ServerToolResultBlock("id", "web_search", RawJSON(b"[]"), is_error=True, raw=RawJSON(b"{}")),
    )


def test_choices_are_kept_apart_and_the_first_is_the_message() -> None:
    events: list[Event] = [
        Start(),
        TextStart(0, 1),
        TextStart(1, 0),
        TextDelta(0, "one"),
        TextDelta(1, "zero"),
        RefusalDelta(2, "no", 1),
    ]
    response = fold(events)
    assert response.message.text == "zero"
    assert response.choices == (
        Choice(0, Message("assistant", (Text("zero"),))),
        Choice(1, Message("assistant", (Text("one"), Refusal("no")))),
    )


@pytest.mark.parametrize(
    "event",
    [TextDelta(0, "a"), ReasoningDelta(0, "a"), ReasoningEnd(0), ToolCallDelta(0, "a"), Citation(0)],
    ids=lambda event: type(event).__name__,
)
def test_an_event_of_a_block_that_never_opened_is_a_usage_error(event: Event) -> None:
    with pytest.raises(UsageError, match=f"{type(event).__name__} .*block 0"):
        fold([Start(), event])


def test_an_end_without_its_start_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="block 3"):
        fold([Start(), ToolCallEnd(3, "id", "f", "{}")])


def test_content_is_noted() -> None:
    accumulator = Accumulator()
    for event in (Start(), TextStart(0), Usage()):
        accumulator.add(event)
    assert not accumulator.has_content
    accumulator.add(TextDelta(0, "a"))
    assert accumulator.has_content


def test_with_cost_changes_the_cost_alone() -> None:
    response, cost = fold(text_events("a")), Cost(provider="p", model="m", attempts=2)
    assert with_cost(response, cost).cost is cost
    assert with_cost(with_cost(response, cost), response.cost) == response


def test_a_cost_is_current_until_the_next_usage() -> None:
    accumulator = Accumulator()
    seen: list[bool] = []
    for event in (Start(), Usage(), Cost(provider="p", model="m"), TextStart(0), TextDelta(0, "a"), Usage()):
        accumulator.add(event)
        seen.append(accumulator.cost_is_current)
    assert seen == [False, False, True, True, True, False]


def test_each_epoch_has_a_bill_of_its_own() -> None:
    accumulator = Accumulator()
    first, second = Start("p", "m"), Start("p", "n")
    for event in (first, Usage(output_tokens=1), Usage(output_tokens=2), Notice("reset"), second):
        accumulator.add(event)
    assert accumulator.bills == [(first, Usage(output_tokens=2)), (second, None)]
    accumulator.add(Usage(output_tokens=3))
    assert accumulator.bills == [(first, Usage(output_tokens=2)), (second, Usage(output_tokens=3))]


def exactly(amount: str | None) -> Cost:
    usd = None if amount is None else Decimal(amount)
    return Cost(provider="p", model="m", amount_usd=usd, lower_usd=usd, upper_usd=usd, exact=usd is not None)


@pytest.mark.parametrize(
    ("amounts", "total", "exact"),
    [(["1"], "1", True), (["1", "2"], "3", False), (["1", None], None, False), ([None, "1"], None, False)],
)
def test_what_several_attempts_cost(amounts: list[str | None], total: str | None, *, exact: bool) -> None:
    cost = total_cost([exactly(amount) for amount in amounts])
    assert cost.amount_usd == cost.lower_usd == (None if total is None else Decimal(total))
    assert (cost.exact, cost.upper_usd is not None, cost.attempts) == (exact, exact, len(amounts))


def test_several_attempts_that_nobody_bills() -> None:
    cost = total_cost([exactly("0"), exactly("0")])
    assert (cost.amount_usd, cost.upper_usd, cost.exact, cost.attempts) == (0, 0, True, 2)
