"""What the simulator writes, read by the dialects: two sides written apart agree, for any answer and any cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loomstream as ls
from loomstream.accumulate import fold
from loomstream.errors import Overloaded, ServerFault, UsageError, WireError
from loomstream.events import Event, File, Start, Stop, Usage
from loomstream.messages import Reasoning, Response, Text, ToolCall
from loomstream.testing import check_order, text_events, tool_call_events
from loomstream.testing.wires import WIRES, Answer, Block, Wire, answer_of, route
from loomstream.testing.wires.gemini import GEMINI_ARRAY
from loomstream.testing.wires.openai import CHAT_WHOLE_CALLS

PROVIDERS = {
    "openai_chat": "openai",
    "openai_responses": "openai",
    "anthropic_messages": "anthropic",
    "gemini": "gemini",
    "bedrock_converse": "bedrock",
    "bedrock_invoke": "bedrock",
    "ollama_chat": "ollama",
    "cohere_chat": "cohere",
}
SIDES = [*WIRES.values(), GEMINI_ARRAY, CHAT_WHOLE_CALLS]
NO_CACHE = {"ollama_chat"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PIECES = st.lists(TEXT, min_size=1, max_size=4).map(tuple).filter(lambda pieces: "".join(pieces).strip())
CALL = st.builds(lambda number, cut: ('{"n"' + f":{number}" + "}", cut), st.integers(0, 10**6), st.integers(1, 4))


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    blocks: list[Block] = []
    if draw(st.booleans()):
        blocks.append(Block(kind="reasoning", pieces=draw(PIECES)))
    if draw(st.booleans()) or not blocks:
        blocks.append(Block(kind="text", pieces=draw(PIECES)))
    calls = draw(st.lists(CALL, max_size=3))
    for number, (text, cut) in enumerate(calls):
        blocks.append(Block(kind="tool_call", pieces=(text[:cut], text[cut:]), id=f"call_{number}", name="look"))
    stop = "tool_use" if calls else draw(st.sampled_from(["end_turn", "max_tokens"]))
    count = st.integers(0, 10**6)
    usage = Usage(input_tokens=draw(count), output_tokens=draw(count), cache_read_tokens=draw(count))
    return Answer(blocks=tuple(blocks), usage=usage, stop=stop, model="m", id="a1")


def read(side: Wire, chunks: list[bytes], content_type: str) -> list[Event]:
    provider = PROVIDERS[side.name]
    events = list(ls.decode(provider, chunks, dialect=side.name, content_type=content_type, model="m"))
    check_order(events)
    return events


def content(response: Response) -> list[tuple[str, ...]]:
    told: list[tuple[str, ...]] = []
    for block in response.message.content:
        match block:
            case Text(text=text):
                told.append(("text", text))
            case Reasoning(text=text):
                told.append(("reasoning", text))
            case ToolCall(id=id_, name=name, arguments=arguments):
                told.append(("tool_call", id_, name, arguments))
            case _:
                raise AssertionError(block)
    return told


def said(answer: Answer) -> list[tuple[str, ...]]:
    return [
        ("tool_call", block.id, block.name, block.text) if block.kind == "tool_call" else (block.kind, block.text)
        for block in answer.blocks
    ]


@pytest.mark.parametrize("side", SIDES, ids=lambda side: f"{side.name}-{side.content_type.split(';')[0]}")
@settings(deadline=None, max_examples=30)
@given(answer=answers(), size=st.integers(1, 300))
def test_an_answer_is_read_as_it_was_meant(side: Wire, answer: Answer, size: int) -> None:
    body = b"".join(frame.data for frame in side.frames(answer))
    cut = [body[at : at + size] for at in range(0, len(body), size)]
    for chunks, content_type in ((cut, side.content_type), ([side.whole(answer)], "application/json")):
        response = fold(read(side, chunks, content_type))
        assert content(response) == said(answer)
        assert response.stop is not None
        assert response.stop.reason == answer.stop
        assert response.usage is not None
        told, meant = response.usage, answer.usage
        assert told.output_tokens == meant.output_tokens
        assert told.input_tokens + told.cache_read_tokens == meant.input_tokens + meant.cache_read_tokens
        assert side.name in NO_CACHE or told.cache_read_tokens == meant.cache_read_tokens


@pytest.mark.parametrize("name", ["anthropic_messages", "bedrock_converse", "bedrock_invoke"])
def test_a_signature_comes_through(name: str) -> None:
    answer = Answer(
        blocks=(Block(kind="reasoning", pieces=("hm",), signature="c2ln"), Block(kind="text", pieces=("a",)))
    )
    side = WIRES[name]
    response = fold(read(side, [frame.data for frame in side.frames(answer)], side.content_type))
    (reasoning,) = (block for block in response.message.content if isinstance(block, Reasoning))
    assert [opaque.data for opaque in reasoning.opaque] == ["c2ln"]


@pytest.mark.parametrize("side", SIDES, ids=lambda side: f"{side.name}-{side.content_type.split(';')[0]}")
def test_a_failure_in_the_middle_is_the_wires_own(side: Wire) -> None:
    sent = side.frames(answer_of("one two three"))[:-2]
    with pytest.raises((ServerFault, Overloaded)):
        read(side, [*(frame.data for frame in sent), side.failure("it broke")], side.content_type)


@pytest.mark.parametrize("side", SIDES, ids=lambda side: f"{side.name}-{side.content_type.split(';')[0]}")
def test_a_malformed_frame_is_malformed(side: Wire) -> None:
    sent = side.frames(answer_of("one two three"))
    chunks = [sent[0].data, side.malformed, *(frame.data for frame in sent[1:])]
    with pytest.raises(WireError):
        read(side, chunks, side.content_type)


def test_events_and_texts_are_scripts() -> None:
    assert answer_of("a  b ").blocks[0].pieces == ("a", "  b ")
    assert answer_of(text_events("a", "b")).blocks == (Block(kind="text", pieces=("a", "b")),)
    call = answer_of(tool_call_events("look", '{"a"', ":1}"))
    assert call.blocks == (Block(kind="tool_call", pieces=('{"a"', ":1}"), id="call_0", name="look"),)


def test_what_no_wire_can_say_is_refused() -> None:
    with pytest.raises(UsageError, match="File"):
        answer_of([Start(), File(0, id="f"), Stop("end_turn")])
    with pytest.raises(UsageError, match="no Stop"):
        answer_of([Start()])
    with pytest.raises(UsageError, match="no word for the stop reason 'pause'"):
        WIRES["ollama_chat"].frames(answer_of([Start(), Stop("pause")]))


@pytest.mark.parametrize(
    ("target", "body", "name", "streams", "model"),
    [
        ("/v1/chat/completions", {"model": "m", "stream": True}, "openai_chat", True, "m"),
        ("/openai/deployments/d/chat/completions?api-version=x", {}, "openai_chat", False, ""),
        (
            "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent?alt=sse",
            {},
            "gemini",
            True,
            "g",
        ),
        ("/v1/p/publishers/anthropic/models/c:streamRawPredict", {}, "anthropic_messages", True, "c"),
        ("/model/us.a%3A0/converse-stream", {}, "bedrock_converse", True, "us.a:0"),
        ("/api/chat", {"model": "m"}, "ollama_chat", True, "m"),
        ("/v2/chat", {"model": "m"}, "cohere_chat", False, "m"),
    ],
)
def test_addresses(target: str, body: dict[str, object], name: str, streams: bool, model: str) -> None:  # noqa: FBT001
    found = route(target, body)
    assert found is not None
    assert (found.wire.name, found.streams, found.model) == (name, streams, model)


def test_gemini_streams_an_array_where_no_events_are_asked_for() -> None:
    found = route("/v1beta/models/g:streamGenerateContent", {})
    assert found is not None
    assert found.wire is GEMINI_ARRAY
    assert route("/v1/nothing", {}) is None
