"""Newline-delimited JSON to frames, as Ollama's API sends it (https://github.com/ollama/ollama/blob/main/docs/api.md).

Contract: that of `loomstream.wire.Decoder`. A line ends in LF, and a CR before that is dropped; U+2028 and
other newlines of Unicode are payload. Blank lines and one byte order mark are skipped. Frames have no name. Whether
a line is JSON is for its reader to find, except at the end of the body: see `NDJSONDecoder.finish`.
"""

from __future__ import annotations

from functools import partial

from loomstream.errors import Failure
from loomstream.wire import DEFAULT_MAX_FRAME_BYTES, Frame
from loomstream.wire.framing import frame_too_large, skip_byte_order_mark
from loomstream.wire.json import is_object

_CR = ord("\r")
_frame = partial(Frame, "")


class NDJSONDecoder:
    """Decodes one body of newline-delimited JSON.

    Args:
        max_frame_bytes: a line of more bytes, its newline not counted, ends the stream with `LimitExceeded`.
    """

    __slots__ = ("_line", "_max_frame_bytes", "_opening", "_over")

    def __init__(self, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._opening: bytes | None = b""
        """The body's first bytes while they may still become a byte order mark, None afterwards."""
        self._line = bytearray()
        """The line so far."""
        self._over = False

    def feed(self, chunk: bytes) -> list[Frame | Failure]:
        """Take a chunk of the body, give the lines that it completed; `LimitExceeded` as the last item ends it."""
        out: list[Frame | Failure] = []
        if self._over:
            return out
        if self._opening is not None:
            self._opening, chunk = skip_byte_order_mark(self._opening, chunk)
        if self._line:
            piece, newline, chunk = chunk.partition(b"\n")
            if not self._grow(piece, out) or not newline:
                return out
            self._end_line(out)
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._are_plain(chunk, lines):
            out += map(_frame, lines)
        elif not self._take(lines, out):
            return out
        self._grow(rest, out)
        return out

    def _are_plain(self, chunk: bytes, lines: list[bytes]) -> bool:
        """Say whether no line is blank, ends in CR or may be too long: then they are frames as they are."""
        return (
            len(chunk) <= self._max_frame_bytes
            and _CR not in chunk  # a number: `in` looks for one ten times as fast as for a slice
            and all(lines)
            and not any(map(bytes.isspace, lines))
        )

    def _take(self, lines: list[bytes], out: list[Frame | Failure]) -> bool:
        """Take whole lines one by one; False if one is too long."""
        for line in lines:
            if not self._grow(line, out):
                return False
            self._end_line(out)
        return True

    def finish(self) -> list[Frame | Failure]:
        """Say that the body is over.

        A last line without a newline is given if it is a whole JSON object; otherwise it was cut, and is dropped.
        """
        out: list[Frame | Failure] = []
        if is_object(self._line.decode("utf-8", "replace")):
            self._end_line(out)
        self._end()
        return out

    def _grow(self, piece: bytes, out: list[Frame | Failure]) -> bool:
        """Add to the line; False if it is too long. A CR at its end may belong to the newline."""
        line = self._line
        line += piece
        if len(line) - line.endswith(b"\r") <= self._max_frame_bytes:
            return True
        self._end()
        out.append(frame_too_large(self._max_frame_bytes))
        return False

    def _end_line(self, out: list[Frame | Failure]) -> None:
        line = bytes(self._line).removesuffix(b"\r")
        self._line.clear()
        if line and not line.isspace():
            out.append(Frame("", line))

    def _end(self) -> None:
        self._over = True
        self._line.clear()
