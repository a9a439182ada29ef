"""Converse frames to events.

Contract: one `ConverseTranslator` per stream; it never raises. A whole answer goes through the same code as a stream,
so both fold to the same response. What has no event of its own comes out as `Unknown`, never lost; a guardrail's trace
and additional response fields, which a request must ask for, as a `Notice`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.aws_errors import fault, parse_error
from loomstream.dialects.bedrock_converse.parts import Parts, unknown
from loomstream.dialects.bedrock_converse.usage import read_usage
from loomstream.dialects.bedrock_converse.wire import (
    StreamEvent,
    answer_decoder,
    plain_decoder,
    stream_event_decoder,
)
from loomstream.dialects.blocks import Sealer
from loomstream.dialects.bodies import compact
from loomstream.dialects.failures import bad_frame, broken
from loomstream.dialects.fields import is_null, read_text
from loomstream.dialects.shortcut import PlainReader
from loomstream.errors import BadFrame, Failure, StreamTruncated
from loomstream.events import Event, Notice, ReasoningDelta, Start, Stop, StopReason, TextDelta, Usage
from loomstream.wire import Frame
from loomstream.wire.aws import fault_kind
from loomstream.wire.json import Reader, quote

_Out = list[Event | Failure]
_Handler = Callable[["ConverseTranslator", StreamEvent, Frame, _Out], None]

STOP_REASONS: dict[str, StopReason] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "pause_turn": "pause",
    "refusal": "refusal",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "model_context_window_exceeded": "context_window",
}
"""The wire's stop reasons; any other, `malformed_model_output` and `malformed_tool_use` among them, is `other`."""

_DELTA, _METADATA = "contentBlockDelta", "metadata"
_OK = 200
_GROWTH = frozenset((TextDelta, ReasoningDelta))


