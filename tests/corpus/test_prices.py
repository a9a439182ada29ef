"""What recorded calls cost: the oracle's reading of the bytes, times prices that stand here by hand."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from typing import Any

import oracle
import pytest
from apis import APIS
from conftest import corpus, load, missing
from test_corpus import provider_of, run

from loomstream.events import Start, Usage
from loomstream.middleware.cost import cost_of

RATES: dict[tuple[str, str], tuple[str, str, str, str, str]] = {
    # US dollars per million tokens: input, output, read from the cache, written for 5 minutes, for an hour
    ("anthropic", "claude-sonnet-4-6"): ("3", "15", "0.3", "3.75", "6"),
    ("anthropic", "claude-sonnet-4-5"): ("3", "15", "0.3", "3.75", "6"),
    ("anthropic", "claude-sonnet-5"): ("2", "10", "0.2", "2.5", "4"),
    ("anthropic", "claude-opus-4-6"): ("5", "25", "0.5", "6.25", "10"),
    ("anthropic", "claude-haiku-4-5"): ("1", "5", "0.1", "1.25", "2"),
    ("anthropic", "claude-haiku-4-5-20251001"): ("1", "5", "0.1", "1.25", "2"),
    ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0"): ("1.1", "5.5", "0.11", "1.375", "2.2"),
    ("openai", "gpt-4o"): ("2.5", "10", "1.25", "", ""),
    ("openai", "gpt-4o-mini"): ("0.15", "0.6", "0.075", "", ""),
    ("openai", "gpt-4.1"): ("2", "8", "0.5", "", ""),
    ("openai", "gpt-4.1-mini"): ("0.4", "1.6", "0.1", "", ""),
    ("openai", "gpt-5"): ("1.25", "10", "0.125", "", ""),
    ("openai", "o4-mini"): ("1.1", "4.4", "0.275", "", ""),
    ("openai", "gpt-3.5-turbo"): ("0.5", "1.5", "", "", ""),
    ("azure-openai", "gpt-5-mini"): ("0.25", "2", "0.025", "", ""),
    ("azure-openai", "o4-mini"): ("1.1", "4.4", "0.275", "", ""),
    ("gemini", "gemini-2.5-flash"): ("0.3", "2.5", "0.03", "", ""),
    ("gemini", "gemini-2.5-pro"): ("1.25", "10", "0.125", "", ""),
    ("mistral", "mistral-small-latest"): ("0.15", "0.6", "0.015", "", ""),
    ("mistral", "mistral-large-latest"): ("0.5", "1.5", "0.05", "", ""),
    ("ollama", "qwen3:4b"): ("0", "0", "0", "0", "0"),
}


def by_hand(rates: tuple[str, ...], counts: dict[str, int]) -> Fraction:
    written_1h = counts.get("cache_write_1h_tokens", 0)
    tokens = (
        counts.get("input_tokens", 0),
        counts.get("output_tokens", 0),
        counts.get("cache_read_tokens", 0),
        counts.get("cache_write_tokens", 0) - written_1h,
        written_1h,
    )
    return sum(
        (Fraction(rate) * count / 1_000_000 for rate, count in zip(rates, tokens, strict=True) if count), Fraction()
    )


def by_us(recorded: dict[str, Any], provider: str) -> Fraction | None:
    events = run(recorded, [recorded["body"]]).events
    usage = next((event for event in reversed(events) if isinstance(event, Usage)), None)
    model = next((event.model for event in events if isinstance(event, Start)), "")
    asked = recorded["meta"]["model"]
    amount = cost_of(provider, model or asked, usage, requested_model=asked).amount_usd
    return None if amount is None else Fraction(amount)


def test_recorded_calls_cost_what_their_bytes_say() -> None:
    if missing():
        pytest.skip(missing())
    priced: Counter[tuple[str, str]] = Counter()
    for line in (corpus() / "index.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        provider = provider_of(row)
        rates = RATES.get((provider, row.get("model") or ""))
        if rates is None or row["api"] not in APIS or row["status"] >= 400:
            continue
        recorded = load(row)
        reading = oracle.read(APIS[row["api"]], recorded["body"], streaming=row["streaming"])
        if not reading.usage or not reading.complete:
            continue
        assert by_us(recorded, provider) == by_hand(rates, reading.usage), row["id"]
        priced[provider, row["model"]] += 1
    assert priced.keys() == RATES.keys()
    assert priced.total() >= 80
