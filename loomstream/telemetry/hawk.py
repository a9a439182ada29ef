"""Hawk: a span for each call, in the form that the seed system's clients send.

Contract: names and attribute keys are that system's (its `llm.completion` span, its events and its `metric.…` spans);
what it has no name for is under `loomstream.`. Nothing of a prompt or an answer leaves unless `content` asks for it,
nor what a provider says in an error; what leaves is redacted. Sending is the exporter's (`hawk_exporter`).

Where that system was wrong or could not tell, this one does: a call that failed, was cancelled or left has the usage
and the cost that it came to; the time to the first content counts content of every kind; all spans of a call are of one
trace.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from loomstream.errors import LoomstreamError
from loomstream.events import Cost, Notice, Usage
from loomstream.handler import Middleware
from loomstream.messages import Request, Response
from loomstream.telemetry.calls import Call, Requested, Watcher, own_words, watched
from loomstream.telemetry.hawk_exporter import HawkEvent, HawkExporter, HawkSpan
from loomstream.telemetry.records import sent_tokens

__all__ = ("HawkExporter", "hawk", "in_trace")

_PREVIEW_CHARS = 200
_STATUS = {"whole": "ok", "failed": "error"}
_NO_USAGE = Usage()
_trace: ContextVar[tuple[str, str] | None] = ContextVar("loomstream hawk trace", default=None)

Attributes = dict[str, object]


@contextmanager
def in_trace(trace_id: str = "", parent_span_id: str = "") -> Generator[str]:
    """Make the calls that are begun within this part of one trace; gives the trace's id, a new one where none is given.

    Use it within one function, never around a `yield`.
    """
    trace_id = trace_id or str(uuid.uuid4())
    token = _trace.set((trace_id, parent_span_id))
    try:
        yield trace_id
    finally:
        _trace.reset(token)


def hawk(
    exporter: HawkExporter | str,
    *,
    provider: str = "",
    model: str = "",
    content: bool = False,
    metrics: bool = True,
) -> Middleware:
    """Give the middleware that tells Hawk of each call. List it first: then it sees all tries as one call.

    `exporter` is one, or Hawk's address. `provider` and `model` are those requested. `content` adds the first 200
    characters of prompt and answer, and the reasoning; `metrics` adds the seed system's metric spans.

    Raises `ConfigError` for an address that is none.
    """
    sender = HawkExporter(exporter) if isinstance(exporter, str) else exporter
    return watched(
        f"Hawk at {sender.endpoint}",
        lambda: _Told(sender, content=content, metrics=metrics),
        Requested(provider, model),
    )


class _Told(Watcher):
    """One call."""

    __slots__ = ("_attributes", "_content", "_events", "_exporter", "_metrics", "_streamed", "_trace")

    def __init__(self, exporter: HawkExporter, *, content: bool, metrics: bool) -> None:
        self._exporter = exporter
        self._content = content
        self._metrics = metrics
        self._trace = _trace.get() or (str(uuid.uuid4()), "")
        self._attributes: Attributes = {}
        self._events: list[HawkEvent] = []
        self._streamed = True

    def begin(self, call: Call, request: Request) -> None:
        """Keep what the span needs of the request."""
        self._streamed = request.stream
        self._attributes = _request_attributes(request)
        if self._content:
            self._attributes["message.preview"] = request.messages[-1].text[:_PREVIEW_CHARS] if request.messages else ""
        self._note(call.began_ns, "llm.call.started")
        if self._streamed:
            self._note(call.began_ns, "stream.started")

    def first(self, call: Call) -> None:
        """Note the first content."""
        if self._streamed and call.first_event_s is not None:
            self._note(call.moment_ns(call.first_event_s), "stream.first_token")

    def notice(self, call: Call, notice: Notice) -> None:
        """Note what became of an attempt."""
        if notice.attempt is not None:
            tried = notice.attempt
            self._note(
                call.now_ns,
                f"loomstream.{notice.kind}",
                {"llm.provider": tried.provider, "llm.model": tried.model, "error.type": tried.outcome},
            )

    def end(self, call: Call) -> None:
        """Put the spans into the exporter's queue."""
        response, cost = call.response, call.cost
        self._end_events(call, response)
        attributes = self._attributes | _call_attributes(call) | _answer_attributes(response, call.total_s)
        attributes |= _cost_attributes(cost)
        if call.error is not None:
            attributes |= self._error_attributes(call.error)
        if self._content:
            attributes["response.preview"] = response.text[:_PREVIEW_CHARS]
        trace_id, parent = self._trace
        span = _span(call, trace_id, parent, "llm.completion", attributes, tuple(self._events))
        figures = _figures(call, response, cost) if self._metrics else {}
        self._exporter.put([span, *(_metric(call, span, name, value) for name, value in figures.items())])

    def _end_events(self, call: Call, response: Response) -> None:
        moment = call.moment_ns(call.total_s)
        if self._content and response.reasoning:
            self._note(moment, "llm.thinking", {"content": response.reasoning})
        how = {"whole": "completed", "failed": "failed"}.get(call.ending or "")
        for kind in ("stream", "llm.call") if self._streamed else ("llm.call",):
            if how:
                self._note(moment, f"{kind}.{how}")

    def _error_attributes(self, error: LoomstreamError) -> Attributes:
        words = str(error) if self._content else own_words(error)
        return {"error.type": type(error).__name__, **({"error.message": words} if words else {})}

    def _note(self, moment_ns: int, name: str, attributes: Mapping[str, object] | None = None) -> None:
        self._events.append(HawkEvent(timestamp(moment_ns), name, attributes or {}))


