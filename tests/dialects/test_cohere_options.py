# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
"""What Cohere's wire carries beside text and tools: documents, structured output, probabilities, and what it leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from goldens import Goldens, frame, split, sse_frames

from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.dialects import cohere_chat as dialect
from loomstream.errors import RequestError
from loomstream.events import Logprobs, Notice, TokenLogprob
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    FileBlock,
    Message,
    Output,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    user,
)
from loomstream.testing import check_order
from loomstream.wire import Frame

TARGET = Target(provider="cohere", model="command-a-03-2025", base_url="https://api.cohere.com")
GOLDENS = Goldens(dialect, TARGET, "cohere_chat", sse_frames, after=Frame("", b'{"type":"message-end"}'))
HI = {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "hi"}], "stream": True}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NO_TEXT = "documents that are no text at hand are not sent: this wire takes the bytes of text or JSON"


def asking(**settings: Any) -> Request:
    return Request(messages=(user("hi"),), **settings)


def saying(*blocks: ContentBlock, **settings: Any) -> Request:
    return Request(messages=(Message("user", (Text("hi"), *blocks)),), **settings)


def built(request: Request) -> tuple[Any, tuple[str, ...]]:
    wire_request = dialect.build_request(request, TARGET)
    return json.loads(wire_request.body), wire_request.warnings


# --- documents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "data"),
    [
        (Document("Ebb & höher".encode(), "text/plain"), {"text": "Ebb & höher"}),
        (Document(b"# Ebb", "text/markdown", name="tides.md", citations=True), {"title": "tides.md", "text": "# Ebb"}),
        (Document(b'{"high": "06:12", "m": 1.50}', "application/json"), {"high": "06:12", "m": 1.5}),
        (Document(b"[1]", "application/json"), {"text": "[1]"}),
        (Document(b"{}", "application/json", name="a.json"), {"title": "a.json", "text": "{}"}),
    ],
)
def test_a_document_stands_beside_the_conversation(document: Document, data: dict[str, Any]) -> None:
    assert built(saying(document)) == ({**HI, "documents": [{"data": data}]}, ())


def test_documents_of_all_turns_in_order() -> None:
    turns = (Message("user", (Document(b"a", "text/plain"),)), user("hi"), Message("user", (Document(b"b", "text/a"),)))
    body, _ = built(Request(messages=turns))
    assert body["messages"] == HI["messages"]
    assert body["documents"] == [{"data": {"text": "a"}}, {"data": {"text": "b"}}]


def test_a_text_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(RequestError, match=r"messages\[0\]\.content\[1\]\.data is no UTF-8 .* at byte 1"):
        built(saying(Document(b"a\xff", "text/plain")))


@pytest.mark.parametrize(
    ("block", "warning"),
    [
        (Document(b"%PDF-1.7"), NO_TEXT),
        (Document(url="https://host.example/a", media_type="text/plain"), NO_TEXT),
        (Audio(b"ID3", "audio/mpeg"), "audio is not sent: this wire takes none"),
        (CachePoint("5m"), "cache points are not sent: this wire has none"),
        (FileBlock("image/png", b"x"), "files that a model made, and calls of a provider's own tools, are not sent"),
    ],
)
def test_what_the_wire_cannot_carry_is_left_out_and_named(block: ContentBlock, warning: str) -> None:
    assert built(saying(block)) == (HI, (warning,))


def result(*content: Text | Document) -> Any:
    call, answer = Message("assistant", (ToolCall("t1", "f"),)), Message("tool", (ToolResult("t1", content),))
    body, warnings = built(Request(messages=(user("hi"), call, answer)))
    return body["messages"][2]["content"], warnings


def test_documents_of_text_in_a_tool_s_result_can_be_cited() -> None:
    named = Document(b"# Ebb", "text/markdown", name="tides.md")
    texts = [{"data": {"text": "see"}}, {"data": {"title": "tides.md", "text": "# Ebb"}}]
    assert result(Text("see"), named) == ([{"type": "document", "document": data} for data in texts], ())
    assert result(Document(b'{"a":1}', "application/json")) == (
        [{"type": "document", "document": {"data": {"a": 1}}}],
        (),
    )
    assert result(Text("see"), Document(b"%PDF-x")) == ("see", (NO_TEXT,))
    with pytest.raises(RequestError, match=r"messages\[2\]\.content\[0\]\.content\[1\]\.data is no UTF-8"):
        result(Text("see"), Document(b"\xff", "text/plain"))


# --- options -----------------------------------------------------------------------------------------------------


def test_an_answer_of_a_schema() -> None:
    sent = {"type": "json_object", "json_schema": {"description": "Where.", **CITY}}
    assert built(asking(output=Output(schema=CITY, description="Where."))) == ({**HI, "response_format": sent}, ())


def test_what_is_not_enforced_is_sent_and_named_by_its_path() -> None:
    schema = {**CITY, "properties": {"n": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}}}
    body, warnings = built(asking(output=Output(schema=schema, strict=False)))
    assert body["response_format"]["json_schema"] == schema
    assert warnings == (
        "output.strict is not sent: this wire is always strict",
        (
            "this wire does not hold the answer to output.schema.properties.n.anyOf, "
            "output.schema.properties.n.anyOf[0].minimum"
        ),
    )


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "array"}, r"output\.schema\.type is 'array': this wire takes the schema of an object"),
        ({}, r"output\.schema\.type is None"),
        ({"type": "object", "properties": {"x": 1}}, r"output\.schema\.properties\.x is an int: give a JSON Schema"),
    ],
)
def test_a_schema_that_cannot_be_expressed_is_refused_with_its_path(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(RequestError, match=place):
        built(asking(output=Output(schema=schema)))


@pytest.mark.parametrize(
    "request_",
    [
        asking(output=Output(schema=CITY), tools=(Tool("f"),)),
        saying(Document(b"a", "text/plain"), output=Output(schema=CITY)),
    ],
)
def test_a_schema_goes_with_neither_tools_nor_documents(request_: Request) -> None:
    body, warnings = built(request_)
    assert "response_format" not in body
    assert warnings == ("output is not sent: this wire takes it with neither tools nor documents",)


def test_probabilities() -> None:
    assert built(asking(logprobs=0)) == ({**HI, "logprobs": True}, ())
    warning = "logprobs are asked for without alternatives: this wire gives those of the chosen tokens"
    assert built(asking(logprobs=2)) == ({**HI, "logprobs": True}, (warning,))


@pytest.mark.parametrize(
    "extra",
    [{"strict_tools": True}, {"safety_mode": "STRICT"}, {"citation_options": {"mode": "FAST"}}, {"priority": 3}],
)
def test_what_goes_by_extra_body(extra: dict[str, Any]) -> None:
    assert built(asking(extra_body=extra)) == ({**HI, **extra}, ())


@pytest.mark.parametrize(
    "settings",
    [
        {"cache_prompt": "5m"},
        {"prompt_cache_key": "k"},
        {"cached_content": "c"},
        {"metadata": {"a": "b"}},
        {"end_user_id": "u"},
        {"service_tier": "flex"},
        {"latency": "optimized"},
        {"prediction": "p"},
        {"keep_alive_s": 60},
        {"context_tokens": 4096},
        {"routing": "fastest"},
    ],
)
def test_options_that_the_wire_has_not(settings: dict[str, Any]) -> None:
    [name] = settings
    assert built(asking(**settings)) == (HI, (f"{name} is not sent: this wire has none",))


# --- token probabilities -----------------------------------------------------------------------------------------


def delta(content: dict[str, Any], logprobs: Any) -> Frame:
    return frame(
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": content}}, "logprobs": logprobs}
    )


START = frame({"type": "message-start", "id": "m"})
END = frame({"type": "message-end", "delta": {"finish_reason": "COMPLETE"}})


def test_a_whole_answer_has_the_probabilities_of_the_stream() -> None:
    pieces = [
        {"text": "Ti", "token_ids": [1], "logprobs": [-0.5]},
        {"text": "des", "token_ids": [2, 3], "logprobs": [-0.25, -0.5]},
    ]
    opened = frame({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text"}}}})
    deltas = [delta({"text": piece["text"]}, piece) for piece in pieces]
    closed = frame({"type": "content-end", "index": 0})
    streamed, _ = GOLDENS.translate([START, opened, *deltas, closed, END])
    message = {"role": "assistant", "content": [{"type": "text", "text": "Tides"}]}
    body = {"id": "m", "message": message, "finish_reason": "COMPLETE", "logprobs": pieces}
    events, error = split(dialect.parse_response(json.dumps(body).encode(), TARGET))
    assert error is None
    check_order(events)
    assert fold(events) == fold(streamed)
    expected = (TokenLogprob("Ti", -0.5), TokenLogprob("des", -0.75))
    assert fold(events).message.content == (Text("Tides", logprobs=expected),)


@pytest.mark.parametrize(
    ("content", "logprobs"),
    [
        ({"thinking": "Hm"}, {"text": "Hm", "token_ids": [1], "logprobs": [-1]}),
        ({"text": "Hm"}, {"text": 7}),
        ({"text": "Hm"}, ["x"]),
    ],
)
def test_probabilities_that_belong_to_no_text_are_told_once(content: dict[str, Any], logprobs: Any) -> None:
    events, error = GOLDENS.translate([START, delta(content, logprobs), delta(content, logprobs), END])
    assert error is None
    assert not any(isinstance(event, Logprobs) for event in events)
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert notice.detail == "token probabilities that belong to no text, or cannot be read, are left out"


def test_frames_alike_but_for_their_probabilities_are_each_read() -> None:
    frames = [delta({"text": text}, {"token_ids": [1], "text": text, "logprobs": [-1]}) for text in ("a", "b", "c")]
    events, _ = GOLDENS.translate([START, *frames, END])
    assert [event.tokens[0].token for event in events if isinstance(event, Logprobs)] == ["a", "b", "c"]
