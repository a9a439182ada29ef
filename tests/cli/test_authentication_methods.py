"""The seed's table "Authentication Methods": each row, by each of its ways, as the provider's host sees it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from click.testing import CliRunner

from loomstream.cli.group import looms
from tests.cli import keyring_in_a_file
from tests.cli.conftest import CANARY, Exchange, Stub, answer

HEADERS = {
    "anthropic": ("x-api-key", "{}"),
    "openai": ("authorization", "Bearer {}"),
    "mistral": ("authorization", "Bearer {}"),
    "gemini": ("x-goog-api-key", "{}"),
    "huggingface": ("authorization", "Bearer {}"),
    "azure-openai": ("api-key", "{}"),
}
KEYS = {
    "anthropic": ("anthropic_api_key", "LOOM_LLM_ANTHROPIC_API_KEY", "--anthropic-key"),
    "openai": ("openai_api_key", "LOOM_LLM_OPENAI_API_KEY", "--openai-key"),
    "mistral": ("mistral_api_key", "LOOM_LLM_MISTRAL_API_KEY", "--mistral-key"),
    "gemini": ("gemini_api_key", "LOOM_LLM_GEMINI_API_KEY", "--gemini-key"),
    "huggingface": ("huggingface_token", "LOOM_LLM_HUGGINGFACE_TOKEN", "--huggingface-token"),
    "azure-openai": ("azure_openai_api_key", "LOOM_LLM_AZURE_OPENAI_API_KEY", ""),
}
WITH_FLAG = [name for name, (_, _, flag) in KEYS.items() if flag]
AWS = {"LOOM_LLM_BEDROCK_REGION": "us-west-2", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(autouse=True)
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Stub) -> Iterator[Path]:
    request.getfixturevalue("clean_environment")
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv(keyring_in_a_file.VARIABLE, str(tmp_path / "keyring.json"))
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    stub.script = answer(b"{}", status=401, content_type="application/json")  # what was sent is what counts
    before = keyring.get_keyring()
    keyring.set_keyring(keyring_in_a_file.Keyring())
    yield tmp_path
    keyring.set_keyring(before)


def sent(stub: Stub, provider: str, *arguments: str, env: dict[str, str] | None = None, given: str = "") -> Exchange:
    """Ask a provider whose host is the stub; give the last request."""
    where = ["--base-url", stub.url.removesuffix("/v1"), "--model", "made-up", "--no-stream"]
    result = CliRunner().invoke(
        looms, ["ask", "-p", provider, *where, *arguments, "hello"], env=env, input=given or None
    )
    assert stub.exchanges, result.output
    return [exchange for exchange in stub.exchanges if exchange.body][-1]  # others ask for credentials


def set_key(name: str, value: str = CANARY) -> None:
    assert CliRunner().invoke(looms, ["config", "set-key", name], input=value).exit_code == 0


@pytest.mark.parametrize("provider", KEYS)
def test_authentication_methods_keyring_command(provider: str, stub: Stub) -> None:
    set_key(KEYS[provider][0])
    header, form = HEADERS[provider]
    assert sent(stub, provider).headers[header] == form.format(CANARY)


@pytest.mark.parametrize("provider", KEYS)
def test_authentication_methods_environment_variable(provider: str, stub: Stub) -> None:
    header, form = HEADERS[provider]
    assert sent(stub, provider, env={KEYS[provider][1]: CANARY}).headers[header] == form.format(CANARY)


@pytest.mark.parametrize("provider", WITH_FLAG)
def test_authentication_methods_cli_flag(provider: str, stub: Stub) -> None:
    header, form = HEADERS[provider]
    flag = KEYS[provider][2]
    set_key(KEYS[provider][0], "the flag wins over the keyring")
    env = {KEYS[provider][1]: "the flag wins over the variable"}
    assert sent(stub, provider, flag, CANARY, env=env).headers[header] == form.format(CANARY)
    assert sent(stub, provider, flag, "-", given=CANARY + "\n", env=env).headers[header] == form.format(CANARY)


def test_authentication_methods_bedrock_keyring_command(stub: Stub) -> None:
    set_key("bedrock_access_key_id", "AKIAFROMKEYRING")
    set_key("bedrock_secret_access_key")
    assert "Credential=AKIAFROMKEYRING/" in sent(stub, "bedrock", env=AWS).headers["authorization"]
    set_key("bedrock_bearer_token")
    assert sent(stub, "bedrock", env=AWS).headers["authorization"] == f"Bearer {CANARY}"


def test_authentication_methods_bedrock_environment_variables(stub: Stub) -> None:
    env = {**AWS, "AWS_ACCESS_KEY_ID": "AKIAFROMVARIABLE", "AWS_SECRET_ACCESS_KEY": CANARY}
    assert "Credential=AKIAFROMVARIABLE/" in sent(stub, "bedrock", env=env).headers["authorization"]


def test_authentication_methods_bedrock_aws_profile(home: Path, stub: Stub) -> None:
    (home / "aws_shared_credentials_file").write_text(
        f"[mine]\naws_access_key_id = AKIAFROMPROFILE\naws_secret_access_key = {CANARY}\n"
    )
    (home / "looms.yaml").write_text("llm:\n  bedrock_profile: mine\n")
    set_key("bedrock_bearer_token", "an explicit profile comes first")
    assert "Credential=AKIAFROMPROFILE/" in sent(stub, "bedrock", env=AWS).headers["authorization"]


def test_authentication_methods_bedrock_iam_role(stub: Stub) -> None:
    def script(exchange: Exchange) -> None:
        keys = {"AccessKeyId": "ASIAFROMROLE", "SecretAccessKey": CANARY, "Token": "token"}
        keys["Expiration"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        body = json.dumps(keys).encode() if exchange.path == "/role" else b"{}"
        answer(body, status=200 if exchange.path == "/role" else 401, content_type="application/json")(exchange)

    stub.script = script
    env = {**AWS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": stub.url.removesuffix("/v1") + "/role"}
    assert "Credential=ASIAFROMROLE/" in sent(stub, "bedrock", env=env).headers["authorization"]


def test_authentication_methods_ollama_none_local(stub: Stub) -> None:
    headers = sent(stub, "ollama").headers
    assert not {"authorization", "x-api-key", "api-key"} & headers.keys()


def test_authentication_methods_azure_entra_id(stub: Stub) -> None:
    set_key("azure_openai_api_key", "an Entra token comes first")
    set_key("azure_openai_entra_token")
    assert sent(stub, "azure-openai").headers["authorization"] == f"Bearer {CANARY}"
    env = {"LOOM_LLM_AZURE_OPENAI_ENTRA_TOKEN": "Bearer from-variable"}
    assert sent(stub, "azure-openai", env=env).headers["authorization"] == "Bearer from-variable"


def test_authentication_methods_azure_managed_identity(stub: Stub) -> None:
    def script(exchange: Exchange) -> None:
        is_identity = exchange.path.startswith("/identity")
        token = {"access_token": CANARY, "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        body = json.dumps(token if is_identity else {}).encode()
        answer(body, status=200 if is_identity else 401, content_type="application/json")(exchange)

    stub.script = script
    env = {"IDENTITY_ENDPOINT": stub.url.removesuffix("/v1") + "/identity", "IDENTITY_HEADER": "x"}
    assert sent(stub, "azure-openai", env=env).headers["authorization"] == f"Bearer {CANARY}"
