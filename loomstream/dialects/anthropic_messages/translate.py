"""Messages frames to events.

Contract: one `MessagesTranslator` per stream; it never raises. A whole answer goes through the same code as a stream,
so both fold to the same response. What has no event of its own (a `fallback` or `compaction` block, a frame, block or
delta of a type that is not known) comes out as `Unknown`, never lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.anthropic_messages.errors import stream_error
from loomstream.dialects.anthropic_messages.parts import Parts, unknown
from loomstream.dialects.anthropic_messages.usage import UsageFold
from loomstream.dialects.anthropic_messages.wire import Answer, StreamEvent, answer_decoder, stream_event_decoder
from loomstream.dialects.blocks import Sealer
from loomstream.dialects.bodies import compact
from loomstream.dialects.failures import bad_frame, broken
from loomstream.dialects.fields import as_object, is_null, read_text
from loomstream.dialects.shortcut import Shortcut
from loomstream.errors import BadFrame, Failure, StreamTruncated
from loomstream.events import Event, Notice, Start, Stop, StopReason, TextDelta
from loomstream.wire import Frame
from loomstream.wire.json import Reader, loads, quote

_Out = list[Event | Failure]
_Handler = Callable[["MessagesTranslator", StreamEvent, Frame, _Out], None]

STOP_REASONS: dict[str, StopReason] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_window",
}
"""The wire's stop reasons; any other is `other`."""

_DELTA = "content_block_delta"
_DONE = b"[DONE]"


