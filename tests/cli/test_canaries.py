"""No credential of any shape is seen in what a command prints or logs, whatever it is called with."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from canaries import SHAPES, hits
from click.testing import CliRunner

from loomstream.cli.group import looms
from tests.cli import keyring_in_a_file
from tests.cli.conftest import Exchange, Stub, answer


@pytest.fixture(autouse=True)
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    request.getfixturevalue("clean_environment")
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv(keyring_in_a_file.VARIABLE, str(tmp_path / "keyring.json"))
    monkeypatch.setenv("LOOMSTREAM_TRACEBACK", "1")
    monkeypatch.chdir(tmp_path)
    before = keyring.get_keyring()
    keyring.set_keyring(keyring_in_a_file.Keyring())
    yield tmp_path
    keyring.set_keyring(before)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Take in every record of every logger, however detailed."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


COMMANDS = (
    ("providers",),
    ("providers", "openai"),
    ("providers", "openai", "--json"),
    ("providers", "openai", "--check"),
    ("doctor", "-p", "openai"),
    ("doctor", "-p", "openai", "--json", "--live"),
    ("config", "show"),
    ("config", "show", "--json", "--all"),
    ("config", "get", "llm.openai_api_key"),
    ("config", "get-key", "openai_api_key"),
    ("config", "get-key", "openai_api_key", "--json"),
    ("config", "list-keys"),
    ("config", "list-keys", "--json"),
    ("config", "validate"),
    ("ask", "-p", "openai", "hello"),
    ("ask", "-p", "openai", "hello", "--json"),
    ("ask", "-p", "openai", "hello", "--events", "--no-stream"),
)


def show_all(commands: tuple[tuple[str, ...], ...], env: dict[str, str]) -> str:
    runner = CliRunner()
    results = [runner.invoke(looms, list(command), env=env) for command in commands]
    return "\n".join(result.output + repr(result.exception) for result in results)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", ["environment", "file", "keyring"])
def test_no_command_shows_a_key(shape: str, place: str, home: Path, stub: Stub, logged: io.StringIO) -> None:
    secret = SHAPES[shape]

    def refuse(exchange: Exchange) -> None:
        said = {"error": {"message": f"the key {exchange.headers.get('authorization')} is wrong: {secret}"}}
        answer(json.dumps(said).encode(), status=401, content_type="application/json")(exchange)

    stub.script = refuse
    env = {"LOOM_LLM_OPENAI_BASE_URL": stub.url}
    if place == "environment":
        env["LOOM_LLM_OPENAI_API_KEY"] = secret
    elif place == "file":
        file = home / "looms.yaml"
        file.write_text(f"llm:\n  openai_api_key: {json.dumps(secret)}\n")
        file.chmod(0o600)
    else:
        keyring.set_password("loom", "openai_api_key", secret)
    commands = COMMANDS if shape == "openai" else COMMANDS[2:6] + COMMANDS[8:10] + COMMANDS[-1:]
    shown = show_all(commands, env)
    assert "Error" in shown
    assert hits(shown, secret) == []
    assert hits(logged.getvalue(), secret) == []
    assert any(exchange.headers.get("authorization") == f"Bearer {secret}" for exchange in stub.exchanges)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_command_shows_a_key_that_is_in_the_wrong_place(shape: str, home: Path, logged: io.StringIO) -> None:
    secret = SHAPES[shape]
    (home / "looms.yaml").write_text(f"llm:\n  temperature: {json.dumps(secret)}\n  {json.dumps(secret)[:40]}: 1\n")
    wrong = (
        ("config", "validate"),
        ("config", "show"),
        ("doctor", "--offline"),
        ("config", "set", "llm.temperature", secret),
        ("config", "set", "llm.openai_api_key", secret),
    )
    env = {"LOOM_LLM_MAX_TOKENS": secret, "OPENAI_API_KEY": f"{secret}\r\nx-evil: 1"}
    shown = show_all((*wrong, ("config", "get-key", "openai_api_key"), ("config", "list-keys")), env)
    assert hits(shown, secret) == []
    assert hits(logged.getvalue(), secret) == []
