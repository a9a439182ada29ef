"""The shapes of Messages on the wire: only what carries content is typed, the rest stays raw."""

from __future__ import annotations

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.events import NULL


class Delta(Struct, gc=False):
    """The `delta` of a `content_block_delta`, or of a `message_delta`."""

    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: RawJSON = NULL
    stop_reason: RawJSON = NULL
    stop_details: RawJSON = NULL


class StreamEvent(Struct, gc=False):
    """A frame of a stream."""

    type: str | None = None
    index: int | None = None
    delta: Delta | None = None
    content_block: RawJSON = NULL
    message: RawJSON = NULL
    usage: RawJSON = NULL
    error: RawJSON = NULL


class Block(Struct, gc=False):
    """A content block: the beginning of one in a stream, a whole one in an answer."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    citations: RawJSON = NULL
    id: RawJSON = NULL
    name: RawJSON = NULL
    input: RawJSON = NULL
    tool_use_id: RawJSON = NULL
    content: RawJSON = NULL
    is_error: RawJSON = NULL


class Answer(Struct, gc=False):
    """A message: the head of one in `message_start`, a whole one in an answer that was not streamed."""

    type: str | None = None
    content: list[RawJSON] | None = None
    id: RawJSON = NULL
    model: RawJSON = NULL
    usage: RawJSON = NULL
    stop_reason: RawJSON = NULL
    stop_details: RawJSON = NULL
    error: RawJSON = NULL


stream_event_decoder = msgspec.json.Decoder(StreamEvent)
block_decoder = msgspec.json.Decoder(Block)
answer_decoder = msgspec.json.Decoder(Answer)