class MessagesTranslator:
    """Frames of one stream to events."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(stream_event_decoder)
        self._sealer = Sealer(self._reader)
        self._started = False
        self.shortcut = Shortcut(b"text")
        self._new_epoch()

    def _new_epoch(self) -> None:
        self._parts = Parts(self._target)
        self._sealer.begin_epoch()
        self._usage = UsageFold()
        self._stop = ""

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        data = frame.data
        shortcut = self.shortcut
        repeated = shortcut.events(data, shortcut.frame)
        if repeated is not None:
            return repeated
        shortcut.index = -1
        if self._sealer.over or data == _DONE:
            return []
        event = self._reader.read(data)
        out: _Out = []
        if isinstance(event, Failure):
            self._unreadable(frame, event, out)
        elif event.type == _DELTA:
            self._block_delta(event, frame, out)
            if len(out) == 1 and isinstance(delta := out[0], TextDelta) and not self._reader.carried:
                shortcut.learn(data, delta)
        else:
            self._dispatch(event, frame, out)
        return self._sealer.seal(out)

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        if self._sealer.over:
            return []
        self._sealer.over = True
        return [self._truncated("message_stop" if self._started else "message_start")]

    def _truncated(self, missing: str) -> Failure:
        return broken(StreamTruncated(f"{self._target.provider}: the body ended before {missing}"), self._target)

    def whole(self, body: bytes) -> list[Event | Failure]:
        """Give the events of a whole answer."""
        reader = Reader(answer_decoder)
        self._sealer = Sealer(reader)
        answer = reader.read(body)
        out: _Out = []
        if isinstance(answer, Failure):
            out.append(broken(answer.error, self._target))
        elif answer.type == "error" or not is_null(answer.error):
            out.append(Failure(stream_error(body, self._target)))
        elif answer.content is None:
            out.append(broken(BadFrame(f"{self._target.provider}: no message: {quote(body)}"), self._target))
        else:
            self._begin(answer, out)
            self._note_stop(answer.stop_reason, answer.stop_details, out)
            if self._stop:
                self._end(out)
            else:
                out.append(self._truncated("its stop_reason"))
        return self._sealer.seal(out)

    # --- frames ----------------------------------------------------------------------------------

    def _dispatch(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        kind = event.type or ("error" if not is_null(event.error) else frame.name)
        handler = self._HANDLERS.get(kind)
        if handler is not None:
            handler(self, event, frame, out)
        elif frame.name == "error" or not is_null(event.error):
            self._error(event, frame, out)
        else:
            out.append(unknown(frame))

    def _unreadable(self, frame: Frame, failure: Failure, out: _Out) -> None:
        """Keep a frame of a type from the future, whose fields may have other types; any other is broken."""
        value = as_object(loads(frame.data))
        kind = value.get("type")
        delta = as_object(value.get("delta")).get("type")
        new_frame = isinstance(kind, str) and kind not in self._HANDLERS
        new_delta = kind == _DELTA and isinstance(delta, str) and not Parts.knows_delta(delta)
        out.append(unknown(frame) if new_frame or new_delta else broken(failure.error, self._target))

    def _message_start(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        if self._started and not self._parts.fallback:
            out.append(bad_frame("a second message_start: two streams were spliced", frame.data, self._target))
            return
        answer = Reader(answer_decoder).read(bytes(event.message))
        if isinstance(answer, Failure):
            answer = Answer()
            out.append(Notice("warning", f"the head of the message is unreadable: {quote(frame.data)}"))
        if self._started:
            self._new_epoch()
            out.append(Notice("reset", "the provider starts again with another model"))
        self._begin(answer, out)

    def _begin(self, answer: Answer, out: _Out) -> None:
        self._start(out, read_text(answer.model), read_text(answer.id))
        for position, raw in enumerate(answer.content or ()):
            self._parts.start(position, raw, Frame("content_block", bytes(raw)), out)
            self._parts.stop(position, out)
        self._add_usage(answer.usage, out)

    def _start(self, out: _Out, model: str = "", response_id: str = "") -> None:
        self._started = True
        target = self._target
        out.append(Start(provider=target.provider, model=model or target.model, response_id=response_id))

    def _block_start(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        if not self._started:
            self._start(out)
        self._parts.start(event.index, event.content_block, frame, out)

    def _block_delta(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        if not self._started:
            self._start(out)
        if event.delta is None:
            out.append(unknown(frame))
        else:
            self._parts.delta(event.index, event.delta, frame, out)

    def _block_stop(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._parts.stop(event.index, out)

    def _message_delta(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        if not self._started:
            self._start(out)
        if event.delta is not None:
            self._note_stop(event.delta.stop_reason, event.delta.stop_details, out)
        self._add_usage(event.usage, out)

    def _message_stop(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        if self._started:
            self._end(out)
        else:
            out.append(bad_frame("message_stop came without message_start", frame.data, self._target))

    def _ping(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        """Do nothing: a ping is neither content nor progress."""

    def _error(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        out.append(Failure(stream_error(frame.data, self._target)))

    # --- usage and stop --------------------------------------------------------------------------

    def _add_usage(self, raw: RawJSON, out: _Out) -> None:
        if is_null(raw):
            return
        out += [Notice("warning", f"mistyped usage field {name}") for name in self._usage.add(raw)]
        usage = self._usage.usage()
        if usage is not None:
            out.append(usage)

    def _note_stop(self, reason: RawJSON, details: RawJSON, out: _Out) -> None:
        self._stop = read_text(reason) or self._stop
        if not is_null(details):
            out.append(Notice("warning", f"stop_details: {compact(details)}"))

    def _end(self, out: _Out) -> None:
        self._sealer.over = True
        self._parts.stop_all(out)
        if self._parts.empty and self._stop == "end_turn":
            out.append(Notice("warning", "the answer is empty"))
        usage = self._usage.usage(final=True)
        if usage is not None:
            out.append(usage)
        out.append(Stop(STOP_REASONS.get(self._stop, "other"), self._stop))

    _HANDLERS: ClassVar[dict[str, _Handler]] = {
        "message_start": _message_start,
        "content_block_start": _block_start,
        "content_block_delta": _block_delta,
        "content_block_stop": _block_stop,
        "message_delta": _message_delta,
        "message_stop": _message_stop,
        "ping": _ping,
        "error": _error,
    }


def translator(target: Target) -> MessagesTranslator:
    """Give a translator for one stream."""
    return MessagesTranslator(target)


def parse_response(body: bytes, target: Target) -> list[Event | Failure]:
    """Give the events of a whole answer; they fold to the same response as the stream's."""
    return MessagesTranslator(target).whole(body)
