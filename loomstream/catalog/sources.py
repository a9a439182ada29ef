"""What others publish of models, read into entries: genai-prices (prices) and litellm's cost map (the rest).

Contract: pure functions over what those packages hold; nothing here opens a file or knows the catalog's own form. Only
models that read and write text are taken, and of prices only those that a count of text tokens tells: one that changes
with the hour, or is charged by the request, is left out. Neither package is a dependency.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Context, Decimal

import msgspec
from msgspec import Struct

from loomstream.catalog.entry import ANY_REGION, Entry, Price, Rates, Tier, TieredRates, Tools

_MILLION = Decimal(1_000_000)
_DIGITS = 12
_ROUNDING = Context(prec=_DIGITS)


# --- genai-prices --------------------------------------------------------------------------------


class _Step(Struct):
    start: int
    price: Decimal


class _Stepped(Struct):
    base: Decimal
    tiers: tuple[_Step, ...]


_Rate = Decimal | _Stepped | None


class _Prices(Struct):
    input_mtok: _Rate = None
    output_mtok: _Rate = None
    cache_read_mtok: _Rate = None
    cache_write_mtok: _Rate = None
    cache_write_1h_mtok: _Rate = None
    output_audio_mtok: _Rate = None
    output_image_mtok: _Rate = None
    output_video_mtok: _Rate = None
    output_citation_mtok: _Rate = None
    output_reasoning_mtok: _Rate = None
    requests_kcount: _Rate = None
    audio_hours: _Rate = None
    input_audio_hours: _Rate = None


class _Constraint(Struct):
    start_date: date | None = None
    start_time: time | None = None


class _Conditional(Struct):
    prices: _Prices
    constraint: _Constraint | None = None


class _Variant(Struct):
    when: dict[str, str]
    prices: _Prices
    constraint: _Constraint | None = None


class _Match(Struct):
    equals: str = ""
    starts_with: str = ""
    ends_with: str = ""
    contains: str = ""
    regex: str = ""
    or_: tuple[_Match, ...] = ()
    and_: tuple[_Match, ...] = ()

    def exact(self) -> list[str]:
        """Give the names that are spelled out."""
        return [self.equals] * bool(self.equals) + [name for each in self.or_ for name in each.exact()]

    def fits(self, name: str) -> bool:
        """Say whether a name is meant."""
        return (
            (bool(self.equals) and name == self.equals)
            or (bool(self.starts_with) and name.startswith(self.starts_with))
            or (bool(self.ends_with) and name.endswith(self.ends_with))
            or (bool(self.contains) and self.contains in name)
            or (bool(self.regex) and re.search(self.regex, name) is not None)
            or any(each.fits(name) for each in self.or_)
            or (bool(self.and_) and all(each.fits(name) for each in self.and_))
        )


class PricedModel(Struct):
    """A model of genai-prices."""

    id: str
    match: _Match
    prices: _Prices | tuple[_Conditional, ...]
    context_window: int | None = None
    price_variants: tuple[_Variant, ...] | None = None

    def price(self, today: date) -> Price | None:
        """Give the price of a day; None where token counts alone do not tell it."""
        listed = self.prices if isinstance(self.prices, tuple) else (_Conditional(self.prices),)
        if any(each.constraint is not None and each.constraint.start_time for each in listed):
            return None
        begun = [each.prices for each in listed if _has_begun(each.constraint, today)]
        standard = begun[-1] if begun else _Prices()
        rates = _tiered(standard)
        return None if rates is None else _with_service_tiers(rates, self._variants(standard, today))

    def _variants(self, standard: _Prices, today: date) -> dict[str, TieredRates]:
        found: dict[str, TieredRates] = {}
        for variant in self.price_variants or ():
            word = variant.when.get("service_tier") or variant.when.get("processing", "")
            rates = _tiered(_over(standard, variant.prices))
            named = word and word != "default" and len(variant.when) == 1
            if named and rates is not None and _has_begun(variant.constraint, today):
                found[word] = rates
        return found


class PricedProvider(Struct):
    """A provider of genai-prices."""

    id: str
    models: tuple[PricedModel, ...]


def genai_providers(providers: object) -> dict[str, PricedProvider]:
    """Give `genai_prices.data.providers` by id. Raises `msgspec.ValidationError` where its form has changed."""
    found = msgspec.convert(providers, tuple[PricedProvider, ...], from_attributes=True)
    return {provider.id: provider for provider in found}


def _has_begun(constraint: _Constraint | None, today: date) -> bool:
    return constraint is None or constraint.start_date is None or constraint.start_date <= today


def _over(standard: _Prices, variant: _Prices) -> _Prices:
    """Give the variant's rates; one that it does not name stays the standard one."""
    named = {field: rate for field in _Prices.__struct_fields__ if (rate := getattr(variant, field)) is not None}
    return msgspec.structs.replace(standard, **named)


