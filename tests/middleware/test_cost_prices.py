"""Prices worked out by hand, and every rate of the catalog by another road."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from loomstream import catalog
from loomstream.events import Usage
from loomstream.middleware.cost import cost_of, reported_cost

BY_HAND: tuple[tuple[str, str, Usage, str], ...] = (
    # 3 in, 8.192 k read at a tenth, 1 k written at 1.25 and 2 k at 2 times the input's price, 500 out
    (
        "anthropic",
        "claude-sonnet-5-5",
        Usage(
            input_tokens=3,
            cache_read_tokens=8192,
            cache_write_tokens=3000,
            cache_write_1h_tokens=2000,
            output_tokens=500,
            final=True,
        ),
        "0.0163252",
    ),
    # a prompt above 200,000 tokens, cached ones included, is charged at the long-prompt rates as a whole
    (
        "vertex-ai",
        "gemini-2.5-pro",
        Usage(input_tokens=150_000, cache_read_tokens=50_001, output_tokens=1000, reasoning_tokens=900, final=True),
        "0.40250025",
    ),
    ("openai", "gpt-4o", Usage(input_tokens=500, output_tokens=1000, final=True), "0.01125"),
)


def test_prices_worked_out_by_hand() -> None:
    for provider, model, usage, expected in BY_HAND:
        found = cost_of(provider, model, usage)
        assert (found.amount_usd, found.exact) == (Decimal(expected), True), model


def test_any_count_costs_its_rate() -> None:
    for entry in catalog.entries():
        if entry.price is None or entry.free:
            continue
        usage = Usage(input_tokens=1234, output_tokens=567, final=True)
        expected = (Fraction(entry.price.input) * 1234 + Fraction(entry.price.output) * 567) / 1_000_000
        amount = cost_of(entry.provider, entry.model, usage).amount_usd
        assert amount is not None
        assert Fraction(amount) == expected, entry.model
        assert reported_cost(usage) is None
