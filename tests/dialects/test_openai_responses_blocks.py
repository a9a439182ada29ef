# ruff: noqa: ANN401 (these tests take apart JSON of any shape)
"""Responses: documents, cache points and the optional fields of a request in the body, or named."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from loomstream.dialects import Quirks, Target
from loomstream.dialects import openai_responses as dialect
from loomstream.errors import RequestError
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    Image,
    Message,
    Output,
    Request,
    Text,
    ToolCall,
    ToolResult,
    user,
)
from loomstream.providers import look_up, route

PLAIN = Target(provider="openai", model="gpt-9", base_url="https://api.openai.com/v1")
MARKED = Target(provider="openai", model="gpt-9", quirks=Quirks(cache_points="prompt_cache_breakpoint"))
PDF = b"%PDF-1.7"
PDF_URL = f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}"
MARK = {"prompt_cache_breakpoint": {"mode": "explicit"}}
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def built(*messages: Message, to: Target = PLAIN, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give a body and its warnings."""
    wire = dialect.build_request(Request(messages=messages or (user("hi"),), stream=False, **fields), to)
    return json.loads(wire.body), wire.warnings


def content(*blocks: ContentBlock, to: Target = PLAIN) -> Any:
    """Give the content of the user's turn of these blocks."""
    return built(Message("user", blocks), to=to)[0]["input"][0]["content"]


