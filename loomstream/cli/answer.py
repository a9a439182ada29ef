"""What `looms ask` has in its hands when a stream is over, and what it says about it.

Contract: plain values and pure functions. `Report` is the JSON form; fields are only ever added.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from loomstream.cli.exit_codes import exit_code
from loomstream.errors import BudgetExceeded, InvalidOutput, LoomstreamError, ProviderError, UsageError
from loomstream.events import CONTENT_EVENTS, Cost, EventBase, TextDelta, Usage
from loomstream.messages import Response, Timing
from loomstream.providers import all_providers
from loomstream.wire.json import loads

_CENT = Decimal("0.01")
_MIN_TOKENS = 5
_MIN_DURATION_S = 0.05
"""Fewer tokens, or a shorter time, tell nothing about speed."""


class Answer(Struct, frozen=True, kw_only=True):
    """A stream, or a run of an agent, that is over; the fields are None where none was begun.

    `error` is how it failed. `usage` and `cost` are those of all turns of a run; without them the response's own count.
    """

    response: Response | None = None
    timing: Timing | None = None
    error: LoomstreamError | None = None
    usage: Usage | None = None
    cost: Cost | None = None

    @property
    def all_usage(self) -> Usage | None:
        """The tokens of all turns."""
        return self.usage or (None if self.response is None else self.response.usage)

    @property
    def all_cost(self) -> Cost | None:
        """The cost of all turns."""
        return self.cost or (None if self.response is None else self.response.cost)


class Clock:
    """When the things of a run happened, in seconds since `begin`."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began_s = now()
        self.timing = Timing()

    def begin(self) -> None:
        """Begin to count."""
        self._began_s = self._now()

    def note(self, event: EventBase) -> None:
        """Take an event as it comes."""
        if self.timing.first_event_s is None and event.__class__ in CONTENT_EVENTS:
            self.timing = replace(self.timing, first_event_s=self._now() - self._began_s)
        if self.timing.first_text_s is None and isinstance(event, TextDelta):
            self.timing = replace(self.timing, first_text_s=self._now() - self._began_s)

    def end(self) -> None:
        """Stop to count."""
        self.timing = replace(self.timing, total_s=self._now() - self._began_s)


class Ended(Protocol):
    """A run of an agent that is over."""

    @property
    def ended(self) -> str | None:
        """Why it ended."""
        ...

    @property
    def turns(self) -> int:
        """How often the model was asked."""
        ...


def unfinished(run: Ended) -> LoomstreamError | None:
    """Give the error of a run that ended before its answer did, None where it did not."""
    match run.ended:
        case None | "done" | "failed" | "cancelled":
            return None
        case "paused":
            return UsageError("the model called a tool that has no function: nobody can give its result here")
        case limit:
            return BudgetExceeded(f"no answer came within {run.turns} turns (the limit of {limit} was reached)")


def check_output(answer: Answer) -> Answer:
    """Give the answer of which JSON was asked for; one that is whole and no JSON has an error that says so."""
    response = answer.response
    if answer.error is not None or response is None or _is_json(response.text):
        return answer
    reason = "other" if response.stop is None else response.stop.reason
    msg = f"the answer is no JSON, which --output-schema asks for (it stopped with {reason})"
    return replace(answer, error=InvalidOutput(msg, provider=response.provider, model=response.model))


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
    """What `looms ask --json` prints. After an error `response` is what came before it.

    `usage` and `cost` are those of all turns, where tools were run between them.
    """

    complete: bool
    text: str
    response: Response | None
    timing: Timing | None
    tokens_per_second: float | None
    error: Problem | None
    usage: Usage | None
    cost: Cost | None


def _is_json(text: str) -> bool:
    return text.strip() == "null" or loads(text.encode("utf-8", "replace")) is not None


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
        usage=answer.all_usage,
        cost=answer.all_cost,
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
    timing, usage = answer.timing, answer.all_usage
    if usage is None or timing is None:
        return None
    if timing.first_event_s is None or timing.total_s is None:
        return None
    duration_s = timing.total_s - timing.first_event_s
    tokens = usage.output_tokens
    return tokens / duration_s if tokens >= _MIN_TOKENS and duration_s >= _MIN_DURATION_S else None


def statistics(answer: Answer) -> str:
    """Give the line about an answer: time to first event, speed, tokens, cost, and why it stopped if not by itself.

    Empty where nothing came.
    """
    response, timing, usage = answer.response, answer.timing, answer.all_usage
    if response is None or timing is None or (timing.first_event_s is None and usage is None):
        return ""
    first = "no event" if timing.first_event_s is None else f"{timing.first_event_s:.2f} s to first event"
    speed = tokens_per_second(answer)
    parts = [first, *([] if speed is None else [f"{speed:.1f} tokens/s"]), tokens_of(usage)]
    parts.append(money_of(answer.all_cost))
    if response.stop is None:
        parts.append("not whole")
    elif response.stop.reason != "end_turn":
        parts.append(f"stopped: {response.stop.reason}")
    return " · ".join(parts)


def tokens_of(usage: Usage | None) -> str:
    """Give token counts in words."""
    if usage is None:
        return "usage unknown"
    cached = [
        f"{count} {what}"
        for count, what in ((usage.cache_read_tokens, "cache read"), (usage.cache_write_tokens, "cache write"))
        if count
    ]
    thought = f" ({usage.reasoning_tokens} reasoning)" if usage.reasoning_tokens else ""
    return ", ".join([f"{usage.input_tokens} in", *cached, f"{usage.output_tokens} out{thought}"])


def money_of(cost: Cost | None) -> str:
    """Give a cost in words."""
    amount = None if cost is None else cost.amount_usd
    if cost is None or amount is None:
        return "cost unknown"
    shown = f"${amount:.4f}" if not amount or amount >= _CENT else f"${amount:.6f}"
    if not amount and cost.exact:
        return f"{shown} (local)" if _runs_here(cost.provider) else f"{shown} (free)"
    return shown if cost.exact else f"about {shown}"


def _runs_here(provider: str) -> bool:
    return any(row.name == provider and (row.launch or not row.needs_key) for row in all_providers())
