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
    logprobs: RawJSON = NULL


class PlainMessage(Struct, gc=False, forbid_unknown_fields=True):
    """The message of a line that adds nothing but text or thinking."""

    role: str = ""
    content: str | None = None
    thinking: str | None = None


class PlainLine(Struct, gc=False, forbid_unknown_fields=True):
    """A line in the middle of an answer, with every member that the server gives it.

    `remote_…` tell of a model that runs in the cloud.
    """

    message: PlainMessage
    done: bool
    model: str = ""
    created_at: str = ""
    remote_model: str = ""
    remote_host: str = ""


plain_decoder = msgspec.json.Decoder(PlainLine)
line_decoder = msgspec.json.Decoder(Line)
