"""Server-sent events to frames, by the WHATWG text (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Contract: that of `loomstream.wire.Decoder`. Lines end in LF, CR or CRLF, mixed as they come; exactly one byte
order mark is skipped; comments and unknown fields are dropped as they arrive, so an endless one costs no memory;
a frame is given at the blank line that ends it, if it has a `data` field. The payload stays bytes, which
`loomstream.wire.json` reads as UTF-8. This module does not know what a payload means, except at the end of the
body: see `SSEDecoder.finish`.

How it is fast: between two frames, a chunk is split at the text that stands between two ordinary ones
(`data: …`, or `event: …` and `data: …`). Everything else, cut frames included, goes line by line through a
state machine that copies each byte a fixed number of times.
"""

from __future__ import annotations

from loomstream.errors import Failure
from loomstream.wire import DEFAULT_MAX_FRAME_BYTES, Frame
from loomstream.wire.framing import frame_too_large, skip_byte_order_mark
from loomstream.wire.json import is_object

_NEWLINE = 0x0A  # as a number, looking for it in bytes is six times faster than as bytes
_CARRIAGE_RETURN = 0x0D
_SPACE = b" "
_DATA_PREFIX = b"data: "
_EVENT_PREFIX = b"event: "
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})
_LONGEST_FIELD = max(map(len, _FIELDS))
_IGNORED = b""
"""The field of a comment, whose name is empty, and of every unknown field."""
_MAX_RETRY_DIGITS = 15
"""A longer `retry` counts as malformed."""
_MAX_KNOWN_NAMES = 256
_UNNAMED = {b"": "", b"message": ""}
"""The names of a stream that names nothing; shared, so that a thousand open ones have one."""
_MAX_KNOWN_NAME_BYTES = 128
_DONE = b"[DONE]"
"""OpenAI's end marker, sent as an event: the only payload of a provider that is no JSON object."""


