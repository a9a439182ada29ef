import json

import pytest
from click.testing import CliRunner

from loomstream.cli.group import looms
from loomstream.providers import all_providers
from tests.cli.conftest import CANARY

pytestmark = pytest.mark.usefixtures("clean_environment")

FIELDS = {
    "name",
    "dialect",
    "authentication",
    "environment_variables",
    "keyring_name",
    "base_url",
    "default_model",
    "usable",
    "source",
    "reason",
    "missing_variable",
}


def rows(env: dict[str, str] | None = None) -> dict[str, dict[str, object]]:
    result = CliRunner().invoke(looms, ["providers", "--json"], env=env)
    assert (result.exit_code, result.stderr) == (0, "")
    assert CANARY not in result.output
    return {row["name"]: row for row in json.loads(result.stdout)}


def test_every_provider_is_listed_with_every_field() -> None:
    found = rows()
    assert list(found) == [row.name for row in all_providers()]
    assert all(row.keys() == FIELDS for row in found.values())
    assert found["openai"]["dialect"] == "openai_chat"
    assert found["openai"]["authentication"] == "bearer"
    assert "OPENAI_API_KEY" in str(found["openai"]["environment_variables"])
    assert found["openai"]["keyring_name"] == "openai_api_key"


def test_without_a_key_it_says_where_one_is_looked_for() -> None:
    row = rows()["anthropic"]
    assert row["usable"] is False
    assert row["missing_variable"] == "ANTHROPIC_API_KEY"
    assert "ANTHROPIC_API_KEY" in str(row["reason"])
    assert "keyring loom/anthropic_api_key" in str(row["reason"])


def test_a_key_in_the_environment_is_named_by_its_variable() -> None:
    row = rows({"OPENAI_API_KEY": CANARY})["openai"]
    assert (row["usable"], row["source"]) == (True, "environment OPENAI_API_KEY")


def test_a_key_that_cannot_be_sent_is_not_usable() -> None:
    row = rows({"OPENAI_API_KEY": CANARY + "\u2026"})["openai"]
    assert row["usable"] is False
    assert "not ASCII" in str(row["reason"])


def test_what_needs_no_key_is_usable() -> None:
    assert rows()["ollama"]["usable"] is True


def test_an_address_is_taken_from_the_environment_without_its_credentials() -> None:
    name = "LOOM_LLM_OPENAI_COMPATIBLE_BASE_URL"
    before, after = rows()["openai-compatible"], rows({name: f"http://me:{CANARY}@host/v1"})["openai-compatible"]
    assert before["usable"] is False
    assert name in str(before["reason"])
    assert (after["usable"], after["base_url"]) == (True, "http://host/v1")


def test_the_list_is_readable_text() -> None:
    result = CliRunner().invoke(looms, ["providers"], env={"OPENAI_API_KEY": CANARY})
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("openai ")]
    assert line.split() == ["openai", "yes", "gpt-4o", "OPENAI_API_KEY"]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("groq ")]
    assert line.split() == ["groq", "no", "-", "set", "GROQ_API_KEY"]
    assert max(map(len, result.stdout.splitlines())) <= 120
    assert CANARY not in result.output
