import subprocess
import sys
from datetime import date
from decimal import ROUND_UP, Decimal, localcontext

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.catalog import Entry, Price, Tier, entries, look_up, price
from loomstream.catalog.generate import by_hand
from loomstream.events import Usage

SEED_MODELS = [
    ("anthropic", "claude-sonnet-4-5-20250929"),
    ("anthropic", "claude-opus-4-5-20251101"),
    ("anthropic", "claude-3-5-haiku-20241022"),
    ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("ollama", "qwen2.5:7b"),
    ("ollama", "llama3.1:8b"),
    ("ollama", "mistral:7b"),
    ("ollama", "qwen2.5-coder:7b"),
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4-turbo"),
    ("openai", "gpt-4"),
    ("openai", "gpt-3.5-turbo"),
    ("openai", "o1"),
    ("openai", "o1-preview"),
    ("openai", "o1-mini"),
    ("azure-openai", "gpt-4o"),
    ("azure-openai", "gpt-4o-mini"),
    ("azure-openai", "gpt-4-turbo"),
    ("azure-openai", "gpt-4"),
    ("azure-openai", "gpt-3.5-turbo"),
    ("mistral", "mistral-large-latest"),
    ("mistral", "mistral-small-latest"),
    ("mistral", "open-mixtral-8x7b"),
    ("mistral", "open-mixtral-8x22b"),
    ("gemini", "gemini-3-pro-preview"),
    ("gemini", "gemini-2.5-pro"),
    ("gemini", "gemini-2.5-flash"),
    ("gemini", "gemini-2.5-flash-lite"),
    ("huggingface", "meta-llama/Meta-Llama-3.1-70B-Instruct"),
    ("huggingface", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    ("huggingface", "Qwen/Qwen2.5-72B-Instruct"),
    ("huggingface", "google/gemma-2-27b-it"),
    ("vertex-ai", "claude-3-5-sonnet"),
    ("vertex-ai", "claude-3-5-sonnet@20241022"),
]

HAND_WRITTEN = by_hand()
BY_HAND = {(entry.provider, entry.model) for entry in HAND_WRITTEN}
ROWS: dict[str, list[Entry]] = {}
for row in entries():
    ROWS.setdefault(row.provider, []).append(row)

PRICES = [
    # US dollars per million tokens of input and output, by the source that its row names
    ("anthropic", "claude-sonnet-4-5-20250929", "3", "15"),
    ("anthropic", "claude-opus-4-5-20251101", "5", "25"),  # seed: 15 and 75
    ("anthropic", "claude-3-5-haiku-20241022", "0.8", "4"),
    ("anthropic", "claude-sonnet-5-5", "2", "10"),
    ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3", "16.5"),  # seed: 3 and 15
    ("bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "3", "15"),
    ("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", "3", "15"),
    ("openai", "gpt-4o", "2.5", "10"),
    ("openai", "gpt-4o-mini", "0.15", "0.6"),
    ("openai", "gpt-4-turbo", "10", "30"),
    ("openai", "gpt-3.5-turbo", "0.5", "1.5"),
    ("openai", "gpt-4.1", "2", "8"),
    ("openai", "o1", "15", "60"),
    ("openai", "o1-preview", "15", "60"),
    ("openai", "o1-mini", "1.1", "4.4"),  # seed: 3 and 12
    ("azure-openai", "gpt-4o", "2.5", "10"),
    ("azure-openai", "gpt-4", "30", "60"),
    ("azure-openai", "o1-mini", "1.1", "4.4"),  # seed: 3 and 12
    ("mistral", "mistral-large-latest", "0.5", "1.5"),  # seed: 3 and 12
    ("mistral", "mistral-small-latest", "0.15", "0.6"),  # seed: 0.5 and 2
    ("mistral", "open-mixtral-8x7b", "0.7", "0.7"),  # seed: 0.25 and 0.75
    ("mistral", "open-mixtral-8x22b", "2", "6"),  # seed: 1 and 3
    ("gemini", "gemini-3-pro-preview", "2", "12"),  # seed: 3 and 15
    ("gemini", "gemini-2.5-pro", "1.25", "10"),  # seed: 1.875 and 12.5
    ("gemini", "gemini-2.5-flash", "0.3", "2.5"),
    ("gemini", "gemini-2.5-flash-lite", "0.1", "0.4"),  # seed: 0.3 and 2.5
]


def found(provider: str, model: str) -> Entry:
    entry = look_up(provider, model)
    assert entry is not None, f"{provider}:{model} is not in the catalog"
    return entry


def cost(provider: str, model: str, **tokens: int) -> Decimal | None:
    return price(found(provider, model), Usage(**tokens))


@pytest.mark.parametrize(("provider", "model"), SEED_MODELS)
def test_every_model_of_the_seed_is_known(provider: str, model: str) -> None:
    assert found(provider, model).provider == provider


@pytest.mark.parametrize(("provider", "model", "input_usd", "output_usd"), PRICES)
def test_a_million_tokens_cost_what_the_reference_says(
    provider: str, model: str, input_usd: str, output_usd: str
) -> None:
    # one token of input at a time where a million would pass into the rate for long prompts
    assert cost(provider, model, input_tokens=1) == Decimal(input_usd).scaleb(-6)
    assert cost(provider, model, output_tokens=1_000_000) == Decimal(output_usd)


@pytest.mark.parametrize("provider", ROWS)
def test_every_row_is_dated_sourced_and_plausible(provider: str) -> None:
    for entry in ROWS[provider]:
        check_row(entry)


def check_row(entry: Entry) -> None:
    assert date(2026, 1, 1) <= entry.as_of <= date(2026, 12, 31)
    assert len(entry.source) > 10
    assert entry.context_tokens is None or entry.context_tokens >= 1024
    assert entry.max_output_tokens is None or entry.max_output_tokens >= 1024
    assert entry.free == (entry.price is not None and entry.price.input == 0), entry
    if entry.successor is not None:
        assert look_up(entry.provider, entry.successor) is not None
    if entry.price is not None and not entry.free:
        check_rates(entry.price, by_hand=(entry.provider, entry.model) in BY_HAND)


def check_rates(known: Price, *, by_hand: bool) -> None:
    for rates in (known, *known.tiers, *known.service_tiers.values(), *known.regions.values()):
        assert Decimal(0) < rates.input <= rates.output, known
        assert rates.cache_read is None or Decimal(0) <= rates.cache_read <= rates.input, known
        assert rates.cache_write_5m is None or rates.cache_write_5m >= rates.input, known
        assert rates.cache_write_1h is None or rates.cache_write_5m is not None
        assert rates.cache_write_1h is None or rates.cache_write_1h > (rates.cache_write_5m or 0)
    if by_hand:
        assert known.cache_read is None or Decimal(0) < known.cache_read < known.input
    bounds = [tier.above_tokens for tier in known.tiers]
    assert bounds == sorted(set(bounds))
    assert all(tier.input >= known.input for tier in known.tiers)


def test_nothing_that_stands_by_hand_is_lost() -> None:
    for written in HAND_WRITTEN:
        entry = found(written.provider, written.model)
        for field in Entry.__struct_fields__:
            said = getattr(written, field)
            if field not in ("aliases", "price") and said is not None:
                assert getattr(entry, field) == said, (entry, field)
        assert all(found(written.provider, alias).model == written.model for alias in written.aliases)
        if written.price is None:
            assert entry.price is None
        else:
            assert entry.price is not None
            for field in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "tiers"):
                assert getattr(entry.price, field) == getattr(written.price, field), entry


def test_no_name_stands_for_two_rows() -> None:
    names = [(entry.provider, name) for entry in entries() for name in (entry.model, *entry.aliases)]
    assert len(names) == len(set(names))


def test_a_row_with_an_unknown_field_would_not_load() -> None:
    row = msgspec.json.encode(entries()[0]).replace(b'"context_tokens"', b'"context_token"')
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(row, type=Entry)


@pytest.mark.parametrize(
    ("provider", "name", "model"),
    [
        ("openai", "gpt-4.1-2025-04-14", "gpt-4.1"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
        ("azure-openai", "gpt-35-turbo", "gpt-3.5-turbo"),
        ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("anthropic", "claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        ("bedrock", "eu.anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("bedrock", "apac.anthropic.claude-3-5-sonnet-20241022-v2:0", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ],
)
def test_documented_aliases_are_found(provider: str, name: str, model: str) -> None:
    assert found(provider, name).model == model


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-audio-preview"),
        ("openai", "ft:gpt-5:acme::1"),
        ("openai", "gpt-4o:acme::1"),
        ("openai", "ft:"),
        ("openai", "ft:gpt-3.5-turbo-"),
        ("openai", "gpt-4o-mini-2024-07-18.ft-"),
        ("openai", "my-gpt-4o"),
        ("openai", "gpt-4.1-prod"),
        ("openai", "GPT-4o"),
        ("openai", "us.gpt-4o"),
        ("openai", "*"),
        ("openai", ""),
        ("azure-openai", "gpt-4o-deployment"),
        ("bedrock", "us-gov.anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("anthropic", "gpt-4o"),
        ("nobody", "gpt-4o"),
    ],
)
def test_no_model_is_taken_for_another(provider: str, model: str) -> None:
    assert look_up(provider, model) is None


def test_a_snapshot_with_a_price_of_its_own_keeps_it() -> None:
    assert cost("openai", "gpt-4o-2024-05-13", input_tokens=1_000_000) == Decimal(5)


def test_a_global_profile_is_not_charged_at_the_regional_rate() -> None:
    profile = found("bedrock", "global.anthropic.claude-3-5-sonnet-20241022-v2:0")
    assert profile.context_tokens == 200_000
    assert profile.price is None


@pytest.mark.parametrize(("provider", "model"), [("ollama", "anything:70b"), ("local", "/models/some.gguf")])
def test_what_runs_here_is_free(provider: str, model: str) -> None:
    entry = found(provider, model)
    assert entry.model == model
    assert entry.free
    assert cost(provider, model, input_tokens=10**9, output_tokens=10**9, cache_read_tokens=5) == Decimal(0)


def test_a_model_without_a_known_price_has_no_cost() -> None:
    assert found("huggingface", "google/gemma-2-27b-it").price is None
    assert cost("huggingface", "google/gemma-2-27b-it", input_tokens=1) is None


def test_the_seed_s_typical_task_costs_what_it_really_costs() -> None:
    assert cost("anthropic", "claude-sonnet-4-5", input_tokens=500, output_tokens=1000) == Decimal("0.0165")
    assert cost("openai", "gpt-4o", input_tokens=500, output_tokens=1000) == Decimal("0.01125")


def test_each_kind_of_token_has_its_own_rate() -> None:
    usage = {
        "input_tokens": 1_000_000,
        "output_tokens": 2_000_000,
        "reasoning_tokens": 1_500_000,  # part of the output
        "cache_read_tokens": 3_000_000,
        "cache_write_tokens": 5_000_000,
        "cache_write_1h_tokens": 4_000_000,  # part of the writes
    }
    expected = 3 + 2 * 15 + 3 * Decimal("0.3") + 1 * Decimal("3.75") + 4 * 6
    assert cost("anthropic", "claude-sonnet-4-6", **usage) == expected


def test_more_hour_long_writes_than_writes_are_not_charged_twice() -> None:
    written = cost("anthropic", "claude-sonnet-4-6", cache_write_tokens=10, cache_write_1h_tokens=99)
    assert written == Decimal("0.00006")


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"input_tokens": 200_000, "output_tokens": 1000}, "0.26"),
        ({"input_tokens": 200_001, "output_tokens": 1000}, "0.5150025"),
        ({"input_tokens": 1, "cache_read_tokens": 200_000}, "0.0500025"),
        ({"input_tokens": 1, "output_tokens": 300_000}, "3.00000125"),
    ],
)
def test_a_long_prompt_is_charged_at_its_tier(tokens: dict[str, int], expected: str) -> None:
    assert cost("gemini", "gemini-2.5-pro", **tokens) == Decimal(expected)