_OF_GENAI = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
_NOT_BY_TEXT = tuple(name for name in _Prices.__struct_fields__ if name not in _OF_GENAI.values())


def _tiered(prices: _Prices) -> TieredRates | None:
    if any(getattr(prices, name) is not None for name in _NOT_BY_TEXT):
        return None
    rates: dict[str, _Rate] = {field: getattr(prices, name) for field, name in _OF_GENAI.items()}
    if rates["input"] is None or rates["output"] is None:
        return None
    starts = {step.start for rate in rates.values() if isinstance(rate, _Stepped) for step in rate.tiers}
    tiers = [Tier(above_tokens=start, **_at(rates, start)) for start in sorted(starts)]
    return TieredRates(tiers=tuple(tiers), **_at(rates, 0))


def _at(rates: Mapping[str, _Rate], start: int) -> dict[str, Decimal]:
    return {field: _rate_at(rate, start) for field, rate in rates.items() if rate is not None}


def _rate_at(rate: Decimal | _Stepped, start: int) -> Decimal:
    if isinstance(rate, Decimal):
        return _clean(rate)
    reached = [step.price for step in rate.tiers if step.start <= start and start]
    return _clean(reached[-1] if reached else rate.base)


def _clean(rate: Decimal) -> Decimal:
    """Take away what the source's own arithmetic with floats has added: 1.0399999999999998 is 1.04."""
    return rate if len(rate.as_tuple().digits) <= _DIGITS else _ROUNDING.plus(rate).normalize()


def _with_service_tiers(rates: TieredRates, service_tiers: Mapping[str, TieredRates]) -> Price:
    fields = {field: getattr(rates, field) for field in TieredRates.__struct_fields__}
    return Price(service_tiers=service_tiers, **fields)


# --- litellm's cost map --------------------------------------------------------------------------

CostMap = Mapping[str, Mapping[str, object]]

_MODES = ("chat", "responses")
_FLAGS: dict[str, tuple[str, ...]] = {
    "streaming": ("supports_native_streaming",),
    "parallel_tools": ("supports_parallel_function_calling", "supports_parallel_tool_use_config"),
    "vision": ("supports_vision",),
    "reasoning": ("supports_reasoning",),
    "prefill": ("supports_assistant_prefill",),
    "structured_output": ("supports_response_schema", "supports_native_structured_output"),
}
_OF_LITELLM = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write_5m": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
}
_SERVICE_TIERS = {"batch": "_batches", "flex": "_flex", "priority": "_priority"}
_ABOVE = re.compile(r"\Ainput_cost_per_token_above_(\d+)k_tokens\Z")
_NOT_TEXT = ("output_cost_per_audio_token", "output_cost_per_image", "output_cost_per_image_token")
_UPLIFT = "regional_endpoint_uplift_multiplier"


def cost_map(data: bytes) -> CostMap:
    """Give litellm's map from its JSON, numbers exact. Raises `msgspec.DecodeError` where it is none."""
    return msgspec.json.Decoder(dict[str, dict[str, object]], float_hook=Decimal).decode(data)


