import json
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loomstream import catalog
from loomstream.cli.group import looms


@pytest.fixture(autouse=True)
def home(clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001 (for its effect)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    catalog.refresh()
    return tmp_path


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(looms, list(arguments), input=stdin)


def found(*arguments: str) -> list[dict[str, object]]:
    result = run("models", "--json", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_the_help_teaches_by_examples() -> None:
    for command in ("models", "cost"):
        shown = run(command, "--help").stdout
        assert f"looms {command} " in shown.partition("Examples:")[2]


def test_a_search_shows_prices_and_says_of_which_day() -> None:
    result = run("models", "claude-sonnet-4-6", "-p", "anthropic")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["model", "window", "writes", "in", "out", "task", "can"]
    assert lines[1].split()[:6] == ["anthropic:claude-sonnet-4-6", "1M", "128k", "3", "15", "0.0165"]
    assert f"as of {catalog.as_of()}" in result.stderr


def test_every_filter_narrows() -> None:
    everything = found("--all")
    assert len(everything) > 2000
    for narrower in (
        ["-p", "openai"],
        ["--can", "vision"],
        ["--context", "500000"],
        ["--output", "64000"],
        ["--max-usd", "0.001"],
        ["gpt"],
    ):
        some = found(*narrower)
        assert 0 < len(some) < len(everything), narrower
    costs = [float(str(each["task_usd"])) for each in found("--max-usd", "0.001")]
    assert costs == sorted(costs)
    assert costs[-1] <= 0.001


def test_abilities_are_taken_in_the_words_of_the_table_too() -> None:
    assert found("--can", "schema") == found("--can", "structured_output")
    assert found("--can", "parallel", "gpt") == found("--can", "parallel_tools", "gpt")


def test_a_task_of_another_size_is_priced() -> None:
    [model] = [each for each in found("gpt-4o", "-p", "openai", "--task", "2000000+0") if "mini" not in str(each)][:1]
    assert Decimal(str(model["task_usd"])) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["models", "no-such-model-anywhere"], 3, "no model in the catalog fits"),
        (["models", "--can", "fly"], 2, "parallel_tools"),
        (["models", "--task", "many"], 2, "500+1000"),
        (["models", "--max-usd", "-1"], 2, "no amount"),
        (["models", "--max-usd", "NaN"], 2, "no amount"),
        (["models", "gpt", "--from", "x.json"], 2, "looms models update"),
        (["models", "update", "--from", "x.json"], 3, "cannot be read"),
        (["cost", "x", "--models", "gpt-4o"], 2, "write PROVIDER:MODEL"),
        (["cost", "x", "--models", "openai:gpt-99"], 3, "looms models gpt-99"),
        (["cost", "x", "--from-log", "absent.jsonl"], 3, "there is no audit log at"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], code: int, words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_an_update_writes_a_file_that_counts_from_then_on(home: Path) -> None:
    source = home / "models.json"
    shipped = Path(catalog.__file__).with_name("data.json").read_text("utf-8")
    source.write_text(shipped.replace('"as_of":"2026-11-22"', '"as_of":"2099-01-01"', 1), "utf-8")
    done = run("models", "update", "--from", str(source), "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["as_of"] == "2099-01-01"
    assert catalog.as_of().year == 2099
    (home / "data" / "models.json").unlink()
    catalog.refresh()


# --- looms cost ----------------------------------------------------------------------------------


def test_a_prompt_is_priced_over_models_the_cheapest_first() -> None:
    result = run("cost", "x" * 4000, "--max-tokens", "100", "--models", "openai:gpt-4o,openai:gpt-4o-mini")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [["model", "US", "dollars"], ["openai:gpt-4o-mini", "0.000210"], ["openai:gpt-4o", "0.003500"]]
    assert "about 1000 tokens in" in result.stderr


def test_one_token_is_one_token() -> None:
    assert "about 1 token in (" in run("cost", "--input-tokens", "1", "--models", "openai:gpt-4o").stderr


def test_a_prompt_is_read_from_standard_input() -> None:
    result = run("cost", "--models", "openai:gpt-4o", "--max-tokens", "0", "--json", stdin="x" * 400)
    [row] = json.loads(result.stdout)
    assert (row["model"], Decimal(row["cost_usd"]), row["as_of"]) == ("openai:gpt-4o", Decimal("0.00025"), "2026-11-22")


RECORD = {
    "id": "1",
    "began": "2026-11-22T10:00:00Z",
    "outcome": "whole",
    "provider": "openai",
    "model": "gpt-4o",
    "usage": {"input_tokens": 1_000_000, "output_tokens": 100_000, "final": True},
    "cost_usd": "3.5",
}


def test_past_calls_are_priced_again(home: Path) -> None:
    log = home / "audit.jsonl"
    torn = b'{"id": "2", "bega'
    log.write_bytes(json.dumps(RECORD).encode() + b"\n" + torn)
    models = "openai:gpt-4.1,openai:gpt-4.1-nano"
    result = run("cost", "--from-log", str(log), "--models", models, "--json")
    [repriced] = json.loads(result.stdout)
    assert (repriced["model"], repriced["calls"], repriced["cost_usd"]) == ("openai:gpt-4o", 1, "3.5")
    assert [each["model"] for each in repriced["alternatives"]] == []  # neither writes 100,000 tokens
    smaller = {**RECORD, "usage": {"input_tokens": 1_000_000, "output_tokens": 10_000}, "cost_usd": "2.6"}
    log.write_text(json.dumps(smaller), "utf-8")
    result = run("cost", "--from-log", str(log), "--models", models)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["openai:gpt-4o", "1", "2.600000"]
    assert lines[2] == ["openai:gpt-4.1-nano", "0.104000", "2.496000", "96%"]
    assert lines[3] == ["openai:gpt-4.1", "2.080000", "0.520000", "20%"]


def test_what_a_configuration_says_of_models_is_shown(home: Path) -> None:
    text = "models: {'openai:gpt-4o': {input: 1, output: 0}, 'openai:gpt-4o-mine': {free: true, context_tokens: 7000}}"
    (home / "mine.yaml").write_text(text)
    try:
        shown = run("models", "openai:gpt-4o", "--config", "mine.yaml", "--limit", "0").stdout
        mine = next(line for line in shown.splitlines() if line.startswith("openai:gpt-4o-mine"))
        assert mine.split()[:5] == ["openai:gpt-4o-mine", "7k", "?", "free", "free"]
        rows = [(row["task_usd"], row["entry"]) for row in found("openai:gpt-4o", "--config", "mine.yaml")]
        [(task_usd, entry)] = [row for row in rows if row[1]["provider"] == "openai" and row[1]["model"] == "gpt-4o"]  # type: ignore[index]
        assert (float(str(task_usd)), entry["source"]) == (0.0005, "mine.yaml")  # type: ignore[index]
        arguments = ["--input-tokens", "1000000", "--max-tokens", "9", "--models", "openai:gpt-4o", "--json"]
        assert float(json.loads(run("cost", *arguments, "--config", "mine.yaml").stdout)[0]["cost_usd"]) == 1
        shown = run("config", "show", "--config", "mine.yaml").stdout
        assert shown.splitlines()[-1] == "models: openai:gpt-4o-mine  # mine.yaml:1"
    finally:
        catalog.configure("mine.yaml", {})
    (home / "broken.yaml").write_text("models: {'openai:gpt-4o': {input: cheap, output: 0}}")
    for command in (["models"], ["cost", "Hi"]):
        result = run(*command, "--config", "broken.yaml")
        assert result.exit_code != 0
        assert "broken.yaml:1:35: models.openai:gpt-4o.input: this must be US dollars" in result.stderr
