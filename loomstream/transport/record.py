"""Record: what a transport received, as JSON lines that can be played again.

Contract: a `Transport` around another one, which changes nothing of what passes. Each exchange is one line, written
when its response is left, however that came: the request, the status and headers, and the chunks as they were cut,
each with the time since the request was sent. Credentials are masked before anything is written, sign by sign, so that
every length stays: the secrets of the request, what a name of its address, its headers or its body says is one, and
patterns; also where one is cut by two chunks, or by two values of the same name, as in the deltas of an answer. In a
binary body masked bytes break its checksum. Files are for their owner alone.

A line: `{"version": 1, "recorded_at_s": …, "request": {"method", "url", "headers", "body"}, "response": {"status",
"headers"}, "chunks": [{"after_s", "text" or "base64"}, …], "outcome": "ended" | "left" | "ConnectionLost: …"}`.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import anyio
import msgspec
from msgspec import Struct, structs

from loomstream.errors import ConfigError, LoomstreamError
from loomstream.transport import ByteResponse, Transport
from loomstream.wire import Secret, WireRequest

RECORDING_VERSION = 1
"""Version of a line's form; a change of meaning raises it."""

SECRET_HEADER = re.compile(r"authorization|cookie|key|token|secret|password|credential", re.IGNORECASE)
"""Headers whose values are never written."""

SECRET_PATTERNS: tuple[str, ...] = (
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"\bAIza[A-Za-z0-9_-]{30,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\bhf_[A-Za-z0-9]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\b(?:gsk_|xai-|pplx-|nvapi-)[A-Za-z0-9_-]{16,}",
    r"(?i:\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}",
)
"""How keys of the providers and their neighbours look; masked wherever they stand."""


def without_keys(text: str) -> str:
    """Give a text with "…" in the place of what looks like a key: for messages that quote what somebody wrote."""
    return re.sub("|".join(SECRET_PATTERNS), "…", text)


_MASK = b"*"
_LEAST_SECRET_CHARS = 8
"""What is shorter may be part of any word."""
_TEXT = rb'"((?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*+)'
_MEMBER = re.compile(_TEXT + rb'(?:"(?:\s*+:\s*+' + _TEXT + rb'"?)?+|)')
"""A text of JSON, and the one that it names. Any text is taken whole: to begin again inside one costs the square."""

_MASKED_HEADER = re.compile(f"{SECRET_HEADER.pattern}|auth|jwt|passw|signature", re.IGNORECASE)
_MASKED_MEMBER = re.compile(
    rb"(?i)(?:x[-_])?(?:(?:api|access|account|private|secret|subscription)?[-_]?key|authorization|cookie|credentials?"
    rb"|(?:(?:access|auth|authorization|bearer|id|refresh|session|security)[-_]?)?token|passw(?:or)?d|passphrase"
    rb"|(?:client[-_]?)?secret|(?:secret|aws)[-_]?access[-_]?key(?:[-_]?id)?|connection[-_]?string)"
)
"""Members of a request's body that hold credentials: of an MCP server, say, or of the data that an answer rests on."""

_QUERY_SECRET = re.compile(
    r"key|token|secret|^sig$|signature|credential|auth|passw|passphrase|pwd|jwt|session|^code$|^sid$", re.IGNORECASE
)
_QUERY_PAIR = re.compile(r"([?&;#])([^?&;#=]*+)=([^&;#]*+)")
_USER = re.compile(r"(?<=://)[^/?#]*@")
_FORM = "application/x-www-form-urlencoded"
_FORM_PAIR = re.compile(rb"(?:(?<=&)|\A)([^&=]*+)=([^&]*+)")
_FORM_SECRET = re.compile(rf"{_QUERY_SECRET.pattern}|assertion|ticket|otp", re.IGNORECASE)
"""Fields of a form that hold credentials, as where a token is asked for (RFC 6749, RFC 7523)."""

_PLAIN_HEADER = re.compile(r"accept|content-|user-agent|host$|.*-(?:version|beta|features?)$", re.IGNORECASE)
_OPAQUE = re.compile(r"(?:\S+ )?(?=\S*\d)(?=\S*[A-Za-z])[\w.~+/=:-]{16,}", re.ASCII)
"""A value that tells a reader nothing, under a name that says nothing: it may be a key."""


class RecordedChunk(Struct, frozen=True, omit_defaults=True):
    """A chunk: its bytes as text where they are UTF-8, else in base64; seconds since the request was sent."""

    after_s: float
    text: str | None = None
    base64: str | None = None

    @property
    def data(self) -> bytes:
        """The chunk."""
        return base64.b64decode(self.base64) if self.base64 is not None else (self.text or "").encode()


