# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from goldens import Goldens, Outcome, split

from loomstream import decode
from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.dialects import bedrock_converse as dialect
from loomstream.dialects.blocks import MAX_BLOCKS
from loomstream.errors import BadFrame, LimitExceeded
from loomstream.events import (
    Citation,
    Event,
    File,
    ReasoningEnd,
    ServerToolCall,
    Stop,
    ToolCallEnd,
    Unknown,
    Usage,
)
from loomstream.messages import (
    Message,
)
from loomstream.testing import check_order
from loomstream.wire import Frame

TARGET = Target(provider="bedrock", model="asked-model", base_url="https://bedrock-runtime.us-west-2.amazonaws.com")
SIGNATURE = "EqQBCgIYAhIkMWEw+/ab=="
PIXEL = b"\x89PNG\r\n\x1a\n"
HEAD = ("messageStart", {"role": "assistant"})
END = ("messageStop", {"stopReason": "end_turn"}), ("metadata", {"usage": {"inputTokens": 1, "outputTokens": 2}})


def aws_frames(body: bytes) -> list[Frame]:
    """Let botocore take the messages apart; only those before a wrong one count."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [Frame(str(one.headers.get(":event-type", "")), one.payload, one.headers) for one in buffer]


GOLDENS = Goldens(dialect, TARGET, "bedrock_converse", aws_frames, after=Frame("messageStart", b"{}"))
PLAIN = [name for name in GOLDENS.healthy if name not in {"frame-unknown-no-json", "garbage-metadata", "not-utf-8"}]


def frame(name: str, value: Any) -> Frame:
    return Frame(name, value if isinstance(value, bytes) else json.dumps(value).encode())


def stream(*frames: tuple[str, Any]) -> Outcome:
    return GOLDENS.translate([frame(*one) for one in (HEAD, *frames, *END)])


def delta(index: int, **change: Any) -> tuple[str, Any]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": change}


def events_of(name: str) -> list[Event]:
    return GOLDENS.translate(GOLDENS.frames(name))[0]


# --- streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_no_damaged_node_breaks_the_law(name: str) -> None:
    whole = fold(GOLDENS.translate(GOLDENS.respelt(name))[0])
    for path, (events, error) in GOLDENS.damage(name):
        if path[0] in {"p", "usage", "metrics", "trace", "additionalModelResponseFields", "role"}:
            assert error is None
            assert fold(events).message == whole.message


@pytest.mark.parametrize("name", ["messageStart", "contentBlockStart", "contentBlockDelta", "messageStop"])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"x" * 1000])
def test_garbage_is_a_bad_frame(name: str, data: bytes) -> None:
    events, error = GOLDENS.translate([frame(name, data)])
    assert events == []
    assert isinstance(error, BadFrame)
    assert (error.provider, error.model) == ("bedrock", "asked-model")


def test_too_many_blocks() -> None:
    events, error = stream(*(delta(number, text="x") for number in range(MAX_BLOCKS + 1)))
    assert isinstance(error, LimitExceeded)
    check_order(events, complete=False)


@pytest.mark.parametrize("kind", [{}, {"type": "server_tool_use"}])
def test_too_long_arguments(kind: dict[str, str]) -> None:
    piece = delta(0, toolUse={"input": "x" * 3_000_000})
    start = "contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "a", "name": "f", **kind}}}
    _, error = stream(start, piece, piece, piece)
    assert isinstance(error, LimitExceeded)


def test_the_goldens_hold_every_kind() -> None:
    kinds = {type(event) for name in GOLDENS.streams if "wrong" not in name for event in events_of_any(name)}
    assert kinds >= {Citation, File, ServerToolCall, ToolCallEnd, Unknown, ReasoningEnd, Stop}


def events_of_any(name: str) -> list[Event]:
    return events_of(name) if name in GOLDENS.healthy else []


@pytest.mark.parametrize("member", ["signature", "redactedContent"])
def test_what_comes_in_many_pieces_is_joined_once(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decode_base64, seen = base64.b64decode, 0

    def count(data: str, **options: Any) -> bytes:
        nonlocal seen
        seen += len(data)
        return decode_base64(data, **options)

    monkeypatch.setattr(base64, "b64decode", count)
    events, error = stream(*[delta(0, reasoningContent={member: "QUJD"})] * 500)
    assert error is None
    (ended,) = (event for event in events if isinstance(event, ReasoningEnd))
    assert [opaque.data for opaque in ended.opaque] == ["QUJD" * 500]
    assert seen <= 4 * 500


def test_a_usage_told_before_the_end_is_final_once() -> None:
    first, second = ("metadata", {"usage": {"inputTokens": 1}}), ("metadata", {"usage": {"inputTokens": 2}})
    events, error = GOLDENS.translate([frame(*one) for one in (HEAD, first, second, END[0])])
    assert error is None
    check_order(events)
    told = [(event.input_tokens, event.final) for event in events if isinstance(event, Usage)]
    assert told == [(1, False), (2, False), (2, True)]


# --- whole answers -----------------------------------------------------------------------------------------------


def answer(*content: Any, **fields: Any) -> Any:
    return {"output": {"message": {"role": "assistant", "content": list(content)}}, "stopReason": "end_turn", **fields}


def tool_start(index: int, **fields: Any) -> tuple[str, Any]:
    return "contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": fields}}


SAME: dict[str, tuple[Any, list[tuple[str, Any]]]] = {
    "text": ({"text": "Hi"}, [delta(0, text="H"), delta(0, text="i")]),
    "empty": ({"text": ""}, [delta(0, text="")]),
    "reasoning": (
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": SIGNATURE}}},
        [delta(0, reasoningContent={"text": "hm"}), delta(0, reasoningContent={"signature": SIGNATURE})],
    ),
    "redacted": (
        {"reasoningContent": {"redactedContent": "QUJD"}},
        [delta(0, reasoningContent={"redactedContent": "QUJD"})],
    ),
    "call": (
        {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1.0}}},
        [tool_start(0, toolUseId="t", name="f"), delta(0, toolUse={"input": '{"a":1.0}'})],
    ),
    "call-null": (
        {"toolUse": {"toolUseId": "t", "name": "f", "input": None}},
        [tool_start(0, toolUseId="t", name="f")],
    ),
    "server-call": (
        {"toolUse": {"toolUseId": "t", "name": "f", "type": "server_tool_use", "input": {"a": 1}}},
        [
            tool_start(0, toolUseId="t", name="f", type="server_tool_use"),
            delta(0, toolUse={"input": '{"a":'}),
            delta(0, toolUse={"input": "1}"}),
        ],
    ),
    "server-result": (
        {"toolResult": {"toolUseId": "t", "content": [{"text": "x"}]}},
        [
            ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolResult": {"toolUseId": "t"}}}),
            delta(0, toolResult=[{"text": "x"}]),
        ],
    ),
    "citations": (
        {"citationsContent": {"content": [{"text": "Hi"}], "citations": [{"location": {"web": {"url": "u"}}}]}},
        [delta(0, text="Hi"), delta(0, citation={"location": {"web": {"url": "u"}}})],
    ),
    "citations-empty": ({"citationsContent": {}}, []),
    "image": (
        {"image": {"format": "gif", "source": {"bytes": "QUJD"}}},
        [
            ("contentBlockStart", {"contentBlockIndex": 0, "start": {"image": {"format": "gif"}}}),
            delta(0, image={"source": {"bytes": "QUJD"}}),
        ],
    ),
}


@pytest.mark.parametrize(("block", "deltas"), SAME.values(), ids=SAME)
def test_a_whole_answer_folds_as_the_stream_does(block: Any, deltas: list[tuple[str, Any]]) -> None:
    usage = {"inputTokens": 1, "outputTokens": 2}
    whole, error = split(dialect.parse_response(json.dumps(answer(block, usage=usage)).encode(), TARGET))
    streamed, streamed_error = stream(*deltas, ("contentBlockStop", {"contentBlockIndex": 0}))
    assert error is streamed_error is None
    check_order(whole)
    assert without_raw(fold(whole).message) == without_raw(fold(streamed).message)
    assert fold(whole).usage == fold(streamed).usage


def without_raw(message: Message) -> list[Any]:
    """Give the blocks; the order of the members of a server's block is not what counts."""
    fields = [{name: getattr(block, name) for name in block.__struct_fields__} for block in message.content]
    return [{**one, "raw": json.loads(bytes(one["raw"]))} if "raw" in one else one for one in fields]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"output":null}'])
def test_a_garbage_answer_is_a_bad_frame(data: bytes) -> None:
    events, error = split(dialect.parse_response(data, TARGET))
    assert events == []
    assert isinstance(error, BadFrame)


def test_a_stream_by_its_own_name() -> None:
    body = (GOLDENS.folder / "text.bin").read_bytes()
    assert fold(list(decode("bedrock", body))).text == "Good morning"
