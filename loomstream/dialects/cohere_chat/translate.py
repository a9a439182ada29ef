"""Chat frames to events.

Contract: one `ChatTranslator` per stream; it never raises. A whole answer goes through the same code as a stream, so
both fold to the same response. What has no event of its own (a `debug` frame, a frame or content block of a type that
is not known, a citation of thinking) comes out as `Unknown`, never lost. An answer that ended in an error is one,
however much of it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.blocks import Sealer
from loomstream.dialects.cohere_chat.errors import end_error, stream_error
from loomstream.dialects.cohere_chat.parts import Parts, unknown
from loomstream.dialects.cohere_chat.usage import usage_of
from loomstream.dialects.cohere_chat.wire import (
    FRAME_TYPES,
    Answer,
    Call,
    CallDelta,
    CallEnd,
    CallStart,
    CitationEnd,
    CitationStart,
    Content,
    ContentDelta,
    ContentEnd,
    ContentStart,
    End,
    Message,
    MessageEnd,
    MessageStart,
    PlanDelta,
    answer_decoder,
    content_decoder,
    message_decoder,
    stream_decoder,
)
from loomstream.dialects.failures import bad_frame, broken
from loomstream.dialects.fields import as_object, as_text, is_null, read_text
from loomstream.dialects.shortcut import Shortcut
from loomstream.errors import Failure, StreamTruncated
from loomstream.events import Event, Notice, Start, Stop, StopReason, TextDelta
from loomstream.wire import Frame
from loomstream.wire.json import Reader, loads

_Out = list[Event | Failure]

STOP_REASONS: dict[str, StopReason] = {
    "COMPLETE": "end_turn",
    "STOP_SEQUENCE": "stop_sequence",
    "MAX_TOKENS": "max_tokens",
    "TOOL_CALL": "tool_use",
    "ERROR_LIMIT": "context_window",
    "ERROR_TOXIC": "content_filter",
}
"""The wire's finish reasons; any other is an error (`_is_error`) or `other`."""

_DONE = b"[DONE]"
_NO_CALL = Call()


def _is_error(reason: str) -> bool:
    return reason not in STOP_REASONS and (reason.startswith("ERROR") or reason in {"TIMEOUT", "USER_CANCEL"})


