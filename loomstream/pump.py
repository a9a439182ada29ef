"""Bytes to events: the synchronous heart of the pipeline, and `decode` for captured bytes.

Contract: `Pump` joins sniffing, decoder and translator for one response; it does no I/O and never raises. The events do
not depend on how the bytes were cut. `decode` is the same pump over bytes that somebody kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Dialect, Target
from loomstream.dialects.fields import as_object
from loomstream.dialects.http_errors import limits, request_id
from loomstream.dialects.shortcut import Shortcut
from loomstream.errors import Failure, LoomstreamError, RedirectRefused, UnexpectedContent, UsageError
from loomstream.events import CONTENT_EVENTS, Event, EventBase, Raw, Start, Stop, Usage, places_of
from loomstream.kind_names import kind_of
from loomstream.providers import dialect_module, dialects_of, framing, look_up, route
from loomstream.wire import Decoder, Frame, Secret
from loomstream.wire.aws import AWSDecoder
from loomstream.wire.json import loads
from loomstream.wire.json_body import BODY, JSONBodyDecoder
from loomstream.wire.ndjson import NDJSONDecoder
from loomstream.wire.sniff import sniff, squeeze
from loomstream.wire.sse import SSEDecoder

MAX_ERROR_BODY_BYTES = 64 * 1024
"""No more of an error response is read."""

MAX_SNIFFED_BYTES = 64 * 1024
"""A body must show within this many bytes what it is: some hosts keep a connection alive by blank lines."""

_DECODERS: dict[str, Callable[[], Decoder]] = {
    "aws": AWSDecoder,
    "sse": SSEDecoder,
    "ndjson": NDJSONDecoder,
    "json": JSONBodyDecoder,
}
_CHECKED: frozenset[type] = frozenset((Start, Stop, Failure))
"""What the pump looks at one by one, in a list of a stream's events."""
_CHECKED_WHOLE = _CHECKED | {Usage}
"""The same, in those of an answer that came whole."""
_CONTENT: frozenset[type[EventBase]] = frozenset(CONTENT_EVENTS)
_REDIRECT = 300
_ERROR = 400

_BUFFERS = (bytes, bytearray, memoryview)

Buffer = bytes | bytearray | memoryview
"""Captured bytes."""

_Out = list[Event | Failure]


