"""Custom providers, settings and dialects at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loomstream.cli.choice import Choice, Wishes, choose
from loomstream.cli.group import looms
from loomstream.cli.hints import with_hint
from loomstream.errors import ConfigError
from tests.cli.conftest import CANARY, END, Stub, delta

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def config(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that adds `acme`, which answers on this machine."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(f"providers:\n  - name: acme\n    base_url: {stub.url}\n    model: stub-1\n", "utf-8")
    return path


def run(*arguments: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(looms, arguments, env=env, input=stdin)


# --- custom providers ------------------------------------------------------------------------------


def test_a_custom_provider_answers(stub: Stub, config: Path) -> None:
    result = run("ask", "hi", "--provider", "acme", "--config", str(config), env={"ACME_API_KEY": CANARY})
    assert (result.exit_code, result.stdout) == (0, "Hello\n")
    assert stub.exchanges[0].body["model"] == "stub-1"
    assert stub.exchanges[0].headers["authorization"] == f"Bearer {CANARY}"
    assert CANARY not in result.output
    result = run("ask", "hi", "--model", "acme:other", env={"LOOM_CONFIG": str(config)})
    assert result.exit_code == 0
    assert stub.exchanges[1].body["model"] == "other"
    assert "authorization" not in stub.exchanges[1].headers


def test_a_custom_provider_is_decoded(config: Path) -> None:
    result = run("decode", "-p", "acme", "--config", str(config), "-", stdin=delta("Hi") + END)
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[0])["provider"] == "acme"


def test_without_its_file_it_is_unknown(config: Path) -> None:
    result = run("ask", "hi", "--provider", "acme")
    assert (result.exit_code, "unknown provider 'acme'" in result.stderr) == (3, True)
    config.write_text("providers:\n  - name: acme\n    base_urll: x\n", "utf-8")
    result = run("ask", "hi", "--provider", "acme", "--config", str(config))
    assert result.exit_code == 3
    assert f"{config}:3:16: providers[0].base_urll: " in result.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.yaml")
    result = run("ask", "hi", "--provider", "acme", "--config", missing)
    assert (result.exit_code, f"{missing} cannot be read" in result.stderr) == (3, True)


def test_what_answers(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_CONFIG", str(config))
    assert choose(Wishes(model="acme:m")) == Choice(spec="acme:m")
    assert choose(Wishes(model="acme:m", base_url="http://localhost:1")) == Choice(spec="acme:m")
    assert choose(Wishes(provider="acme", model="a:b")) == Choice(spec="acme:a:b")


# --- settings and dialects -------------------------------------------------------------------------


def test_a_setting_reaches_the_provider(stub: Stub) -> None:
    options = ["--provider", "azure-openai", "--model", "d", "--base-url", stub.url, "--set", "api_version=2030-01-01"]
    result = run("ask", "hi", *options, env={"AZURE_OPENAI_API_KEY": CANARY})
    assert result.exit_code == 0, result.stderr
    assert "api-version=2030-01-01" in stub.exchanges[0].path


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("regoin=x", "did you mean 'region'?"),
        ("region", "'region' is no setting: write it as NAME=VALUE"),
        ("=x", "'' is no setting: write it as NAME=VALUE"),
    ],
)
def test_a_setting_that_there_is_not(value: str, what: str) -> None:
    result = run("ask", "hi", "--provider", "bedrock", "--set", value)
    assert result.exit_code in (2, 3)
    assert what in result.stderr


def test_a_setting_is_given_once() -> None:
    result = run("ask", "hi", "--provider", "bedrock", "--set", "region=a", "--set", "region=b")
    assert (result.exit_code, "region is given twice" in result.stderr) == (2, True)


def test_a_secret_setting_draws_a_warning_and_is_not_shown(stub: Stub) -> None:
    options = ["--provider", "azure-openai", "--model", "d", "--base-url", stub.url, "--set", f"entra_token={CANARY}"]
    result = run("ask", "hi", *options)
    assert "Warning: --set entra_token: other users of this machine can see arguments" in result.stderr
    assert "AZURE_OPENAI_ENTRA_TOKEN or the keyring (loom/azure_openai_entra_token)" in result.stderr
    assert CANARY not in result.output


def test_a_dialect_is_selected(stub: Stub) -> None:
    result = run("ask", "hi", "-p", "openai", "-m", "stub-1", "--base-url", stub.url, "--dialect", "openai_chat",
                 env={"OPENAI_API_KEY": CANARY})  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "Hello\n")
    result = run("ask", "hi", "-p", "groq", "-m", "m", "--dialect", "gemini")
    assert (result.exit_code, "groq does not speak 'gemini'" in result.stderr) == (3, True)


def test_advice_names_the_option() -> None:
    error = ConfigError("acme needs the setting region: pass settings={'region': '…'} or set ACME_REGION")
    assert with_hint(error) == "acme needs the setting region: pass --set region=… or set ACME_REGION"
