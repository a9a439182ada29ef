"""InvokeModel frames to events: each `chunk` is unwrapped and given to the translator of what it holds.

Contract: one `InvokeTranslator` per stream; it never raises. The first chunk decides between Messages events and a
plain completion; anything else is `UnexpectedContent`.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from loomstream.dialects import Target, Translator, anthropic_messages
from loomstream.dialects.aws_errors import fault, parse_error
from loomstream.dialects.bedrock_invoke.completions import CompletionsTranslator, is_completion, usage_of
from loomstream.dialects.bodies import compact
from loomstream.dialects.fields import JSONObject, as_object
from loomstream.errors import BadFrame, Failure, LoomstreamError, StreamTruncated, UnexpectedContent
from loomstream.events import Event, Notice, Stop, Unknown, Usage
from loomstream.wire import Frame
from loomstream.wire.aws import fault_kind
from loomstream.wire.json import Reader, loads, quote

_Out = list[Event | Failure]
_CHUNK = "chunk"
_OWN = b'"amazon-bedrock-'
"""What the service adds to a model's own last event."""
_BARE = b'"type"'
"""What an event holds that was not put into base64: servers that stand in for the service leave that out (aimock)."""
_GUARDRAIL = ("amazon-bedrock-guardrailAction", "amazon-bedrock-trace")
_NO_ACTION = "NONE"
_OK = 200
_ENDS = (Stop, Failure)


class Chunk(Struct, gc=False):
    """The payload of a `chunk`: the model's event, in base64; `p` is padding."""

    event: bytes | None = msgspec.field(default=None, name="bytes")


_chunk_decoder = msgspec.json.Decoder(Chunk)


class InvokeTranslator:
    """Frames of one stream to events."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(_chunk_decoder)
        self._inner: Translator | None = None
        self._over = False

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        if self._over:
            return []
        if frame.name != _CHUNK:
            return self._other(frame)
        chunk = self._reader.read(frame.data)
        if isinstance(chunk, Failure):
            return self._failed(chunk.error)
        data = chunk.event or (frame.data if frame.data.find(_BARE) >= 0 else b"")
        inner = self._inner if data else None
        if inner is None:
            inner = self._choose(frame, data)
            if isinstance(inner, Failure):
                return self._failed(inner.error)
            self._inner = inner
        events = inner.feed(Frame("", data))
        if events and events[-1].__class__ in _ENDS:
            self._over = True
            return _with_own(events, data) if _OWN in data else events
        return events

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        if self._over:
            return []
        self._over = True
        if self._inner is not None:
            return self._inner.finish()
        return self._failed(StreamTruncated(f"{self._target.provider}: the body ended before its first chunk"))

    def _other(self, frame: Frame) -> list[Event | Failure]:
        if frame.headers is None or not fault_kind(frame.headers):
            return [Unknown(frame.name, frame.data.decode("utf-8", "replace"))]
        self._over = True
        return [fault(frame, frame.headers, self._target)]

    def _choose(self, frame: Frame, data: bytes) -> Translator | Failure:
        if not data:
            return Failure(BadFrame(f"{self._target.provider}: a chunk without bytes: {quote(frame.data)}"))
        fields = as_object(loads(data))
        if not fields or "type" in fields:
            return anthropic_messages.translator(self._target)
        return CompletionsTranslator(self._target) if is_completion(fields) else _foreign(fields)

    def _failed(self, error: LoomstreamError) -> list[Event | Failure]:
        self._over = True
        error.provider, error.model = self._target.provider, self._target.model
        return [Failure(error)]


def _foreign(fields: JSONObject) -> Failure:
    keys = ", ".join(list(fields)[:8]) or "none"
    return Failure(
        UnexpectedContent(
            f"the body is that of a model family which InvokeModel does not read here (its keys: {keys}): "
            "use the dialect bedrock_converse, which serves every chat model"
        )
    )


def _with_own(events: list[Event | Failure], data: bytes) -> list[Event | Failure]:
    """Put what the service itself says before the end: a guardrail's action, and the usage where there is no other."""
    fields = as_object(loads(data))
    said = {name: fields[name] for name in _GUARDRAIL if fields.get(name, _NO_ACTION) != _NO_ACTION}
    notice = Notice("warning", f"guardrail: {compact(msgspec.Raw(msgspec.json.encode(said)))}") if said else None
    usage = None if any(isinstance(event, Usage) for event in events) else usage_of(fields)
    own = [event for event in (notice, usage) if event is not None]
    place = next((position for position, event in enumerate(events) if isinstance(event, Stop)), None)
    return events if place is None else [*events[:place], *own, *events[place:]]


def translator(target: Target) -> InvokeTranslator:
    """Give a translator for one stream."""
    return InvokeTranslator(target)


def parse_response(body: bytes, target: Target) -> list[Event | Failure]:
    """Give the events of a whole answer; they fold to the same response as the stream's."""
    fields = as_object(loads(body))
    if not fields or fields.keys() & {"type", "content"}:
        events = anthropic_messages.parse_response(body, target)
        return _with_own(events, body) if _OWN in body else events
    if is_completion(fields):
        return CompletionsTranslator(target).whole(body)
    if "message" in fields:
        return [Failure(parse_error(_OK, {}, body, target))]
    failure = _foreign(fields)
    failure.error.provider, failure.error.model = target.provider, target.model
    return [failure]