def test_the_highest_tier_reached_counts() -> None:
    one = Decimal(1)
    known = Price(
        input=one,
        output=one,
        tiers=(Tier(above_tokens=10, input=one * 2, output=one), Tier(above_tokens=20, input=one * 3, output=one)),
    )
    costs = [price(known, Usage(input_tokens=tokens)) for tokens in (10, 11, 20, 21)]
    assert costs == [Decimal(n).scaleb(-6) for n in (10, 22, 40, 63)]


def test_a_kind_of_token_without_a_price_makes_the_cost_unknown() -> None:
    assert cost("openai", "gpt-4-turbo", input_tokens=1, cache_read_tokens=1) is None
    assert cost("openai", "gpt-4o", input_tokens=1, cache_write_tokens=1) is None


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_the_sum_is_exact_whatever_the_caller_s_decimal_context(inputs: int, outputs: int, reads: int) -> None:
    known = Price(input=Decimal("0.123457"), output=Decimal("7.654321"), cache_read=Decimal("0.012345"))
    with localcontext(prec=3, rounding=ROUND_UP):
        amount = price(known, Usage(input_tokens=inputs, output_tokens=outputs, cache_read_tokens=reads))
    assert amount is not None
    trillionths = inputs * 123457 + outputs * 7654321 + reads * 12345
    assert amount.as_integer_ratio() == Decimal(trillionths).scaleb(-12).as_integer_ratio()


