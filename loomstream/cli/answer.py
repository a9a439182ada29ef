"""What `looms ask` has in its hands when a stream is over, and what it says about it.

Contract: plain values and pure functions. `Report` is the JSON form; fields are only ever added.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from loomstream.cli.exit_codes import exit_code
from loomstream.errors import LoomstreamError, ProviderError
from loomstream.events import Cost, Usage
from loomstream.messages import Response, Timing
from loomstream.providers import all_providers

_CENT = Decimal("0.01")
_MIN_TOKENS = 5
_MIN_DURATION_S = 0.05
"""Fewer tokens, or a shorter time, tell nothing about speed."""


class Answer(Struct, frozen=True, kw_only=True):
    """A stream that is over; both fields are None where none was begun. `error` is how it failed."""

    response: Response | None = None
    timing: Timing | None = None
    error: LoomstreamError | None = None


class Problem(Struct, frozen=True, kw_only=True):
    """An error as JSON; `type` is the name of its class."""

    type: str
    message: str
    exit_code: int
    provider: str
    model: str
    request_id: str
    retry_safety: str
    retry_after_s: float | None
    status: int | None
    code: str | None


class Report(Struct, frozen=True, kw_only=True):
    """What `looms ask --json` prints. After an error `response` is what came before it."""

    complete: bool
    text: str
    response: Response | None
    timing: Timing | None
    tokens_per_second: float | None
    error: Problem | None


def report(answer: Answer) -> Report:
    """Give the JSON form of an answer."""
    response = answer.response
    return Report(
        complete=response is not None and response.complete,
        text="" if response is None else response.text,
        response=response,
        timing=answer.timing,
        tokens_per_second=tokens_per_second(answer),
        error=None if answer.error is None else _problem(answer.error),
    )


def _problem(error: LoomstreamError) -> Problem:
    refused = error if isinstance(error, ProviderError) else None
    return Problem(
        type=type(error).__name__,
        message=str(error),
        exit_code=exit_code(error),
        provider=error.provider,
        model=error.model,
        request_id=error.request_id,
        retry_safety=error.retry_safety,
        retry_after_s=error.retry_after_s,
        status=None if refused is None else refused.status,
        code=None if refused is None else refused.code,
    )


def tokens_per_second(answer: Answer) -> float | None:
    """Give the output tokens per second since the first event, or None where too little came to tell."""
    response, timing = answer.response, answer.timing
    if response is None or response.usage is None or timing is None:
        return None
    if timing.first_event_s is None or timing.total_s is None:
        return None
    duration_s = timing.total_s - timing.first_event_s
    tokens = response.usage.output_tokens
    return tokens / duration_s if tokens >= _MIN_TOKENS and duration_s >= _MIN_DURATION_S else None


def statistics(answer: Answer) -> str:
    """Give the line about an answer: time to first event, speed, tokens, cost, and why it stopped if not by itself.

    Empty where nothing came.
    """
    response, timing = answer.response, answer.timing
    if response is None or timing is None or (timing.first_event_s is None and response.usage is None):
        return ""
    first = "no event" if timing.first_event_s is None else f"{timing.first_event_s:.2f} s to first event"
    speed = tokens_per_second(answer)
    parts = [first, *([] if speed is None else [f"{speed:.1f} tokens/s"]), _tokens(response.usage)]
    parts.append(_money(response.cost))
    if response.stop is None:
        parts.append("not whole")
    elif response.stop.reason != "end_turn":
        parts.append(f"stopped: {response.stop.reason}")
    return " · ".join(parts)


def _tokens(usage: Usage | None) -> str:
    if usage is None:
        return "usage unknown"
    cached = [
        f"{count} {what}"
        for count, what in ((usage.cache_read_tokens, "cache read"), (usage.cache_write_tokens, "cache write"))
        if count
    ]
    thought = f" ({usage.reasoning_tokens} reasoning)" if usage.reasoning_tokens else ""
    return ", ".join([f"{usage.input_tokens} in", *cached, f"{usage.output_tokens} out{thought}"])


def _money(cost: Cost) -> str:
    amount = cost.amount_usd
    if amount is None:
        return "cost unknown"
    shown = f"${amount:.4f}" if not amount or amount >= _CENT else f"${amount:.6f}"
    if not amount and cost.exact:
        return f"{shown} (local)" if _runs_here(cost.provider) else f"{shown} (free)"
    return shown if cost.exact else f"about {shown}"


def _runs_here(provider: str) -> bool:
    return any(row.name == provider and (row.launch or not row.needs_key) for row in all_providers())