class Pump:
    """One response's bytes to events. `secrets` are what was sent: no error shows one, should the peer echo it.

    `progressed` is True after a `feed` that gave a content event; `over` after `Stop` or a failure,
    `ended_well` after `Stop`.
    """

    __slots__ = (
        "_beginning",
        "_content_type",
        "_decoder",
        "_expected",
        "_feed_all",
        "_feed_one",
        "_head",
        "_head_bytes",
        "_raw_events",
        "_secrets",
        "_shortcut",
        "_sse",
        "_translator",
        "_warnings",
        "_whole",
        "dialect",
        "ended_well",
        "headers",
        "over",
        "progressed",
        "target",
    )

    def __init__(  # noqa: PLR0913 (what is known of a response; all keyword-only)
        self,
        *,
        dialect: Dialect,
        target: Target,
        expected: str,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        warnings: tuple[str, ...] = (),
        raw_events: bool = False,
        secrets: tuple[Secret, ...] = (),
    ) -> None:
        self._secrets = secrets
        self.dialect = dialect
        self.target = target
        self._expected = expected
        self._content_type = content_type
        self.headers = headers or {}
        self._warnings = warnings
        self._raw_events = raw_events
        self._translator = dialect.translator(target)
        self._feed_all: Callable[[list[Frame]], _Out] | None = getattr(self._translator, "feed_all", None)
        """The translator's own way to take the frames of a chunk, where it has one."""
        plain = self._feed_all is None and not raw_events
        self._feed_one = self._translator.feed if plain else None
        """The way of a frame that comes alone, where it becomes what the translator makes of it and nothing else."""
        self._sse: SSEDecoder | None = None
        """The decoder, where a chunk may be compared with the translator's pattern of a text frame."""
        self._shortcut: Shortcut | None = None
        """That pattern, where the translator has one."""
        self._head: list[bytes] = []
        """The chunks that came while it was not known what the body is."""
        self._head_bytes = 0
        self._beginning = b""
        """What of them still decides it."""
        self._decoder: Decoder | None = None
        self._whole = False
        self.progressed = False
        self.over = False
        self.ended_well = False

    def feed(self, chunk: bytes) -> list[Event | Failure]:
        """Take a chunk of the body, give its events."""
        if self.over:
            return []
        sse, shortcut = self._sse, self._shortcut
        if sse is None or shortcut is None or not sse.between_frames:
            return self._translate(self._decoded(chunk))
        repeated = shortcut.events(chunk, shortcut.written)
        if repeated is not None:  # most reads
            self.progressed = bool(repeated)
            return repeated
        frames = sse.feed(chunk)
        out = self._translate(frames)
        if len(frames) == 1 and sse.between_frames and isinstance(frame := frames[0], Frame):
            shortcut.learn_written(chunk, frame.data)
        return out

    def _decoded(self, chunk: bytes) -> list[Frame | Failure]:
        """Give the frames of a chunk; the first ones say which decoder the body needs."""
        if self._decoder is None:
            chosen = self._choose(chunk)
            if chosen is None:
                return []
            chunk, self._head = b"".join(self._head), []
            if isinstance(chosen, Failure):
                return [chosen]
            self._decoder = _DECODERS[chosen]()
            self._whole = chosen == "json"
            if self._whole:
                self._feed_one = None
            elif self._feed_one is not None and isinstance(self._decoder, SSEDecoder):
                self._sse = self._decoder
                self._shortcut = getattr(self._translator, "shortcut", None)
        return self._decoder.feed(chunk)

    def _choose(self, chunk: bytes) -> str | Failure | None:
        """Keep a chunk of the head; say which decoder the body needs, None while that does not show."""
        beginning = self._beginning + chunk[: MAX_SNIFFED_BYTES - self._head_bytes]
        self._head.append(chunk)
        self._head_bytes += len(chunk)
        chosen = sniff(beginning, self._expected, self._content_type)
        if chosen is None and self._head_bytes >= MAX_SNIFFED_BYTES:
            return Failure(UnexpectedContent(f"the answer begins with {MAX_SNIFFED_BYTES} bytes of white space"))
        self._beginning = squeeze(beginning) if chosen is None else b""
        return chosen

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come: it ends in `Stop` or in a failure."""
        if self.over:
            return []
        out = self._translate(self._decoder.finish()) if self._decoder is not None else []
        return out if self.over else out + self._checked(self._translator.finish())

    def _translate(self, frames: list[Frame | Failure]) -> _Out:
        if len(frames) == 1 and self._feed_one is not None and type(frame := frames[0]) is Frame:  # most reads
            return self._checked(self._feed_one(frame))
        failure = frames.pop() if frames and isinstance(frames[-1], Failure) else None
        good: list[Frame] = frames  # pyright: ignore[reportAssignmentType] (a failure is the last of its list)
        out: _Out = []
        if self._raw_events or self._whole:
            for frame in good:
                out += self._frame_events(frame)
        elif self._feed_all is not None:
            out = self._feed_all(good)
        else:
            translate = self._translator.feed
            for frame in good:
                out += translate(frame)
        if isinstance(failure, Failure):
            out.append(failure)
        return self._checked(out)

    def _frame_events(self, frame: Frame) -> _Out:
        """Give the events of a frame of a stream whose frames are given too, or of an answer that came whole."""
        raw: _Out = [Raw(frame.name, frame.data.decode("utf-8", "replace"))] if self._raw_events else []
        if self._whole and frame.name == BODY:
            return raw + self.dialect.parse_response(frame.data, self.target)
        return raw + self._translator.feed(frame)

    def _checked(self, out: _Out) -> _Out:
        """Note progress and the end; complete each `Start` and the failure with what the response's head told.

        Nothing leaves the pump behind the end, whatever a translator gave.
        """
        if len(out) == 1 and out[0].__class__ in _CONTENT:  # what most reads bring
            self.progressed = True
            return out
        self.progressed = not _CONTENT.isdisjoint(map(type, out))
        for position in places_of(_CHECKED_WHOLE if self._whole else _CHECKED, out):
            event = out[position]
            if isinstance(event, Start):
                out[position] = self._completed(event)
            elif isinstance(event, Usage):
                if self.target.quirks.cost_header:
                    out[position] = self._billed(event)
            else:
                self.over = True
                if isinstance(event, Failure):
                    self.complete_error(event.error)
                else:
                    self.ended_well = True
                if position + 1 < len(out):
                    del out[position + 1 :]
                    self.progressed = not _CONTENT.isdisjoint(map(type, out))
                break
        return out

    def _billed(self, usage: Usage) -> Usage:
        """Give the usage with the cost that the response's head told, where its own object tells none."""
        cost = self.headers.get(self.target.quirks.cost_header, "")
        told = as_object(loads(usage.raw))
        if not cost or "cost" in told:
            return usage
        return msgspec.structs.replace(usage, raw=RawJSON(msgspec.json.encode({**told, "cost": cost})))

    def _served_model(self, model: str) -> str:
        """Give the model of an answer; a router's with the backend that the response's head names."""
        header = self.target.quirks.backend_header
        backend = self.headers.get(header, "") if header else ""
        return f"{self.target.model.partition(':')[0]}:{backend}" if backend else model

    def _completed(self, start: Start) -> Start:
        return msgspec.structs.replace(
            start,
            model=self._served_model(start.model),
            limits=limits(self.headers),
            warnings=self._warnings + start.warnings,
            request_id=start.request_id or request_id(self.headers),
        )

    def complete_error(self, error: LoomstreamError) -> LoomstreamError:
        """Give the error with who was asked, the id of its request, and no secret in it."""
        error.provider = error.provider or self.target.provider
        error.model = error.model or self.target.model
        error.request_id = error.request_id or request_id(self.headers)
        for secret in self._secrets:
            error.redact(secret.reveal())
        return error

    def status_error(self, status: int, body: bytes) -> LoomstreamError:
        """Give the typed error of a response whose status is no success; `body` is its beginning."""
        target = self.target
        if status >= _ERROR:
            return self.complete_error(
                self.dialect.parse_error(status, self.headers, body[:MAX_ERROR_BODY_BYTES], target)
            )
        msg = (
            f"{target.provider} answered {status} and points to another address: redirects are not followed, so that "
            "no key or prompt goes to a host that you did not name; set base_url to the final address"
        )
        return self.complete_error(RedirectRefused(msg))


