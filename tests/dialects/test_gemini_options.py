# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
"""What Gemini's wire carries beside text and tools: media, structured output, probabilities, caches, labels, tiers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from loomstream.dialects import Target
from loomstream.dialects import gemini as dialect
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
    Tool,
    user,
)

TARGET = Target(provider="gemini", model="gemini-3-flash-preview", base_url="https://host.example/v1beta")
HI = [{"role": "user", "parts": [{"text": "hi"}]}]
PDF, WAV = b"%PDF-1.7 x", b"RIFF....WAVEfmt "


def built(request: Request) -> tuple[Any, tuple[str, ...]]:
    wire_request = dialect.build_request(request, TARGET)
    return json.loads(wire_request.body), wire_request.warnings


def asking(**settings: Any) -> Request:
    return Request(messages=(user("hi"),), **settings)


def saying(*blocks: ContentBlock) -> Request:
    return Request(messages=(Message("user", blocks),))


def schema_of(schema: dict[str, Any], **fields: Any) -> tuple[Any, tuple[str, ...]]:
    body, warnings = built(asking(output=Output(schema=schema, **fields)))
    return body["generationConfig"]["responseJsonSchema"], warnings


# --- blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (Image(b"\x89PNG\r\n\x1a\n"), ("image/png", b"\x89PNG\r\n\x1a\n")),
        (Audio(WAV), ("audio/wav", WAV)),
        (Audio(b"ID3", "audio/mpeg"), ("audio/mpeg", b"ID3")),
        (Document(PDF), ("application/pdf", PDF)),
        (Document(b"a,b", "text/csv"), ("text/csv", b"a,b")),
    ],
)
def test_files_go_as_their_bytes(block: ContentBlock, part: tuple[str, bytes]) -> None:
    body, warnings = built(saying(Text("see"), block))
    inline = {"inlineData": {"mimeType": part[0], "data": base64.b64encode(part[1]).decode()}}
    assert body == {"contents": [{"role": "user", "parts": [{"text": "see"}, inline]}]}
    assert warnings == ()


@pytest.mark.parametrize(
    ("block", "media_type"),
    [
        (Image(url="https://host.example/a"), "image/png"),
        (Audio(url="https://host.example/a", media_type="audio/mpeg"), "audio/mpeg"),
        (Document(url="https://host.example/a"), "application/pdf"),
    ],
)
def test_files_elsewhere_go_by_their_address(block: ContentBlock, media_type: str) -> None:
    file = {"fileData": {"mimeType": media_type, "fileUri": "https://host.example/a"}}
    assert built(saying(block))[0] == {"contents": [{"role": "user", "parts": [file]}]}


def test_what_a_document_cannot_be_told() -> None:
    body, warnings = built(saying(Document(PDF, name="report.pdf", citations=True), CachePoint()))
    assert len(body["contents"][0]["parts"]) == 1
    assert warnings == (
        "the names of documents are not sent",
        "citations of documents are not asked for: this wire has none",
        "cache points are not sent",
    )


def test_bytes_of_no_type_are_refused_with_their_place() -> None:
    request = Request(messages=(user("hi"), Message("user", (Text("a"), Audio(WAV, media_type="")))))
    with pytest.raises(RequestError, match=r"messages\[1\]\.content\[1\] has no media_type"):
        dialect.build_request(request, TARGET)


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"logprobs": 0}, {"generationConfig": {"responseLogprobs": True}}),
        ({"logprobs": 5}, {"generationConfig": {"responseLogprobs": True, "logprobs": 5}}),
        ({"cached_content": "cachedContents/c1"}, {"cachedContent": "cachedContents/c1"}),
        ({"metadata": {"team": "tides"}}, {"labels": {"team": "tides"}}),
        ({"service_tier": "flex"}, {"serviceTier": "flex"}),
    ],
)
def test_options(settings: dict[str, Any], fields: dict[str, Any]) -> None:
    assert built(asking(**settings)) == ({"contents": HI, **fields}, ())


@pytest.mark.parametrize(
    "settings",
    [
        {"cache_prompt": "5m"},
        {"prompt_cache_key": "k"},
        {"end_user_id": "u"},
        {"latency": "optimized"},
        {"prediction": "p"},
        {"keep_alive_s": 60},
        {"context_tokens": 4096},
        {"routing": "fastest"},
    ],
)
def test_options_that_the_wire_has_not(settings: dict[str, Any]) -> None:
    [name] = settings
    assert built(asking(**settings)) == ({"contents": HI}, (f"{name} is not sent: this wire has none",))


def test_a_tool_s_schema_goes_whole() -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"anyOf": [{"type": "string", "format": "date", "minLength": 3}, {"type": "null"}]}},
        "required": ["x"],
    }
    body, warnings = built(asking(tools=(Tool("f", "Does it.", schema),)))
    [declared] = body["tools"][0]["functionDeclarations"]
    assert declared == {"name": "f", "description": "Does it.", "parametersJsonSchema": schema}
    assert warnings == ()


# --- structured output -------------------------------------------------------------------------------------------


def test_an_answer_of_a_schema() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    assert built(asking(output=Output(schema=schema, description="Where."))) == (
        {
            "contents": HI,
            "generationConfig": {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"description": "Where.", **schema},
            },
        },
        (),
    )


def test_what_is_not_enforced_is_sent_and_named_by_its_path() -> None:
    schema = {
        "type": "object",
        "title": "T",
        "properties": {
            "pattern": {"type": "string", "pattern": "^a", "default": "a"},
            "n": {"type": "array", "items": {"anyOf": [{"type": "integer", "multipleOf": 2}, {"type": "null"}]}},
        },
        "patternProperties": {"^x": {"maxLength": 3}},
        "additionalProperties": False,
    }
    sent, warnings = schema_of(schema)
    assert sent == schema
    [warning] = warnings
    assert warning == (
        "this wire does not hold the answer to output.schema.properties.pattern.pattern, "
        "output.schema.properties.n.items.anyOf[0].multipleOf, output.schema.patternProperties, "
        "output.schema.patternProperties.^x.maxLength"
    )


def test_many_keywords_are_counted() -> None:
    schema = {"properties": {str(number): {"pattern": "a"} for number in range(11)}}
    assert schema_of(schema)[1][0].endswith("output.schema.properties.7.pattern, and 3 more")


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"const": "a"}, {"enum": ["a"]}),
        ({"type": "integer", "const": 1, "enum": [1, 2]}, {"type": "integer", "enum": [1]}),
        ({"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}),
        ({"$ref": "#/$defs/A", "description": "d"}, {"description": "d", "anyOf": [{"$ref": "#/$defs/A"}]}),
        ({"prefixItems": [{"const": "a"}, True]}, {"prefixItems": [{"enum": ["a"]}, True]}),
    ],
)
def test_what_can_be_said_in_other_words_is(schema: dict[str, Any], sent: dict[str, Any]) -> None:
    whole = {"$defs": {"A": {"const": "x"}}, "properties": {"const": schema}}
    expected = {"$defs": {"A": {"enum": ["x"]}}, "properties": {"const": sent}}
    assert schema_of(whole) == (expected, ())


def test_a_constant_that_no_enumeration_holds_is_named() -> None:
    sent, warnings = schema_of({"properties": {"x": {"const": True}}})
    assert sent == {"properties": {"x": {"const": True}}}
    assert warnings == ("this wire does not hold the answer to output.schema.properties.x.const",)


def test_a_loose_schema_cannot_be_asked_for() -> None:
    assert schema_of({"type": "object"}, strict=False)[1] == ("output.strict is not sent: this wire is always strict",)
    assert schema_of({"type": "object"}, strict=True)[1] == ()


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"x": "string"}}, r"output\.schema\.properties\.x is a str"),
        ({"anyOf": [{}, 7]}, r"output\.schema\.anyOf\[1\] is an int"),
        ({"items": [None]}, r"output\.schema\.items\[0\] is None"),
        ({"properties": ["x"]}, r"output\.schema\.properties is a list"),
        ({"not": 1}, r"output\.schema\.not is an int"),
    ],
)
def test_a_schema_that_is_none_is_refused_with_its_path(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(RequestError, match=f"{place}: give a JSON Schema"):
        schema_of(schema)


def test_a_schema_without_an_end_is_refused() -> None:
    schema: dict[str, Any] = {"type": "object"}
    schema["not"] = schema
    with pytest.raises(RequestError, match=r"output\.schema(\.not)+ is more than 100 schemas deep"):
        schema_of(schema)
