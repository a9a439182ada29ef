from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from loomstream import catalog
from loomstream.catalog import Entry, configure, end_of_life, look_up, override, price, stored
from loomstream.catalog.update import update
from loomstream.errors import ConfigError
from loomstream.events import Usage

MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000)


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    yield
    override({})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path))
    catalog.refresh()
    yield tmp_path
    monkeypatch.undo()
    catalog.refresh()


def known(provider: str, model: str) -> Entry:
    entry = look_up(provider, model)
    assert entry is not None
    return entry


def test_a_price_of_yours_takes_the_place_of_the_catalog_s() -> None:
    override({"openai:gpt-4o": {"input": 1, "output": "2.5"}}, source="looms.yaml")
    entry = known("openai", "gpt-4o-2024-08-06")
    assert price(entry, MILLION) == Decimal("3.5")
    assert (entry.source, entry.context_tokens) == ("looms.yaml", 128_000)
    assert any(each.source == "looms.yaml" for each in catalog.entries("openai"))
    override({})
    assert price(known("openai", "gpt-4o"), MILLION) == Decimal("12.5")


def test_a_model_that_nobody_knows_becomes_known() -> None:
    assert look_up("acme", "road-runner-1") is None
    override({"acme:road-runner-1": {"input": 0.5, "output": 1, "context_tokens": 32_000, "vision": True}})
    entry = known("acme", "road-runner-1")
    assert (entry.can("vision"), entry.can("reasoning"), entry.context_tokens) == (True, None, 32_000)
    assert price(entry, MILLION) == Decimal("1.5")


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({"gpt-4o": {"input": 1, "output": 1}}, "models.gpt-4o: write the provider and the model"),
        ({"openai:x": {"inputs": 1}}, "models.openai:x.inputs: there is no such field: did you mean 'input'"),
        ({"openai:x": {"zzz": 1}}, "models.openai:x.zzz: there is no such field: there are context_tokens, "),
        ({"openai:x": {"input": 1}}, "models.openai:x: .*output is not here"),
        ({"openai:x": {"input": -1, "output": 1}}, "models.openai:x.input: this must be US dollars .* from 0"),
        ({"openai:x": {"input": "NaN", "output": 1}}, "models.openai:x.input: "),
        ({"openai:x": {"input": float("inf"), "output": 1}}, "models.openai:x.input: "),
        ({"openai:x": {"input": 10**5000, "output": 1}}, "models.openai:x.input: "),
        ({"openai:x": {"input": "1e-300", "output": 1}}, "models.openai:x.input: "),
        ({"openai:x": {"input": True, "output": 1}}, "models.openai:x.input: "),
        ({"openai:x": {"input": "cheap", "output": 1}}, "models.openai:x.input: "),
        ({"openai:x": {"context_tokens": "many"}}, "models.openai:x.context_tokens: this must be a whole number"),
        ({"openai:x": {"context_tokens": 10**30}}, "models.openai:x.context_tokens: "),
        ({"openai:x": {"max_output_tokens": 0}}, "models.openai:x.max_output_tokens: "),
        ({"openai:x": {"vision": "yes"}}, "models.openai:x.vision: this must be true or false"),
        ({"openai:x": {"tools": "some"}}, "models.openai:x.tools: this must be one of native, prompt, none"),
        ({"openai:x": {"deprecated_on": "2027-02-30"}}, "models.openai:x.deprecated_on: this must be a day as"),
        ({"openai:x": {"deprecated_on": "20270131"}}, "models.openai:x.deprecated_on: "),
        ({"openai:x": {"successor": "a\x1bb"}}, "models.openai:x.successor: "),
        ({"openai:x": 7}, "models.openai:x: give fields and values, not int"),
    ],
)
def test_what_is_wrong_with_it_is_said_with_its_place(models: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        override(models)  # type: ignore[arg-type]
    assert look_up("openai", "x") is None


def test_what_a_file_says_is_replaced_by_what_it_says_later_and_a_program_wins() -> None:
    asked = ("openai", "gpt-4o")
    configure("one.yaml", {asked: {"vision": False, "context_tokens": 1}})
    configure("two.yaml", {asked: {"context_tokens": 2}})
    try:
        assert (known(*asked).vision, known(*asked).context_tokens, known(*asked).source) == (False, 2, "two.yaml")
        configure("one.yaml", {asked: {"context_tokens": 3}})
        assert (known(*asked).vision, known(*asked).context_tokens) == (True, 3)
        override({"openai:gpt-4o": {"context_tokens": 4}})
        configure("one.yaml", {asked: {"context_tokens": 5}})
        assert known(*asked).context_tokens == 4
        override({})
        assert known(*asked).context_tokens == 5
    finally:
        configure("one.yaml", {})
        configure("two.yaml", {})
    assert known(*asked).context_tokens == 128_000


def test_a_price_of_yours_is_asked_for_though_the_catalog_has_the_model_for_nothing() -> None:
    local = next(entry for entry in catalog.entries("ollama") if entry.free)
    override({f"ollama:{local.model}": {"input": 1, "output": 1}})
    assert not known("ollama", local.model).free
    override({f"ollama:{local.model}": {"input": 1, "output": 1, "free": True}})
    assert known("ollama", local.model).free


def test_models_that_only_you_speak_of_are_listed_once() -> None:
    override({"acme:road-runner-1": {"free": True}, "openai:gpt-4o": {"vision": False}, "openai:gpt-4o-mine": {}})
    listed = [entry.model for entry in catalog.entries()]
    assert (listed.count("road-runner-1"), listed.count("gpt-4o-mine")) == (1, 1)
    assert [entry.vision for entry in catalog.entries("openai") if entry.model == "gpt-4o"] == [False]


def seconds(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def test_the_end_of_a_model_is_announced_with_its_day_and_its_successor() -> None:
    said = end_of_life("anthropic", "claude-sonnet-4-5-20250929", seconds(date(2026, 11, 22)))
    assert "2026-11-30" in said
    assert "claude-sonnet-5-5" in said
    assert end_of_life("anthropic", "claude-sonnet-4-5-20250929", seconds(date(2027, 3, 1))) == said
    assert not end_of_life("anthropic", "claude-sonnet-4-5-20250929", seconds(date(2026, 6, 1)))
    assert not end_of_life("anthropic", "claude-sonnet-5-5", seconds(date(2026, 11, 22)))
    assert not end_of_life("nobody", "knows-it", seconds(date(2026, 11, 22)))


def test_the_last_warning_day_is_counted_exactly() -> None:
    ends = date(2026, 11, 30)
    first = date.fromordinal(ends.toordinal() - catalog.NOTICE_DAYS)
    assert end_of_life("anthropic", "claude-sonnet-4-5", seconds(first))
    assert not end_of_life("anthropic", "claude-sonnet-4-5", seconds(first) - 1)


def rows(as_of: date, output: str = "7") -> bytes:
    entry = Entry(
        provider="openai",
        model="gpt-4o",
        price=catalog.Price(input=Decimal(1), output=Decimal(output)),
        as_of=as_of,
        source="a test of ours",
    )
    return stored.encode([entry], as_of, {})


@pytest.mark.parametrize(("as_of", "expected"), [(date(2099, 1, 1), "8"), (date(2020, 1, 1), "12.5")])
def test_the_newer_of_the_two_files_counts(home: Path, as_of: date, expected: str) -> None:
    (home / "models.json").write_bytes(rows(as_of))
    assert price(known("openai", "gpt-4o"), MILLION) == Decimal(expected)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"version":1}',
        b'{"a":' * 200_000,
        b'{"version":99,"as_of":"2099-01-01","sources":[],"providers":{}}',
    ],
)
def test_a_broken_file_of_the_user_is_told_of_and_ours_counts(
    home: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "models.json").write_bytes(data)
    assert price(known("openai", "gpt-4o"), MILLION) == Decimal("12.5")
    assert "looms models update" in caplog.text