class RecordedRequest(Struct, frozen=True):
    """What was asked, masked."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: str = ""


class RecordedResponse(Struct, frozen=True):
    """The head of the answer, masked."""

    status: int
    headers: Mapping[str, str]


class Exchange(Struct, frozen=True, kw_only=True):
    """A line of a recording; see the module."""

    version: int = RECORDING_VERSION
    recorded_at_s: float
    request: RecordedRequest
    response: RecordedResponse
    chunks: tuple[RecordedChunk, ...] = ()
    outcome: str = "ended"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Exchange)


def read_recording(path: str | os.PathLike[str]) -> tuple[Exchange, ...]:
    """Give the exchanges of a file, in the order in which they ended.

    Raises `ConfigError` where it cannot be read, or a line is none of this version.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise _unusable(path, "read", error) from error
    return tuple(_read_line(path, number, line) for number, line in enumerate(lines, 1) if line.strip())


def _read_line(path: str | os.PathLike[str], number: int, line: bytes) -> Exchange:
    try:
        exchange = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"line {number} of {os.fspath(path)} is no recorded exchange: {error}"
        raise ConfigError(msg) from error
    if exchange.version != RECORDING_VERSION:
        msg = f"line {number} of {os.fspath(path)} has version {exchange.version}: record it again"
        raise ConfigError(msg)
    return exchange


def _unusable(path: str | os.PathLike[str], what: str, error: OSError) -> ConfigError:
    return ConfigError(f"the recording {os.fspath(path)} cannot be {what}: {error.strerror or error}")


class RecordingTransport:
    """Writes what passes through `transport` to `path`, behind what stands there.

    `secrets` and `patterns` (regular expressions, beside `SECRET_PATTERNS`) are masked too; `request_bodies=False`
    leaves the prompts out. Raises `ConfigError` where the file cannot be opened, or a pattern cannot be read; where a
    line could not be written, when the next request is to be sent.
    """

    def __init__(
        self,
        transport: Transport,
        path: str | os.PathLike[str],
        *,
        secrets: Sequence[str | Secret] = (),
        patterns: Sequence[str] = (),
        request_bodies: bool = True,
    ) -> None:
        self._transport = transport
        self._path = Path(path)
        self._secrets = tuple(value.reveal() if isinstance(value, Secret) else value for value in secrets)
        self._request_bodies = request_bodies
        self._failure: ConfigError | None = None
        try:
            self._patterns = tuple(re.compile(pattern.encode()) for pattern in (*SECRET_PATTERNS, *patterns))
        except re.error as error:
            msg = f"a pattern of the recording is no regular expression: {error}"
            raise ConfigError(msg) from error
        self._append(b"")
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> AsyncGenerator[ByteResponse]:
        """Send the request through the transport; its answer is written when it is left."""
        if self._failure is not None:
            raise self._failure
        began_s = anyio.current_time()
        async with self._transport.open(wire_request, connect_s=connect_s) as response:
            chunks = _Recorded(response.chunks, began_s)
            try:
                yield structs.replace(response, chunks=chunks)
            finally:
                self._append(self._line(wire_request, response, chunks))

    async def prepare(self, url: str) -> None:
        """See `Transport.prepare`."""
        await self._transport.prepare(url)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await self._transport.aclose()

    def _append(self, line: bytes) -> None:
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "ab") as file:
                file.write(line)
        except OSError as error:
            self._failure = _unusable(self._path, "written", error)

    def _line(self, asked: WireRequest, response: ByteResponse, received: _Recorded) -> bytes:
        # what only looks like a credential may be a model's name, which an answer says too: masked in its header alone
        mask = _mask_for((*self._secrets, *_secrets_of(asked, _is_named)), self._patterns)
        request = _masked(asked, mask)
        exchange = Exchange(
            recorded_at_s=time.time(),
            request=request if self._request_bodies else structs.replace(request, body=""),
            response=RecordedResponse(response.status, _headers(response.headers, mask, _is_named)),
            chunks=tuple(_chunks(received, mask)),
            outcome=received.outcome,
        )
        return _encoder.encode(exchange) + b"\n"


class _Recorded:
    """The chunks of a response, kept as they pass."""

    def __init__(self, chunks: AsyncIterator[bytes], began_s: float) -> None:
        self._chunks = chunks
        self._began_s = began_s
        self.kept: list[tuple[float, bytes]] = []
        self.outcome = "left"

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self.outcome = "ended"
            raise
        except LoomstreamError as error:
            self.outcome = f"{type(error).__name__}: {error}"
            raise
        self.kept.append((anyio.current_time() - self._began_s, chunk))
        return chunk


# --- masking -------------------------------------------------------------------------------------


_IsSecret = Callable[[str, str | Secret], bool]
"""Says of a header's name and value whether the value is a credential."""


def masked_request(asked: WireRequest, secrets: Iterable[str] = ()) -> RecordedRequest:
    """Give a request as a recording has it: its credentials, `secrets`, and what looks like a key, are masked."""
    patterns = tuple(re.compile(pattern.encode()) for pattern in SECRET_PATTERNS)
    return _masked(asked, _mask_for((*secrets, *_secrets_of(asked, _is_credential)), patterns))


