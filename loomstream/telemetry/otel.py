"""OpenTelemetry: a span and the client metrics of each call, by the GenAI conventions.

Contract: works with whatever SDK is set up, at any time before the call; where none is, or the SDK is switched off, a
call is not touched. Nothing of a prompt or an answer leaves unless `content` asks for it, nor what a provider says in
an error. It needs the extra `otel`, whose names are loaded here alone and in `otel_calls`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from loomstream.errors import ConfigError
from loomstream.handler import Middleware
from loomstream.numerals import is_whole
from loomstream.telemetry.calls import Requested, watched

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The conventions' own variable that asks for content: `true`, `span_only` or `span_and_event`."""

GAPS_EVERY = 64
"""The gap before each so-manieth read is recorded: to record one costs the SDK about ten microseconds."""

_YES = frozenset(("1", "true", "span_only", "span_and_event"))


def otel(
    provider: str = "",
    model: str = "",
    *,
    content: bool | None = None,
    gaps_every: int = GAPS_EVERY,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Middleware:
    """Give the middleware that tells OpenTelemetry of each call. List it first: then it sees every try as one call.

    `provider` and `model` are those requested; where they are not given, the span is named when the answer says them.
    `content` puts the messages on the span (default: as `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says).
    `gaps_every`: of so many reads that brought content, the time since the one before is recorded for one (1: for
    each); the longest and the number of all are on the span. The providers default to the global ones.

    Raises `ConfigError` where the extra `otel` is not installed, and for a `gaps_every` below 1.
    """
    try:
        from loomstream.telemetry.otel_calls import Instruments  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = "OpenTelemetry is not installed: pip install 'loomstream[otel]'"
        raise ConfigError(msg) from error
    if not is_whole(gaps_every) or gaps_every < 1:
        msg = f"otel(gaps_every={gaps_every!r}): give a whole number of at least 1"
        raise ConfigError(msg)
    wanted = os.environ.get(CONTENT_VARIABLE, "").strip().lower() in _YES if content is None else content
    instruments = Instruments(tracer_provider, meter_provider, content=wanted, gaps_every=gaps_every)
    return watched("OpenTelemetry", instruments.watcher, Requested(provider, model))