# --- spans ---------------------------------------------------------------------------------------


def timestamp(moment_ns: int) -> str:
    """Give a moment as RFC 3339 in this machine's zone, with nanoseconds, without the zeros at their end."""
    seconds, nanoseconds = divmod(moment_ns, 1_000_000_000)
    moment = dt.datetime.fromtimestamp(seconds).astimezone()
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:5]}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}{zone}"


def _span(
    call: Call, trace_id: str, parent: str, name: str, attributes: Attributes, events: tuple[HawkEvent, ...]
) -> HawkSpan:
    return HawkSpan(
        trace_id=trace_id,
        span_id=str(uuid.uuid4()),
        parent_span_id=parent,
        name=name,
        start_time=timestamp(call.began_ns),
        end_time=timestamp(call.moment_ns(call.total_s)),
        duration_ms=int(call.total_s * 1000),
        status=_STATUS.get(call.ending or "", "unset"),
        attributes=attributes,
        events=events,
    )


def _metric(call: Call, of: HawkSpan, name: str, value: float) -> HawkSpan:
    moment = timestamp(call.moment_ns(call.total_s))
    return HawkSpan(
        trace_id=of.trace_id,
        span_id=str(uuid.uuid4()),
        parent_span_id=of.span_id,
        name=f"metric.{name}",
        start_time=moment,
        end_time=moment,
        duration_ms=0,
        status="ok",
        attributes={
            "span.kind": "metric",
            "metric.name": name,
            "metric.value": value,
            "metric.label.provider": call.provider,
            "metric.label.model": call.model,
        },
    )


# --- attributes ----------------------------------------------------------------------------------


def _request_attributes(request: Request) -> Attributes:
    return {
        "llm.operation": "chat",
        "llm.streaming": request.stream,
        "llm.messages.count": len(request.messages),
        "llm.tools.count": len(request.tools),
        "llm.tools.names": [tool.name for tool in request.tools],
    }


def _call_attributes(call: Call) -> Attributes:
    attributes: Attributes = {
        "llm.provider": call.provider,
        "llm.model": call.model,
        "llm.duration_ms": int(call.total_s * 1000),
        "llm.streaming.chunks": call.deltas,
        "loomstream.outcome": call.ending,
        "loomstream.attempts": len(call.attempts),
    }
    if call.first_event_s is not None:
        attributes["llm.ttft_ms"] = int(call.first_event_s * 1000)
    return attributes


def _answer_attributes(response: Response, total_s: float) -> Attributes:
    attributes: Attributes = {
        "llm.content.length": len(response.text),
        "llm.thinking.length": len(response.reasoning),
        "llm.tool_calls.count": len(response.tool_calls),
        "llm.tool_calls.names": [call.name for call in response.tool_calls],
    }
    if response.stop is not None:
        attributes["llm.stop_reason"] = response.stop.reason
    if response.usage is not None:
        attributes |= _usage_attributes(response.usage, total_s)
    return attributes


def _usage_attributes(usage: Usage, total_s: float) -> Attributes:
    """Give the counts: `input` without what was read from, or written to, a cache; `total` with all."""
    return {
        "llm.tokens.input": usage.input_tokens,
        "llm.tokens.output": usage.output_tokens,
        "llm.tokens.total": sent_tokens(usage) + usage.output_tokens,
        "llm.tokens.cache_read": usage.cache_read_tokens,
        "llm.tokens.cache_write": usage.cache_write_tokens,
        "llm.tokens.reasoning": usage.reasoning_tokens,
        "llm.streaming.throughput": _throughput(usage, total_s),
    }


def _throughput(usage: Usage, total_s: float) -> float:
    return usage.output_tokens / total_s if total_s > 0 else 0.0


def _cost_attributes(cost: Cost) -> Attributes:
    """Give the cost; an unknown one is absent."""
    if cost.amount_usd is None:
        return {}
    return {"llm.cost.usd": float(cost.amount_usd), "loomstream.cost_exact": cost.exact}


def _figures(call: Call, response: Response, cost: Cost) -> dict[str, float]:
    """Give the metrics by name; times are in milliseconds, the hit rate is that of all input."""
    usage = response.usage or _NO_USAGE
    figures: dict[str, float | None] = {
        "llm.calls.total": 1,
        "llm.latency": int(call.total_s * 1000),
        "llm.errors.total": 1 if call.ending == "failed" else None,
        "llm.tokens.input": usage.input_tokens or None,
        "llm.tokens.output": usage.output_tokens or None,
        "llm.tokens.cache_read": usage.cache_read_tokens or None,
        "llm.tokens.cache_write": usage.cache_write_tokens or None,
        "llm.cache.hit_rate": usage.cache_read_tokens / sent_tokens(usage) if usage.cache_read_tokens else None,
        "llm.cost": None if cost.amount_usd is None else float(cost.amount_usd),
        "llm.streaming.ttft_ms": None if call.first_event_s is None else int(call.first_event_s * 1000),
        "llm.streaming.throughput": _throughput(usage, call.total_s) or None,
        "llm.streaming.chunks.total": call.deltas or None,
    }
    return {name: value for name, value in figures.items() if value is not None}
