"""AWS event-stream messages to frames (`application/vnd.amazon.eventstream`).

Contract: that of `loomstream.wire.Decoder`. A message is

    total length u32 | headers length u32 | CRC of those 8 bytes | headers | payload | CRC of all before it

big-endian, CRC-32. Source: https://smithy.io/2.0/aws/amazon-eventstream.html. Lengths are believed only after their
own CRC was checked, so that garbage cannot ask for memory. A message that the end of the body cut is dropped: whether
the answer was whole by then is for the translator to say.

A frame's `headers` are the message's. Its `name` says what the message is, by its `:message-type`:

    event (or none)   the `:event-type`
    exception         the `:exception-type`: an error that the service's model knows; the payload has its message
    error             the `:error-code`: any other error; its words are in the header `:error-message`

so a translator must ask for the type of a message, by `fault_kind`, before it takes a name for an event's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from zlib import crc32

from loomstream.errors import BadFrame, ChecksumMismatch, Failure, LimitExceeded, WireError
from loomstream.wire import Frame

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""A larger message ends the stream with `LimitExceeded`; AWS sends none."""

MAX_HEADERS_BYTES = 128 * 1024
"""The same for a message's headers."""

MEDIA_TYPE = "application/vnd.amazon.eventstream"
"""The content type of such a body."""

_MESSAGE_TYPE = ":message-type"
_NAMES = {"exception": ":exception-type", "error": ":error-code"}
_EVENT_NAME = ":event-type"

_prelude = struct.Struct(">III")
_checksum = struct.Struct(">I")
_length = struct.Struct(">H")
_PRELUDE_BYTES = _prelude.size
_CHECKED_BYTES = 8
"""The two lengths, which the prelude's CRC covers."""
_CHECKSUM_BYTES = _checksum.size
_LEAST_BYTES = _PRELUDE_BYTES + _CHECKSUM_BYTES

_FLAGS = {0: True, 1: False}
_NUMBERS = {2: struct.Struct(">b"), 3: struct.Struct(">h"), 4: struct.Struct(">i"), 5: struct.Struct(">q")}
_NUMBERS[8] = _NUMBERS[5]
"""A timestamp: milliseconds since 1970."""
_BYTES, _STRING, _UUID = 6, 7, 9
_UUID_BYTES = 16

_MAX_KNOWN_HEADS = 128
_MAX_KNOWN_HEAD_BYTES = 512

Headers = Mapping[str, object]
"""Header names to values: bool, int, bytes (a UUID too) or str."""


class _Head(NamedTuple):
    """What the lengths and the headers of a message say; `crc` is the checksum so far, `size` their own bytes.

    `fault` is None where the headers are readable.
    """

    total: int
    size: int
    crc: int
    name: str
    headers: Headers
    fault: BadFrame | None


def fault_kind(headers: Headers | None) -> str:
    """Say whether a frame's headers are those of an `exception` or an `error`; empty for an event."""
    kind = headers.get(_MESSAGE_TYPE) if headers else None
    return kind if isinstance(kind, str) and kind in _NAMES else ""


