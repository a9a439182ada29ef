"""What a `looms.yaml` that is not its user's own may not say: it was merely found, or belongs to another user."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from models import CANARY

from loomstream.config.load import load
from loomstream.errors import ConfigError
from loomstream.model import connect
from loomstream.providers.config_file import other_owner

Write = Callable[..., Path]
GATEWAY = "llm: {provider: openai, openai_base_url: 'https://gate.test/v1'}"
NOBODY = 65534


# --- another user's ----------------------------------------------------------------------------------


def test_a_file_is_another_s_where_neither_this_user_nor_root_owns_it() -> None:
    me = os.geteuid()
    assert (other_owner(me, "linux"), other_owner(0, "linux"), other_owner(4_000_111, "win32")) == ("", "", "")
    assert other_owner(4_000_111, "linux") == "number 4000111"


@pytest.mark.parametrize("how", ["in the data folder", "named by --config", "named in code", "behind a link"])
def test_a_file_of_another_user_sends_no_key_elsewhere(
    how: str, write: Write, monkeypatch: pytest.MonkeyPatch, skip_loudly: Callable[[str, str], None]
) -> None:
    if os.geteuid() != 0:
        skip_loudly("the right to give a file away", "run the tests as root")
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    path = write(GATEWAY)
    os.chown(path, NOBODY, NOBODY)
    config = path if how == "named in code" else None
    if how == "named by --config":
        monkeypatch.setenv("LOOM_CONFIG", str(path))
    if how == "behind a link":
        path = path.rename(path.with_name("theirs.yaml"))
        path.with_name("looms.yaml").symlink_to(path)
    with pytest.raises(
        ConfigError, match=r"of another user \(nobody\) may be changed by them: .* make it yours"
    ) as said:
        connect(config=config)
    assert CANARY not in str(said.value)
    assert "--allow-custom-host" in str(said.value)
    assert connect(config=config, allow_custom_host=True).provider == "openai"
    path.write_text("llm: {provider: openai, temperature: 0}")
    assert connect(config=config).request_defaults["temperature"] == 0, "what can do no harm counts"
    os.chown(path, 0, 0)
    path.write_text(GATEWAY)
    assert connect(config=config).provider == "openai"


# --- whose account it is -------------------------------------------------------------------------------


ACCOUNTS = {
    "bedrock": "bedrock_profile: admin",
    "azure-openai": "azure_openai_client_id: other, azure_openai_deployment_id: m",
    "vertex-ai": "vertex_project_id: other",
    "openai": "openai_project: other",
    "openai-compatible": "openai_compatible_extra_headers: {X-Workspace: other}, openai_compatible_model: m",
    "gemini": "gemini_extra_headers: {x-goog-user-project: other}",
    "snowflake": "snowflake_account: other, snowflake_model: m",
}


@pytest.mark.parametrize("provider", ACCOUNTS)
def test_a_file_that_was_found_picks_no_account(provider: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
    monkeypatch.setenv("LOOM_LLM_OPENAI_COMPATIBLE_BASE_URL", "https://mine.test/v1")
    path = write(f"llm: {{provider: {provider}, {ACCOUNTS[provider]}}}", here=True)
    with pytest.raises(ConfigError, match="merely found in the working folder may come from others") as said:
        connect()
    assert "--allow-custom-host" in str(said.value)
    assert connect(allow_custom_host=True).provider == provider
    monkeypatch.setenv("LOOM_CONFIG", str(path))
    assert connect().provider == provider


def test_a_file_that_was_found_says_nothing_to_a_gateway(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may go by any header; at a provider's own host a header of no account does no harm."""
    write("llm: {provider: openai, openai_extra_headers: {X-Forwarded-Host: evil.test}}", here=True)
    assert connect().provider == "openai"
    monkeypatch.setenv("LOOM_LLM_OPENAI_BASE_URL", "https://gateway.test/v1")
    with pytest.raises(ConfigError, match=r"openai_extra_headers: .*--allow-custom-host"):
        connect()
    assert connect(allow_custom_host=True).provider == "openai"


def test_a_variable_of_ours_says_whose_account_it_is(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("llm: {provider: bedrock, bedrock_profile: admin, bedrock_region: eu-west-1}", here=True)
    monkeypatch.setenv("LOOM_LLM_BEDROCK_PROFILE", "mine")
    assert connect().provider == "bedrock"


# --- reports -------------------------------------------------------------------------------------------


DIVERTED = ["enabled: false", "mode: none", "provider: otel", "prefer_embedded: true", "otlp_include_spans: [x]",
            "hawk_endpoint: 'http://localhost:1'"]  # fmt: skip


@pytest.mark.parametrize("text", DIVERTED)
@pytest.mark.parametrize("name", ["HAWK_ENDPOINT", "LOOM_OTLP_ENDPOINT", "HAWK_API_KEY"])
def test_a_file_that_was_found_ends_and_diverts_no_reports(name: str, text: str, write: Write) -> None:
    path = write(f"observability: {{{text}}}", here=True)
    asked = {name: "https://hawk.test" if "KEY" not in name else "k"}
    with pytest.raises(ConfigError, match=f"it cannot change the reports that the variable {name} asks for"):
        load(environ=asked)
    assert load(environ={}).file, "where nobody asks for reports, it takes none away"
    assert load(path, environ=asked).own


def test_a_stronger_variable_makes_it_no_matter(write: Write) -> None:
    write("observability: {enabled: false}", here=True)
    environ = {"HAWK_ENDPOINT": "https://hawk.test", "LOOM_OBSERVABILITY_ENABLED": "true"}
    assert load(environ=environ).observability.enabled