def decode(  # noqa: PLR0913 (what was captured; all but the bytes are keyword-only)
    provider: str,
    chunks: Buffer | Iterable[Buffer],
    *,
    dialect: str | None = None,
    content_type: str | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    model: str | None = None,
    raw_events: bool = False,
) -> Iterator[Event]:
    """Give the events of a captured response body: offline, synchronous, no key.

    `provider` is a provider's name, `dialect` a dialect's module name (default: the one that the provider speaks for
    the model),
    `content_type`, `status` and `headers` what the response's head said, `model` what was asked for. `raw_events`
    precedes each frame's events by a `Raw`. The events before an error are given first.

    Raises `UnknownProvider` and `ConfigError` (no such dialect) at once; out of the iteration `StreamTruncated` where
    the terminal marker is missing, a `ProviderError` where the provider sent one, a `WireError` for anything
    unreadable, `UsageError` for chunks that are no bytes.
    """
    row = look_up(provider)
    model = model or row.default_model
    spoken = route(row, model, dialect=dialect if dialect in dialects_of(row) else "")
    target = Target(provider=row.name, model=model, base_url=spoken.base_url, quirks=spoken.quirks)
    name = dialect or spoken.dialect
    head = {key.lower(): value for key, value in (headers or {}).items()}
    pump = Pump(
        dialect=dialect_module(name),
        target=target,
        expected=framing(name),
        content_type=content_type or head.get("content-type", ""),
        headers=head,
        raw_events=raw_events,
    )
    pieces = _pieces(chunks)
    return _body_events(pump, pieces) if status < _REDIRECT else _error_events(pump, status, pieces)


def _pieces(chunks: Buffer | Iterable[Buffer]) -> Iterator[bytes]:
    for chunk in (chunks,) if isinstance(chunks, _BUFFERS) else chunks:
        if not isinstance(chunk, _BUFFERS):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
            msg = f"decode got {kind_of(chunk)}: give the body's bytes, whole or in pieces"
            raise UsageError(msg)
        yield bytes(chunk)


def _error_events(pump: Pump, status: int, pieces: Iterable[bytes]) -> Iterator[Event]:
    yield from ()
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) >= MAX_ERROR_BODY_BYTES:
            break
    raise pump.status_error(status, bytes(body))


def _body_events(pump: Pump, pieces: Iterable[bytes]) -> Iterator[Event]:
    for chunk in pieces:
        yield from or_raise(pump.feed(chunk))
        if pump.over:
            return
    yield from or_raise(pump.finish())


def or_raise(events: list[Event | Failure]) -> Iterator[Event]:
    """Give the events; where a failure ends them, raise its error."""
    for event in events:
        if isinstance(event, Failure):
            raise event.error
        yield event
