from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace as Namespace

import msgspec
import pytest

from loomstream import catalog
from loomstream.catalog import Entry, Price, generate, sources, stored
from loomstream.catalog.update import update
from loomstream.errors import ConfigError

TODAY = date(2026, 11, 22)
EMPTY = stored.decode(stored.encode([], TODAY, {}))


def model(name: str, prices: object, **fields: object) -> Namespace:
    return Namespace(id=name, match=Namespace(equals=name), prices=prices, **fields)


def rates(**fields: object) -> Namespace:
    return Namespace(**{name: Decimal(value) if isinstance(value, str) else value for name, value in fields.items()})


def stepped(base: str, above: int, then: str) -> Namespace:
    return Namespace(base=Decimal(base), tiers=[Namespace(start=above, price=Decimal(then))])


USUAL = rates(input_mtok="1", output_mtok="4")


def given(*models: Namespace, provider: str = "openai", cost_map: dict[str, object] | None = None) -> generate.Given:
    genai = sources.genai_providers([Namespace(id=provider, models=list(models))])
    encoded = sources.cost_map(msgspec.json.encode(cost_map or {}))
    return generate.Given(genai, encoded, "genai-prices 9, read today", "litellm's map, read today", TODAY)


def made(
    sources_given: generate.Given, overrides: tuple[Entry, ...] = (), before: stored.Catalog = EMPTY
) -> stored.Catalog:
    return stored.decode(generate.make(sources_given, overrides, before).data, every_row=True)


def test_a_price_and_what_the_other_source_knows_become_one_entry() -> None:
    said = {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 8192, "supports_vision": True,
            "supports_function_calling": True, "supports_response_schema": False, "deprecation_date": "2027-01-02",
            "input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06,
            "input_cost_per_token_flex": 5e-07, "output_cost_per_token_flex": 2e-06}  # fmt: skip
    entry = made(given(model("m-1", USUAL), cost_map={"m-1": said})).entry("openai", "m-1")
    assert entry is not None
    assert (entry.context_tokens, entry.vision, entry.tools, entry.structured_output) == (8192, True, "native", False)
    assert (entry.reasoning, entry.deprecated_on) == (None, date(2027, 1, 2))
    assert entry.price is not None
    assert (entry.price.input, entry.price.service_tiers["flex"].output) == (Decimal(1), Decimal(2))
    assert "genai-prices 9" in entry.source
    assert "litellm" in entry.source


def test_steps_by_the_length_of_the_prompt_become_tiers() -> None:
    prices = rates(
        input_mtok=stepped("1", 200_000, "2"), output_mtok="4", cache_read_mtok=stepped("0.1", 200_000, "0.2")
    )
    entry = made(given(model("m-1", prices))).entry("openai", "m-1")
    assert entry is not None
    assert entry.price is not None
    [tier] = entry.price.tiers
    assert (tier.above_tokens, tier.input, tier.output, tier.cache_read) == (200_000, 2, 4, Decimal("0.2"))


def test_the_price_of_the_day_counts_and_one_by_the_hour_is_unknown() -> None:
    later = [
        Namespace(prices=USUAL),
        Namespace(prices=rates(input_mtok="2", output_mtok="5"), constraint=Namespace(start_date=date(2026, 11, 1))),
        Namespace(prices=rates(input_mtok="9", output_mtok="9"), constraint=Namespace(start_date=date(2027, 1, 1))),
    ]
    hourly = [Namespace(prices=USUAL, constraint=Namespace(start_time="01:00:00"))]
    found = made(given(model("dated", later), model("hourly", hourly)))
    dated, by_hour = found.entry("openai", "dated"), found.entry("openai", "hourly")
    assert dated is not None
    assert by_hour is not None
    assert dated.price is not None
    assert (dated.price.input, by_hour.price) == (Decimal(2), None)


@pytest.mark.parametrize(
    ("name", "prices"),
    [
        ("text-embedding-9", USUAL),
        ("gpt-9-audio", USUAL),
        ("vectors", rates(input_mtok="1")),
        ("speaks", rates(input_mtok="1", output_mtok="2", output_audio_mtok="9")),
        ("by-the-call", rates(input_mtok="1", output_mtok="2", requests_kcount="5")),
    ],
)
def test_what_tokens_of_text_do_not_price_is_left_out(name: str, prices: Namespace) -> None:
    assert made(given(model(name, prices))).entry("openai", name) is None


