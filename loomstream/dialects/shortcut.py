"""Reads the frames that most of an answer is made of faster than a full reading, and to the same events.

`Shortcut` reads a frame that equals the one before but for its text, without reading the rest again.
Nearly all frames of an answer are `HEAD "text" TAIL` with the same head and tail. The last fully read frame of that
kind is the pattern. Where a frame begins with its head and ends with its tail, and what stands between is one whole
JSON string, then the frame is the same JSON document with another text, and means the same; anything else is read in
full. So that the string is the one that the full reading gave, the key must occur once in the pattern, its value must
be that text, and the rest may hold no Unicode escape, by which a second such key could be written.
A read that brings one frame is compared whole: what stands around the payload is then part of the head and the tail. A
JSON string holds no line end, so such a chunk is cut into lines and fields just as the one that was decoded.

`PlainReader` reads a frame of one exact shape: a type that names every member and refuses any other. What it gives
holds all that the frame says, so that nothing else need be looked for. It serves the wires whose frames differ in a
side field too, where there is no pattern.

Contract: pure; gives a value or None, where the frame must be read in full; never raises. docs/decisions/0008 and 0015
have the measurements.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec

from loomstream.errors import Failure
from loomstream.events import Event, TextDelta
from loomstream.wire.json import has_unicode_escape

_NEWLINE = 0x0A  # as a number it is found several times faster than as bytes
# possessive: a repeated choice would keep a way back for each byte of the text
_STRING = rb'[ \t\r\n]*+:[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")'
_MEMBERS = {key: re.compile(b'"%b"' % key + _STRING, re.DOTALL) for key in (b"content", b"text")}
_GIVE_UP_AFTER = 8
"""Patterns that matched nothing before patterns are no longer learnt (a host whose every frame differs elsewhere)."""

_LONGEST_WRITTEN = 64 * 1024
"""A larger chunk goes through its decoder, which knows the limit of a frame."""
_UNREADABLE = (msgspec.DecodeError, UnicodeError)
UNFIT = (ValueError, RecursionError)
"""What a decoder raises at a frame that is not of its shape; msgspec's errors and UnicodeError are ValueErrors."""
_T = TypeVar("_T")
_decode_string = msgspec.json.Decoder(str).decode


class Pattern:
    """What the frames of a text have in common: the bytes up to the string's first quote, and from its last one."""

    __slots__ = ("between", "head", "longest", "tail")

    def __init__(self, head: bytes, tail: bytes, longest: int = sys.maxsize) -> None:
        self.head = head
        self.tail = tail
        self.between = slice(len(head) - 1, 1 - len(tail) or None)
        """Where the string stands in what fits, with its quotes: no line end beside it belongs to it."""
        self.longest = longest
        """What has more bytes does not fit."""


_NO_PATTERN = Pattern(b'"', b'"', 0)
"""Fits nothing."""


class Shortcut:
    """The pattern of the last text frame."""

    __slots__ = ("_key", "_member", "_misses", "frame", "index", "written")

    def __init__(self, key: Literal[b"content", b"text"]) -> None:
        self._key = b'"%b"' % key
        self._member = _MEMBERS[key]
        self._misses = 0
        self.index = -1
        """The block to which a frame that fits adds; -1 where none may be read so."""
        self.frame = _NO_PATTERN
        """The pattern of a frame's payload."""
        self.written = _NO_PATTERN
        """The same with all that was written around the payload, for a chunk that begins with a frame."""

    def events(self, data: bytes, pattern: Pattern) -> list[Event | Failure] | None:
        """Give the events of bytes that fit one of the patterns, else None."""
        if self.index < 0 or not data.startswith(pattern.head) or not data.endswith(pattern.tail):
            return None
        if len(data) > pattern.longest:
            return None
        try:
            text = _decode_string(data[pattern.between])
        except _UNREADABLE:
            return None
        self._misses = 0
        return [TextDelta(self.index, text)] if text else []

    def learn(self, data: bytes, delta: TextDelta) -> None:
        """Take a frame that was read in full, and whose only event is this one, as the pattern."""
        self.index = -1
        self.frame = self.written = _NO_PATTERN
        if self._misses >= _GIVE_UP_AFTER:
            return
        self._misses += 1
        key = data.find(self._key)
        member = self._member.match(data, key) if key >= 0 and data.count(self._key) == 1 else None
        if member is None:
            return
        start, end = member.span(1)
        head, tail = data[: start + 1], data[end - 1 :]
        if has_unicode_escape(head) or has_unicode_escape(tail) or _read_string(member[1]) != delta.text:
            return
        self.index = delta.index
        self.frame = Pattern(head, tail)

    def learn_written(self, chunk: bytes, data: bytes) -> None:
        """Take how a frame was written: `chunk` is this payload, no other, and what its framing adds."""
        frame = self.frame
        if self.index < 0 or not data.startswith(frame.head) or not data.endswith(frame.tail):
            return
        if _NEWLINE not in data and chunk.count(data) == 1:  # of one line, and not also in a comment
            before, _, behind = chunk.partition(data)
            self.written = Pattern(before + frame.head, frame.tail + behind, _LONGEST_WRITTEN)


def _read_string(literal: bytes) -> str | None:
    try:
        return _decode_string(literal)
    except _UNREADABLE:
        return None


class PlainReader(Generic[_T]):
    """Reads frames of one exact shape.

    The shape's struct must forbid unknown fields, hold no raw field that is not checked afterwards, and name a type for
    each member that the full reading takes without complaint and in the same meaning.
    """

    __slots__ = ("_misses", "decode")

    def __init__(self, decoder: msgspec.json.Decoder[_T]) -> None:
        self.decode: Callable[[bytes], _T] | None = decoder.decode
        """The bare reading, for a loop over frames; raises `UNFIT` where a frame is not of the shape.

        Such a loop says `missed` then, and `fitted` after the next one that is. None after a few misses in a row.
        """
        self._misses = 0

    def fitted(self) -> None:
        """Say that a frame was of the shape."""
        self._misses = 0

    def missed(self) -> None:
        """Say that a frame was not of the shape."""
        self._misses += 1
        if self._misses >= _GIVE_UP_AFTER:
            self.decode = None

    def read(self, data: bytes) -> _T | None:
        """Give the value of a frame that is of the shape, else None; after a few misses in a row always None."""
        if self.decode is None:
            return None
        try:
            value = self.decode(data)
        except UNFIT:
            self.missed()
            return None
        if self._misses:
            self.fitted()
        return value
