"""Lenient reading of side fields: usage, ids, errors.

Contract: nothing here raises. A field of the wrong type is reported by name, so that the caller can say so in a
`Notice`, and never costs the frame its content.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import msgspec
from msgspec import Raw as RawJSON

from loomstream.events import NULL
from loomstream.wire.json import loads

_LF, _CR = b"\n\r"
"""As numbers: `in` looks for one ten times as fast as for a slice."""

JSONObject = dict[str, object]
"""A JSON object as plain Python."""


def is_null(raw: RawJSON) -> bool:
    """Say whether a side field is absent or null."""
    return raw is NULL or bytes(raw) == b"null"


def as_object(value: object) -> JSONObject:
    """Give the value where it is a JSON object, else an empty one."""
    return cast("JSONObject", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """Give the value where it is a JSON array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def as_text(value: object) -> str:
    """Give the value where it is a string; a number as its digits; else an empty string."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def read_object(raw: RawJSON) -> JSONObject:
    """Give a raw side field as an object, empty where it is none."""
    return as_object(loads(raw)) if raw is not NULL else {}


_text = msgspec.json.Decoder(str)


def read_text(raw: RawJSON) -> str:
    """Give a raw side field as text, empty where it is none."""
    if raw is NULL:
        return ""
    try:
        return _text.decode(raw)
    except ValueError:  # no string, or one that only a lenient reading takes
        return as_text(loads(raw))


def freeze(raw: RawJSON) -> RawJSON:
    """Give a copy on one line that does not hold the frame it came from in memory."""
    data = bytes(raw)
    return RawJSON(msgspec.json.format(data, indent=-1) if _LF in data or _CR in data else data)


class Counter:
    """Reads token counts out of a usage object and remembers which fields were mistyped."""

    def __init__(self, usage: JSONObject) -> None:
        self.usage = usage
        self.mistyped: list[str] = []

    def get(self, *paths: str) -> int | None:
        """Give the first count that is there, by dotted paths; never negative."""
        for path in paths:
            value = self._at(path.split("."))
            if value is None:
                continue
            count = count_of(value)
            if type(value) is not int or value < 0:
                self.mistyped.append(path)
            if count is not None:
                return count
        return None

    def _at(self, keys: Iterable[str]) -> object:
        value: object = self.usage
        for key in keys:
            value = as_object(value).get(key)
        return value


def count_of(value: object) -> int | None:
    """Give a token count: a whole number, also where the wire sends `1.0` or `"1"`; negative reads as 0."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None  # noqa: PLR2004 (64 bits)
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) and value.is_integer() else None
    return max(0, value) if isinstance(value, int) else None
