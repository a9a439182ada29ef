"""The only entry for JSON from the wire.

Contract: `Reader.read` gives a typed value or a `Failure`, whatever the bytes; it never raises. What is not
UTF-8 reads as U+FFFD (as WHATWG says for event streams); one byte order mark is skipped. Depth is bounded.
Lone surrogates, which no event may hold, are carried through as two code points (see `carrier`), so that a
translator can join the two halves of a character that was cut over two deltas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar, cast

import msgspec

from loomstream.errors import BadFrame, Failure, LimitExceeded

MAX_DEPTH = 128
"""Nesting deeper than this is refused: msgspec alone accepts more and then leaks RecursionError."""

CARRIER_MARK = "\U0010ffff"
"""Stands before each carried surrogate. It is a noncharacter, so no text has it to tell anything by it."""
SURROGATE_OFFSET = 0x100000
"""A lone surrogate U+D8xx is carried as the mark and U+10D8xx (plane 16, private use)."""

_QUOTE_BYTES = 200
_UNREADABLE = (ValueError, RecursionError)
"""What the decoders raise; msgspec's errors and UnicodeError are ValueErrors."""
_T = TypeVar("_T")
_MARKED = re.compile(rf"{CARRIER_MARK}|\\u[dD][bB][fF]{{2}}\\u[dD][fF]{{3}}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CUT = re.compile(r"Input data was truncated|JSON is malformed: (?:invalid|unexpected)[^(]*\(byte (\d+)\)")
"""How the decoder says that a text ends too early: in these words, or by an error at its very end."""
_BACKSLASH = 0x5C
_OBJECT_BYTES = len('{"":')
"""An object opens with at least these before another one opens in it."""
_SHALLOW_BYTES = 2 * MAX_DEPTH
"""No more bytes than these can close what they open and be too deep: see `depth_exceeds`."""
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")


def depth_exceeds(data: bytes, limit: int = MAX_DEPTH) -> bool:
    """Say whether arrays and objects nest deeper than the limit.

    Text too short to close that many is not looked at: a decoder refuses it anyway. The count is cheap, the scan
    exact for all JSON; in what is no JSON it is exact up to where that shows.
    """
    if len(data) <= 2 * limit:
        return False
    arrays = data.count(b"[")
    if arrays + len(data) // _OBJECT_BYTES < limit or arrays + data.count(b"{") <= limit:
        return False
    outside_strings = data.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]
    depth = 0
    for bracket in b"".join(outside_strings).translate(None, _NO_BRACKET):
        depth += 1 if bracket in _OPENING else -1
        if depth > limit:
            return True
    return False


def has_unicode_escape(data: bytes) -> bool:
    """Say whether a text may hold one; a backslash alone, which most have not, is found twenty times faster."""
    return _BACKSLASH in data and data.find(rb"\u") >= 0


def carrier(surrogate: int) -> str:
    """Give what carries a lone surrogate: two code points that no text has in this order."""
    return CARRIER_MARK + chr(surrogate + SURROGATE_OFFSET)


def _lost(surrogate: int) -> str:  # noqa: ARG001 (as `carrier`)
    return "\ufffd"


def _replace_lone(match: re.Match[str], replace: Callable[[int], str]) -> str:
    escape = match.group()
    if len(escape) != len(r"\uXXXX") or escape[1] != "u":
        return escape
    code = int(escape[2:], 16)  # noqa: FURB166 (the prefix is no 0x)
    return replace(code) if 0xD800 <= code <= 0xDFFF else escape  # noqa: PLR2004 (the surrogate range)


def carry_surrogates(text: str) -> str:
    """Give the JSON text with each lone surrogate escape as its `carrier`; as U+FFFD where the text has the mark."""
    if not _SURROGATE.search(text):
        return text
    replace = _lost if _MARKED.search(text) else carrier
    return _ESCAPE.sub(partial(_replace_lone, replace=replace), text)


def quote(data: bytes, limit: int = _QUOTE_BYTES) -> str:
    """Give the beginning of some bytes for an error message."""
    text = data[:limit].decode("utf-8", "replace")
    return f"{text!r}{'…' if len(data) > limit else ''}"


def _text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace").removeprefix("\ufeff")


class Reader(Generic[_T]):
    """Reads JSON of one type.

    `carried` turns True once a lone surrogate was carried through, `replaced` once bytes that are no UTF-8 were
    replaced.
    """

    __slots__ = ("_decode", "carried", "replaced")

    def __init__(self, decoder: msgspec.json.Decoder[_T]) -> None:
        self._decode = decoder.decode
        self.carried = False
        self.replaced = False

    def read(self, data: bytes) -> _T | Failure:
        """Give the value, or `BadFrame` (no JSON, or not of this type) or `LimitExceeded` (too deep)."""
        if len(data) > _SHALLOW_BYTES and depth_exceeds(data):
            return Failure(LimitExceeded(f"JSON nested deeper than {MAX_DEPTH}: {quote(data)}"))
        try:
            if not data.isascii():
                data.decode()  # msgspec skips raw fields without a look at their UTF-8
            return self._decode(data)
        except _UNREADABLE:
            return self._read_leniently(data)

    def _read_leniently(self, data: bytes) -> _T | Failure:
        text = _text_of(data)
        carried = carry_surrogates(text)
        try:
            value = self._decode(carried)
        except _UNREADABLE as error:
            return Failure(BadFrame(f"unreadable JSON ({error}): {quote(data)}"))
        self.carried = self.carried or carried != text
        self.replaced = self.replaced or not is_utf_8(data)
        return value


def is_utf_8(data: bytes) -> bool:
    """Say whether the bytes are UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def ends_early(data: bytes) -> bool:
    """Say whether a text that is no JSON is the beginning of some: it ends before its value does."""
    text = carry_surrogates(_text_of(data)).encode()
    try:
        _raw.decode(text)
    except _UNREADABLE as error:
        cut = _CUT.fullmatch(str(error))
        return cut is not None and (cut[1] is None or int(cut[1]) >= len(text))
    return False


_raw: msgspec.json.Decoder[msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw)


_any: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def loads(data: bytes | msgspec.Raw) -> object:
    """Give the value of a side field or an error body as plain Python, or None where it is no JSON.

    Numbers out of range for msgspec are read by the standard library.
    """
    raw = bytes(data)
    if depth_exceeds(raw):
        return None
    try:
        return cast("object", _any.decode(raw))
    except _UNREADABLE:
        return _loads_leniently(raw)


def _loads_leniently(raw: bytes) -> object:
    try:
        return cast("object", json.loads(carry_surrogates(_text_of(raw)), parse_constant=_refuse_constant))
    except _UNREADABLE:
        return None


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def is_object(text: str) -> bool:
    """Say whether a text is a whole JSON object."""
    return isinstance(loads(text.encode("utf-8", "replace")), dict)
