"""What cannot be meant is refused where a middleware is made, with the reason: one table for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

import loomstream.middleware
from loomstream.errors import ConfigError, RequestError
from loomstream.middleware.balance import balance
from loomstream.middleware.budget import budget
from loomstream.middleware.cache import MemoryCache
from loomstream.middleware.cache_store import FileCache
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.circuit_breaker import Circuit
from loomstream.middleware.experiment import Shadows, experiment, shadow
from loomstream.middleware.failover import failover
from loomstream.middleware.hedge import hedge
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.retry import RetryBudget, retry
from loomstream.middleware.route import route
from loomstream.middleware.smooth import smooth
from loomstream.middleware.tap import tap
from loomstream.middleware.timeout import timeout
from loomstream.telemetry.audit_log import AuditLog
from loomstream.telemetry.hawk_exporter import HawkExporter
from loomstream.telemetry.otel import otel
from loomstream.testing import scripted_model, text_events

HANDLER = scripted_model(text_events("x")).handler
PAIR = [Candidate("a", HANDLER, "openai", "gpt-4o"), Candidate("b", HANDLER, "openai", "gpt-4o-mini")]
NAN, INFINITY = float("nan"), float("inf")

Make = Callable[..., object]

NUMBERS: list[tuple[Make, str, tuple[float, ...]]] = [
    (retry, "max_retries", (-1, NAN)),
    (retry, "longest_wait_s", (-1, NAN)),
    (retry, "backoff_s", (-1, NAN, INFINITY)),
    (RetryBudget, "ratio", (-0.1, NAN, INFINITY)),
    (RetryBudget, "free", (-1, NAN, INFINITY)),
    (timeout, "connect_s", (0, -1, NAN)),
    (timeout, "first_event_s", (0, -1, NAN)),
    (timeout, "idle_s", (0, -1, NAN)),
    (timeout, "total_s", (0, -1, NAN)),
    (rate_limit, "requests_per_minute", (-1, NAN, INFINITY)),
    (rate_limit, "tokens_per_minute", (-1, NAN, INFINITY)),
    (rate_limit, "concurrency", (-1, NAN)),
    (rate_limit, "burst", (-1, NAN)),
    (rate_limit, "min_delay_s", (-1, NAN)),
    (rate_limit, "max_queue", (-1, NAN)),
    (rate_limit, "max_wait_s", (-1, NAN)),
    (budget, "limit_tokens", (-1, 0.5, 2**60)),
    (budget, "limit_usd", (-0.01, NAN, INFINITY)),
    (Circuit, "failures", (0, -1, NAN)),
    (Circuit, "window_s", (0, -1, NAN, INFINITY)),
    (Circuit, "open_s", (0, -1, NAN)),
    (Circuit, "probes", (0, -1, NAN)),
    (lambda **named: hedge(PAIR, **named), "delay_s", (-1, NAN, INFINITY)),
    (lambda **named: hedge(PAIR, **named), "quantile", (0, 1, -0.5, NAN)),
    (lambda **named: route(PAIR, **named), "max_latency_s", (0, -1, NAN)),
    (lambda **named: route(PAIR, **named), "max_cost_usd", (0, -1, NAN)),
    (lambda **named: shadow(PAIR, **named), "share", (-0.1, 1.1, NAN)),
    (Shadows, "limit_s", (0, -1, NAN)),
    (Shadows, "finish_s", (-1, NAN)),
    (Shadows, "most", (0, -1)),
    (smooth, "chars_per_second", (0, -1, NAN)),
    (smooth, "max_delay_s", (0, -1, NAN)),
    (MemoryCache, "ttl_s", (0, -1, NAN)),
    (lambda **named: FileCache(os.devnull, **named), "ttl_s", (0, -1, NAN)),
    (AuditLog, "max_bytes", (0, -1)),
    (AuditLog, "max_age_s", (0, -1, NAN)),
    (lambda **named: HawkExporter("http://localhost", **named), "attempts", (0, -1)),
    (otel, "gaps_every", (0, -1)),
]
"""What makes it, the number, and values that it cannot have."""


@pytest.mark.parametrize(
    ("make", "name", "value"), [(make, name, value) for make, name, values in NUMBERS for value in values]
)
def test_numbers_that_mean_nothing(make: Make, name: str, value: float, tmp_path: Path) -> None:
    named = {"path": tmp_path / "log", name: value} if make is AuditLog else {name: value}
    with pytest.raises((ConfigError, RequestError), match=r"above 0|at least 0|at least 1|between 0 and 1"):
        make(**named)


@pytest.mark.parametrize(("make", "name"), [(make, name) for make, name, _ in NUMBERS if make is not budget])
@pytest.mark.parametrize("value", ["3", [], 10**400, 1j], ids=["text", "list", "too large", "complex"])
def test_what_is_no_number(make: Make, name: str, value: object, tmp_path: Path) -> None:
    named = {"path": tmp_path / "log", name: value} if make is AuditLog else {name: value}
    with pytest.raises((ConfigError, RequestError), match=rf"{name}=.*give|give numbers"):
        make(**named)


@pytest.mark.parametrize("value", [[], 10**400, 1j, "many"])
@pytest.mark.parametrize("name", ["limit_usd", "limit_tokens"])
def test_what_is_no_limit_of_a_budget(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{name}=.*give"):
        budget("openai", "gpt-4o", **{name: value})  # type: ignore[arg-type]


def test_numbers_may_be_of_another_library() -> None:
    """NumPy's are registered as these; `Fraction` stands for them here."""
    assert retry(max_retries=2, backoff_s=Fraction(1, 2))  # type: ignore[arg-type]
    assert route(PAIR, max_cost_usd=Decimal("0.5"), max_latency_s=Fraction(1, 2))  # type: ignore[arg-type]


