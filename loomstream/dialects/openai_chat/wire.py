"""The shapes of Chat Completions on the wire: only what carries content is typed, the rest stays raw."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec import Raw as RawJSON

from loomstream.events import NULL


class Function(Struct, gc=False):
    """The function of a tool call; `arguments` may be a string, an object or null."""

    name: str | None = None
    arguments: RawJSON = NULL


class ToolCallPiece(Struct, gc=False):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | int | None = None
    function: Function | None = None
    custom: RawJSON = NULL


class Delta(Struct, gc=False):
    """A choice's `delta` in a stream, its `message` in a whole answer."""

    content: str | list[RawJSON] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: RawJSON = NULL
    refusal: str | None = None
    tool_calls: list[ToolCallPiece] | None = None
    function_call: Function | None = None
    annotations: RawJSON = NULL
    images: RawJSON = NULL
    audio: RawJSON = NULL
    executed_tools: RawJSON = NULL
    extra_content: RawJSON = NULL


class Choice(Struct, gc=False):
    """One answer of several."""

    index: int = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    error: RawJSON = NULL
    usage: RawJSON = NULL
    logprobs: RawJSON = NULL
    top_logprobs: RawJSON = NULL


class Chunk(Struct, gc=False):
    """A frame of a stream, or a whole answer."""

    choices: list[Choice] | None = None
    usage: RawJSON = NULL
    error: RawJSON = NULL
    id: RawJSON = NULL
    model: RawJSON = NULL
    x_groq: RawJSON = NULL
    citations: RawJSON = NULL
    search_results: RawJSON = NULL
    prompt_filter_results: RawJSON = NULL


class PlainDelta(Struct, gc=False, forbid_unknown_fields=True):
    """A delta that says a text or nothing: what else hosts send in it is null."""

    role: str | None = None
    content: str | None = None
    reasoning_content: None = None
    reasoning: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class PlainChoice(Struct, gc=False, forbid_unknown_fields=True):
    """A choice that says a text, its end or nothing."""

    delta: PlainDelta
    index: int = 0
    finish_reason: str | None = None
    logprobs: None = None


class PlainChunk(Struct, gc=False, forbid_unknown_fields=True):
    """A frame that says a text or the end of a choice, and nothing beside."""

    choices: Annotated[list[PlainChoice], Meta(min_length=1, max_length=1)]
    id: str = ""
    object: str | None = None
    created: int | None = None
    model: str = ""
    usage: None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    obfuscation: str | None = None


class ContentPart(Struct, gc=False):
    """One part of a content list (Mistral): text, thinking that is a list of text parts itself, or something else."""

    type: str = ""
    text: str = ""
    thinking: str | list[ContentPart] | None = None
    signature: RawJSON = NULL


plain_chunk_decoder = msgspec.json.Decoder(PlainChunk)
chunk_decoder = msgspec.json.Decoder(Chunk)
part_decoder = msgspec.json.Decoder(ContentPart)
