"""Newline-delimited JSON to frames, as Ollama's API sends it (https://github.com/ollama/ollama/blob/main/docs/api.md).

Contract: that of `loomstream.wire.Decoder`. A line ends in LF, and a CR before that is dropped; U+2028 and
other newlines of Unicode are payload. Blank lines and one byte order mark are skipped. Frames have no name. Whether
a line is JSON is for its reader to find, except at the end of the body: see `NDJSONDecoder.finish`.
"""

from __future__ import annotations

from loomstream.errors import Failure
from loomstream.wire import DEFAULT_MAX_FRAME_BYTES, Frame
from loomstream.wire.framing import frame_too_large, skip_byte_order_mark
from loomstream.wire.json import is_object


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
        if not self._line and self._are_plain(chunk):
            return [Frame("", line) for line in chunk[:-1].split(b"\n")]
        *lines, rest = chunk.split(b"\n")
        for piece in lines:
            if not self._grow(piece, out):
                return out
            self._end_line(out)
        self._grow(rest, out)
        return out

    def _are_plain(self, chunk: bytes) -> bool:
        """Say whether a chunk is whole lines without CR that all begin with a brace: then it need only be cut."""
        return (
            chunk.endswith(b"\n")
            and chunk.startswith(b"{")
            and chunk.count(b"\n{") + 1 == chunk.count(b"\n")
            and b"\r" not in chunk
            and len(chunk) <= self._max_frame_bytes
        )

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