WORDS: list[tuple[Callable[[], object], str]] = [
    (lambda: retry(resume="perhaps"), "resume='perhaps': known are off, prefill"),  # type: ignore[arg-type]
    (lambda: budget(limit_tokens=5, per="year"), "give call, tag, hour, day, month or total"),  # type: ignore[arg-type]
    (lambda: balance(PAIR, "fastest"), "strategy='fastest': known are round_robin"),  # type: ignore[arg-type]
    (lambda: balance(PAIR, "lowest_cost"), "lowest_cost needs cost_of"),
    (lambda: balance(PAIR, "weighted", weights={"c": 1}), "names 'c', which is no candidate: they are a, b"),
    (lambda: balance(PAIR, "weighted", weights={"a": 0, "b": 0}), "all weights are 0"),
    (lambda: balance(PAIR, weights={"a": -1}), "the weight of 'a' is -1"),
    (lambda: experiment(PAIR, weights={"a": NAN}), "the weight of 'a' is nan"),
    (budget, "give one of them"),
    (lambda: budget(limit_tokens=1, limit_usd=1), "give one of them"),
    (lambda: budget("openai", "nobody-knows", limit_usd=1), "the price of openai:nobody-knows is not known"),
    (lambda: budget(limit_tokens=5, alerts=(0.0,)), "give parts of the limit above 0"),
    (lambda: rate_limit(requests_per_minute=0, burst=3), "without a limit there is no burst"),
    (lambda: rate_limit("opnai"), "did you mean 'openai'"),
    (lambda: failover([]), "failover has no candidates"),
    (lambda: hedge([PAIR[0], PAIR[0]]), "two candidates called 'a'"),
    (lambda: shadow(PAIR[:1]), "give at least one more"),
    (lambda: route([Candidate("x", HANDLER)]), "does not say its provider and model"),
    (lambda: tap("print"), "the observer is a str"),  # type: ignore[arg-type]
]
"""Words and combinations that mean nothing, and what is said of them."""


@pytest.mark.parametrize(("make", "words"), WORDS, ids=[words[:30] for _, words in WORDS])
def test_words_and_combinations_that_mean_nothing(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_no_middleware_is_missing_here() -> None:
    """A new file of middleware that takes numbers belongs into the tables above."""
    folder = Path(loomstream.middleware.__file__).parent
    helpers = {"__init__", "attempts", "bills", "candidates", "cost", "defaults", "estimates", "layer", "ledger",
               "outcomes", "redis_store", "resume", "store", "cache"}  # fmt: skip
    known = {"retry", "timeout", "rate_limit", "budget", "circuit_breaker", "hedge", "route", "experiment", "smooth",
             "cache_store", "balance", "failover", "tap"}  # fmt: skip
    assert {path.stem for path in folder.glob("*.py")} == helpers | known
