"""What OpenTelemetry is told of a call: the names, the span, the metrics.

Contract: see `loomstream.telemetry.otel`; importing it needs the extra. The names are written here because the package
of conventions calls all of `gen_ai.*` deprecated since it moved to a repository of its own, and has no successor yet.
What the conventions have no name for is under `loomstream.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib.metadata import version
from itertools import count
from typing import NamedTuple

from opentelemetry import metrics, trace
from opentelemetry.metrics import Counter, Histogram, MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, use_span
from opentelemetry.util.types import AttributeValue

from loomstream.errors import ConfigError, LoomstreamError, ProviderError
from loomstream.events import Cost, Notice, Stop, StopReason, Usage
from loomstream.messages import Request, Response
from loomstream.providers import look_up
from loomstream.telemetry.calls import Call, Watcher, own_words
from loomstream.telemetry.contents import input_messages, output_messages, system_instructions
from loomstream.telemetry.records import sent_tokens

_SCOPE = "loomstream"
_OPERATION = "chat"
_SECONDS = tuple(0.01 * 2**power for power in range(14))
_TOKENS = tuple(4.0**power for power in range(14))
_TOLD = frozenset(("retry", "failover", "reset", "resume", "hedge", "route", "cache", "warning"))
"""Notices that become events of the span."""
_NOTHING = nullcontext()

Attributes = dict[str, AttributeValue]


class _Meters(NamedTuple):
    """The instruments of one SDK."""

    duration: Histogram
    first: Histogram
    gap: Histogram
    tokens: Histogram
    cost: Counter


class Instruments:
    """What all calls of one middleware share: the tracer and the meters, once an SDK is there to give them."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        *,
        content: bool,
        gaps_every: int,
    ) -> None:
        self._tracers = tracer_provider
        self._meter_provider = meter_provider
        self._ready: tuple[trace.Tracer, _Meters] | None = None
        self._silent: tuple[object, object] = (None, None)
        """The providers that were found to record nothing: they need not be asked again."""
        self.untold = map(gaps_every.__rmod__, count(1)).__next__
        """Counts the gaps of all calls; 0: this one is to be recorded."""
        self.content = content

    def watcher(self) -> Watcher | None:
        """Give what watches a call, None where nobody would be told."""
        ready = self._ready or self._look()
        return None if ready is None else _Traced(self, *ready)

    def _look(self) -> tuple[trace.Tracer, _Meters] | None:
        """Look whether there is an SDK now; the API's own providers and tracers record nothing."""
        tracers = self._tracers or trace.get_tracer_provider()
        meters = self._meter_provider or metrics.get_meter_provider()
        if self._silent[0] is tracers and self._silent[1] is meters:
            return None
        self._silent = (tracers, meters)
        if _records_nothing(tracers, trace.__name__) and _records_nothing(meters, metrics.__name__):
            return None
        tracer = tracers.get_tracer(_SCOPE, version(_SCOPE))
        meter = meters.get_meter(_SCOPE, version(_SCOPE))
        if _records_nothing(tracer, trace.__name__) and _records_nothing(meter, metrics.__name__):
            return None
        self._ready = tracer, _meters(meter)
        return self._ready


def _records_nothing(of_api: object, home: str) -> bool:
    return type(of_api).__module__.startswith(home)


def _meters(meter: metrics.Meter) -> _Meters:
    def histogram(name: str, unit: str, words: str, bounds: tuple[float, ...]) -> Histogram:
        return meter.create_histogram(name, unit, words, explicit_bucket_boundaries_advisory=bounds)

    operation = "gen_ai.client.operation"
    return _Meters(
        duration=histogram(f"{operation}.duration", "s", "From the request to the end of the answer.", _SECONDS),
        first=histogram(f"{operation}.time_to_first_chunk", "s", "From the request to the first content.", _SECONDS),
        gap=histogram(f"{operation}.time_per_output_chunk", "s", "From one read with content to the next.", _SECONDS),
        tokens=histogram("gen_ai.client.token.usage", "{token}", "Tokens that a call used.", _TOKENS),
        cost=meter.create_counter("loomstream.client.cost", "{USD}", "What calls cost, as far as that is known."),
    )


