"""Undoes a content coding that we did not ask for, incrementally and within bounds.

Contract: `decoded` wraps an iterator of bytes. What one chunk holds is given as soon as the codec gives it, so an
event stream stays live behind a compressing proxy. Memory stays bounded, whatever the bytes: at most `PIECE_BYTES` are
decoded at a time. More than `MAX_RATIO` to 1 after the first MiB, or more than `MAX_GZIP_MEMBERS`, is `LimitExceeded`,
a body that ends inside the coding is `ConnectionLost`, an unknown or broken coding `UnexpectedContent`.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast

from loomstream.errors import ConnectionLost, LimitExceeded, UnexpectedContent

MAX_RATIO = 100
"""Decoded bytes for one byte of the wire; text compresses up to about 20 to 1."""
FREE_BYTES = 1024 * 1024
"""The ratio is not judged below this many decoded bytes."""
PIECE_BYTES = 64 * 1024
"""How much is decoded at a time, about."""
MAX_GZIP_MEMBERS = 1_000
"""An empty member has 20 bytes and gives none, so that many of them cost time that no ratio shows."""
_ZLIB_HEADER_BYTES = 2
_ZSTD_SLICE_BYTES = 256  # its API has no limit on the output; a block of 4 bytes can stand for 128 KiB


class Codec(Protocol):
    """One content coding, undone piece by piece."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes (empty: go on with those that wait), give at most about `PIECE_BYTES`."""
        ...

    @property
    def pending(self) -> bool:
        """Whether bytes that were fed are still to be decoded."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the coding has come to its end."""
        ...


class _Zlib:
    """gzip, and deflate of one kind."""

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._inner = zlib.decompressobj(window_bits)
        self._members = 1
        self._waiting = b""

    def feed(self, data: bytes) -> bytes:
        data = self._waiting + data
        if self._inner.eof and data:  # a further gzip member (RFC 1952 section 2.2)
            self._begin_member()
        out = self._inner.decompress(data, PIECE_BYTES)
        self._waiting = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
        return out

    def _begin_member(self) -> None:
        self._members += 1
        if self._members > MAX_GZIP_MEMBERS:
            msg = f"the answer's gzip coding has more than {MAX_GZIP_MEMBERS:,} members: it was stopped"
            raise LimitExceeded(msg)
        self._inner = zlib.decompressobj(self._window_bits)

    @property
    def pending(self) -> bool:
        return bool(self._waiting)

    @property
    def complete(self) -> bool:
        return self._inner.eof and not self._waiting


class _Deflate:
    """deflate, which comes with and without zlib's header (RFC 9110 section 8.4.1.2 tells of both)."""

    def __init__(self) -> None:
        self._head = b""
        self._inner: _Zlib | None = None

    def feed(self, data: bytes) -> bytes:
        if self._inner is not None:
            return self._inner.feed(data)
        self._head += data
        if len(self._head) < _ZLIB_HEADER_BYTES:
            return b""
        self._inner = _Zlib(zlib.MAX_WBITS if _is_zlib_header(self._head) else -zlib.MAX_WBITS)
        return self._inner.feed(self._head)

    @property
    def pending(self) -> bool:
        return self._inner is not None and self._inner.pending

    @property
    def complete(self) -> bool:
        return self._inner is not None and self._inner.complete


def _is_zlib_header(data: bytes) -> bool:
    """Check method and check bits (RFC 1950 section 2.2)."""
    return data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:_ZLIB_HEADER_BYTES], "big") % 31 == 0


class _BrotliDecompressor(Protocol):
    def process(self, data: bytes, *, output_buffer_limit: int) -> bytes: ...
    def can_accept_more_data(self) -> bool: ...
    def is_finished(self) -> bool: ...


class _Brotli:
    """br, with brotli 1.2 or newer: older ones cannot bound their output (CVE-2025-6176)."""

    def __init__(self) -> None:
        module = importlib.import_module("brotli")
        if not hasattr(module.Decompressor, "can_accept_more_data"):
            raise ImportError
        self._inner = cast("_BrotliDecompressor", module.Decompressor())

    def feed(self, data: bytes) -> bytes:
        return self._inner.process(data, output_buffer_limit=PIECE_BYTES)

    @property
    def pending(self) -> bool:
        return not self._inner.can_accept_more_data() and not self._inner.is_finished()

    @property
    def complete(self) -> bool:
        return self._inner.is_finished()


class _ZstdDecompressor(Protocol):
    eof: bool

    def decompress(self, data: bytes) -> bytes: ...


class _Zstd:
    def __init__(self) -> None:
        module = importlib.import_module("zstandard")
        self._inner = cast("_ZstdDecompressor", module.ZstdDecompressor().decompressobj())
        self._waiting = b""

    def feed(self, data: bytes) -> bytes:
        data = self._waiting + data
        self._waiting = data[_ZSTD_SLICE_BYTES:]
        return self._inner.decompress(data[:_ZSTD_SLICE_BYTES])

    @property
    def pending(self) -> bool:
        return bool(self._waiting) and not self._inner.eof

    @property
    def complete(self) -> bool:
        return self._inner.eof


_CODECS: dict[str, Callable[[], Codec]] = {
    "gzip": lambda: _Zlib(16 + zlib.MAX_WBITS),
    "x-gzip": lambda: _Zlib(16 + zlib.MAX_WBITS),
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}


def decoded(chunks: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """Give the body without its content coding.

    Raises `UnexpectedContent` at once for a coding that is unknown or whose codec is not installed.
    """
    name = coding.strip().lower()
    if name in {"", "identity"}:
        return chunks
    try:
        codec = _CODECS[name]()
    except (KeyError, ImportError):
        codec = None
    if codec is None:
        msg = f"the answer has the content coding {name!r}, which was not asked for and cannot be undone here"
        raise UnexpectedContent(msg)
    return _Decoded(chunks, codec, name)


class _Decoded:
    """An async iterator; a class, so that nothing is left suspended when the reader stops."""

    def __init__(self, chunks: AsyncIterator[bytes], codec: Codec, name: str) -> None:
        self._chunks = chunks
        self._codec = codec
        self._name = name
        self._wire_bytes = 0
        self._decoded_bytes = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            data = b"" if self._codec.pending else await self._receive()
            piece = self._decode(data)
            if piece:
                return piece

    async def _receive(self) -> bytes:
        try:
            data = await anext(self._chunks)
        except StopAsyncIteration:
            if self._wire_bytes and not self._codec.complete:
                msg = f"the answer's {self._name} coding was cut before its end"
                raise ConnectionLost(msg) from None
            raise
        self._wire_bytes += len(data)
        return data

    def _decode(self, data: bytes) -> bytes:
        try:
            piece = self._codec.feed(data)
        except LimitExceeded:
            raise
        except Exception:  # noqa: BLE001 (each codec has its own error class, some of a module that is not imported)
            msg = f"the answer says that it is {self._name}, but its bytes are not"
            raise UnexpectedContent(msg) from None
        self._decoded_bytes += len(piece)
        if self._decoded_bytes > max(FREE_BYTES, MAX_RATIO * self._wire_bytes):
            msg = f"the answer's {self._name} coding expands more than {MAX_RATIO} to 1: it was stopped"
            raise LimitExceeded(msg)
        return piece