class AWSDecoder:
    """Decodes one body of AWS event-stream messages.

    Args:
        max_message_bytes: a message that says it is longer ends the stream with `LimitExceeded`.
    """

    __slots__ = ("_heads", "_likely_size", "_max_message_bytes", "_needed_bytes", "_offset", "_over", "_rest")

    def __init__(self, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._rest = bytearray()
        """The message so far."""
        self._needed_bytes = 0
        """How long `_rest` must be before it is worth another look."""
        self._offset = 0
        """Where in the body the message begins."""
        self._heads: dict[bytes, _Head] = {}
        """Lengths, their checksum and headers, as the bytes that were checked and read once: a stream repeats them."""
        self._likely_size = 0
        """How many bytes those of the message before were."""
        self._over = False

    def feed(self, chunk: bytes) -> list[Frame | Failure]:
        """Take a chunk of the body, give the messages that it completed.

        As the last item `ChecksumMismatch`, `LimitExceeded` or `BadFrame` ends it.
        """
        out: list[Frame | Failure] = []
        if self._over:
            return out
        if self._rest:
            self._rest += chunk
            if len(self._rest) < self._needed_bytes:
                return out
            chunk = bytes(self._rest)
            self._rest.clear()
        end = self._take(chunk, out)
        if not self._over:
            self._offset += end
            self._rest += chunk[end:]
        return out

    def finish(self) -> list[Frame | Failure]:
        """Say that the body is over; a message that it cut is dropped."""
        self._over = True
        self._rest.clear()
        return []

    def _take(self, data: bytes, out: list[Frame | Failure]) -> int:
        """Take whole messages; give the position behind the last one."""
        size, start = len(data), 0
        known, checksum_at = self._heads.get, _checksum.unpack_from
        while size - start >= _PRELUDE_BYTES:
            head = known(data[start : start + self._likely_size])
            if head is None:
                head = self._read_head(data, start)
                if isinstance(head, WireError):
                    return self._fail(head, start, out)
            total, head_bytes, crc, name, headers, fault = head
            end = start + total
            if end > size:
                self._needed_bytes = total
                return start
            payload = data[start + head_bytes : end - _CHECKSUM_BYTES]
            if crc32(payload, crc) != checksum_at(data, end - _CHECKSUM_BYTES)[0]:
                return self._fail(ChecksumMismatch("the checksum of a message does not match its bytes"), start, out)
            if fault is not None:
                return self._fail(fault, start, out)
            out.append(Frame(name, payload, headers))
            start = end
        self._needed_bytes = _PRELUDE_BYTES
        return start

    def _read_head(self, data: bytes, start: int) -> _Head | WireError:
        """Check the lengths that begin here; read the headers behind them, and remember both once they are whole."""
        total, headers_bytes, prelude_crc = _prelude.unpack_from(data, start)
        crc = crc32(data[start : start + _CHECKED_BYTES])
        if crc != prelude_crc or not headers_bytes + _LEAST_BYTES <= total <= self._max_message_bytes:
            return self._bad_prelude(total, headers_bytes, crc == prelude_crc)
        if headers_bytes > MAX_HEADERS_BYTES:
            return _too_large("headers", headers_bytes, MAX_HEADERS_BYTES)
        size = _PRELUDE_BYTES + headers_bytes
        whole = data[start : start + size]
        if len(whole) < size:
            return _Head(total, size, 0, "", {}, None)
        headers = _read_headers(whole[_PRELUDE_BYTES:])
        if isinstance(headers, BadFrame):
            return _Head(total, size, crc32(whole), "", {}, headers)
        head = _Head(total, size, crc32(whole), _name(headers), headers, None)
        if size <= _MAX_KNOWN_HEAD_BYTES:
            if len(self._heads) == _MAX_KNOWN_HEADS:
                self._heads.clear()
            self._heads[whole] = head
            self._likely_size = size
        return head

    def _bad_prelude(self, total: int, headers_bytes: int, checked: bool) -> WireError:  # noqa: FBT001 (private)
        if not checked:
            return ChecksumMismatch(
                "the checksum of a message's lengths does not match them: "
                "the body is damaged, or is no AWS event stream; check the endpoint and what stands before it"
            )
        if total > self._max_message_bytes:
            return _too_large("message", total, self._max_message_bytes)
        return BadFrame(f"a message of {total} bytes cannot hold headers of {headers_bytes}")

    def _fail(self, error: WireError, start: int, out: list[Frame | Failure]) -> int:
        self._over = True
        self._heads.clear()
        error.args = (f"{error} (at byte {self._offset + start:,} of the AWS event stream)",)
        out.append(Failure(error))
        return start


def _too_large(what: str, length: int, limit: int) -> LimitExceeded:
    return LimitExceeded(f"{what} of {length:,} bytes, and no more than {limit:,} are taken: AWS sends none so large")


# --- headers -----------------------------------------------------------------------------------------------------


def _name(headers: Headers) -> str:
    """Give the name of a message: see the module's docstring."""
    kind = headers.get(_MESSAGE_TYPE)
    name = headers.get(_NAMES.get(kind, _EVENT_NAME) if isinstance(kind, str) else _EVENT_NAME)
    return name if isinstance(name, str) else ""


def _read_headers(block: bytes) -> Headers | BadFrame:
    headers: dict[str, object] = {}
    position = 0
    try:
        while position < len(block):
            name_end = position + 1 + block[position]
            name = _slice(block, position + 1, name_end).decode()
            if not name or name in headers:
                return BadFrame(f"a header {'comes twice' if name else 'has no name'}: {name!r}")
            headers[name], position = _read_value(block, name_end)
    except (struct.error, IndexError, ValueError) as error:
        return BadFrame(f"the headers of a message cannot be read: {error}")
    return MappingProxyType(headers)


def _read_value(block: bytes, position: int) -> tuple[object, int]:
    """Read the type and the value at a position; give the value and the position behind it."""
    kind = block[position]
    position += 1
    if kind in _FLAGS:
        return _FLAGS[kind], position
    number = _NUMBERS.get(kind)
    if number is not None:
        return number.unpack_from(block, position)[0], position + number.size
    if kind == _UUID:
        return _slice(block, position, position + _UUID_BYTES), position + _UUID_BYTES
    if kind not in {_BYTES, _STRING}:
        msg = f"unknown header type {kind}"
        raise ValueError(msg)
    start = position + _length.size
    end = start + _length.unpack_from(block, position)[0]
    value = _slice(block, start, end)
    return (value.decode() if kind == _STRING else value), end


def _slice(block: bytes, start: int, end: int) -> bytes:
    if end > len(block):
        msg = f"a header goes on behind their end, to byte {end} of {len(block)}"
        raise ValueError(msg)
    return block[start:end]