class _Traced(Watcher):
    """One call."""

    __slots__ = ("_gap", "_instruments", "_meters", "_names", "_prompt", "_span", "_tracer")

    def __init__(self, instruments: Instruments, tracer: trace.Tracer, meters: _Meters) -> None:
        self._instruments = instruments
        self._tracer = tracer
        self._meters = meters
        self._span: Span = trace.INVALID_SPAN
        self._names: Attributes | None = None
        self.untold = instruments.untold

    def begin(self, call: Call, request: Request) -> None:
        """Begin the span, as a child of the one that is current where the answer is read."""
        requested = call.requested
        attributes = _request_attributes(request)
        attributes.update(_names(requested.provider, requested.model, ""))
        name = f"{_OPERATION} {requested.model}".rstrip()
        self._span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, start_time=call.began_ns
        )
        if self._instruments.content and self._span.is_recording():
            self._span.set_attribute("gen_ai.input.messages", input_messages(request))
            if request.system:
                self._span.set_attribute("gen_ai.system_instructions", system_instructions(request))

    def waiting(self) -> AbstractContextManager[object]:
        """Make the span the current one, so that those of an HTTP client become its children."""
        if not self._span.is_recording():
            return _NOTHING
        return use_span(self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    def gap(self, call: Call) -> None:
        """Record the gap."""
        self._meters.gap.record(call.gap_s, self._known(call))

    def notice(self, call: Call, notice: Notice) -> None:
        """Put it on the span, its words only where content was asked for: they may quote a provider."""
        if notice.kind in _TOLD and self._span.is_recording():
            attributes = _notice_attributes(notice, content=self._instruments.content)
            self._span.add_event(f"loomstream.{notice.kind}", attributes, call.now_ns)

    def end(self, call: Call) -> None:
        """Record the metrics, and end the span."""
        response, cost = call.response, call.cost
        try:
            self._record(call, response.usage, cost)
        finally:
            if self._span.is_recording():
                self._finish(call, response, cost)
            self._span.end(call.moment_ns(call.total_s))

    def _known(self, call: Call) -> Attributes:
        """Give the attributes of metrics, as the answer's beginning told them."""
        if self._names is None:
            self._names = _names(call.provider, call.requested.model or call.model, call.start.model)
        return self._names

    def _record(self, call: Call, usage: Usage | None, cost: Cost) -> None:
        self._names = None  # what answers may have changed on the way
        known = self._known(call)
        meters = self._meters
        ended = known if call.error is None else {**known, "error.type": type(call.error).__name__}
        meters.duration.record(call.total_s, ended)
        if call.first_event_s is not None:
            meters.first.record(call.first_event_s, known)
        if usage is not None:
            meters.tokens.record(sent_tokens(usage), {**known, "gen_ai.token.type": "input"})
            meters.tokens.record(usage.output_tokens, {**known, "gen_ai.token.type": "output"})
        if cost.amount_usd is not None:
            meters.cost.add(float(cost.amount_usd), known)

    def _finish(self, call: Call, response: Response, cost: Cost) -> None:
        span = self._span
        span.update_name(f"{_OPERATION} {call.requested.model or call.model}".rstrip())
        span.set_attributes(self._known(call))
        span.set_attributes(_call_attributes(call))
        span.set_attributes(_answer_attributes(response))
        span.set_attributes(_cost_attributes(cost))
        if self._instruments.content:
            span.set_attribute("gen_ai.output.messages", output_messages(response))
        if call.error is not None:
            span.set_attributes(_error_attributes(call.error))
            span.set_status(Status(StatusCode.ERROR, self._words(call.error)))

    def _words(self, error: LoomstreamError) -> str:
        words = str(error) if self._instruments.content else own_words(error)
        return words or type(error).__name__


# --- attributes ----------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def otel_name(provider: str) -> str:
    """Give the conventions' name of a provider, its own where they have none."""
    try:
        return look_up(provider).otel_name or provider
    except ConfigError:  # a name of the user's own
        return provider


def _names(provider: str, requested_model: str, model: str) -> Attributes:
    named: Attributes = {"gen_ai.operation.name": _OPERATION}
    if provider:
        named["gen_ai.provider.name"] = otel_name(provider)
    if requested_model:
        named["gen_ai.request.model"] = requested_model
    if model:
        named["gen_ai.response.model"] = model
    return named


_OF_REQUEST = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stream")


def _request_attributes(request: Request) -> Attributes:
    values: Mapping[str, AttributeValue | None] = {name: getattr(request, name) for name in _OF_REQUEST}
    attributes: Attributes = {f"gen_ai.request.{name}": value for name, value in values.items() if value is not None}
    if request.stop_sequences:
        attributes["gen_ai.request.stop_sequences"] = request.stop_sequences
    if request.output is not None:
        attributes["gen_ai.output.type"] = "json"
    return attributes


def _call_attributes(call: Call) -> Attributes:
    attributes: Attributes = {
        "loomstream.outcome": call.ending or "",
        "loomstream.attempts": len(call.attempts),
        "loomstream.resets": call.resets,
        "loomstream.reads": call.reads,
        "loomstream.longest_gap_s": call.longest_gap_s,
    }
    if call.first_event_s is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = call.first_event_s
    return attributes


def _answer_attributes(response: Response) -> Attributes:
    attributes: Attributes = {}
    if response.response_id:
        attributes["gen_ai.response.id"] = response.response_id
    if response.request_id:
        attributes["loomstream.request_id"] = response.request_id
    if response.stop is not None:
        attributes["gen_ai.response.finish_reasons"] = (_finish_reason(response.stop),)
        attributes["loomstream.stop_reason"] = response.stop.reason
    return attributes if response.usage is None else attributes | _usage_attributes(response.usage)


_PLAIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
_FINISH_REASONS: Mapping[StopReason, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "context_window": "length",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "pause": "pause",
    "other": "other",
}
"""What a reason is called where the provider gave no word of its own."""


def _finish_reason(stop: Stop) -> str:
    """Give the provider's own word, for the attribute holds the model's reasons; the usual one where it gave no word.

    What is no plain word may quote something: it does not leave. Source: the GenAI conventions,
    `gen_ai.response.finish_reasons`, whose examples are `stop` and `length`.
    """
    return stop.raw if _PLAIN_WORD.fullmatch(stop.raw) else _FINISH_REASONS[stop.reason]


def _usage_attributes(usage: Usage) -> Attributes:
    counts = {
        "input_tokens": sent_tokens(usage),
        "output_tokens": usage.output_tokens,
        "cache_read.input_tokens": usage.cache_read_tokens,
        "cache_creation.input_tokens": usage.cache_write_tokens,
        "reasoning.output_tokens": usage.reasoning_tokens,
    }
    return {f"gen_ai.usage.{name}": count for name, count in counts.items()}


def _cost_attributes(cost: Cost) -> Attributes:
    """Give the cost; what is not known is absent."""
    amounts = {"cost_usd": cost.amount_usd, "cost_lower_usd": cost.lower_usd, "cost_upper_usd": cost.upper_usd}
    known: Attributes = {f"loomstream.{name}": float(usd) for name, usd in amounts.items() if usd is not None}
    return {**known, "loomstream.cost_exact": cost.exact} if known else known


def _error_attributes(error: LoomstreamError) -> Attributes:
    attributes: Attributes = {"error.type": type(error).__name__}
    if isinstance(error, ProviderError) and error.status:
        attributes["http.response.status_code"] = error.status
    return attributes


def _notice_attributes(notice: Notice, *, content: bool) -> Attributes:
    attributes: Attributes = {"loomstream.may_be_billed": notice.may_be_billed}
    if notice.attempt is not None:
        attributes |= _names(notice.attempt.provider, notice.attempt.model, "")
        attributes["error.type"] = notice.attempt.outcome
    if content and notice.detail:
        attributes["loomstream.detail"] = notice.detail
    return attributes
