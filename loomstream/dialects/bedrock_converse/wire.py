"""The shapes of Converse on the wire: only what carries content is typed, the rest stays raw."""

from __future__ import annotations

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.events import NULL


class ToolPiece(Struct, gc=False):
    """More of a tool call's input, as JSON text."""

    input: str | None = None


class ReasoningPiece(Struct, gc=False, rename="camel"):
    """More reasoning: text, its signature, or encrypted content (base64)."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class Delta(Struct, gc=False, rename="camel"):
    """The `delta` of a `contentBlockDelta`: a union, of which one member is there."""

    text: str | None = None
    tool_use: ToolPiece | None = None
    reasoning_content: ReasoningPiece | None = None
    citation: RawJSON = NULL
    tool_result: RawJSON = NULL
    image: RawJSON = NULL


class StreamEvent(Struct, gc=False, rename="camel"):
    """The payload of any event of a stream."""

    content_block_index: int | None = None
    delta: Delta | None = None
    start: RawJSON = NULL
    stop_reason: RawJSON = NULL
    additional_model_response_fields: RawJSON = NULL
    usage: RawJSON = NULL
    trace: RawJSON = NULL


class PlainReasoning(Struct, gc=False, forbid_unknown_fields=True):
    """Reasoning that is nothing but text."""

    text: str


class PlainDelta(Struct, gc=False, forbid_unknown_fields=True, rename="camel"):
    """A delta of text or of reasoning."""

    text: str | None = None
    reasoning_content: PlainReasoning | None = None


class PlainEvent(Struct, gc=False, forbid_unknown_fields=True, rename="camel"):
    """The whole payload of a `contentBlockDelta` that adds text; `p` is padding."""

    content_block_index: int
    delta: PlainDelta
    p: str = ""


class WholeReasoning(Struct, gc=False, rename="camel"):
    """A whole block of reasoning."""

    reasoning_text: ReasoningPiece | None = None
    redacted_content: str | None = None


class WholeText(Struct, gc=False):
    """A text within a block."""

    text: str | None = None


class WholeCitations(Struct, gc=False):
    """A whole block of text with its citations."""

    content: list[WholeText] | None = None
    citations: list[RawJSON] | None = None


class Block(Struct, gc=False, rename="camel"):
    """A whole content block: a union, of which one member is there."""

    text: str | None = None
    reasoning_content: WholeReasoning | None = None
    citations_content: WholeCitations | None = None
    tool_use: RawJSON = NULL
    tool_result: RawJSON = NULL
    image: RawJSON = NULL


class WholeMessage(Struct, gc=False):
    """The message of an answer that was not streamed."""

    content: list[RawJSON] | None = None


class Output(Struct, gc=False):
    """The output of an answer that was not streamed."""

    message: WholeMessage | None = None


class Answer(Struct, gc=False, rename="camel"):
    """An answer that was not streamed."""

    output: Output | None = None
    stop_reason: RawJSON = NULL
    additional_model_response_fields: RawJSON = NULL
    usage: RawJSON = NULL
    trace: RawJSON = NULL
    message: RawJSON = NULL


stream_event_decoder = msgspec.json.Decoder(StreamEvent)
plain_decoder = msgspec.json.Decoder(PlainEvent)
block_decoder = msgspec.json.Decoder(Block)
answer_decoder = msgspec.json.Decoder(Answer)
