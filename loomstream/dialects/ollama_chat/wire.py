"""The shapes of Ollama's chat on the wire: only what carries content is typed, the rest stays raw."""

from __future__ import annotations

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.events import NULL


class Function(Struct, gc=False):
    """The function of a tool call; `arguments` is a whole object, or a string of JSON text."""

    name: str | None = None
    arguments: RawJSON = NULL


class Call(Struct, gc=False):
    """A whole tool call."""

    id: RawJSON = NULL
    function: Function | None = None


class Message(Struct, gc=False):
    """What a line adds to the answer."""

    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[Call] | None = None


class Line(Struct, gc=False):
    """A line of a stream, or a whole answer."""

    message: Message | None = None
    done: RawJSON = NULL
    done_reason: RawJSON = NULL
    error: RawJSON = NULL
    model: RawJSON = NULL


line_decoder = msgspec.json.Decoder(Line)
