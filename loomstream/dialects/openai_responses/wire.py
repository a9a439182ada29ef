"""The shapes of Responses on the wire: only what carries content is typed, the rest stays raw.

Contract: `Fields` reads without raising; its `frames` tells of all that was read through it whether a lone surrogate
was carried or bytes were replaced.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.dialects.bodies import compact
from loomstream.dialects.fields import as_text, count_of, is_null
from loomstream.errors import Failure
from loomstream.events import NULL
from loomstream.wire.json import Reader, carry_surrogates, has_unicode_escape, loads

_T = TypeVar("_T")


class StreamEvent(Struct, gc=False):
    """A frame of a stream."""

    type: str | None = None
    delta: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    text: RawJSON = NULL
    refusal: RawJSON = NULL
    arguments: RawJSON = NULL
    input: RawJSON = NULL
    item: RawJSON = NULL
    part: RawJSON = NULL
    annotation: RawJSON = NULL
    response: RawJSON = NULL
    error: RawJSON = NULL
    logprobs: RawJSON = NULL


TEXT_DELTA = "response.output_text.delta"


class TextDeltaFrame(Struct, gc=False, tag_field="type", tag=TEXT_DELTA):
    """The frame that nearly all of a stream consists of: it alone is read by itself, at half the cost."""

    delta: str
    output_index: int
    content_index: int | None = None
    logprobs: list[RawJSON] | None = None


class _Mistyped(Struct, gc=False):
    """A frame of which a field that only says where its content belongs is of another type."""

    type: RawJSON = NULL
    delta: str | None = None
    output_index: RawJSON = NULL
    content_index: RawJSON = NULL
    summary_index: RawJSON = NULL
    item_id: RawJSON = NULL
    text: RawJSON = NULL
    refusal: RawJSON = NULL
    arguments: RawJSON = NULL
    input: RawJSON = NULL
    item: RawJSON = NULL
    part: RawJSON = NULL
    annotation: RawJSON = NULL
    response: RawJSON = NULL
    error: RawJSON = NULL
    logprobs: RawJSON = NULL


class Item(Struct, gc=False):
    """An output item: the beginning of one in `output_item.added`, a whole one elsewhere."""

    type: str | None = None
    id: RawJSON = NULL
    call_id: RawJSON = NULL
    name: RawJSON = NULL
    arguments: RawJSON = NULL
    input: RawJSON = NULL
    summary: RawJSON = NULL
    content: RawJSON = NULL
    encrypted_content: RawJSON = NULL
    phase: RawJSON = NULL
    status: RawJSON = NULL


class ContentPart(Struct, gc=False):
    """One part of a message's `content`, or of a reasoning item's `summary` or `content`."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    annotations: RawJSON = NULL
    logprobs: RawJSON = NULL


class Answer(Struct, gc=False):
    """A response object: the head of one in `response.created`, a whole one at the end and in an unstreamed answer."""

    output: list[RawJSON] | None = None
    id: RawJSON = NULL
    model: RawJSON = NULL
    status: RawJSON = NULL
    usage: RawJSON = NULL
    error: RawJSON = NULL
    incomplete_details: RawJSON = NULL
    tools: RawJSON = NULL


_COUNTS = ("output_index", "content_index", "summary_index")
_KEPT = ("text", "refusal", "arguments", "input", "item", "part", "annotation", "response", "error", "logprobs")

text_delta_decoder = msgspec.json.Decoder(TextDeltaFrame)
_event_decoder = msgspec.json.Decoder(StreamEvent)
_mistyped_decoder = msgspec.json.Decoder(_Mistyped)
_item_decoder = msgspec.json.Decoder(Item)
_parts_decoder: msgspec.json.Decoder[list[ContentPart]] = msgspec.json.Decoder(list[ContentPart])
_part_decoder = msgspec.json.Decoder(ContentPart)
_answer_decoder = msgspec.json.Decoder(Answer)
_text_decoder: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)


class Fields:
    """Reads the frames of one stream and what they hold."""

    __slots__ = ("_answers", "_items", "_mistyped", "_part", "_parts", "_texts", "frames")

    def __init__(self) -> None:
        self.frames = Reader(_event_decoder)
        self._mistyped = Reader(_mistyped_decoder)
        self._items = Reader(_item_decoder)
        self._parts = Reader(_parts_decoder)
        self._part = Reader(_part_decoder)
        self._answers = Reader(_answer_decoder)
        self._texts = Reader(_text_decoder)

    def _read(self, reader: Reader[_T], data: bytes | RawJSON) -> _T | Failure:
        value = reader.read(bytes(data))
        self.frames.carried = self.frames.carried or reader.carried
        self.frames.replaced = self.frames.replaced or reader.replaced
        return value

    def leniently(self, data: bytes) -> tuple[StreamEvent, list[str]] | None:
        """Give a frame and which of its fields are mistyped; None where its content is, or it is no JSON object."""
        frame = self._read(self._mistyped, data)
        if isinstance(frame, Failure):
            return None
        event = StreamEvent(type=as_text(loads(frame.type)), delta=frame.delta)
        mistyped: list[str] = []
        for name in _COUNTS:
            value = None if is_null(raw := getattr(frame, name)) else loads(raw)
            setattr(event, name, count_of(value))
            mistyped += [name] if value is not None and type(value) is not int else []
        value = loads(frame.item_id)
        event.item_id = as_text(value) or None
        mistyped += ["item_id"] if value is not None and not isinstance(value, str) else []
        for name in _KEPT:
            setattr(event, name, getattr(frame, name))
        return event, mistyped

    def look(self, data: bytes) -> None:
        """Look for lone surrogates in a frame of which raw fields are read later."""
        if has_unicode_escape(data) and not self.frames.carried:
            text = data.decode("utf-8", "replace")
            self.frames.carried = carry_surrogates(text) != text

    def item(self, raw: RawJSON) -> Item | Failure:
        """Give an output item."""
        return self._read(self._items, raw)

    def parts(self, raw: RawJSON) -> list[ContentPart] | Failure:
        """Give the parts of an item, none where the field is absent."""
        return [] if is_null(raw) else self._read(self._parts, raw)

    def part(self, raw: RawJSON) -> ContentPart:
        """Give a part, an empty one where it is unreadable: the item itself will tell it again."""
        part = self._read(self._part, raw)
        return ContentPart() if isinstance(part, Failure) else part

    def answer(self, data: bytes | RawJSON) -> Answer | Failure:
        """Give a response object."""
        return self._read(self._answers, data)

    def text(self, raw: RawJSON) -> str:
        """Give a text, empty where there is none; what is no text as its JSON (arguments as an object)."""
        if raw is NULL or is_null(raw):
            return ""
        value = self._read(self._texts, raw)
        return compact(raw) if isinstance(value, Failure) else value