def _masked(asked: WireRequest, mask: _Mask) -> RecordedRequest:
    without = _without_fields if _is_form(asked) else _without_members
    body = mask(without(asked.body)).decode(errors="replace")
    return RecordedRequest(
        asked.method, mask.text(_plain_url(asked.url)), _headers(asked.headers, mask, _is_credential), body
    )


def _mask_for(secrets: Iterable[str], patterns: Sequence[re.Pattern[bytes]]) -> _Mask:
    return _Mask([secret.encode() for secret in secrets if len(secret) >= _LEAST_SECRET_CHARS], patterns)


class _Mask:
    """Masks secrets and patterns in bytes, sign by sign."""

    def __init__(self, secrets: Sequence[bytes], patterns: Sequence[re.Pattern[bytes]]) -> None:
        literal = [re.compile(re.escape(secret).replace(b"/", rb"\\*/")) for secret in secrets]
        self._searches = (*literal, *patterns)

    def __call__(self, data: bytes) -> bytes:
        """Give the bytes with all that is secret masked, of the same length."""
        out = bytearray(data)
        for start, end in self._spans(data):
            out[start:end] = _MASK * (end - start)
        return bytes(out)

    def text(self, value: str) -> str:
        """The same for a text."""
        return self(value.encode()).decode(errors="replace")

    def _spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        for search in self._searches:
            for found in search.finditer(data):
                yield found.span()
        for values in _values_by_name(data).values():
            yield from self._spans_across(data, values)

    def _spans_across(self, data: bytes, values: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Give where a secret stands in the joined values of one name."""
        joined = b"".join(data[start:end] for start, end in values)
        hits = [found.span() for search in self._searches for found in search.finditer(joined)]
        at = 0
        for start, end in values:
            for first, last in hits:
                low, high = max(first, at), min(last, at + end - start)
                if low < high:
                    yield start + low - at, start + high - at
            at += end - start


def _values_by_name(data: bytes) -> dict[bytes, list[tuple[int, int]]]:
    """Give where the texts of JSON members stand, by the member's name."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    for member in _MEMBER.finditer(data):
        if member[2] is not None:
            found.setdefault(member[1], []).append(member.span(2))
    return found


def _without_members(body: bytes) -> bytes:
    """Mask the texts whose names say that they are credentials."""
    out = bytearray(body)
    for name, values in _values_by_name(body).items():
        if _MASKED_MEMBER.fullmatch(name):
            for start, end in values:
                out[start:end] = _MASK * (end - start)
    return bytes(out)


def _is_form(asked: WireRequest) -> bool:
    types = (value for name, value in asked.headers.items() if name.lower() == "content-type")
    return any(isinstance(value, str) and value.lower().startswith(_FORM) for value in types)


def _without_fields(body: bytes) -> bytes:
    """Mask the fields of a form whose names say that they are credentials."""
    out = bytearray(body)
    for field in _FORM_PAIR.finditer(body):
        if _FORM_SECRET.search(unquote(field[1].decode(errors="replace"))):
            start, end = field.span(2)
            out[start:end] = _MASK * (end - start)
    return bytes(out)


def _chunks(received: _Recorded, mask: _Mask) -> Iterator[RecordedChunk]:
    """Give the chunks, masked as one body and cut again as they were."""
    body = mask(b"".join(chunk for _, chunk in received.kept))
    at = 0
    for after_s, chunk in received.kept:
        data = body[at : at + len(chunk)]
        at += len(chunk)
        try:
            yield RecordedChunk(round(after_s, 6), text=data.decode())
        except UnicodeDecodeError:
            yield RecordedChunk(round(after_s, 6), base64=base64.b64encode(data).decode())


def _headers(headers: Mapping[str, str | Secret], mask: _Mask, is_secret: _IsSecret) -> dict[str, str]:
    return {
        name: mask.text(value) if isinstance(value, str) and not is_secret(name, value) else "***"
        for name, value in headers.items()
    }


def _is_named(name: str, value: str | Secret) -> bool:
    """Say whether the value is a credential, by its kind or its name."""
    return isinstance(value, Secret) or _MASKED_HEADER.search(name) is not None


def _is_credential(name: str, value: str | Secret) -> bool:
    """The same of what is sent; also where it looks as if it were one."""
    if isinstance(value, Secret) or _MASKED_HEADER.search(name):
        return True
    return not _PLAIN_HEADER.match(name) and _OPAQUE.fullmatch(value.strip()) is not None


def _secrets_of(asked: WireRequest, is_secret: _IsSecret) -> Iterable[str]:
    """Give the credentials of a request, each also without the word of its scheme."""
    for name, value in asked.headers.items():
        if is_secret(name, value):
            revealed = value.reveal() if isinstance(value, Secret) else value
            yield revealed
            yield revealed.rpartition(" ")[2]


def _plain_url(url: str) -> str:
    return _QUERY_PAIR.sub(_plain_pair, _USER.sub("***@", url))


def _plain_pair(found: re.Match[str]) -> str:
    mark, name, value = found.groups()
    return f"{mark}{name}={'***' if _QUERY_SECRET.search(unquote(name)) else value}"