class ChatTranslator:
    """Frames of one stream to events."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader = Reader(stream_decoder)
        self._sealer = Sealer(self._reader)
        self._parts = Parts(target)
        self._started = False
        self.shortcut = Shortcut(b"text")

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
        read = self._reader.read(data)
        out: _Out = []
        if isinstance(read, Failure):
            self._unreadable(frame, read, out)
        else:
            if not self._started and read.__class__ is not MessageStart:
                self._start(out)
            _HANDLERS[read.__class__](self, read, frame, out)
            if read.__class__ is ContentDelta and len(out) == 1 and isinstance(delta := out[0], TextDelta):
                self._learn(data, delta)
        return self._sealer.seal(out)

    def _learn(self, data: bytes, delta: TextDelta) -> None:
        if not self._reader.carried:
            self.shortcut.learn(data, delta)

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        if self._sealer.over:
            return []
        self._sealer.over = True
        missing = "message-end" if self._started else "message-start"
        return [broken(StreamTruncated(f"{self._target.provider}: the body ended before {missing}"), self._target)]

    def whole(self, body: bytes) -> list[Event | Failure]:
        """Give the events of a whole answer."""
        reader = Reader(answer_decoder)
        self._sealer = Sealer(reader)
        answer = reader.read(body)
        out: _Out = []
        if isinstance(answer, Failure):
            out.append(broken(answer.error, self._target))
        elif bytes(answer.message).startswith(b'"') or not is_null(answer.error):
            out.append(Failure(stream_error(body, self._target)))
        elif is_null(answer.message):
            out.append(bad_frame("no message", body, self._target))
        else:
            self._answer(answer, body, out)
        return self._sealer.seal(out)

    # --- frames ----------------------------------------------------------------------------------

    def _unreadable(self, frame: Frame, failure: Failure, out: _Out) -> None:
        """Tell an error without a type of its own, and a frame from the future, from one that is broken."""
        value = as_object(loads(frame.data))
        kind = as_text(value.get("type"))
        says_error = not kind and (isinstance(value.get("message"), str) or value.get("error") is not None)
        if value and (kind == "error" or frame.name == "error" or says_error):
            out.append(Failure(stream_error(frame.data, self._target)))
        elif value and kind not in FRAME_TYPES:
            out.append(unknown(frame))
        else:
            out.append(broken(failure.error, self._target))

    def message_start(self, read: MessageStart, frame: Frame, out: _Out) -> None:
        """Begin the answer; a second beginning means that two streams were spliced."""
        if self._started:
            out.append(bad_frame("a second message-start: two streams were spliced", frame.data, self._target))
        else:
            self._start(out, read_text(read.id))

    def _start(self, out: _Out, response_id: str = "") -> None:
        self._started = True
        out.append(Start(provider=self._target.provider, model=self._target.model, response_id=response_id))

    def content_start(self, read: ContentStart, frame: Frame, out: _Out) -> None:
        """Open a content block."""
        self._parts.start_content(read.index, _content_of(read) or Content(), frame, out)

    def content_delta(self, read: ContentDelta, frame: Frame, out: _Out) -> None:
        """Add to a content block."""
        content = _content_of(read)
        if content is None:
            out.append(unknown(frame))
        else:
            self._parts.grow_content(read.index, content, frame, out)
            self._parts.add_logprobs(read.logprobs, out, of_text=content.text is not None)

    def content_end(self, read: ContentEnd, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        """Close a content block."""
        self._parts.end_content(read.index, out)

    def plan_delta(self, read: PlanDelta, frame: Frame, out: _Out) -> None:
        """Add to the plan."""
        plan = read.delta.message.tool_plan if read.delta and read.delta.message else None
        if plan is None:
            out.append(unknown(frame))
        else:
            self._parts.plan(plan, out)

    def call_start(self, read: CallStart, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        """Open a tool call."""
        self._parts.start_call(read.index, _call_of(read) or _NO_CALL, out)

    def call_delta(self, read: CallDelta, frame: Frame, out: _Out) -> None:
        """Add to a tool call."""
        call = _call_of(read)
        if call is None:
            out.append(unknown(frame))
        else:
            self._parts.grow_call(read.index, call, out)

    def call_end(self, read: CallEnd, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        """Close a tool call."""
        self._parts.end_call(read.index, out)

    def citation_start(self, read: CitationStart, frame: Frame, out: _Out) -> None:
        """Give a citation."""
        if read.delta is None or read.delta.message is None:
            out.append(unknown(frame))
        else:
            self._parts.cite(read.delta.message.citations, frame, out)

    def citation_end(self, read: CitationEnd, frame: Frame, out: _Out) -> None:
        """Do nothing: the citation was whole at its start."""

    def message_end(self, read: MessageEnd, frame: Frame, out: _Out) -> None:
        """End the answer."""
        self._end(read.delta or End(), frame.data, out)

    # --- whole answers ---------------------------------------------------------------------------

    def _answer(self, answer: Answer, body: bytes, out: _Out) -> None:
        message = Reader(message_decoder).read(bytes(answer.message))
        if isinstance(message, Failure):
            out.append(broken(message.error, self._target))
            return
        self._start(out, read_text(answer.id))
        self._message(message, out)
        self._parts.add_logprobs(answer.logprobs, out)
        if not (out and isinstance(out[-1], Failure)):
            self._end(End(answer.finish_reason, answer.usage), body, out)

    def _message(self, message: Message, out: _Out) -> None:
        for position, raw in enumerate(message.content or ()):
            self._block(position, raw, out)
        self._parts.plan(message.tool_plan or "", out)
        for position, call in enumerate(message.tool_calls or ()):
            self._parts.start_call(position, call, out)
            self._parts.end_call(position, out)
        for raw in message.citations or ():
            self._parts.cite(raw, Frame("citation", bytes(raw)), out)

    def _block(self, position: int, raw: RawJSON, out: _Out) -> None:
        content = Reader(content_decoder).read(bytes(raw))
        if isinstance(content, Failure):
            out.append(broken(content.error, self._target))
            return
        self._parts.start_content(position, content, Frame("content", bytes(raw)), out)
        self._parts.end_content(position, out)

    # --- end -------------------------------------------------------------------------------------

    def _end(self, end: End, data: bytes, out: _Out) -> None:
        reason, words = read_text(end.finish_reason), read_text(end.error)
        failed = bool(words) or _is_error(reason)
        if not failed:
            self._parts.end_all(out)
        if not failed and self._parts.empty and reason == "COMPLETE":
            out.append(Notice("warning", "the answer is empty"))
        self._usage(end.usage, out)
        if failed:
            code = reason if _is_error(reason) else ""
            out.append(Failure(end_error(code, words, data, self._target)))
            return
        self._sealer.over = True
        stop = STOP_REASONS.get(reason, "other")
        if self._parts.called and (stop == "end_turn" or not reason):
            stop = "tool_use"
        out.append(Stop(stop, reason))

    def _usage(self, raw: RawJSON, out: _Out) -> None:
        if is_null(raw):
            return
        usage, mistyped = usage_of(raw)
        out += [Notice("warning", f"mistyped usage field {name}") for name in mistyped]
        if usage is not None:
            out.append(usage)


def _content_of(read: ContentStart | ContentDelta) -> Content | None:
    body = read.delta
    return body.message.content if body is not None and body.message is not None else None


def _call_of(read: CallStart | CallDelta) -> Call | None:
    body = read.delta
    return body.message.tool_calls if body is not None and body.message is not None else None


_HANDLERS: dict[type[object], Callable[[ChatTranslator, Any, Frame, _Out], None]] = {
    ContentDelta: ChatTranslator.content_delta,
    MessageStart: ChatTranslator.message_start,
    ContentStart: ChatTranslator.content_start,
    ContentEnd: ChatTranslator.content_end,
    PlanDelta: ChatTranslator.plan_delta,
    CallStart: ChatTranslator.call_start,
    CallDelta: ChatTranslator.call_delta,
    CallEnd: ChatTranslator.call_end,
    CitationStart: ChatTranslator.citation_start,
    CitationEnd: ChatTranslator.citation_end,
    MessageEnd: ChatTranslator.message_end,
}


def translator(target: Target) -> ChatTranslator:
    """Give a translator for one stream."""
    return ChatTranslator(target)


def parse_response(body: bytes, target: Target) -> list[Event | Failure]:
    """Give the events of a whole answer; they fold to the same response as the stream's."""
    return ChatTranslator(target).whole(body)