def test_the_data_are_read_at_the_first_look_up_only() -> None:
    program = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from loomstream.catalog import look_up
assert not [path for path in opened if path.endswith("data.json")], opened
look_up("openai", "gpt-4o"), look_up("nobody", "nothing")
assert len([path for path in opened if path.endswith("data.json")]) == 1, opened
assert "httpx" not in sys.modules and "asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_broken_installation_says_so() -> None:
    program = """
import sys
from loomstream.catalog import look_up
from loomstream.errors import ConfigError
def refuse(event, args):
    if event == "open" and str(args[0]).endswith("data.json"):
        raise FileNotFoundError(2, "No such file or directory")
sys.addaudithook(refuse)
try:
    look_up("openai", "gpt-4o")
except ConfigError as error:
    assert str(error) == "the model catalog cannot be read (No such file or directory): reinstall loomstream"
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("model", "priced_as"),
    [
        ("ft:gpt-4o-mini-2024-07-18:acme::B1x", "ft:gpt-4o-mini"),
        ("ft:gpt-4o-2024-08-06:acme:support:B1x:ckpt-step-80", "ft:gpt-4o"),
        ("ft:gpt-3.5-turbo:acme::B1x", "ft:gpt-3.5-turbo"),
    ],
)
def test_a_fine_tuned_model_costs_what_its_kind_does_and_not_what_its_base_does(model: str, priced_as: str) -> None:
    entry, base = found("openai", model), found("openai", priced_as.removeprefix("ft:"))
    assert entry.price == found("openai", priced_as).price
    assert entry.price is not None
    assert base.price is not None
    assert entry.price.input > base.price.input


def test_no_id_is_the_beginning_of_one() -> None:
    assert [entry.model for entry in entries() if entry.model.endswith("-")] == []
