"""Reads a text frame that equals the one before but for its text, without reading the rest again.

Nearly all frames of an answer are `HEAD "text" TAIL` with the same head and tail. The last fully read frame of that
kind is the pattern. Where a frame begins with its head and ends with its tail, and what stands between is one whole
JSON string, then the frame is the same JSON document with another text, and means the same; anything else is read in
full. So that the string is the one that the full reading gave, the key must occur once in the pattern, its value must
be that text, and the rest may hold no Unicode escape, by which a second such key could be written.

Contract: pure; gives a text or None; never raises. docs/decisions/0008 has the measurement.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

_UNICODE_ESCAPE = rb"\u"
# possessive: a repeated choice would keep a way back for each byte of the text
_STRING = rb'[ \t\r\n]*+:[ \t\r\n]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")'
_MEMBERS = {key: re.compile(b'"%b"' % key + _STRING, re.DOTALL) for key in (b"content", b"text")}
_GIVE_UP_AFTER = 8
"""Patterns that matched nothing before patterns are no longer learnt (a host whose every frame differs elsewhere)."""

_UNREADABLE = (msgspec.DecodeError, UnicodeError)
_decode_string = msgspec.json.Decoder(str).decode


class Shortcut:
    """The pattern of the last text frame."""

    __slots__ = ("_head", "_key", "_member", "_misses", "_shortest", "_tail")

    def __init__(self, key: Literal[b"content", b"text"]) -> None:
        self._key = b'"%b"' % key
        self._member = _MEMBERS[key]
        self._head = b""
        self._tail = b""
        self._shortest = 0
        self._misses = 0

    def text(self, data: bytes) -> str | None:
        """Give the text of a frame that fits the pattern, else None."""
        if not self._shortest or not data.startswith(self._head) or not data.endswith(self._tail):
            return None
        if len(data) < self._shortest:
            return None
        try:
            text = _decode_string(data[len(self._head) : len(data) - len(self._tail)])
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
        self._shortest = len(head) + len(tail) + len(b'""')


def _read_string(literal: bytes) -> str | None:
    try:
        return _decode_string(literal)
    except _UNREADABLE:
        return None