def as_file(row: bytes, **names: bytes) -> bytes:
    rows_of = b",".join(b'"' + name.encode() + b'":' + raw for name, raw in {"gpt-4o": row, **names}.items())
    return b'{"version":2,"as_of":"2099-01-01","sources":["a test"],"providers":{"openai":{' + rows_of + b"}}}"


BROKEN_ROWS = (
    b'{"price":[[]]}',
    b'{"price":[[1]]}',
    b'{"price":[["NaN",1]]}',
    b'{"price":[[-1,1]]}',
    b'{"price":[[1e999999,1]]}',
    b'{"can":"z"}',
    b'{"source":-1}',
    b'{"source":9}',
    b'{"priec":[[1,1]]}',
    b'"nothing"',
    b"7",
)


@pytest.mark.parametrize("row", BROKEN_ROWS, ids=bytes.decode)
def test_a_broken_row_of_the_user_s_file_breaks_no_call(
    home: Path, row: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "models.json").write_bytes(as_file(row, good=b'{"price":[[1,2]]}'))
    assert price(known("openai", "gpt-4o"), MILLION) == Decimal("12.5")
    assert price(known("openai", "good"), MILLION) == 3
    assert "the row of openai:gpt-4o cannot be read" in caplog.text or "openai:gpt-4o stands for" in caplog.text
    with pytest.raises(ConfigError, match="looms models update"):
        catalog.entries()
    with pytest.raises(ConfigError, match="is no catalog of models"):
        update(home / "models.json")