def added(to: Target = PLAIN, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give what fields add to a body, and the warnings."""
    body, warnings = built(to=to, **fields)
    assert body.pop("store") is False
    assert body.pop("model") == to.model
    assert body.pop("input") == [{"type": "message", "role": "user", "content": "hi"}]
    return body, warnings


def target_of(provider: str, model: str) -> Target:
    row = look_up(provider)
    return Target(provider=provider, model=model, quirks=route(row, model, dialect="openai_responses").quirks)


# --- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (Document(PDF, name="a.pdf"), {"type": "input_file", "filename": "a.pdf", "file_data": PDF_URL}),
        (Document(PDF), {"type": "input_file", "filename": "document.pdf", "file_data": PDF_URL}),
        (Document(url="https://x/y.pdf"), {"type": "input_file", "file_url": "https://x/y.pdf"}),
        (
            Document(b"a,b", "text/csv"),
            {"type": "input_file", "filename": "document.csv", "file_data": "data:text/csv;base64,YSxi"},
        ),
        (Image(url="https://x/y"), {"type": "input_image", "image_url": "https://x/y", "detail": "auto"}),
    ],
)
def test_files_are_sent_by_their_bytes_or_their_address(block: ContentBlock, part: object) -> None:
    assert content(Text("see"), block) == [{"type": "input_text", "text": "see"}, part]
    assert built(Message("user", (Text("see"), block)))[1] == ()


def test_images_of_a_tool_s_result_are_sent_by_their_bytes_or_their_address() -> None:
    result = ToolResult("c", (Text("two:"), Image(b"x", "image/png"), Image(url="https://x/y")))
    body, warnings = built(Message("assistant", (ToolCall("c", "f"),)), Message("tool", (result,)))
    assert body["input"][1] == {
        "type": "function_call_output",
        "call_id": "c",
        "output": [
            {"type": "input_text", "text": "two:"},
            {"type": "input_image", "image_url": "data:image/png;base64,eA==", "detail": "auto"},
            {"type": "input_image", "image_url": "https://x/y", "detail": "auto"},
        ],
    }
    assert warnings == ()


def test_documents_of_a_tool_s_result_are_sent_in_their_order() -> None:
    result = ToolResult("c", (Document(PDF, name="a.pdf"), Text("that"), Document(url="https://x/y.pdf")))
    body, warnings = built(Message("assistant", (ToolCall("c", "f"),)), Message("tool", (result,)))
    assert body["input"][1]["output"] == [
        {"type": "input_file", "filename": "a.pdf", "file_data": PDF_URL},
        {"type": "input_text", "text": "that"},
        {"type": "input_file", "file_url": "https://x/y.pdf"},
    ]
    assert warnings == ()


def test_what_has_no_place_is_named() -> None:
    body, warnings = built(Message("user", (Text("hi"), Audio(b"x"), Document(PDF, citations=True))))
    assert len(body["input"][0]["content"]) == 2
    assert warnings == (
        "citations of documents are not asked for: this wire has no word for that",
        "sounds in user turns are not sent: this wire has no place for them",
    )
    assert built(Message("user", (Document(url="https://x/y.pdf", name="y"),)))[1] == (
        "the names of documents that go by their address are not sent",
    )
    assert built(Message("assistant", (Text("a"), Document(PDF))))[1] == (
        "documents in assistant turns are not sent: this wire has no place for them",
    )


# --- cache points --------------------------------------------------------------------------------


def test_a_cache_point_marks_the_part_before_it() -> None:
    turns = (
        Message("system", (Text("long"), CachePoint())),
        Message("user", (Text("a"), Document(url="https://x/y"), CachePoint("5m"), Text("b"))),
    )
    body, warnings = built(*turns, to=MARKED)
    assert body["input"] == [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "long", **MARK}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_file", "file_url": "https://x/y", **MARK},
                {"type": "input_text", "text": "b"},
            ],
        },
    ]
    assert warnings == ()


def test_a_tool_s_result_can_be_marked() -> None:
    results = (ToolResult("c", (Text("1"),)), CachePoint("1h"))
    body, warnings = built(Message("assistant", (ToolCall("c", "f"),)), Message("tool", results), to=MARKED)
    assert body["input"][1]["output"] == [{"type": "input_text", "text": "1", **MARK}]
    assert warnings == (
        "the time for which to cache is not sent: this host keeps what it caches for at least 30 minutes",
    )


def test_a_cache_point_marks_the_last_part_of_a_result() -> None:
    turn = Message("tool", (ToolResult("c", (Text("a"), Document(PDF, name="a.pdf"))), CachePoint()))
    body, warnings = built(Message("assistant", (ToolCall("c", "f"),)), turn, to=MARKED)
    assert body["input"][1]["output"] == [
        {"type": "input_text", "text": "a"},
        {"type": "input_file", "filename": "a.pdf", "file_data": PDF_URL, **MARK},
    ]
    assert warnings == ()


def test_a_cache_point_that_cannot_stand_is_named() -> None:
    turns = (Message("user", (CachePoint(), Text("a"))), Message("assistant", (Text("b"), CachePoint())))
    body, warnings = built(*turns, to=MARKED)
    assert "prompt_cache_breakpoint" not in json.dumps(body)
    assert warnings == ("cache points behind nothing, or behind what the model said, are not sent",)
    assert built(*turns)[1] == ("cache points are not sent: this host caches by itself, or not at all",)


@pytest.mark.parametrize(("model", "takes"), [("gpt-5.6", True), ("gpt-6-astra", True), ("gpt-5.4", False)])
def test_which_models_take_marks(model: str, *, takes: bool) -> None:
    body, _ = built(Message("user", (Text("a"), CachePoint())), to=target_of("openai", model))
    assert ("prompt_cache_breakpoint" in json.dumps(body)) == takes


@pytest.mark.parametrize(
    ("to", "asked", "said"),
    [
        (PLAIN, "5m", "cache_prompt is not sent: this host caches by itself, or not at all"),
        (MARKED, "1h", "the time for which to cache is not sent"),
        (MARKED, "5m", ""),
    ],
)
def test_a_prompt_is_cached_by_itself(to: Target, asked: str, said: str) -> None:
    body, warnings = added(to, cache_prompt=asked)
    assert body == {}
    assert said in "".join(warnings)
    assert bool(warnings) == bool(said)


# --- options -------------------------------------------------------------------------------------


def test_every_option_has_its_key() -> None:
    body, warnings = added(
        target_of("openai", "gpt-4o"),
        logprobs=2,
        output=Output(schema=SCHEMA, name="a b", description="d"),
        prompt_cache_key="k",
        end_user_id="u",
        service_tier="flex",
        metadata={"a": "b"},
    )
    assert warnings == ()
    assert body == {
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "text": {
            "format": {"type": "json_schema", "name": "a_b", "description": "d", "schema": SCHEMA, "strict": True}
        },
        "prompt_cache_key": "k",
        "safety_identifier": "u",
        "service_tier": "flex",
        "metadata": {"a": "b"},
    }


def test_probabilities_stand_beside_encrypted_reasoning() -> None:
    target = Target(provider="openai", model="gpt-9", quirks=Quirks(encrypted_reasoning=True))
    body, _ = added(target, logprobs=0, extra_body={"include": ["x"]})
    assert body == {"include": ["reasoning.encrypted_content", "message.output_text.logprobs", "x"]}


def test_what_a_model_or_a_host_does_not_take_is_named() -> None:
    body, warnings = added(target_of("xai", "grok-4"), metadata={"a": "b"}, prompt_cache_key="k", end_user_id="u")
    assert body == {"prompt_cache_key": "k", "user": "u", "include": ["reasoning.encrypted_content"]}
    assert warnings == ("metadata is not sent: this host does not take it",)
    body, warnings = added(target_of("openai", "gpt-5"), logprobs=1)
    assert body == {"include": ["reasoning.encrypted_content"]}
    assert warnings == ("logprobs is not sent: this model does not take it",)


@pytest.mark.parametrize("field", ["prediction", "routing", "cached_content"])
def test_what_the_wire_has_no_word_for_is_named(field: str) -> None:
    assert added(**{field: "x"}) == ({}, (f"{field} is not sent: this wire has none",))


def test_strict_json_that_cannot_be_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^output\.schema\.additionalProperties: strict mode"):
        added(output=Output(schema={"type": "object"}, strict=True))
