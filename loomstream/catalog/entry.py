"""What the catalog says of a model, and what its price makes of token counts.

Contract: frozen values and exact arithmetic. It reads no data and knows no provider by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Context, Decimal
from typing import Literal

import msgspec
from msgspec import Struct

from loomstream.events import Usage

Tools = Literal["native", "prompt", "none"]
"""How a model calls tools: by its own protocol, by text in the prompt, or not at all."""

CAPABILITIES = ("streaming", "tools", "parallel_tools", "vision", "reasoning", "prefill", "structured_output")
"""What a model can or cannot do, as `looms models --can` and the matrix in the documentation name it."""

ANY_REGION = "*"
"""The region of rates that hold wherever a request is not served worldwide."""

STANDARD_TIERS = frozenset(("", "auto", "default", "on_demand", "standard", "standard_only"))
"""Words for being served as usual, at the rates of the row itself."""

WORLDWIDE = frozenset(("", "global"))
"""Words for a request that no region is named for."""

_PER_MILLION = -6
_EXACT = Context(prec=60)
_ZERO = Decimal(0)


class Rates(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens; None where the provider publishes no such price.

    `input` is for tokens neither read from nor written to a cache, `output` includes reasoning.
    `cache_write_5m` is a write of the provider's default lifetime (5 minutes at Anthropic, 30 at OpenAI),
    `cache_write_1h` one of an hour.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None


class Tier(Rates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rates of a whole request whose prompt, cached tokens included, is longer than `above_tokens`."""

    above_tokens: int


class TieredRates(Rates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rates; `tiers` replace them for long prompts, in rising order."""

    tiers: tuple[Tier, ...] = ()


class Price(TieredRates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rates of a model.

    `service_tiers` are the rates of what is not served as usual, by the provider's word for it (`batch`, `flex`, …).
    `regions` are those of what is served in a region of that name, where they are not the row's own; `*` is any other.
    """

    service_tiers: Mapping[str, TieredRates] = msgspec.field(default_factory=dict[str, TieredRates])
    regions: Mapping[str, TieredRates] = msgspec.field(default_factory=dict[str, TieredRates])


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one model at one provider, as of a day, by a source; None is what is not known.

    `context_tokens` and `max_output_tokens` are the limits of prompt and answer. `price` is never a guess. `free` is
    True for what nobody bills: what runs on your own machine, and what a host gives away. `deprecated_on` is the day
    on which the provider takes (or took) the model away, `successor` the model it names instead.

    `parallel_tools`: several calls in one turn. `vision`: images in the prompt. `prefill`: the answer continues an
    assistant turn that the request ends with. `structured_output`: an answer held to a JSON Schema by the provider.
    """

    provider: str
    model: str
    aliases: tuple[str, ...] = ()
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    streaming: bool | None = None
    tools: Tools | None = None
    parallel_tools: bool | None = None
    vision: bool | None = None
    reasoning: bool | None = None
    prefill: bool | None = None
    structured_output: bool | None = None
    price: Price | None = None
    free: bool = False
    deprecated_on: date | None = None
    successor: str | None = None
    as_of: date
    source: str

    def can(self, capability: str) -> bool | None:
        """Say whether the model has one of `CAPABILITIES`; tools by the prompt alone are none. None: not known."""
        value = getattr(self, capability)
        return value == "native" if isinstance(value, str) else value


def price(entry_or_price: Entry | Price, usage: Usage, service_tier: str = "", *, region: str = "") -> Decimal | None:
    """Give what the tokens cost, in US dollars, exactly; None where a price that they need is not known."""
    known = entry_or_price.price if isinstance(entry_or_price, Entry) else entry_or_price
    tiered = None if known is None else _served(known, service_tier.lower(), region)
    if tiered is None:
        return None
    rates = _rates(tiered, usage)
    written_1h = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
    parts = (
        (rates.input, usage.input_tokens),
        (rates.output, usage.output_tokens),
        (rates.cache_read, usage.cache_read_tokens),
        (rates.cache_write_5m, usage.cache_write_tokens - written_1h),
        (rates.cache_write_1h, written_1h),
    )
    total = _ZERO
    for rate, tokens in parts:
        if not tokens:
            continue
        if rate is None:
            return None
        total = _EXACT.fma(rate, Decimal(tokens), total)
    return total.scaleb(_PER_MILLION, _EXACT)


def at_size(known: Price, usage: Usage) -> Price:
    """Give the usual rates that hold for a request of this size, whatever its size."""
    rates = _rates(known, usage)
    return Price(**{field: getattr(rates, field) for field in Rates.__struct_fields__})


def _served(known: Price, service_tier: str, region: str) -> TieredRates | None:
    """Give the rates of a way of being served; where prices differ by region, none are taken for another's."""
    placed: TieredRates | None = known
    if known.regions and region not in WORLDWIDE:
        placed = known.regions.get(region) or known.regions.get(ANY_REGION)
    if service_tier in STANDARD_TIERS:
        return placed
    return known.service_tiers.get(service_tier) if placed is known else None


def _rates(known: TieredRates, usage: Usage) -> Rates:
    prompt_tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    rates: Rates = known
    for tier in known.tiers:
        if prompt_tokens > tier.above_tokens:
            rates = tier
    return rates