class SSEDecoder:
    """Decodes one body of server-sent events.

    A frame's `name` is its `event` field. It is empty for the default type, whether the field is absent, empty
    or `message`: WHATWG makes no difference between them.

    Args:
        max_frame_bytes: a frame whose data (its lines joined), or whose `event`, `id` or `retry` value alone, has
            more bytes than this ends the stream with `LimitExceeded`.
        strict: end the body as WHATWG says, dropping an event that no blank line ended.
    """

    __slots__ = (
        "_data",
        "_field",
        "_has_data",
        "_head",
        "_id",
        "_max_frame_bytes",
        "_name",
        "_names",
        "_opening",
        "_over",
        "_skip_newline",
        "_strict",
        "_value",
        "_value_begins",
        "between_frames",
        "last_event_id",
        "retry_ms",
    )

    def __init__(self, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES, strict: bool = False) -> None:
        self.last_event_id = ""
        """The last `id` that a blank line confirmed, or an empty string."""
        self.retry_ms: int | None = None
        """How long the server asks to wait before connecting again, in milliseconds; None where it does not say."""
        self._max_frame_bytes = max_frame_bytes
        self._strict = strict
        self._names = _UNNAMED
        """The names seen so far; only those are split fast. Bounded, as a peer may send ever new ones."""
        self._over = False
        self.between_frames = False
        """Nothing is pending: the next chunk begins with a frame, and may be split whole."""
        self._opening: bytes | None = b""
        """The body's first bytes while they may still become a byte order mark, None afterwards."""
        self._skip_newline = False
        """The last byte was CR: an LF that follows belongs to it."""
        # The frame that is being read.
        self._data = bytearray()
        self._has_data = False
        self._name = ""
        self._id = ""
        # The line that is being read.
        self._field: bytes | None = None
        """The line's field, None while it is not known."""
        self._head = b""
        """The line so far while its field is not known."""
        self._value = bytearray()
        """The value so far of a field other than `data`."""
        self._value_begins = False
        """A space that comes next is not part of the value."""

    def feed(self, chunk: bytes) -> list[Frame | Failure]:
        """Take a chunk of the body, give the frames that it completed; `LimitExceeded` as the last item ends it."""
        if self._opening is not None:
            self._opening, chunk = skip_byte_order_mark(self._opening, chunk)
            self.between_frames = self._opening is None
        if (
            self.between_frames
            and chunk.endswith(b"\n\n")
            and _CARRIAGE_RETURN not in chunk
            and len(chunk) <= self._max_frame_bytes
        ):
            if chunk.startswith(_DATA_PREFIX):
                return self._split_unnamed(chunk[6:-2])
            if chunk.startswith(_EVENT_PREFIX):
                return self._split_named(chunk[7:-2])
        out: list[Frame | Failure] = []
        if not self._over:
            self._feed_any(chunk, out)
        return out

    def finish(self) -> list[Frame | Failure]:
        """Say that the body is over.

        Some servers leave out the blank line, or the whole newline, behind the last event. So that it is not lost, a
        pending frame is given if it cannot have been cut: its data is a whole JSON object or `[DONE]`. Any other
        rest is dropped, as is every rest in strict mode: what was cut in the middle never passes for whole.
        """
        out: list[Frame | Failure] = []
        if not self._strict and self._is_whole():
            self._end_frame(out)
        self._end()
        return out

    def _feed_any(self, chunk: bytes, out: list[Frame | Failure]) -> None:
        if self._skip_newline and chunk:
            self._skip_newline = False
            chunk = chunk.removeprefix(b"\n")
        if _CARRIAGE_RETURN in chunk:
            self._skip_newline = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._take(chunk, out)

    def _take(self, text: bytes, out: list[Frame | Failure]) -> None:
        """Take text whose newlines are all LF."""
        size = len(text)
        start = 0 if self.between_frames else self._take_lines(text, 0, out)
        if start == size:
            return
        end = text.rfind(b"\n\n", start) + 2
        while start < size:
            if start >= end - 2 or end - start > self._max_frame_bytes:
                start = self._take_lines(text, start, out)
            elif text.startswith(_DATA_PREFIX, start):
                out += self._split_unnamed(text[start + 6 : end - 2])
                start = end
            elif text.startswith(_EVENT_PREFIX, start):
                out += self._split_named(text[start + 7 : end - 2])
                start = end
            else:
                start = self._take_lines(text, start, out)

    def _split_unnamed(self, text: bytes) -> list[Frame | Failure]:
        """Take whole frames, given without the first `data: ` and the last blank line.

        None can pass the limit, as they are smaller together.
        """
        if _NEWLINE not in text:
            return [Frame("", text)]
        pieces = text.split(b"\n\ndata: ")
        if _NEWLINE not in b"".join(pieces):  # none but those between the frames
            return [Frame("", piece) for piece in pieces]
        out: list[Frame | Failure] = []
        for piece in pieces:
            if _NEWLINE in piece:
                self._take_whole(_DATA_PREFIX + piece + b"\n\n", out)
            else:
                out.append(Frame("", piece))
        return out

    def _split_named(self, text: bytes) -> list[Frame | Failure]:
        """Take whole frames, given without the first `event: ` and the last blank line."""
        names = self._names
        raw_name, _, data = text.partition(b"\ndata: ")
        name = names.get(raw_name)
        if name is not None and data and _NEWLINE not in data:
            return [Frame(name, data)]
        out: list[Frame | Failure] = []
        for piece in text.split(b"\n\nevent: "):
            raw_name, _, data = piece.partition(b"\ndata: ")
            name = names.get(raw_name)
            if name is None or not data or _NEWLINE in data:
                self._take_whole(_EVENT_PREFIX + piece + b"\n\n", out)
            else:
                out.append(Frame(name, data))
        return out

    def _take_whole(self, text: bytes, out: list[Frame | Failure]) -> None:
        """Take text that ends with a blank line."""
        start = 0
        while start < len(text):
            start = self._take_lines(text, start, out)

    def _take_lines(self, text: bytes, start: int, out: list[Frame | Failure]) -> int:
        """Take lines up to and with the next blank one, or all that is left; give the position behind them."""
        self.between_frames = False
        while (end := text.find(b"\n", start)) >= 0:
            self._grow_line(text[start:end], complete=True)
            start = end + 1
            if len(self._data) > self._max_frame_bytes or len(self._value) > self._max_frame_bytes:
                break
            if self._field is None:
                self._end_frame(out)
                return start
            if self._field != b"data":
                self._end_control_line()
            self._field = None
        else:
            self._grow_line(text[start:], complete=False)
        if len(self._data) > self._max_frame_bytes or len(self._value) > self._max_frame_bytes:
            self._end()
            out.append(frame_too_large(self._max_frame_bytes))
        return len(text)

    def _grow_line(self, piece: bytes, *, complete: bool) -> None:
        """Add to the line; one that is complete and empty leaves the field None."""
        if self._field is None:
            line = self._head + piece if self._head else piece
            name, colon, piece = line.partition(b":")
            if not line or not (colon or complete or len(line) > _LONGEST_FIELD):
                self._head = line
                return
            self._begin_field(name)
        if self._field == _IGNORED or not piece:
            return
        if self._value_begins:
            self._value_begins = False
            piece = piece.removeprefix(_SPACE)
        if self._field == b"data":
            self._data += piece
        else:
            self._value += piece

    def _begin_field(self, name: bytes) -> None:
        self._head = b""
        self._field = name if name in _FIELDS else _IGNORED
        self._value_begins = True
        if name == b"data":
            if self._has_data:
                self._data += b"\n"
            self._has_data = True

    def _end_control_line(self) -> None:
        """Read the value of a complete line that is not `data`."""
        value = bytes(self._value)
        self._value.clear()
        match self._field:
            case b"event":
                self._name = self._name_of(value)
            case b"id" if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
            case b"retry" if value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                self.retry_ms = int(value)
            case _:
                pass

    def _name_of(self, value: bytes) -> str:
        name = self._names.get(value)
        if name is None:
            name = value.decode("utf-8", "replace")
            if len(value) <= _MAX_KNOWN_NAME_BYTES and len(self._names) < _MAX_KNOWN_NAMES:
                if self._names is _UNNAMED:
                    self._names = dict(_UNNAMED)
                self._names[value] = name
        return name

    def _end_frame(self, out: list[Frame | Failure]) -> None:
        self.last_event_id = self._id
        if self._has_data:
            out.append(Frame(self._name, bytes(self._data)))
            self._has_data = False
            self._data.clear()
        self._name = ""
        self.between_frames = True

    def _is_whole(self) -> bool:
        """Say whether the frame that the end of the body left pending cannot have been cut."""
        if not self._has_data or self._head or self._field == b"event":
            return False
        data = bytes(self._data).strip()
        return data == _DONE or is_object(data.decode("utf-8", "replace"))

    def _end(self) -> None:
        self._over = True
        self._opening = None
        self.between_frames = self._has_data = False
        self._head = b""
        self._data.clear()
        self._value.clear()
