"""`looms config` by its arguments: settings and keys, in text and in JSON."""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from click.testing import CliRunner, Result
from keyring.backends import fail

from loomstream.cli.group import looms
from loomstream.config.known_keys import known_keys
from loomstream.config.load import load
from loomstream.config.template import IGNORED
from loomstream.providers.table import TABLE
from tests.cli import keyring_in_a_file
from tests.cli.conftest import CANARY


@pytest.fixture(autouse=True)
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home with a keyring, as the working folder."""
    request.getfixturevalue("clean_environment")
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv(keyring_in_a_file.VARIABLE, str(tmp_path / "keyring.json"))
    monkeypatch.chdir(tmp_path)
    before = keyring.get_keyring()
    keyring.set_keyring(keyring_in_a_file.Keyring())
    yield tmp_path
    keyring.set_keyring(before)


def run(*arguments: str, given: str | bytes | None = None, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(looms, ["config", *arguments], input=given, env=env)
    assert CANARY not in result.output
    return result


def told(result: Result) -> Any:  # noqa: ANN401 (JSON)
    return json.loads(result.stdout)


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_is_stored_shown_masked_listed_and_deleted() -> None:
    stored = run("set-key", "openai_api_key", given=f"  {CANARY}\r\n")
    assert (stored.exit_code, stored.stderr) == (0, "")
    assert (
        stored.stdout == "stored: openai_api_key (sk-c...1d5e) in tests.cli.keyring_in_a_file.Keyring, service loom\n"
    )
    assert keyring.get_password("loom", "openai_api_key") == CANARY
    got = run("get-key", "openai_api_key")
    assert (got.stdout, got.stderr) == ("openai_api_key: sk-c...1d5e\n", "from: keyring loom/openai_api_key\n")
    assert "openai_api_key             set: keyring loom/openai_api_key" in run("list-keys").stdout
    assert run("delete-key", "openai_api_key").stdout == "deleted: openai_api_key\n"
    again = run("delete-key", "openai_api_key")
    assert (again.exit_code, again.stderr) == (1, "the keyring has no openai_api_key\n")
    assert run("get-key", "openai_api_key").exit_code == 1


def test_the_same_in_json() -> None:
    kept = {"name": "openai_api_key", "stored": True, "keyring": "tests.cli.keyring_in_a_file.Keyring"}
    assert told(run("set-key", "openai_api_key", "--json", given=CANARY)) == kept
    shown = {"name": "openai_api_key", "value": "sk-c...1d5e", "source": "keyring loom/openai_api_key"}
    assert told(run("get-key", "openai_api_key", "--json")) == shown
    listed = {row["name"]: row for row in told(run("list-keys", "--json"))}
    assert listed["openai_api_key"]["in_keyring"] is True
    assert listed["mistral_api_key"]["source"] == ""
    assert told(run("delete-key", "openai_api_key", "--json")) == {"name": "openai_api_key", "deleted": True}


@pytest.mark.parametrize(
    ("written", "env", "source"),
    [
        (None, {"OPENAI_API_KEY": CANARY, "LOOM_LLM_OPENAI_API_KEY": CANARY}, "environment LOOM_LLM_OPENAI_API_KEY"),
        (CANARY, {"OPENAI_API_KEY": CANARY, "LOOM_LLM_OPENAI_API_KEY": CANARY}, "environment LOOM_LLM_OPENAI_API_KEY"),
        (CANARY, {"OPENAI_API_KEY": CANARY}, "file {}:2"),
        (None, {"OPENAI_API_KEY": CANARY}, "environment OPENAI_API_KEY"),
        (None, {}, "keyring loom/openai_api_key"),
    ],
)
def test_the_order_of_the_places_that_a_key_comes_from(
    home: Path, written: str | None, env: dict[str, str], source: str
) -> None:
    run("set-key", "openai_api_key", given=CANARY)
    file = home / "data" / "looms.yaml"
    if written is not None:
        file.parent.mkdir()
        file.write_text(f"llm:\n  openai_api_key: {written}\n")
        file.chmod(0o600)
    assert told(run("get-key", "openai_api_key", "--json", env=env))["source"] == source.format(file)
    listed = {row["name"]: row for row in told(run("list-keys", "--json", env=env))}["openai_api_key"]
    assert (listed["source"], listed["in_keyring"]) == (source.format(file), True)
    shown = CliRunner().invoke(looms, ["providers", "--json", "openai"], env=env)
    assert told(shown)[0]["source"] == source.format(file)


def test_a_file_with_a_key_that_others_can_read_is_refused(home: Path) -> None:
    file = home / "looms.yaml"
    file.write_text(f"llm:\n  openai_api_key: {CANARY}\n")
    file.chmod(0o644)
    result = run("validate", str(file))
    assert result.exit_code == 1
    assert f"{file}:2: llm.openai_api_key: a secret stands here, and others can read the file" in result.stderr
    file.chmod(0o600)
    assert run("validate", str(file)).stderr.startswith("Warning: ")


def test_a_key_that_is_nowhere_is_said_to_be_looked_for_and_how_to_set_it() -> None:
    result = run("get-key", "openai_api_key")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: openai_api_key is not set: looked for in LOOM_LLM_OPENAI_API_KEY, OPENAI_API_KEY, "
        "llm.openai_api_key of looms.yaml, keyring loom/openai_api_key; set it with looms config set-key "
        "openai_api_key or the variable LOOM_LLM_OPENAI_API_KEY\n"
    )


def test_a_variable_that_hides_the_stored_key_draws_a_warning() -> None:
    result = run("set-key", "openai_api_key", given=CANARY, env={"OPENAI_API_KEY": "other"})
    assert "the variable OPENAI_API_KEY is set, and wins over the keyring" in result.stderr


@pytest.mark.parametrize(
    ("name", "given", "code", "said"),
    [
        ("openai_key", CANARY, 3, "did you mean 'openai_api_key'?"),
        ("OPENAI_API_KEY", CANARY, 3, "did you mean 'openai_api_key'?"),
        ("openai_api_key", " \n", 2, "no key was entered"),
        ("openai_api_key", "a\x00b", 3, "a control character at position 2"),
        ("openai_api_key", "one\ntwo", 3, "a control character at position 4"),
        ("openai_api_key", b"\xff" * 70_000, 2, "more than 64 KiB"),
    ],
)
def test_what_is_not_stored(name: str, given: str | bytes, code: int, said: str) -> None:
    result = run("set-key", name, given=given)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert not Path("keyring.json").exists()


def test_a_document_of_several_lines_is_a_key_too() -> None:
    document = '{"type": "service_account",\n "private_key": "-----BEGIN"}\n'
    assert "(***)" in run("set-key", "gcp_credentials", given=document).stdout
    assert keyring.get_password("loom", "gcp_credentials") == document.strip()
    assert run("get-key", "gcp_credentials").stdout == "gcp_credentials: ***\n"


def test_a_key_is_read_from_a_file_descriptor() -> None:
    reading, writing = os.pipe()
    os.write(writing, CANARY.encode())
    os.close(writing)
    assert run("set-key", "openai_api_key", "--fd", str(reading)).exit_code == 0
    os.close(reading)
    assert keyring.get_password("loom", "openai_api_key") == CANARY
    assert "file descriptor 987 cannot be read" in run("set-key", "openai_api_key", "--fd", "987").stderr


def test_a_key_is_shown_whole_at_a_terminal_only() -> None:
    run("set-key", "openai_api_key", given=CANARY)
    result = run("get-key", "openai_api_key", "--reveal")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--reveal shows a key at a terminal only" in result.stderr


def test_without_a_keyring_the_variable_is_named_and_nothing_is_written(home: Path) -> None:
    keyring.set_keyring(fail.Keyring())
    result = run("set-key", "cohere_api_key", given=CANARY)
    assert result.exit_code == 3
    assert "there is none on this machine" in result.stderr
    assert "set the variable LOOM_LLM_COHERE_API_KEY in its place" in result.stderr
    assert list(home.iterdir()) == []


def test_every_key_of_the_seed_and_of_newer_providers_has_a_name() -> None:
    names = {key.name for key in known_keys()}
    of_seed = (
        "anthropic_api_key bedrock_access_key_id bedrock_secret_access_key bedrock_session_token bedrock_bearer_token "
        "hawk_api_key openai_api_key azure_openai_api_key azure_openai_entra_token mistral_api_key gemini_api_key "
        "huggingface_token gcp_credentials"
    )
    assert names >= {*of_seed.split(), "vertex_api_key", "cohere_api_key", "litellm_api_key"}
    assert names >= {row.keyring for row in TABLE if row.keyring}


# --- settings ------------------------------------------------------------------------------------


def test_settings_are_set_shown_and_checked(home: Path) -> None:
    file = home / "data" / "looms.yaml"
    made = run("set", "llm.temperature", "0")
    assert (made.stdout, made.stderr) == ("llm.temperature: 0\n", f"made: {file}\n")
    assert run("set", "llm.provider", "mistral").stderr == f"changed: {file}\n"
    got = run("get", "llm.temperature")
    assert (got.stdout, got.stderr) == ("llm.temperature: 0\n", f"from: file {file}:2\n")
    shown = run("show")
    assert shown.stdout == f"llm.provider: mistral  # file {file}:3\nllm.temperature: 0  # file {file}:2\n"
    assert shown.stderr == f"read: {file}\n"
    assert run("validate").stdout == f"{file}: valid\n"


def test_each_value_names_its_origin() -> None:
    env = {"LOOM_LLM_TEMPERATURE": "0.5", "LOOM_LLM_OPENAI_API_KEY": CANARY}
    run("set", "llm.temperature", "1")
    assert "wins over the file" in run("set", "llm.temperature", "0.9", env=env).stderr
    rows = {row["path"]: row for row in told(run("show", "--json", env=env))}
    assert rows["llm.temperature"] == {
        "path": "llm.temperature",
        "value": 0.5,
        "layer": "environment",
        "where": "LOOM_LLM_TEMPERATURE",
    }
    assert rows["llm.openai_api_key"]["value"] == "sk-c...1d5e"
    assert run("get", "llm.openai_api_key", env=env).stdout == "llm.openai_api_key: sk-c...1d5e\n"
    assert told(run("get", "llm.allow_http", "--json"))["layer"] == "default"
    everything = {row["path"] for row in told(run("show", "--all", "--json"))}
    assert everything > {"llm.temperature", "llm.openai_model", "observability.hawk_endpoint"}


def test_keys_that_stand_where_they_do_not_belong_are_masked_too(home: Path) -> None:
    (home / "looms.yaml").write_text(
        f"llm:\n  openai_base_url: https://me:{CANARY}@host.example/v1?key={CANARY}\n"
        f"  openai_extra_headers: {{x-key: {CANARY}}}\n"
        f'providers:\n  - {{name: "a\\e]0;evil\\a", provider: openai, api_key: {CANARY}}}\n'
    )
    (home / "looms.yaml").chmod(0o600)
    for arguments in (
        ("show",),
        ("show", "--json"),
        ("get", "llm.openai_base_url"),
        ("get", "llm.openai_extra_headers"),
    ):
        assert "\x1b" not in run(*arguments).stdout


@pytest.mark.parametrize("key", ["gsk_0123456789abcdef0123", "xai-0123456789abcdef0123", "sk-0123456789abcdef0123"])
def test_a_key_in_a_setting_that_is_no_secret_is_not_shown(home: Path, key: str) -> None:
    (home / "looms.yaml").write_text(f"llm:\n  openai_organization: {key}\n")
    assert key not in run("show", "--json").stdout + run("get", "llm.openai_organization").stdout
    assert run("set", "llm.openai_organization", key).exit_code == 3


def test_what_is_not_set_or_no_setting() -> None:
    result = run("get", "llm.temperature")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "llm.temperature is not set, and has no default" in result.stderr
    assert run("get", "llm.temprature").exit_code == 3


def test_secrets_are_refused_and_lead_to_the_keyring() -> None:
    result = run("set", "llm.anthropic_api_key", CANARY)
    assert result.exit_code == 3
    assert "run looms config set-key anthropic_api_key" in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("llm:\n  temprature: 1\n", ":2:15: llm.temprature: there is no key 'temprature': did you mean 'temperature'?"),
        ("llm:\n\ttemperature: 1\n", ":2:1: "),
        ("llm:\n  temperature: hot\n", ":2:16: llm.temperature: this must be a number"),
        ("llm:\n  provider: Anthropic\n", "did you mean 'anthropic'?"),
        ("[]\n", "a configuration is a mapping"),
    ],
)
def test_validate_names_line_and_key(home: Path, text: str, said: str) -> None:
    file = home / "other.yaml"
    file.write_text(text)
    result = run("validate", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{file}" in result.stderr
    assert said in result.stderr
    found = told(run("validate", str(file), "--json"))
    assert (found["valid"], len(found["problems"])) == (False, 1)


def test_a_file_that_is_not_there_is_not_valid(home: Path) -> None:
    assert run("validate", str(home / "none.yaml")).exit_code == 1


def test_without_any_file_there_is_nothing_to_check_but_a_way_to_make_one(home: Path) -> None:
    result = run("validate")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(told(run("validate", "--json"))["problems"]) == 1
    assert f"there is no configuration file at {home / 'data' / 'looms.yaml'}" in result.stderr
    assert "looms config init writes one" in result.stderr


def test_show_has_models_in_json_too(home: Path) -> None:
    (home / "looms.yaml").write_text("models:\n  openai:gpt-4o: {context_tokens: 5}\n")
    [row] = told(run("show", "--json"))
    assert row == {
        "path": "models.openai:gpt-4o",
        "value": {"context_tokens": 5},
        "layer": "file",
        "where": "looms.yaml:2",
    }


# --- init ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_init_writes_a_valid_file_for_every_provider(home: Path, row) -> None:  # noqa: ANN001
    file = home / "made.yaml"
    result = run("init", "--provider", row.name, "--config", str(file), "--yes")
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    settings = load(file, environ={})
    assert settings.llm.provider == row.name
    text = file.read_text()
    assert all(f"set provider above to {other.name}" in text for other in TABLE[:12] if other is not row)
    file.write_text(re.sub(r"(?m)^  # (\w+:)", r"  \1", text))
    assert len(load(file, environ={}).values) > len(settings.values)


def test_init_does_not_overwrite_unasked(home: Path) -> None:
    file = home / "data" / "looms.yaml"
    first = run("init", "-p", "bedrock", "--set", "bedrock_region=eu-west-1", "--set", "temperature=0")
    assert first.stdout == f"written: {file}\n"
    assert load(file, environ={}).value("llm.temperature") == 0
    second = run("init")
    assert second.exit_code == 3
    assert f"{file} is there already: add --force to overwrite it" in second.stderr
    assert run("init", "--force").exit_code == 0
    assert load(file, environ={}).llm.provider == "anthropic"


def test_nothing_is_written_through_a_link_of_the_working_folder(home: Path) -> None:
    victim = home / "victim.yaml"
    victim.write_text("llm:\n  temperature: 1\n")
    Path("looms.yaml").symlink_to(victim)
    for words in (("init", "--force", "--yes"), ("set", "llm.temperature", "0")):
        result = run(*words)
        assert result.exit_code == 3, result.output
        assert "it cannot have another file written by a link" in result.stderr
    assert victim.read_text() == "llm:\n  temperature: 1\n"
    assert run("validate").exit_code == 0


def test_init_offers_what_keeps_keys_out_of_a_repository(home: Path) -> None:
    (home / ".git").mkdir()
    assert "add --gitignore" in run("init").stderr
    assert not (home / ".gitignore").exists()
    assert ".gitignore: *.key, *credentials*.yaml, .env added" in run("init", "--force", "--gitignore").stdout
    assert (home / ".gitignore").read_text().splitlines() == list(IGNORED)


def test_init_refuses_secrets_and_nonsense() -> None:
    assert run("init", "--set", f"openai_api_key={CANARY}").exit_code == 3
    assert run("init", "--set", "temperature").exit_code == 2
    assert run("init", "-p", "Anthropic").exit_code == 3
    assert run("init", "-m", CANARY).exit_code == 3
    assert not Path("data").exists()


def test_a_negative_number_is_a_value_and_no_option(home: Path) -> None:
    result = run("set", "llm.max_tokens", "-1")
    assert (result.exit_code, result.stderr) == (
        3,
        "Error: llm.max_tokens: this must be a whole number from 0 to 1,000,000,000\n",
    )
    assert "llm.temperature" in run("set", "llm.temperature", "-0.5").stderr
    assert run("set", "llm.max_tokens", "1", "--jsno").exit_code == 2
    assert run("set", "llm.max_tokens", "7", "--config", str(home / "own.yaml")).exit_code == 0
