"""As much HTTP/1.1 as the simulator needs: a request read, a head and a chunk written.

Contract: bounded; whatever a client sends ends in a `Request`, in None (it closed) or in `BadRequest`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from msgspec import Struct

MAX_BODY_BYTES = 64 * 2**20
_FEWEST_WORDS = 3


class BadRequest(Exception):
    """The bytes are no request that is served here."""


class Request(Struct, frozen=True):
    """A request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read a request; None where the client closed instead."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        msg = "the headers are too long"
        raise BadRequest(msg) from error
    line, *fields = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = line.split(" ")
    if len(words) != _FEWEST_WORDS or not words[2].startswith("HTTP/1."):
        msg = "this is no HTTP/1.1 request line"
        raise BadRequest(msg)
    pairs = (field.partition(":") for field in fields)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    try:
        body = await _read_body(reader, headers)
    except asyncio.IncompleteReadError:
        return None
    return Request(words[0], words[1], headers, body)


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    length = _size(headers.get("content-length", "0"), 10)
    return await reader.readexactly(length)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = _size(line.split(b";")[0].strip().decode("latin-1"), 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if size == 0:
            return bytes(body)
        if len(body) > MAX_BODY_BYTES:
            msg = "the body is too long"
            raise BadRequest(msg)


def _size(text: str, base: int) -> int:
    try:
        size = int(text, base)
    except ValueError as error:
        msg = f"no length of a body: {text[:40]!r}"
        raise BadRequest(msg) from error
    if not 0 <= size <= MAX_BODY_BYTES:
        msg = f"a body of {size} bytes is not taken"
        raise BadRequest(msg)
    return size


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Give a response's head."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Simulated"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def http_chunk(data: bytes) -> bytes:
    """Give the data as one chunk; nothing for no data, which would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
