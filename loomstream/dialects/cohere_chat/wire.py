"""The shapes of Cohere's chat on the wire: only what carries content is typed, the rest stays raw.

Each frame has a shape of its own, chosen by its `type`: the same member (`content`, `tool_calls`, `citations`) is an
array in `message-start` and an object in the frames that fill it.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.events import NULL


class Content(Struct, gc=False):
    """A content block: the beginning of one, a piece of one, or a whole one."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class Function(Struct, gc=False):
    """The function of a tool call: its name, and its arguments or a piece of them."""

    name: RawJSON = NULL
    arguments: str | None = None


class Call(Struct, gc=False):
    """A tool call: the beginning of one, a piece of one, or a whole one."""

    id: RawJSON = NULL
    function: Function | None = None


class _Frame(Struct, tag_field="type", gc=False):
    """A frame of a stream."""


class MessageStart(_Frame, tag="message-start", gc=False):
    """The answer begins."""

    id: RawJSON = NULL


class ContentMessage(Struct, gc=False):
    """The `message` of a content frame."""

    content: Content | None = None


class ContentBody(Struct, gc=False):
    """The `delta` of a content frame."""

    message: ContentMessage | None = None


class ContentStart(_Frame, tag="content-start", gc=False):
    """A content block opens."""

    index: int | None = None
    delta: ContentBody | None = None


class ContentDelta(_Frame, tag="content-delta", gc=False):
    """A content block grows."""

    index: int | None = None
    delta: ContentBody | None = None
    logprobs: RawJSON = NULL


class ContentEnd(_Frame, tag="content-end", gc=False):
    """A content block is closed."""

    index: int | None = None


class PlanMessage(Struct, gc=False):
    """The `message` of a plan frame."""

    tool_plan: str | None = None


class PlanBody(Struct, gc=False):
    """The `delta` of a plan frame."""

    message: PlanMessage | None = None


class PlanDelta(_Frame, tag="tool-plan-delta", gc=False):
    """The plan for the tool calls grows."""

    delta: PlanBody | None = None


class CallMessage(Struct, gc=False):
    """The `message` of a tool-call frame: one call, whatever the name says."""

    tool_calls: Call | None = None


class CallBody(Struct, gc=False):
    """The `delta` of a tool-call frame."""

    message: CallMessage | None = None


class CallStart(_Frame, tag="tool-call-start", gc=False):
    """A tool call opens. Calls are counted apart from content blocks."""

    index: int | None = None
    delta: CallBody | None = None


class CallDelta(_Frame, tag="tool-call-delta", gc=False):
    """A tool call's arguments grow."""

    index: int | None = None
    delta: CallBody | None = None


class CallEnd(_Frame, tag="tool-call-end", gc=False):
    """A tool call is whole."""

    index: int | None = None


class CitationMessage(Struct, gc=False):
    """The `message` of a citation frame: one citation, whatever the name says."""

    citations: RawJSON = NULL


class CitationBody(Struct, gc=False):
    """The `delta` of a citation frame."""

    message: CitationMessage | None = None


class CitationStart(_Frame, tag="citation-start", gc=False):
    """A citation, whole. `index` counts citations."""

    delta: CitationBody | None = None


class CitationEnd(_Frame, tag="citation-end", gc=False):
    """Says nothing."""


class End(Struct, gc=False):
    """The `delta` of the last frame."""

    finish_reason: RawJSON = NULL
    usage: RawJSON = NULL
    error: RawJSON = NULL


class MessageEnd(_Frame, tag="message-end", gc=False):
    """The answer is over."""

    delta: End | None = None


StreamFrame = (
    ContentDelta
    | PlanDelta
    | CallDelta
    | MessageStart
    | ContentStart
    | ContentEnd
    | CallStart
    | CallEnd
    | CitationStart
    | CitationEnd
    | MessageEnd
)


class Message(Struct, gc=False):
    """The message of a whole answer."""

    content: list[RawJSON] | None = None
    tool_plan: str | None = None
    tool_calls: list[Call] | None = None
    citations: list[RawJSON] | None = None


class Answer(Struct, gc=False):
    """A whole answer. `message` is text in an error."""

    id: RawJSON = NULL
    message: RawJSON = NULL
    finish_reason: RawJSON = NULL
    usage: RawJSON = NULL
    error: RawJSON = NULL
    logprobs: RawJSON = NULL


stream_decoder: msgspec.json.Decoder[StreamFrame] = msgspec.json.Decoder(StreamFrame)
answer_decoder = msgspec.json.Decoder(Answer)
message_decoder = msgspec.json.Decoder(Message)
content_decoder = msgspec.json.Decoder(Content)

FRAME_TYPES = frozenset(str(kind.__struct_config__.tag) for kind in StreamFrame.__args__)
"""The types of frames that have a shape here."""
