from datetime import date
from decimal import Decimal

import pytest
from msgspec.structs import replace

from loomstream.catalog import Entry, Price, Tier
from loomstream.catalog.compare import Past, Wanted, find, named, reprice
from loomstream.errors import ConfigError
from loomstream.events import Usage

TODAY = date(2026, 11, 22)


def entry(model: str, price: str | None = "1", **fields: object) -> Entry:
    rates = None if price is None else Price(input=Decimal(price), output=Decimal(price))
    return Entry(provider="acme", model=model, price=rates, as_of=TODAY, source="here", **fields)  # type: ignore[arg-type]


SMALL = entry("small", "1", context_tokens=8_000, tools="native")
LARGE = entry("large", "10", context_tokens=200_000, tools="native", vision=True, aliases=("big",))
PROMPTED = entry("prompted", "0.5", context_tokens=200_000, tools="prompt", vision=False)
UNKNOWN = entry("unknown", None)
GONE = entry("gone", "0.1", deprecated_on=date(2026, 1, 1))
GIFT = entry("gift", "0", free=True, context_tokens=1_000_000)
ALL = (SMALL, LARGE, PROMPTED, UNKNOWN, GONE, GIFT)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), ["gift", "gone", "prompted", "small", "large", "unknown"]),
        (Wanted(ended_by=TODAY), ["gift", "prompted", "small", "large", "unknown"]),
        (Wanted(words=("ACME", "arge")), ["large"]),
        (Wanted(words=("big",)), ["large"]),
        (Wanted(words=("big", "small")), []),
        (Wanted(capabilities=("tools",)), ["small", "large"]),
        (Wanted(capabilities=("tools", "vision")), ["large"]),
        (Wanted(context_tokens=100_000), ["gift", "prompted", "large"]),
        (Wanted(output_tokens=1), []),
        (
            Wanted(task=Usage(input_tokens=7_990, output_tokens=10)),
            ["gift", "gone", "prompted", "small", "large", "unknown"],
        ),
        (
            Wanted(task=Usage(input_tokens=7_990, output_tokens=11), holds_task=True),
            ["gift", "gone", "prompted", "large", "unknown"],
        ),
        (Wanted(max_usd=Decimal("0.0015")), ["gift", "gone", "prompted", "small"]),
        (Wanted(providers=("other",)), []),
    ],
)
def test_what_is_found_and_in_which_order(wanted: Wanted, expected: list[str]) -> None:
    assert [found.entry.model for found in find(wanted, ALL)] == expected


def test_models_are_named_with_their_provider() -> None:
    assert [each.model for each in named(["openai:gpt-4o-2024-08-06"])] == ["gpt-4o-2024-08-06"]
    for name, words in (
        ("gpt-4o", "write PROVIDER:MODEL"),
        ("openai:gpt-99", "the catalog does not know openai:gpt-99"),
    ):
        with pytest.raises(ConfigError, match=words):
            named([name])


def call(model: str, tokens: int, usd: str | None = "1", **fields: object) -> Past:
    usage = Usage(input_tokens=tokens, output_tokens=tokens)
    cost = None if usd is None else Decimal(usd)
    return Past(provider="acme", model=model, usage=usage, cost_usd=cost, **fields)  # type: ignore[arg-type]


def test_past_calls_are_priced_at_what_could_have_answered_them() -> None:
    [repriced] = reprice([call("large", 1000), call("large", 2000, "2")], ALL)
    assert (repriced.model, repriced.calls, repriced.cost_usd) == ("acme:large", 2, Decimal(3))
    assert [each.model for each in repriced.alternatives] == ["acme:gift", "acme:gone", "acme:prompted", "acme:small"]
    small = repriced.alternatives[-1]
    assert (small.cost_usd, small.saved_usd) == (Decimal("0.006"), Decimal("2.994"))


def test_tools_and_long_prompts_narrow_the_choice() -> None:
    [tools] = reprice([call("large", 1000, used_tools=True)], ALL)
    assert [each.model for each in tools.alternatives] == ["acme:small"]
    [long] = reprice([call("large", 50_000)], (SMALL, LARGE, PROMPTED))
    assert [each.model for each in long.alternatives] == ["acme:prompted"]


def test_calls_without_a_known_cost_are_counted_and_left_out() -> None:
    unknown = Past(provider="acme", model="large", usage=None)
    [repriced] = reprice([call("large", 1000), unknown, call("large", 9, None)], (SMALL,))
    assert (repriced.calls, repriced.left_out) == (1, 2)
    [alone] = reprice([unknown], (SMALL,))
    assert (alone.calls, alone.alternatives) == (0, ())
    assert reprice([]) == []


def test_cached_tokens_need_a_price_of_their_own() -> None:
    cached = Past(provider="acme", model="large", usage=Usage(cache_read_tokens=10), cost_usd=Decimal(1))
    [repriced] = reprice([cached], (SMALL,))
    assert repriced.alternatives == ()


def test_each_long_prompt_is_priced_at_its_own_tier() -> None:
    tier = Tier(above_tokens=1500, input=Decimal(3), output=Decimal(1))
    tiered = entry("tiered", None, context_tokens=8_000)
    tiered = replace(tiered, price=Price(input=Decimal(1), output=Decimal(1), tiers=(tier,)))
    [repriced] = reprice([call("large", 1000), call("large", 1000), call("large", 2000)], (tiered,))
    assert repriced.alternatives[0].cost_usd == Decimal("0.012")  # 2 x 2000 at 1; 2000 at 3 and 2000 at 1


def test_what_is_dearest_comes_first_and_a_dearer_model_saves_less_than_nothing() -> None:
    cheap, dear = call("small", 1000, "0.002"), call("large", 1000, "5")
    assert [each.model for each in reprice([cheap, dear], ALL)] == ["acme:large", "acme:small"]
    [small] = reprice([cheap], (LARGE,))
    assert small.alternatives[0].saved_usd < 0
