"""Events as Vercel's AI SDK reads them: its UI message stream, version 1.

Contract: an `Encoder`; see `formats`. One assistant message a stream. What the protocol has no word for goes into the
message's metadata (`usage`, `cost`) or into data parts (`data-notice`, `data-reset`, `data-file`). Other choices than
the first, probabilities and unknown frames are left out. The protocol cannot take text back: after a `reset` notice the
text before `data-reset` is void, and a new step begins.

Source: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, and the chunk schema of the npm package `ai`, 5 to 7, which
`tests/ui/test_ai_sdk.py` holds this to.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from loomstream import events
from loomstream.agent.events import CallPending, RunEvent, ToolResultEvent
from loomstream.errors import LoomstreamError, StreamCancelled
from loomstream.ui.formats import Describe, Headers, describe, one_line
from loomstream.wire.json import loads

Chunk = Mapping[str, object]

FINISH_REASONS: Mapping[events.StopReason, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "context_window": "length",
    "tool_use": "tool-calls",
    "content_filter": "content-filter",
    "refusal": "content-filter",
    "pause": "other",
    "other": "other",
}
"""Ours to the protocol's."""


class AISDKEncoder:
    """For `useChat` and whatever else reads the UI message stream."""

    headers: ClassVar[Headers] = (
        ("content-type", "text/event-stream; charset=utf-8"),
        ("x-vercel-ai-ui-message-stream", "v1"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    )
    opening: ClassVar[bytes] = b""
    heartbeat: ClassVar[bytes] = b":\n\n"
    is_stateful: ClassVar[bool] = True

    def __init__(self, describe: Describe = describe) -> None:
        self._describe = describe
        self._is_begun = False
        self._in_step = False
        self._epoch = 0
        self._open: dict[int, str] = {}
        """The kind of each block that is open: `text` or `reasoning`."""
        self._open_calls: dict[int, str] = {}
        self._calls: set[str] = set()
        """The ids of all calls so far: the protocol takes results of no others."""
        self._sources = 0
        self._finish_reason = "other"

    def event(self, number: int, event: RunEvent) -> bytes:
        """Give an event's chunks; the id stands at the last one, so that nobody resumes between two of them."""
        translate = self._TABLE.get(event.__class__)
        return _frames(number, [] if translate is None else translate(self, event))

    def end(self, number: int) -> bytes:
        """Give the message's end."""
        finish: Chunk = {"type": "finish", "finishReason": self._finish_reason}
        return _frames(number, [*self._step_end(), finish]) + _DONE

    def error(self, number: int, error: LoomstreamError) -> bytes:
        """Give the error; one who stopped the stream is told that it is stopped."""
        problem = self._describe(error)
        chunk: Chunk = {"type": "error", "errorText": f"{problem.error}: {problem.message}"}
        if isinstance(error, StreamCancelled):
            chunk = {"type": "abort", "reason": problem.message}
        return _frames(number, [*self._blocks_end(), chunk]) + _DONE

    # --- one method per event --------------------------------------------------------------------

    def _on_start(self, start: events.Start) -> list[Chunk]:
        chunks = self._step_end()
        self._epoch += 1
        self._in_step = True
        if not self._is_begun:
            self._is_begun = True
            message: dict[str, object] = {"type": "start"}
            if start.response_id:
                message["messageId"] = start.response_id
            chunks.append(message)
        about = {"provider": start.provider, "model": start.model, "warnings": list(start.warnings)}
        return [*chunks, {"type": "start-step"}, {"type": "message-metadata", "messageMetadata": about}]

    def _on_block_start(self, started: events.TextStart | events.ReasoningStart) -> list[Chunk]:
        if started.choice:
            return []
        kind = "text" if isinstance(started, events.TextStart) else "reasoning"
        self._open[started.index] = kind
        return [{"type": f"{kind}-start", "id": self._id(started.index)}]

    def _on_delta(self, delta: events.TextDelta | events.ReasoningDelta) -> list[Chunk]:
        kind = self._open.get(delta.index)
        return [] if kind is None else [{"type": f"{kind}-delta", "id": self._id(delta.index), "delta": delta.text}]

    def _on_block_end(self, ended: events.TextEnd | events.ReasoningEnd) -> list[Chunk]:
        kind = self._open.pop(ended.index, None)
        return [] if kind is None else [{"type": f"{kind}-end", "id": self._id(ended.index)}]

    def _on_refusal(self, delta: events.RefusalDelta) -> list[Chunk]:
        opening = [] if delta.index in self._open else self._on_block_start(events.TextStart(delta.index, delta.choice))
        return [*opening, *self._on_delta(events.TextDelta(delta.index, delta.text))]

    def _on_call_start(self, started: events.ToolCallStart) -> list[Chunk]:
        if started.choice:
            return []
        self._calls.add(started.id)
        self._open_calls[started.index] = started.id
        return [{"type": "tool-input-start", "toolCallId": started.id, "toolName": started.name}]

    def _on_call_delta(self, delta: events.ToolCallDelta) -> list[Chunk]:
        call = self._open_calls.get(delta.index)
        if call is None:
            return []
        return [{"type": "tool-input-delta", "toolCallId": call, "inputTextDelta": delta.arguments}]

    def _on_call_end(self, ended: events.ToolCallEnd) -> list[Chunk]:
        if self._open_calls.pop(ended.index, None) is None:
            return []
        about: dict[str, object] = {"toolCallId": ended.id, "toolName": ended.name}
        if ended.executable:
            return [{"type": "tool-input-available", **about, "input": loads(ended.arguments.encode())}]
        text = "the model did not finish the arguments of this call"
        return [{"type": "tool-input-error", **about, "input": ended.arguments, "errorText": text}]

    def _on_server_call(self, call: events.ServerToolCall) -> list[Chunk]:
        if call.choice:
            return []
        self._calls.add(call.id)
        about: dict[str, object] = {"toolCallId": call.id, "toolName": call.name, "providerExecuted": True}
        return [{"type": "tool-input-start", **about}, {"type": "tool-input-available", **about, "input": _json(call)}]

    def _on_server_result(self, result: events.ServerToolResult) -> list[Chunk]:
        if result.tool_call_id not in self._calls:
            return []
        about: dict[str, object] = {"toolCallId": result.tool_call_id, "providerExecuted": True}
        if result.is_error:
            return [{"type": "tool-output-error", **about, "errorText": bytes(result.content).decode()}]
        return [{"type": "tool-output-available", **about, "output": result.content}]

    def _on_citation(self, citation: events.Citation) -> list[Chunk]:
        self._sources += 1
        about: dict[str, object] = {"sourceId": f"source-{self._sources}"}
        if citation.url:
            titled = {"title": citation.title} if citation.title else {}
            return [{"type": "source-url", **about, "url": citation.url, **titled}]
        title = citation.title or citation.cited_text or citation.kind or "source"
        return [{"type": "source-document", **about, "mediaType": "text/plain", "title": title}]

    def _on_file(self, file: events.File) -> list[Chunk]:
        if file.choice:
            return []
        kind = file.media_type or "application/octet-stream"
        if file.data:
            return [{"type": "file", "mediaType": kind, "url": f"data:{kind};base64,{b64encode(file.data).decode()}"}]
        if file.url:
            return [{"type": "file", "mediaType": kind, "url": file.url}]
        return [{"type": "data-file", "data": {"id": file.id, "mediaType": kind}}]

    def _on_usage(self, usage: events.Usage) -> list[Chunk]:
        counts = {name: getattr(usage, name) for name in _COUNTS}
        return [{"type": "message-metadata", "messageMetadata": {"usage": counts}}]

    def _on_cost(self, cost: events.Cost) -> list[Chunk]:
        amount = None if cost.amount_usd is None else str(cost.amount_usd)
        return [{"type": "message-metadata", "messageMetadata": {"cost": {"amount_usd": amount, "exact": cost.exact}}}]

    def _on_notice(self, notice: events.Notice) -> list[Chunk]:
        about = {"kind": notice.kind, "detail": notice.detail}
        if notice.kind == "reset":
            return [*self._step_end(), {"type": "data-reset", "data": about}]
        return [{"type": "data-notice", "data": about, "transient": True}]

    def _on_stop(self, stop: events.Stop) -> list[Chunk]:
        self._finish_reason = FINISH_REASONS[stop.reason]
        return []

    def _on_tool_result(self, result: ToolResultEvent) -> list[Chunk]:
        match result.outcome:
            case "ok":
                return [{"type": "tool-output-available", "toolCallId": result.id, "output": result.text}]
            case "denied":
                return [{"type": "tool-output-denied", "toolCallId": result.id}]
            case _:
                return [{"type": "tool-output-error", "toolCallId": result.id, "errorText": result.text}]

    def _on_pending(self, pending: CallPending) -> list[Chunk]:
        if pending.needs == "result":
            return []  # the client has the call, and adds its result
        return [{"type": "tool-approval-request", "approvalId": pending.call.id, "toolCallId": pending.call.id}]

    # --- what is open ----------------------------------------------------------------------------

    def _id(self, index: int) -> str:
        return f"{self._epoch}-{index}"

    def _blocks_end(self) -> list[Chunk]:
        ends: list[Chunk] = [{"type": f"{kind}-end", "id": self._id(index)} for index, kind in self._open.items()]
        self._open.clear()
        self._open_calls.clear()
        return ends

    def _step_end(self) -> list[Chunk]:
        chunks = self._blocks_end()
        if self._in_step:
            self._in_step = False
            chunks.append({"type": "finish-step"})
        return chunks

    _TABLE: ClassVar[dict[type[events.EventBase], Callable[[AISDKEncoder, Any], list[Chunk]]]] = {
        events.Start: _on_start,
        events.TextStart: _on_block_start,
        events.ReasoningStart: _on_block_start,
        events.TextDelta: _on_delta,
        events.ReasoningDelta: _on_delta,
        events.TextEnd: _on_block_end,
        events.ReasoningEnd: _on_block_end,
        events.RefusalDelta: _on_refusal,
        events.ToolCallStart: _on_call_start,
        events.ToolCallDelta: _on_call_delta,
        events.ToolCallEnd: _on_call_end,
        events.ServerToolCall: _on_server_call,
        events.ServerToolResult: _on_server_result,
        events.Citation: _on_citation,
        events.File: _on_file,
        events.Usage: _on_usage,
        events.Cost: _on_cost,
        events.Notice: _on_notice,
        events.Stop: _on_stop,
        ToolResultEvent: _on_tool_result,
        CallPending: _on_pending,
    }


_DONE = b"data: [DONE]\n\n"
_COUNTS = tuple(name for name in events.Usage.__struct_fields__ if name.endswith("_tokens"))


def _frames(number: int, chunks: list[Chunk]) -> bytes:
    """Give the chunks as server-sent events; the last one carries the number."""
    if not chunks:
        return b""
    *first, last = (b"data: %b\n\n" % one_line(chunk) for chunk in chunks)
    return b"%bid: %d\n%b" % (b"".join(first), number, last)


def _json(call: events.ServerToolCall) -> object:
    """Give a call's arguments as JSON, or as the text that they are."""
    value = loads(call.arguments.encode())
    return call.arguments if value is None else value