class ConverseTranslator:
    """Frames of one stream to events."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(stream_event_decoder)
        self._plain = PlainReader(plain_decoder)
        self._growing = False
        """Whether the last frame did nothing but add to a block of text or reasoning."""
        self._sealer = Sealer(self._reader)
        self._parts = Parts(target)
        self._started = False
        self._head_seen = False
        self._stop: str | None = None
        """The stop reason, once `messageStop` came."""
        self._metadata_seen = False
        self._usage: Usage | None = None
        """What was told last; it is final where the stream ends."""

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        return self.feed_all((frame,))

    def feed_all(self, frames: Iterable[Frame]) -> list[Event | Failure]:
        """Take frames one after the other, give the events of all."""
        out: _Out = []
        read = self._plain.read
        for frame in frames:
            plain = read(frame.data) if self._growing and frame.name == _DELTA else None
            delta = None if plain is None else self._parts.plain(plain)
            if delta is None:
                out += self._read(frame)
            else:
                out.append(delta)
        return out

    def _read(self, frame: Frame) -> list[Event | Failure]:
        """Give the events of a frame that is read in full."""
        if self._sealer.over:
            return []
        out: _Out = []
        self._growing = False
        if frame.name == _DELTA:
            event = self._reader.read(frame.data)
            if isinstance(event, Failure):
                out.append(broken(event.error, self._target))
            elif event.delta is None or self._stop is not None or not self._started:
                self._odd_delta(event, frame, out)
            else:
                self._parts.delta(event.content_block_index, event.delta, frame, out)
                self._growing = len(out) == 1 and out[0].__class__ in _GROWTH and not self._reader.carried
        else:
            self._dispatch(frame, out)
        return self._sealer.seal(out)

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        if self._sealer.over:
            return []
        out: _Out = []
        if self._stop is None:
            self._sealer.over = True
            out.append(self._truncated("messageStop" if self._started else "messageStart"))
        else:
            out.append(Notice("warning", "the body ended before its metadata: there is no usage"))
            self._end(self._stop, out)
        return self._sealer.seal(out)

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
        elif answer.output is None and not is_null(answer.message):
            out.append(Failure(parse_error(_OK, {}, body, self._target)))
        elif answer.output is None or answer.output.message is None:
            out.append(broken(BadFrame(f"{self._target.provider}: no message: {quote(body)}"), self._target))
        else:
            self._start(out)
            for raw in answer.output.message.content or ():
                self._parts.whole(raw, out)
            self._extras(answer.additional_model_response_fields, answer.trace, out)
            self._stop = None if is_null(answer.stop_reason) else read_text(answer.stop_reason)
            self._add_usage(answer.usage, out)
            if self._stop is None:
                out.append(self._truncated("its stopReason"))
            else:
                self._end(self._stop, out)
        return self._sealer.seal(out)

    # --- frames ----------------------------------------------------------------------------------

    def _dispatch(self, frame: Frame, out: _Out) -> None:
        handler = self._HANDLERS.get(frame.name)
        if frame.headers is not None and fault_kind(frame.headers):
            out.append(fault(frame, frame.headers, self._target))
            return
        if handler is None:
            out.append(unknown(frame))
            return
        event = self._reader.read(frame.data)
        if isinstance(event, Failure) and frame.name == _METADATA:
            event = StreamEvent()
            out.append(Notice("warning", f"the metadata is unreadable: {quote(frame.data)}"))
        if isinstance(event, Failure):
            out.append(broken(event.error, self._target))
        else:
            handler(self, event, frame, out)

    def _message_start(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        if self._head_seen:
            out.append(bad_frame("a second messageStart: two streams were spliced", frame.data, self._target))
            return
        self._head_seen = True
        self._start(out)

    def _start(self, out: _Out) -> None:
        if not self._started:
            self._started = True
            out.append(Start(provider=self._target.provider, model=self._target.model))

    def _in_message(self, frame: Frame, out: _Out) -> bool:
        """Say whether a block's frame comes in time; open the message where its head is missing."""
        if self._stop is not None:
            out.append(bad_frame(f"a {frame.name} came after messageStop", frame.data, self._target))
            return False
        if not self._started:
            self._start(out)
        return True

    def _block_start(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        if self._in_message(frame, out):
            self._parts.start(event.content_block_index, event.start, frame, out)

    def _odd_delta(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        """Take a delta that is not where it should be, or says nothing that is known."""
        if not self._in_message(frame, out):
            return
        if event.delta is None:
            out.append(unknown(frame))
        else:
            self._parts.delta(event.content_block_index, event.delta, frame, out)

    def _block_stop(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._parts.stop(event.content_block_index, out)

    def _message_stop(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        if not self._in_message(frame, out):
            return
        self._stop = read_text(event.stop_reason)
        self._parts.stop_all(out)
        self._extras(event.additional_model_response_fields, event.trace, out)
        if self._metadata_seen:
            self._end(self._stop, out)

    def _metadata(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._start(out)
        self._metadata_seen = True
        self._extras(event.additional_model_response_fields, event.trace, out)
        self._add_usage(event.usage, out)
        if self._stop is not None:
            self._end(self._stop, out)

    # --- usage and stop --------------------------------------------------------------------------

    @staticmethod
    def _extras(fields: RawJSON, trace: RawJSON, out: _Out) -> None:
        if not is_null(fields):
            out.append(Notice("warning", f"additionalModelResponseFields: {compact(fields)}"))
        if not is_null(trace):
            out.append(Notice("warning", f"trace: {compact(trace)}"))

    def _add_usage(self, raw: RawJSON, out: _Out) -> None:
        """Take a usage. Before the end it is told at once, but not as the final one: another may follow."""
        if is_null(raw):
            return
        self._usage, mistyped = read_usage(raw)
        out += [Notice("warning", f"mistyped usage field {name}") for name in mistyped]
        if self._stop is None:
            out.append(self._usage)

    def _end(self, reason: str, out: _Out) -> None:
        self._sealer.over = True
        if self._usage is not None:
            out.append(msgspec.structs.replace(self._usage, final=True))
        self._parts.stop_all(out)
        if self._parts.empty and reason == "end_turn":
            out.append(Notice("warning", "the answer is empty"))
        out.append(Stop(STOP_REASONS.get(reason, "other"), reason))

    _HANDLERS: ClassVar[dict[str, _Handler]] = {
        "messageStart": _message_start,
        "contentBlockStart": _block_start,
        "contentBlockStop": _block_stop,
        "messageStop": _message_stop,
        _METADATA: _metadata,
    }


def translator(target: Target) -> ConverseTranslator:
    """Give a translator for one stream."""
    return ConverseTranslator(target)


def parse_response(body: bytes, target: Target) -> list[Event | Failure]:
    """Give the events of a whole answer; they fold to the same response as the stream's."""
    return ConverseTranslator(target).whole(body)
