"""Models, what they can do and what they cost: dated, sourced data.

Contract: `look_up` gives the row of a model or None, and never another model's. `price` turns token counts into
US dollars, exactly, or gives None where a price is not known. The data (`data.json`) are read once, at the first
look-up. This module does no other I/O and knows no provider by name.

A model is found by its exact id (or an alias of the row), else by these rules, and by nothing else:

1. A dated or moving name stands for the id without its ending: `-2024-08-06`, `-20250929`, `-latest`. A snapshot
   that costs something else has a row of its own.
2. A cross-region inference profile of Amazon Bedrock (`us.`, `eu.`, `apac.`, `jp.`, `au.`) stands for the id without
   its beginning: both are charged at the regional rate. `global.` is cheaper for most models, so there a row without
   a `global.` row of its own gives what the model can do and no price.
3. A provider whose models are all alike (those on your own machine) has one row for any model, `*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Context, Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from loomstream.errors import ConfigError
from loomstream.events import Usage

Tools = Literal["native", "prompt", "none"]
"""How a model calls tools: by its own protocol, by text in the prompt, or not at all."""

ANY_MODEL = "*"
"""The model of a row that holds for every model of its provider."""

_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)\Z")
_REGIONAL = re.compile(r"\A(?:us|eu|apac|jp|au)\.(?=[a-z]+\.)")
_GLOBAL = re.compile(r"\Aglobal\.(?=[a-z]+\.)")
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


class Price(Rates, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rates of a model; `tiers` replace them for long prompts, in rising order.

    `service_tiers` are the rates of what is not served as usual, by the provider's word for it (`batch`, `flex`, …).
    """

    tiers: tuple[Tier, ...] = ()
    service_tiers: Mapping[str, Rates] = msgspec.field(default_factory=dict[str, Rates])


STANDARD_TIERS = frozenset(("", "auto", "default", "on_demand", "standard", "standard_only"))
"""Words for being served as usual, at the rates of the row itself."""


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one model at one provider, as of a day, by a source.

    `context_tokens` and `max_output_tokens` are None where unknown. `price` is None where unknown: never a guess.
    `free` is True for what runs on your own machine. `deprecated_on` is the day on which the provider takes (or took)
    the model away, `successor` the model it names instead.
    """

    provider: str
    model: str
    aliases: tuple[str, ...] = ()
    context_tokens: int | None
    max_output_tokens: int | None
    streaming: bool
    tools: Tools
    price: Price | None
    free: bool = False
    deprecated_on: date | None = None
    successor: str | None = None
    as_of: date
    source: str


def entries() -> tuple[Entry, ...]:
    """Give every row, in the order of the data file."""
    return _load()


@lru_cache(maxsize=1024)  # asked several times for each request; the rows never change
def look_up(provider: str, model: str) -> Entry | None:
    """Give the row of a model, or None where it is not known; the module says which names stand for which."""
    index = _index()
    found = index.get((provider, model)) or _by_rule(index, provider, model)
    if found is not None:
        return found
    anything = index.get((provider, ANY_MODEL))
    return None if anything is None else msgspec.structs.replace(anything, model=model)


def price(entry_or_price: Entry | Price, usage: Usage, service_tier: str = "") -> Decimal | None:
    """Give what the tokens cost, in US dollars, exactly; None where a price that they need is not known."""
    known = entry_or_price.price if isinstance(entry_or_price, Entry) else entry_or_price
    if known is None:
        return None
    served = service_tier.lower()
    rates = _rates(known, usage) if served in STANDARD_TIERS else known.service_tiers.get(served)
    if rates is None:
        return None
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


def _rates(known: Price, usage: Usage) -> Rates:
    prompt_tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    rates: Rates = known
    for tier in known.tiers:
        if prompt_tokens > tier.above_tokens:
            rates = tier
    return rates


_Index = dict[tuple[str, str], Entry]


def _by_rule(index: _Index, provider: str, model: str) -> Entry | None:
    for name in (_DATED.sub("", model), _REGIONAL.sub("", model)):
        found = index.get((provider, name))
        if found is not None:
            return found
    worldwide = index.get((provider, _GLOBAL.sub("", model)))
    return None if worldwide is None else msgspec.structs.replace(worldwide, model=model, price=None)


@cache
def _load() -> tuple[Entry, ...]:
    try:
        data = Path(__file__).with_name("data.json").read_bytes()
    except OSError as error:
        msg = f"the model catalog cannot be read ({error.strerror or error}): reinstall loomstream"
        raise ConfigError(msg) from error
    return msgspec.json.decode(data, type=tuple[Entry, ...])


@cache
def _index() -> _Index:
    return {(entry.provider, name): entry for entry in _load() for name in (entry.model, *entry.aliases)}
