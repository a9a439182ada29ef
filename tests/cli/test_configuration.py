"""`looms ask` under a `looms.yaml`: what is configured goes over the wire, what is typed wins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loomstream.cli.group import looms
from tests.cli.conftest import CANARY, Exchange, Stub

pytestmark = pytest.mark.usefixtures("clean_environment")

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a `looms.yaml` of the user's own; the working folder is another one."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def writing(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        return path

    return writing


def ask(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(looms, ["ask", "hi", *arguments], env=env)


def test_the_configuration_says_who_answers_and_how(stub: Stub, write: Write) -> None:
    path = write(
        f"llm: {{provider: mistral, mistral_base_url: '{stub.url}', mistral_model: m, temperature: 0, max_tokens: 9,\n"
        f"  mistral_api_key: {CANARY}, mistral_extra_headers: {{x-team: blue}}}}\n"
    )
    result = ask("--config", str(path))
    assert (result.exit_code, result.stdout) == (0, "Hello\n")
    (exchange,) = stub.exchanges
    assert exchange.body["model"] == "m"
    assert (exchange.body["temperature"], exchange.body["max_tokens"]) == (0, 9)
    assert exchange.headers["authorization"] == f"Bearer {CANARY}"
    assert exchange.headers["x-team"] == "blue"
    assert f"Warning: {path}:2: llm.mistral_api_key: a secret stands here" in result.stderr
    assert CANARY not in result.output
    result = ask("--config", str(path), "--model", "n", "--temperature", "1", "--max-tokens", "3")
    assert (stub.exchanges[1].body["model"], stub.exchanges[1].body["temperature"]) == ("n", 1)
    assert stub.exchanges[1].body["max_tokens"] == 3
    result = ask(env={"LOOM_CONFIG": str(path), "LOOM_LLM_TEMPERATURE": "0.5", "LOOM_LLM_MISTRAL_MODEL": "v"})
    assert (stub.exchanges[2].body["model"], stub.exchanges[2].body["temperature"]) == ("v", 0.5)


def test_an_entry_of_the_pool(stub: Stub, write: Write) -> None:
    path = write(
        "active_provider: fast\nproviders:\n"
        f"  - {{name: fast, provider: mistral, base_url: '{stub.url}', mistral_model: m, mistral_api_key: k}}\n"
    )
    assert ask("--config", str(path)).exit_code == 0
    assert ask("--config", str(path), "--model", "other").exit_code == 0
    assert ask("--config", str(path), "--provider", "fast", "--temperature", "0").exit_code == 0
    assert [exchange.body["model"] for exchange in stub.exchanges] == ["m", "other", "m"]
    assert stub.exchanges[2].body["temperature"] == 0


def test_time_limits(stub: Stub, write: Write) -> None:
    stub.script = Exchange.wait_closed
    path = write(
        f"llm: {{provider: mistral, mistral_base_url: '{stub.url}', mistral_api_key: k, timeout_seconds: 0.2,\n"
        "  rate_limit: {max_retries: 0}}\n"
    )
    result = ask("--config", str(path))
    assert result.exit_code == 7
    assert "set timeout_seconds: 0.4 under llm: in looms.yaml, or give --timeout 0.4" in result.stderr
    assert "within 0.1 s" in ask("--config", str(path), "--timeout", "0.1").stderr


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("llm: {temprature: 1}", "llm.temprature: there is no key 'temprature': did you mean 'temperature'?"),
        ("llm: {provider: Mistral}", "llm.provider: unknown provider 'Mistral': did you mean 'mistral'?"),
        ("llm: [", "this is no configuration that can be read"),
    ],
)
def test_a_configuration_that_is_wrong(text: str, what: str, write: Write) -> None:
    path = write(text)
    result = ask("--config", str(path))
    assert result.exit_code == 3
    assert f"Error: {path}:1" in result.stderr
    assert what in result.stderr


def test_a_value_that_cannot_be(write: Write) -> None:
    del write
    assert ask("--temperature", "3").exit_code == 2
    result = ask(env={"LOOM_LLM_TEMPERATURE": "hot"})
    assert (result.exit_code, "the variable LOOM_LLM_TEMPERATURE (llm.temperature)" in result.stderr) == (3, True)


def test_a_file_of_the_working_folder_sends_no_key_elsewhere(stub: Stub, write: Write) -> None:
    del write
    Path("looms.yaml").write_text(f"llm: {{provider: mistral, mistral_base_url: '{stub.url}', mistral_model: m}}")
    env = {"MISTRAL_API_KEY": CANARY}
    refused = ask(env=env)
    assert refused.exit_code == 3
    assert "merely found in the working folder" in refused.stderr
    assert "--allow-custom-host" in refused.stderr
    assert stub.exchanges == []
    assert ask("--allow-custom-host", env=env).exit_code == 0
    assert ask("--config", "looms.yaml", env=env).exit_code == 0
    assert len(stub.exchanges) == 2
