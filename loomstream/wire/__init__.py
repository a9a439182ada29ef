"""The wire: bytes to frames, and the value that a transport sends.

Contract of a decoder: synchronous, no clock, no I/O, never raises. `feed` takes any slice of the body and
gives the frames that it completed; `finish` says that the body is over. A failure is the last item of
a list, after which the object is finished and gives nothing more. The frames do not depend on how
the bytes were cut: limits count the frame, never the buffer or the chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from loomstream.errors import Failure

DEFAULT_MAX_FRAME_BYTES = 16 * 1024 * 1024
"""A frame larger than this ends the stream with `LimitExceeded`."""


class Secret:
    """A credential: nothing but `reveal` shows it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the credential; for the place that writes the wire request."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return format(repr(self), format_spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return id(type(self))

    def __reduce__(self) -> str:
        msg = "a Secret cannot be pickled or copied out"
        raise TypeError(msg)

    def __deepcopy__(self, memo: object) -> Secret:
        return self


class Frame(Struct, frozen=True, gc=False):
    """One wire unit: an SSE event, an AWS message, an NDJSON line, an element of a JSON array.

    `name` is the SSE event or AWS `:event-type`, empty elsewhere; `data` the payload's bytes.
    """

    name: str
    data: bytes
    headers: Mapping[str, object] | None = None


class Decoder(Protocol):
    """Chunks to frames; see the module's contract."""

    def feed(self, chunk: bytes) -> list[Frame | Failure]:
        """Take a chunk of the body, give the frames that it completed."""
        ...

    def finish(self) -> list[Frame | Failure]:
        """Say that the body is over, give what was still to come."""
        ...


class WireRequest(Struct, frozen=True, kw_only=True):
    """An HTTP request as a value. A header's value may be a `Secret`: only the transport reveals it.

    `warnings` say what was asked for and is not in it, because the provider cannot honour it; never sent.
    """

    method: str = "POST"
    url: str
    headers: Mapping[str, str | Secret]
    body: bytes = b""
    warnings: tuple[str, ...] = ()