def test_a_snapshot_has_a_row_of_its_own_only_where_it_costs_something_else() -> None:
    def said(price: float) -> dict[str, object]:
        return {
            "litellm_provider": "openai",
            "mode": "chat",
            "input_cost_per_token": price,
            "output_cost_per_token": 4e-06,
        }

    found = made(given(model("m-1", USUAL), cost_map={"m-1-2026-01-01": said(1e-06), "m-1-2025-01-01": said(2e-06)}))
    assert found.entry("openai", "m-1-2026-01-01") is None
    assert found.entry("openai", "m-1-2025-01-01") is not None


def by_hand(price: str) -> tuple[Entry, ...]:
    return (
        Entry(
            provider="openai",
            model="m-1",
            context_tokens=4096,
            price=Price(input=Decimal(price), output=Decimal(4)),
            as_of=TODAY,
            source="a page that was read",
        ),
    )


def test_what_stands_by_hand_wins_until_its_source_says_something_new() -> None:
    first = made(given(model("m-1", USUAL)), by_hand("3"))
    assert input_of(first) == 3
    assert input_of(made(given(model("m-1", USUAL)), by_hand("3"), first)) == 3
    dearer = made(given(model("m-1", rates(input_mtok="2", output_mtok="4"))), by_hand("3"), first)
    assert input_of(dearer) == 2
    entry = dearer.entry("openai", "m-1")
    assert entry is not None
    assert (entry.context_tokens, entry.source) == (4096, "genai-prices 9, read today")


def test_a_source_that_agreed_and_then_says_something_new_is_believed_also_at_the_next_update() -> None:
    first = made(given(model("m-1", USUAL)), by_hand("1"))
    cheaper = given(model("m-1", rates(input_mtok="0.5", output_mtok="4")))
    second = made(cheaper, by_hand("1"), first)
    third = made(cheaper, by_hand("1"), second)
    assert [input_of(each) for each in (first, second, third)] == [1, Decimal("0.5"), Decimal("0.5")]


def test_a_price_by_hand_that_is_newer_than_the_file_wins_again() -> None:
    first = made(given(model("m-1", USUAL)), by_hand("3"))
    changed = given(model("m-1", rates(input_mtok="2", output_mtok="4")))
    [newer] = (msgspec.structs.replace(entry, as_of=date(2026, 12, 1)) for entry in by_hand("2.5"))
    assert input_of(made(changed, (newer,), first)) == Decimal("2.5")


def input_of(found: stored.Catalog) -> Decimal | None:
    entry = found.entry("openai", "m-1")
    return entry.price.input if entry is not None and entry.price is not None else None


def test_without_one_source_what_it_said_before_stays() -> None:
    said = {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 8192, "supports_vision": True}
    before = made(given(model("m-1", USUAL), cost_map={"m-1": said, "m-2": said}))
    alone = given(model("m-1", rates(input_mtok="2", output_mtok="4")))._replace(litellm=None)
    after = made(alone, (), before)
    entry = after.entry("openai", "m-1")
    assert entry is not None
    assert (entry.vision, entry.context_tokens, input_of(after)) == (True, 8192, 2)
    assert after.entry("openai", "m-2") is not None


def test_a_changed_form_of_the_source_is_an_error_and_no_guess() -> None:
    with pytest.raises(msgspec.ValidationError):
        sources.genai_providers([Namespace(id="openai", models=[Namespace(id="m-1")])])


# --- looms models update -------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    catalog.refresh()
    yield tmp_path
    monkeypatch.undo()
    catalog.refresh()


def test_an_update_from_the_installed_source_loses_nothing(home: Path) -> None:
    before = {(entry.provider, entry.model): entry for entry in catalog.entries()}
    done = update(today=date(2099, 1, 1))
    assert done.path == home / "data" / "models.json"
    after = {(entry.provider, entry.model): entry for entry in catalog.entries()}
    assert catalog.as_of() == done.as_of == date(2099, 1, 1)
    assert before.keys() <= after.keys()
    for key, entry in before.items():
        assert after[key].can("vision") == entry.can("vision")
        assert after[key].price is not None or entry.price is None
    assert not list((home / "data").glob(".models-*"))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"version":2,"as_of":"2099-01-01","sources":[],"providers":{"a":{"b":{"source":1}}}}']
)
def test_a_file_that_is_no_catalog_is_refused_and_nothing_changes(home: Path, data: bytes) -> None:
    (home / "bad.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"bad\.json is no catalog of models"):
        update(home / "bad.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        update(home / "absent.json")
    assert not (home / "data").exists()


def test_the_beginning_of_ids_is_no_id() -> None:
    catalog = made(given(model("ft:m-1-", USUAL), model("m-1-2024-07-18.ft-", USUAL), model("m-1", USUAL)))
    assert [entry.model for entry in catalog] == ["ft:m-1", "m-1"]
