"""Reads the frames that most of an answer is made of faster than a full reading, and to the same events.

`Shortcut` reads a frame that equals the one before but for its text, without reading the rest again.
Nearly all frames of an answer are `HEAD "text" TAIL` with the same head and tail. The last fully read frame of that
kind is the pattern. Where a frame begins with its head and ends with its tail, and what stands between is one whole
JSON string, then the frame is the same JSON document with another text, and means the same; anything else is read in
full. So that the string is the one that the full reading gave, the key must occur once in the pattern, its value must
be that text, and the rest may hold no Unicode escape, by which a second such key could be written.

`PlainReader` reads a frame of one exact shape: a type that names every member and refuses any other. What it gives
holds all that the frame says, so that nothing else need be looked for. It serves the wires whose frames differ in a
side field too, where there is no pattern.

Contract: pure; gives a value or None, where the frame must be read in full; never raises. docs/decisions/0008 and 0015
have the measurements.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec

_UNICODE_ESCAPE = rb"\u"
# possessive: a repeated choice would keep a way back for each byte of the text
_STRING = rb'[ \t\r\n]*+:[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")'
_MEMBERS = {key: re.compile(b'"%b"' % key + _STRING, re.DOTALL) for key in (b"content", b"text")}
_GIVE_UP_AFTER = 8
"""Patterns that matched nothing before patterns are no longer learnt (a host whose every frame differs elsewhere)."""

_UNREADABLE = (msgspec.DecodeError, UnicodeError)
UNFIT = (ValueError, RecursionError)
"""What a decoder raises at a frame that is not of its shape; msgspec's errors and UnicodeError are ValueErrors."""
_T = TypeVar("_T")
_decode_string = msgspec.json.Decoder(str).decode


class Shortcut:
    """The pattern of the last text frame."""

    __slots__ = ("_between", "_head", "_key", "_member", "_misses", "_shortest", "_tail")

    def __init__(self, key: Literal[b"content", b"text"]) -> None:
        self._key = b'"%b"' % key
        self._member = _MEMBERS[key]
        self._head = b""
        self._tail = b""
        self._between = slice(0)
        """What stands between the two."""
        self._shortest = 0
        self._misses = 0

    def text(self, data: bytes) -> str | None:
        """Give the text of a frame that fits the pattern, else None."""
        if not self._shortest or not data.startswith(self._head) or not data.endswith(self._tail):
            return None
        if len(data) < self._shortest:
            return None
        try:
            text = _decode_string(data[self._between])
        except _UNREADABLE:
            return None
        self._misses = 0
        return text

    def learn(self, data: bytes, text: str) -> None:
        """Take a frame that was read in full, and whose only content is this text, as the pattern."""
        self._shortest = 0
        if self._misses >= _GIVE_UP_AFTER:
            return
        self._misses += 1
        key = data.find(self._key)
        member = self._member.match(data, key) if key >= 0 and data.count(self._key) == 1 else None
        if member is None:
            return
        start, end = member.span(1)
        head, tail = data[:start], data[end:]
        if _UNICODE_ESCAPE in head or _UNICODE_ESCAPE in tail or _read_string(member[1]) != text:
            return
        self._head, self._tail = head, tail
        self._between = slice(len(head), -len(tail) or None)
        self._shortest = len(head) + len(tail) + len(b'""')


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
