import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loomstream.cli.group import looms
from loomstream.providers import Provider, listing
from loomstream.providers.table import BY_NAME, TABLE
from tests.cli.conftest import CANARY

pytestmark = pytest.mark.usefixtures("clean_environment")

FIELDS = {
    "name",
    "aliases",
    "origin",
    "dialect",
    "dialects",
    "authentication",
    "environment_variables",
    "keyring_name",
    "base_url",
    "default_model",
    "model_variables",
    "settings",
    "usable",
    "source",
    "reason",
    "missing_variable",
    "reachable",
    "reached",
}


@pytest.fixture(autouse=True)
def no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def rows(env: dict[str, str] | None = None, *arguments: str) -> dict[str, dict[str, object]]:
    result = CliRunner().invoke(looms, ["providers", "--json", *arguments], env=env)
    assert (result.exit_code, result.stderr) == (0, "")
    assert CANARY not in result.output
    return {row["name"]: row for row in json.loads(result.stdout)}


def test_every_provider_is_listed_with_every_field() -> None:
    found = rows()
    assert list(found) == [listed.name for listed in listing()]
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


def test_aliases_dialects_and_settings_are_told() -> None:
    row = rows({"AZURE_OPENAI_API_VERSION": "v1"})["azure-openai"]
    assert row["aliases"] == ["azureopenai"]
    assert row["origin"] == "built in"
    assert row["dialects"] == ["openai_chat", "openai_responses"]
    settings = {setting["name"]: setting for setting in row["settings"]}  # type: ignore[attr-defined]
    assert settings["api_version"]["source"] == "environment AZURE_OPENAI_API_VERSION"
    assert settings["api_version"]["default"] == "v1"
    assert settings["entra_token"]["secret"] is True


def test_one_provider_is_told_in_full() -> None:
    result = CliRunner().invoke(looms, ["providers", "azureopenai"], env={"AZURE_OPENAI_API_KEY": CANARY})
    assert result.exit_code == 0
    name, *lines = result.stdout.splitlines()
    assert name == "azure-openai"
    assert "  also called     azureopenai" in lines
    assert "  dialects        openai_chat, openai_responses" in lines
    assert any(line.startswith("  --set api_version=…  now from default; default v1; ") for line in lines)
    assert CANARY not in result.output
    assert list(rows(None, "azureopenai")) == ["azure-openai"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    result = CliRunner().invoke(looms, ["providers", "opnai"])
    assert result.exit_code == 3
    assert "did you mean 'openai'?" in result.stderr


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDFLARE_ACCOUNT_ID", raising=False)
    row = rows({"CLOUDFLARE_API_TOKEN": CANARY})["cloudflare"]
    assert (row["usable"], row["missing_variable"]) == (False, "CLOUDFLARE_ACCOUNT_ID")
    assert row["reason"] == "needs --set account_id=… or CLOUDFLARE_ACCOUNT_ID"


@pytest.mark.parametrize(
    ("row", "usable", "what"),
    [
        (Provider(name="acme"), False, "needs --base-url"),
        (Provider(name="acme", base_url="https://a.test"), False, "no key in "),
        (Provider(name="acme", handler="no_such_module:make", auth="none"), False, "cannot be imported"),
        (Provider(name="acme", handler="json:loads", auth="none"), True, ""),
        (Provider(name="acme", auth="aws", base_url="https://a.test"), None, "no key in "),
    ],
)
def test_rows_of_any_kind(row: Provider, what: str, monkeypatch: pytest.MonkeyPatch, *, usable: bool | None) -> None:
    monkeypatch.setattr("loomstream.cli.providers._LIBRARY_OF", {"aws": ("json", "bedrock")})  # it is installed
    monkeypatch.setattr("loomstream.providers.table.TABLE", (row,))
    monkeypatch.setitem(BY_NAME, "acme", row)
    (found,) = rows().values()
    assert found["usable"] is usable
    assert what in str(found["reason"])


def test_other_credentials_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loomstream.cli.providers._LIBRARY_OF", {"aws": ("no_such.library", "bedrock")})
    row = next(row for row in TABLE if row.auth == "aws")
    found = rows()[row.name]
    assert found["usable"] is False
    assert "pip install 'loomstream[bedrock]'" in str(found["reason"])


# --- looms.yaml --------------------------------------------------------------------------------------

ACME = "providers:\n  - name: acme\n    base_url: https://llm.acme.test/v1\n"


def test_custom_providers_are_listed_and_broken_ones_say_why(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ACME + "  - name: broken\n    base_urll: x\n", "utf-8")
    found = rows(None, "--config", str(path))
    assert (found["acme"]["origin"], found["acme"]["usable"]) == (f"file {path}", True)
    assert (found["broken"]["usable"], found["broken"]["dialect"]) == (False, "")
    assert "did you mean 'base_url'?" in str(found["broken"]["reason"])
    assert "acme" not in rows(), "the option is forgotten afterwards"
    assert rows({"LOOM_CONFIG": str(path)})["acme"]["usable"] is True


def test_a_file_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "looms.yaml").write_text("providers: [", "utf-8")
    result = CliRunner().invoke(looms, ["providers", "--json"])
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: looms.yaml:1:13: this is no configuration that can be read: ")
    assert [row["name"] for row in json.loads(result.stdout)] == [row.name for row in TABLE]
