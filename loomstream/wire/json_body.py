"""A JSON body to frames: one object as a whole, or the elements of an array as they come.

Contract: that of `loomstream.wire.Decoder`. An object (an answer to a request that did not ask for a stream, an
error) gives one frame `body` when the body ends, or `StreamTruncated` where it ends before its `}`. An array (Gemini
without `alt=sse` streams one, pretty-printed, with LF inside the elements and CRLF between them) gives a frame without
a name for each element as soon as that is complete, never half an element; an array that ends before its `]` just
ends, as the translator knows what is missing. Whether an element is JSON is for its reader to find. No byte is scanned
twice.
"""

from __future__ import annotations

import re

import msgspec

from loomstream.errors import BadFrame, Failure, StreamTruncated
from loomstream.wire import DEFAULT_MAX_FRAME_BYTES, Frame
from loomstream.wire.framing import frame_too_large, skip_byte_order_mark
from loomstream.wire.json import Reader, ends_early, quote

_WHITESPACE = b" \t\r\n"
_TOKEN = re.compile(rb'["\\\[\]{},]')
_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_OPENING = frozenset(b"[{")
_CLOSING = frozenset(b"]}")

BODY = "body"
"""The name of the frame that is a whole object."""


class JSONBodyDecoder:
    """Decodes one JSON body.

    Args:
        max_frame_bytes: an object, or an element of an array, of more bytes ends the stream with `LimitExceeded`.
    """

    __slots__ = ("_body", "_elements", "_max_frame_bytes", "_opening", "_over")

    def __init__(self, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._opening: bytes | None = b""
        """The body's first bytes while they may still become a byte order mark, None afterwards."""
        self._body = bytearray()
        """The body so far, where it is no array."""
        self._elements: _Elements | None = None
        self._over = False

    def feed(self, chunk: bytes) -> list[Frame | Failure]:
        """Take a chunk of the body, give the elements of an array that it completed.

        The last item may be `LimitExceeded`, or `BadFrame` (an array that lacks a comma or an element, or that has
        something behind its end).
        """
        if self._over:
            return []
        if self._opening is not None:
            self._opening, chunk = skip_byte_order_mark(self._opening, chunk)
        out = self._feed_elements(self._elements, chunk) if self._elements else self._feed_body(chunk)
        self._over = bool(out) and isinstance(out[-1], Failure)
        return out

    def finish(self) -> list[Frame | Failure]:
        """Say that the body is over: give the object, `StreamTruncated` if it was cut, `BadFrame` for anything else."""
        body = bytes(self._body).rstrip(_WHITESPACE)
        over, self._over = self._over, True
        self._body.clear()
        return [_read_object(body)] if body and not over else []

    def _feed_body(self, chunk: bytes) -> list[Frame | Failure]:
        body = self._body
        body += chunk if body else chunk.lstrip(_WHITESPACE)
        if body.startswith(b"["):
            self._elements = _Elements(self._max_frame_bytes)
            chunk = bytes(body)
            body.clear()
            return self._feed_elements(self._elements, chunk)
        return [frame_too_large(self._max_frame_bytes)] if len(body) > self._max_frame_bytes else []

    def _feed_elements(self, elements: _Elements, chunk: bytes) -> list[Frame | Failure]:
        out: list[Frame | Failure] = []
        failure = elements.feed(chunk, out)
        return [*out, failure] if failure else out


def _read_object(body: bytes) -> Frame | Failure:
    value = Reader(msgspec.json.Decoder(msgspec.Raw)).read(body)
    if isinstance(value, Failure):
        cut = isinstance(value.error, BadFrame) and ends_early(body)
        return Failure(StreamTruncated(f"the body ended within its JSON: {quote(body)}")) if cut else value
    return Frame(BODY, body) if body.startswith(b"{") else Failure(BadFrame(f"the body is no object: {quote(body)}"))


class _Elements:
    """Finds the elements of an array, by its brackets and strings."""

    __slots__ = ("_depth", "_element", "_escaped", "_in_string", "_max_frame_bytes", "_separated")

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._depth = 0
        self._in_string = False
        self._escaped = False
        """The next byte is escaped."""
        self._element = bytearray()
        """The element so far."""
        self._separated = True
        """An element may come; False behind one that is complete, up to the comma, and behind the array."""

    def feed(self, chunk: bytes, out: list[Frame | Failure]) -> Failure | None:
        """Append the elements that the chunk completed; give what ends the body before its end."""
        if self._depth == 0 and not self._separated:
            return self._grow(chunk)
        start = 0
        escaped_at = 0 if self._escaped else -1
        for match in _TOKEN.finditer(chunk):
            position = match.start()
            byte = chunk[position]
            if position == escaped_at:
                continue
            if byte == _QUOTE:
                self._in_string = not self._in_string
            elif self._in_string:
                escaped_at = position + 1 if byte == _BACKSLASH else -1
            elif byte in _OPENING:
                self._depth += 1
                start = position + 1 if self._depth == 1 else start
            elif self._ends_element(byte):
                end = position + 1 if byte in _CLOSING and self._depth == 1 else position
                failure = self._end_element(chunk[start:end], out, separated=byte == _COMMA)
                start = position + 1
                if failure or self._depth == 0:
                    return failure or self._grow(chunk[start:])
        self._escaped = escaped_at == len(chunk)
        return self._grow(chunk[start:])

    def _ends_element(self, byte: int) -> bool:
        """Say whether a comma or closing bracket ends an element or the array; a stray backslash does not."""
        if byte in _CLOSING:
            self._depth -= 1
            return self._depth <= 1
        return byte == _COMMA and self._depth == 1

    def _end_element(self, piece: bytes, out: list[Frame | Failure], *, separated: bool) -> Failure | None:
        failure = self._grow(piece)
        if failure:
            return failure
        if self._separated:
            element = bytes(self._element).rstrip(_WHITESPACE)
            self._element.clear()
            if element:
                out.append(Frame("", element))
            elif separated:
                return Failure(BadFrame("the JSON array has a comma without an element before it"))
        self._separated = separated
        return None

    def _grow(self, piece: bytes) -> Failure | None:
        if not self._separated:
            stray = piece.strip(_WHITESPACE)
            return Failure(BadFrame("the JSON array has something behind an element or its end")) if stray else None
        self._element += piece if self._element else piece.lstrip(_WHITESPACE)
        return frame_too_large(self._max_frame_bytes) if len(self._element) > self._max_frame_bytes else None