def writes_text(said: Mapping[str, object]) -> bool:
    """Say whether a row of the map is a model that answers with text."""
    modalities = said.get("supported_output_modalities")
    text_only = modalities is None or modalities == ["text"]
    return said.get("mode") in _MODES and text_only and not any(name in said for name in _NOT_TEXT)


def entry_of_litellm(provider: str, model: str, said: Mapping[str, object], as_of: date, source: str) -> Entry:
    """Give the entry that a row of the map makes."""
    known = Entry(
        provider=provider,
        model=model,
        context_tokens=_count(said.get("max_input_tokens")),
        max_output_tokens=_count(said.get("max_output_tokens")),
        tools=_tools(said.get("supports_function_calling")),
        price=_litellm_price(said),
        deprecated_on=_day(said.get("deprecation_date")),
        as_of=as_of,
        source=source,
    )
    return msgspec.structs.replace(known, **{name: _any_of(said, keys) for name, keys in _FLAGS.items()})


def is_free(price: Price | None) -> bool:
    """Say whether a price is none."""
    return price is not None and price.input == 0 and price.output == 0


def _any_of(said: Mapping[str, object], keys: Iterable[str]) -> bool | None:
    """True where one is; the map lists few things that a model cannot do, so what is absent is not known."""
    values = [value for key in keys if isinstance(value := said.get(key), bool)]
    return any(values) if values else None


def _tools(flag: object) -> Tools | None:
    """A no is not believed: hosts learn to call tools, and where one cannot, its error says so at no cost."""
    return "native" if flag is True else None


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, (int, Decimal)) and value >= 1024 else None  # noqa: PLR2004 (else a slip)


def _day(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value)) if value else None
    except ValueError:
        return None


def _litellm_price(said: Mapping[str, object]) -> Price | None:
    standard = _litellm_rates(said, "")
    if standard is None or not (standard.input or standard.output):  # where the map does not know, it says 0
        return None
    found = {word: rates for word, suffix in _SERVICE_TIERS.items() if (rates := _litellm_rates(said, suffix))}
    price = _with_service_tiers(standard, found)
    uplift = said.get(_UPLIFT)
    if not isinstance(uplift, Decimal):
        return price
    return msgspec.structs.replace(price, regions={ANY_REGION: _scaled(standard, uplift)})


def _litellm_rates(said: Mapping[str, object], suffix: str) -> TieredRates | None:
    base = _litellm_fields(said, "", suffix)
    if not {"input", "output"} <= base.keys():
        return None
    bounds = sorted(int(found[1]) for key in said if (found := _ABOVE.match(key)))
    tiers = [(bound, _litellm_fields(said, f"_above_{bound}k_tokens", suffix)) for bound in bounds]
    whole = [Tier(above_tokens=bound * 1000, **rates) for bound, rates in tiers if {"input", "output"} <= rates.keys()]
    return None if len(whole) < len(tiers) else TieredRates(tiers=tuple(whole), **base)


def _litellm_fields(said: Mapping[str, object], above: str, suffix: str) -> dict[str, Decimal]:
    found = {field: said.get(f"{name}{above}{suffix}") for field, name in _OF_LITELLM.items()}
    return {field: _per_million(rate) for field, rate in found.items() if isinstance(rate, (int, Decimal))}


def _per_million(rate: int | Decimal) -> Decimal:
    amount = (Decimal(rate) * _MILLION).normalize()
    return amount.quantize(Decimal(1)) if amount == amount.to_integral_value() else amount


def _scaled(rates: TieredRates, factor: Decimal) -> TieredRates:
    tiers = tuple(Tier(above_tokens=tier.above_tokens, **_times(tier, factor)) for tier in rates.tiers)
    return TieredRates(tiers=tiers, **_times(rates, factor))


def _times(rates: Rates, factor: Decimal) -> dict[str, Decimal]:
    known = {field: getattr(rates, field) for field in Rates.__struct_fields__}
    return {field: (rate * factor).normalize() for field, rate in known.items() if rate is not None}
