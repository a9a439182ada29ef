"""The only entry for JSON from the wire.

Contract: `Reader.read` gives a typed value or a `Failure`, whatever the bytes; it never raises. Text is
decoded as UTF-8 first, with U+FFFD for what is not (as WHATWG says for event streams). Depth is
bounded. Lone surrogates, which no event may hold, are carried through as private code points (see `SURROGATE_OFFSET`)
so that a translator can join the two halves of a character that was cut over two deltas.
"""

from __future__ import annotations

import json
import re
from typing import Any, Generic, TypeVar, cast

import msgspec

from loomstream.errors import BadFrame, Failure, LimitExceeded

MAX_DEPTH = 128
"""Nesting deeper than this is refused: msgspec alone accepts more and then leaks RecursionError."""

SURROGATE_OFFSET = 0x100000
"""A lone surrogate U+D8xx is carried as U+10D8xx (plane 16, private use)."""

_QUOTE_BYTES = 200
_T = TypeVar("_T")
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def depth_exceeds(data: bytes, limit: int = MAX_DEPTH) -> bool:
    """Say whether arrays and objects nest deeper than the limit. The count is cheap, the scan is exact."""
    if data.count(b"{") + data.count(b"[") <= limit:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        byte = data[match.start()]
        if byte in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif byte in b"]}":
            depth -= 1
    return False


def _escape_lone(match: re.Match[str]) -> str:
    escape = match.group()
    if len(escape) != len(r"\uXXXX") or escape[1] != "u":
        return escape
    code = int(escape[2:], 16)
    return chr(code + SURROGATE_OFFSET) if 0xD800 <= code <= 0xDFFF else escape  # noqa: PLR2004 (the surrogate range)


def carry_surrogates(text: str) -> str:
    """Give the JSON text with each lone surrogate escape as its private code point."""
    return _ESCAPE.sub(_escape_lone, text)


def quote(data: bytes) -> str:
    """Give the beginning of some bytes for an error message."""
    text = data[:_QUOTE_BYTES].decode("utf-8", "replace")
    return f"{text!r}{'…' if len(data) > _QUOTE_BYTES else ''}"


class Reader(Generic[_T]):
    """Reads JSON of one type. `carried` turns True once a lone surrogate was carried through."""

    __slots__ = ("_decode", "carried")

    def __init__(self, decoder: msgspec.json.Decoder[_T]) -> None:
        self._decode = decoder.decode
        self.carried = False

    def read(self, data: bytes) -> _T | Failure:
        """Give the value, or `BadFrame` (no JSON, or not of this type) or `LimitExceeded` (too deep)."""
        if depth_exceeds(data):
            return Failure(LimitExceeded(f"JSON nested deeper than {MAX_DEPTH}: {quote(data)}"))
        text = data.decode("utf-8", "replace")
        try:
            return self._decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            return self._read_again(text, data, error)

    def _read_again(self, text: str, data: bytes, error: Exception) -> _T | Failure:
        carried = carry_surrogates(text)
        if carried != text:
            try:
                value = self._decode(carried)
            except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as again:
                error = again
            else:
                self.carried = True
                return value
        return Failure(BadFrame(f"unreadable JSON ({error}): {quote(data)}"))


_any: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def loads(data: bytes | msgspec.Raw) -> object:
    """Give the value of a side field or an error body as plain Python, or None where it is no JSON.

    Numbers out of range for msgspec are read by the standard library.
    """
    raw = bytes(data)
    if depth_exceeds(raw):
        return None
    text = carry_surrogates(raw.decode("utf-8", "replace"))
    try:
        return cast("object", _any.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        pass
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None


def is_object(text: str) -> bool:
    """Say whether a text is a whole JSON object."""
    return isinstance(loads(text.encode("utf-8", "replace")), dict)