def test_a_broken_file_does_not_stand_in_the_way_of_a_new_one(home: Path) -> None:
    (home / "models.json").write_bytes(as_file(BROKEN_ROWS[0]))
    update()
    assert len(catalog.entries()) > 2000


def test_prices_differ_by_region_and_none_is_taken_for_another() -> None:
    entry = known("bedrock", "meta.llama3-70b-instruct-v1:0")
    assert entry.price is not None
    usual = price(entry, MILLION)
    mumbai = price(entry, MILLION, region="ap-south-1")
    assert usual is not None
    assert mumbai is not None
    assert mumbai > usual
    assert price(entry, MILLION, region="mars-north-1") is None
    assert price(entry, MILLION, "batch", region="ap-south-1") is None
    # Claude costs the same in every region but the government's
    claude = known("bedrock", "anthropic.claude-sonnet-5-5")
    assert price(claude, MILLION, region="eu-west-1") == price(claude, MILLION)
    assert (price(claude, MILLION, region="us-gov-west-1") or 0) > (price(claude, MILLION) or 0)


def test_a_region_of_vertex_costs_a_tenth_more_than_worldwide() -> None:
    entry = known("vertex-ai", "claude-sonnet-4-5")
    worldwide = price(entry, Usage(output_tokens=1_000_000), region="global")
    assert worldwide == Decimal(15)
    assert price(entry, Usage(output_tokens=1_000_000), region="us-east5") == Decimal("16.5")


def test_batch_and_flex_have_their_own_tiers() -> None:
    entry = known("openai", "gpt-5.4")
    assert price(entry, Usage(input_tokens=1_000), "flex") == Decimal("0.00125")
    assert price(entry, Usage(input_tokens=300_000), "batch") == Decimal("0.75")
    assert price(entry, Usage(input_tokens=1_000), "auction") is None


def test_what_a_thread_still_finds_of_before_is_no_answer_after(monkeypatch: pytest.MonkeyPatch) -> None:
    override({"openai:gpt-4o": {"context_tokens": 1}})
    laid_over = catalog._with_overrides

    def meanwhile_another_says_more(entry: Entry, asked: str, laid: catalog._Laid) -> Entry:
        found = laid_over(entry, asked, laid)
        monkeypatch.undo()
        override({"openai:gpt-4o": {"context_tokens": 2}})
        return found

    monkeypatch.setattr(catalog, "_with_overrides", meanwhile_another_says_more)
    look_up("openai", "gpt-4o")
    assert known("openai", "gpt-4o").context_tokens == 2


@pytest.mark.parametrize(
    "given",
    [-0.0, "-0.0", "-0", "1_0", "\u0661", "1e", "", ".", "0x1", "Infinity", "nan", pytest.param(10**5000, id="long")],
)
def test_what_is_no_rate(given: object) -> None:
    with pytest.raises(ConfigError, match=r"models\.openai:x\.input: this must be US dollars per million tokens"):
        override({"openai:x": {"input": given, "output": 1}})


@pytest.mark.parametrize("given", [0, 0.0, "0", " 2.5 ", "+1", ".5", "1.", 1e-7, Decimal("1E+3"), "25e-1"])
def test_what_is_a_rate(given: object) -> None:
    override({"openai:x": {"input": given, "output": 1}})
    assert known("openai", "x").price is not None
