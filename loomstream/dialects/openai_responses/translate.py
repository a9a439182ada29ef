"""Responses frames to events.

Contract: one `ResponsesTranslator` per stream; it never raises. Frames are told apart by the `type` in their JSON, as
some hosts leave the SSE event's name out. A whole answer goes through the same code as a stream, so both fold to the
same response. What has no event of its own comes out as `Unknown`, never lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from loomstream.dialects import Target
from loomstream.dialects.blocks import Sealer
from loomstream.dialects.failures import bad_frame, broken
from loomstream.dialects.fields import JSONObject, as_list, as_object, as_text, is_null, read_object, read_text
from loomstream.dialects.openai_responses.errors import FAILED, failed, stream_error
from loomstream.dialects.openai_responses.items import CONTENT, SUMMARY, Items
from loomstream.dialects.openai_responses.parts import Part, PartKind
from loomstream.dialects.openai_responses.usage import read_usage
from loomstream.dialects.openai_responses.wire import (
    TEXT_DELTA,
    Answer,
    Fields,
    StreamEvent,
    TextDeltaFrame,
    text_delta_decoder,
)
from loomstream.errors import Failure, StreamTruncated
from loomstream.events import NULL, Event, Notice, Start, Stop, StopReason, TextDelta, Unknown
from loomstream.wire import Frame
from loomstream.wire.json import Reader, loads, quote

_Out = list[Event | Failure]
_Handler = Callable[["ResponsesTranslator", StreamEvent, Frame, _Out], None]

STOP_REASONS: dict[str, StopReason] = {
    "completed": "end_turn",
    "max_output_tokens": "max_tokens",
    "content_filter": "content_filter",
    "model_context_window_exceeded": "context_window",
}
"""The status of a whole response, or the reason for which it is incomplete; any other is `other`."""

_PREFIX = "response."
_GROWING: dict[str, tuple[str, PartKind]] = {
    TEXT_DELTA: (CONTENT, "text"),
    "response.refusal.delta": (CONTENT, "refusal"),
    "response.reasoning_text.delta": (CONTENT, "reasoning"),
    "response.reasoning.delta": (CONTENT, "reasoning"),
    "response.reasoning_summary_text.delta": (SUMMARY, "reasoning"),
}
"""Frames that add to a text, and which."""
_GROWN = {name.removesuffix("delta") + "done": place for name, place in _GROWING.items()}
_DONE = b"[DONE]"
_COMPLETED, _INCOMPLETE = "completed", "incomplete"
_FAILURES = frozenset((FAILED, "cancelled"))
_ENDS = _FAILURES | {_COMPLETED, _INCOMPLETE}
# Where a tool of the provider's has got to, pieces of what its item tells whole, and signs of life.
_SILENT = frozenset(
    (
        "keepalive",
        "ping",
        "response.compaction.compacting",
        "response.content_part.added",
        "response.reasoning_part.added",
        "response.reasoning_summary_part.added",
    )
)
_SILENT_TOOLS = tuple(
    f"{_PREFIX}{tool}"
    for tool in (
        "web_search_call.",
        "file_search_call.",
        "code_interpreter_call.",
        "code_interpreter_call_code.",
        "image_generation_call.in_progress",
        "image_generation_call.generating",
        "image_generation_call.completed",
        "mcp_call.",
        "mcp_call_arguments.",
        "mcp_list_tools.",
        "shell_call",
        "apply_patch_call",
    )
)


class ResponsesTranslator:
    """Frames of one stream to events."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._fields = Fields()
        self._frames = self._fields.frames
        self._sealer = Sealer(self._frames)
        self._items = Items(self._fields, target)
        self._started = False
        self._growing: Part | None = None
        """The text that the last frame added to; the next two tell whether a frame adds to it too."""
        self._output_index = 0
        self._content_index: int | None = None
        self._text_deltas = Reader(text_delta_decoder)

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        data = frame.data
        if self._sealer.over or data == _DONE:
            return []
        part = self._growing
        if part is not None:
            delta = self._text_deltas.read(data)
            if delta.__class__ is TextDeltaFrame and self._adds_to(part, delta):  # pyright: ignore[reportArgumentType] (its class)
                return [TextDelta(part.index, part.pieces[-1])]
            self._growing = None
        event = self._frames.read(data)
        out: _Out = []
        if isinstance(event, Failure):
            self._unreadable(frame, event, out)
        elif event.type == TEXT_DELTA:
            self._text_delta(event, out)
        else:
            self._dispatch(event, frame, out)
        return self._sealer.seal(out)

    def _adds_to(self, part: Part, delta: TextDeltaFrame) -> bool:
        """Add to the text that the last frame added to, if it is this frame's, and its bytes are plain."""
        text = delta.delta
        if delta.output_index != self._output_index or delta.content_index != self._content_index or not text:
            return False
        if delta.logprobs:
            return False
        reader = self._text_deltas
        if reader.carried or reader.replaced:
            return False
        part.pieces.append(text)
        return True

    def _text_delta(self, event: StreamEvent, out: _Out) -> None:
        self._start(out)
        part = self._items.grow(event, CONTENT, "text", out)
        plain = not self._frames.carried and not self._frames.replaced
        if plain and part.block is not None and event.output_index is not None:
            self._growing = part
            self._output_index, self._content_index = event.output_index, event.content_index

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        if self._sealer.over:
            return []
        self._sealer.over = True
        return [self._truncated("response.completed" if self._started else "its first event")]

    def _truncated(self, missing: str) -> Failure:
        return broken(StreamTruncated(f"{self._target.provider}: the body ended before {missing}"), self._target)

    def whole(self, body: bytes) -> list[Event | Failure]:
        """Give the events of a whole answer."""
        self._fields.look(body)
        answer = self._fields.answer(body)
        out: _Out = []
        if isinstance(answer, Failure):
            out.append(broken(answer.error, self._target))
            return self._sealer.seal(out)
        status = read_text(answer.status)
        if answer.output is None and status not in _ENDS:
            out.append(self._no_answer(body))
        elif status and status not in _ENDS:
            out.append(self._truncated(f"it was whole: its status is {status!r}"))
        else:
            self._start(out, answer)
            self._end(status or _COMPLETED, answer, body, out)
        return self._sealer.seal(out)

    def _no_answer(self, body: bytes) -> Failure:
        if _is_error(as_object(loads(body))):
            return stream_error(body, self._target)
        return bad_frame("no response", body, self._target)

    # --- frames ----------------------------------------------------------------------------------

    def _dispatch(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        kind = event.type or frame.name
        handler = self._HANDLERS.get(kind)
        if kind in _GROWING:
            self._start(out)
            self._items.grow(event, *_GROWING[kind], out)
        elif kind in _GROWN:
            self._start(out)
            whole = self._fields.text(event.text if event.refusal is NULL else event.refusal)
            self._items.settle(event, *_GROWN[kind], whole, out)
        elif handler is not None:
            self._fields.look(frame.data)
            handler(self, event, frame, out)
        elif kind not in _SILENT and not kind.startswith(_SILENT_TOOLS):
            self._unknown(event, frame, out)

    def _unknown(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        if frame.name == "error" or (not event.type and _is_error(as_object(loads(frame.data)))):
            out.append(stream_error(frame.data, self._target))
        else:
            out.append(Unknown(frame.name or event.type or "", frame.data.decode("utf-8", "replace")))

    def _unreadable(self, frame: Frame, failure: Failure, out: _Out) -> None:
        """Read a frame of which a side field is mistyped; keep one of a type from the future; any other is broken."""
        found = self._fields.leniently(frame.data)
        if found is not None:
            event, mistyped = found
            out += [Notice("warning", f"mistyped field {name} in {event.type}") for name in mistyped]
            self._dispatch(event, frame, out)
            return
        kind = as_object(loads(frame.data)).get("type")
        if isinstance(kind, str) and kind not in _GROWING and kind not in self._HANDLERS:
            out.append(Unknown(frame.name or kind, frame.data.decode("utf-8", "replace")))
        else:
            out.append(broken(failure.error, self._target))

    def _start(self, out: _Out, answer: Answer | None = None) -> None:
        if self._started:
            return
        self._started = True
        answer = answer or Answer()
        model = read_text(answer.model) or self._target.model
        out.append(Start(provider=self._target.provider, model=model, response_id=read_text(answer.id)))
        if not is_null(answer.tools):
            self._items.custom_tools = frozenset(_custom_tools(as_list(loads(answer.tools))))

    def _head(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        if self._started:
            return
        answer = Answer() if is_null(event.response) else self._fields.answer(event.response)
        if isinstance(answer, Failure):
            out.append(Notice("warning", f"the head of the response is unreadable: {quote(frame.data)}"))
            answer = Answer()
        self._start(out, answer)

    def _item_added(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._start(out)
        self._items.add(event.output_index, event.item, out)

    def _item_done(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._start(out)
        self._items.finish(event.output_index, event.item, out)

    def _part_done(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._start(out)
        self._items.part_done(event, out)

    def _annotation(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._start(out)
        self._items.cite(event, out)

    def _arguments_delta(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._start(out)
        self._items.arguments(event, out)

    def _arguments_done(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        self._start(out)
        whole = self._fields.text(event.input if event.arguments is NULL else event.arguments)
        self._items.settle_arguments(event, whole, out)

    def _error(self, event: StreamEvent, frame: Frame, out: _Out) -> None:  # noqa: ARG002 (one signature)
        out.append(stream_error(frame.data, self._target))

    # --- the end ---------------------------------------------------------------------------------

    def _terminal(self, event: StreamEvent, frame: Frame, out: _Out) -> None:
        answer = Answer() if is_null(event.response) else self._fields.answer(event.response)
        if isinstance(answer, Failure):
            out.append(broken(answer.error, self._target))
            return
        self._start(out, answer)
        status = read_text(answer.status)
        name = (event.type or frame.name).removeprefix(_PREFIX)
        self._end(status if status in _ENDS else name, answer, frame.data, out)

    def _end(self, status: str, answer: Answer, data: bytes, out: _Out) -> None:
        usage, mistyped = read_usage(answer.usage)
        if status in _FAILURES:
            if usage is not None:
                out.append(usage)
            out.append(failed(status, answer.error, data, self._target))
            return
        items = self._items
        items.end(answer.output or [], out, cut=status == _INCOMPLETE)
        if items.empty and status == _COMPLETED:
            out.append(Notice("warning", "the answer is empty"))
        out += [Notice("warning", f"mistyped usage field {name}") for name in mistyped]
        if usage is not None:
            out.append(usage)
        raw = status
        if status == _INCOMPLETE:
            raw = as_text(read_object(answer.incomplete_details).get("reason")) or status
        out.append(Stop(self._stop_reason(raw), raw))
        self._sealer.over = True

    def _stop_reason(self, raw: str) -> StopReason:
        reason = STOP_REASONS.get(raw, "other")
        if reason == "end_turn" and self._items.calls:
            return "tool_use"
        if reason == "end_turn" and self._items.paused:
            return "pause"
        if reason == "end_turn" and self._items.refused and not self._items.spoke:
            return "refusal"
        return reason

    _HANDLERS: ClassVar[dict[str, _Handler]] = {
        "response.created": _head,
        "response.queued": _head,
        "response.in_progress": _head,
        "response.output_item.added": _item_added,
        "response.output_item.done": _item_done,
        "response.content_part.done": _part_done,
        "response.reasoning_summary_part.done": _part_done,
        "response.reasoning_part.done": _part_done,
        "response.output_text.annotation.added": _annotation,
        "response.function_call_arguments.delta": _arguments_delta,
        "response.function_call_arguments.done": _arguments_done,
        "response.custom_tool_call_input.delta": _arguments_delta,
        "response.custom_tool_call_input.done": _arguments_done,
        "response.completed": _terminal,
        "response.incomplete": _terminal,
        "response.failed": _terminal,
        "response.cancelled": _terminal,
        "error": _error,
    }


def _is_error(frame: JSONObject) -> bool:
    """Say whether an object without a type tells of an error."""
    return frame.get("error") is not None or ("message" in frame and "code" in frame) or "detail" in frame


def _custom_tools(tools: list[object]) -> list[str]:
    """Give the names of the custom tools among the tools of a request, those within a namespace included."""
    names: list[str] = []
    for tool in map(as_object, tools):
        if tool.get("type") == "custom":
            names.append(as_text(tool.get("name")))
        names += _custom_tools(as_list(tool.get("tools")))
    return names


def translator(target: Target) -> ResponsesTranslator:
    """Give a translator for one stream."""
    return ResponsesTranslator(target)


def parse_response(body: bytes, target: Target) -> list[Event | Failure]:
    """Give the events of a whole answer; they fold to the same response as the stream's."""
    return ResponsesTranslator(target).whole(body)
