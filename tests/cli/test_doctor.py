"""`looms doctor` and `looms providers --check`: each cause of the seed's troubleshooting, injected by a server."""

import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loomstream.cli.group import looms
from loomstream.config.load import load
from loomstream.doctor.checks import Wish, diagnose
from loomstream.doctor.reach import reach_all
from tests.cli.conftest import CANARY, Exchange, Script, Stub, answer

MODEL = "made-up-model-1"


@pytest.fixture(autouse=True)
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    request.getfixturevalue("clean_environment")
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path))
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(looms, [*arguments], env=env)
    assert CANARY not in result.output
    return result


def findings(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
    result = run("doctor", "--json", "--timeout", "5", *arguments, env=env)
    found = json.loads(result.stdout)
    assert found["healthy"] is (result.exit_code == 0)
    problems = [each for each in found["findings"] if each["status"] == "problem"]
    assert all(each["fix"] for each in problems), problems
    return result.exit_code, {each["name"]: each for each in found["findings"]}


def models(*names: str, field: str = "id") -> bytes:
    return json.dumps({"data": [{field: name} for name in names], "models": [{field: name} for name in names]}).encode()


def reply(body: bytes | str, status: int = 200) -> Script:
    return answer(body.encode() if isinstance(body, str) else body, status=status, content_type="application/json")


def at(stub: Stub, provider: str, **more: str) -> dict[str, str]:
    """Give the environment of a provider whose host is the stub."""
    prefix = f"LOOM_LLM_{provider.upper()}"
    return {f"{prefix}_API_KEY": CANARY, f"{prefix}_BASE_URL": stub.url.removesuffix("/v1"), **more}


# --- nothing wrong -------------------------------------------------------------------------------


def test_all_is_well(stub: Stub) -> None:
    stub.script = reply(models(MODEL))
    env = at(stub, "openai", LOOM_LLM_PROVIDER="openai", LOOM_LLM_OPENAI_MODEL=MODEL)
    code, found = findings(env=env)
    assert code == 0
    assert found["provider"]["said"] == f"openai:{MODEL} answers"
    assert found["key"]["said"] == "openai_api_key from environment LOOM_LLM_OPENAI_API_KEY"
    assert found["middleware"]["said"] == "cost, retry, rate_limit, timeout (outermost first)"
    assert found["connection"]["said"].endswith("answers (HTTP 200), lists 1 models")
    assert found["answer"]["status"] == "skipped"
    assert {"configuration", "versions", "extras", "keyring"} <= found.keys()
    assert [exchange.path for exchange in stub.exchanges] == ["/models"]  # nothing that is billed
    assert stub.exchanges[0].headers["authorization"] == f"Bearer {CANARY}"


def test_the_same_in_words(stub: Stub) -> None:
    stub.script = reply(models(MODEL))
    result = run("doctor", "-p", f"openai:{MODEL}", env=at(stub, "openai"))
    assert result.exit_code == 0
    assert result.stdout.endswith("no problems\n")
    assert re.search(r"(?m)^ok       provider      openai:made-up-model-1 answers$", result.stdout)


def test_offline_sends_nothing(stub: Stub) -> None:
    code, found = findings("-p", f"openai:{MODEL}", "--offline", env=at(stub, "openai"))
    assert (code, found["connection"]["status"], stub.exchanges) == (0, "skipped", [])


def test_live_asks_the_model(stub: Stub) -> None:
    usual = stub.script
    stub.script = lambda exchange: reply(models(MODEL))(exchange) if exchange.path == "/models" else usual(exchange)
    code, found = findings("-p", f"openai:{MODEL}", "--live", env=at(stub, "openai"))
    assert (code, found["answer"]["status"]) == (0, "ok")
    assert [exchange.path for exchange in stub.exchanges] == ["/models", "/chat/completions"]


def test_a_host_without_a_list_of_models_is_well(stub: Stub) -> None:
    stub.script = reply("{}", 404)
    assert findings("-p", f"openai:{MODEL}", env=at(stub, "openai"))[0] == 0


def test_a_model_that_the_list_leaves_out_but_the_host_knows(stub: Stub) -> None:
    stub.script = lambda exchange: reply(models("other") if exchange.path == "/models" else b"{}")(exchange)
    assert findings("-p", f"openai:{MODEL}", env=at(stub, "openai"))[0] == 0
    assert [exchange.path for exchange in stub.exchanges] == ["/models", f"/models/{MODEL}"]


# --- the seed's troubleshooting ------------------------------------------------------------------


def test_troubleshooting_provider_not_found_or_unknown_provider(home: Path) -> None:
    file = home / "looms.yaml"
    file.write_text("llm:\n  provider: Anthropic\n")
    code, found = findings("--offline")
    assert code == 1
    assert (
        f"{file}:2: llm.provider: unknown provider 'Anthropic': did you mean 'anthropic'?"
        in (found["configuration"]["said"])
    )
    assert "looms config set llm.provider NAME" in found["configuration"]["fix"]
    code, found = findings("-p", "Anthropic", "--offline", env={"LOOM_CONFIG": str(home / "other.yaml")})
    assert code == 1


def test_troubleshooting_unknown_provider_in_a_variable() -> None:
    code, found = findings("--offline", env={"LOOM_LLM_PROVIDER": "Anthropic"})
    assert code == 1
    assert "did you mean 'anthropic'?" in found["provider"]["said"]
    assert "case matters" in found["provider"]["fix"]


def test_troubleshooting_authentication_failed_missing_credentials() -> None:
    code, found = findings("-p", "anthropic", "--offline")
    assert code == 1
    assert found["key"]["said"] == (
        "no key for anthropic: looked for in LOOM_LLM_ANTHROPIC_API_KEY, ANTHROPIC_API_KEY, "
        "llm.anthropic_api_key of looms.yaml, keyring loom/anthropic_api_key"
    )
    assert found["key"]["fix"] == "`looms config set-key anthropic_api_key` or set LOOM_LLM_ANTHROPIC_API_KEY"


@pytest.mark.parametrize("provider", ["anthropic", "openai", "mistral", "gemini", "cohere"])
@pytest.mark.parametrize("status", [401, 403])
def test_troubleshooting_authentication_failed_invalid_credentials(provider: str, status: int, stub: Stub) -> None:
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {CANARY}"}, "message": "no", "detail": "no"})
    stub.script = reply(echo, status)
    code, found = findings("-p", provider, env=at(stub, provider))
    assert code == 1
    assert found["account"]["said"].startswith("AuthFailed: ")
    fix = found["account"]["fix"]
    assert f"the key comes from environment LOOM_LLM_{provider.upper()}_API_KEY" in fix
    assert f"looms config get-key {provider}_api_key" in fix
    assert f"looms config set-key {provider}_api_key" in fix


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("anthropic", "against the provider's documentation.*looms config set llm.anthropic_model MODEL"),
        ("openai", "check the model id.*looms config set llm.openai_model MODEL"),
        ("mistral", "looms config set llm.mistral_model MODEL"),
        ("gemini", "looms config set llm.gemini_model MODEL"),
    ],
)
def test_troubleshooting_model_not_found(provider: str, said: str, stub: Stub) -> None:
    def script(exchange: Exchange) -> None:
        is_list = exchange.path.partition("?")[0].endswith("/models")
        reply(models("other-1") if is_list else "{}", 200 if is_list else 404)(exchange)

    stub.script = script
    code, found = findings("-p", f"{provider}:{MODEL}", env=at(stub, provider))
    assert code == 1
    assert found["account"]["said"].startswith(f"ModelNotFound: {provider} has no model '{MODEL}'")
    assert re.search(said, found["account"]["fix"])


def test_troubleshooting_model_not_found_ollama_not_pulled(stub: Stub) -> None:
    stub.script = reply(models("llama3.1:8b", field="name"))
    env = {"LOOM_LLM_OLLAMA_ENDPOINT": stub.url.removesuffix("/v1")}
    code, found = findings("-p", "ollama:qwen2.5:7b", env=env)
    assert code == 1
    assert "run `ollama pull qwen2.5:7b`" in found["account"]["fix"]
    assert [exchange.path for exchange in stub.exchanges] == ["/api/tags"]
    stub.script = reply(models("qwen2.5:7b", "tiny:latest", field="name"))
    assert findings("-p", "ollama:qwen2.5:7b", env=env)[0] == 0
    assert findings("-p", "ollama:tiny", env=env)[0] == 0


def test_troubleshooting_ollama_is_not_running() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    code, found = findings("-p", "ollama", env={"OLLAMA_HOST": f"http://127.0.0.1:{port}"})
    assert code == 1
    assert "ollama serve" in found["connection"]["fix"]


MESSAGES = {
    "AccessDeniedException": "You don't have access to the model with the specified model ID.",
    "ResourceNotFoundException": "The model is not found.",
    "UnrecognizedClientException": "The security token included in the request is invalid.",
}
BEDROCK = {"LOOM_LLM_BEDROCK_ACCESS_KEY_ID": "AKIAEXAMPLE", "LOOM_LLM_BEDROCK_SECRET_ACCESS_KEY": CANARY}


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (403, "AccessDeniedException", "request access to .* in the AWS console.*looms config set llm.bedrock_region"),
        (404, "ResourceNotFoundException", "request access to .* in the AWS console"),
        (403, "UnrecognizedClientException", "bedrock:InvokeModel.*must be requested in the AWS console"),
    ],
)  # fmt: skip
def test_troubleshooting_model_not_found_bedrock_access(status: int, kind: str, said: str, stub: Stub) -> None:
    def script(exchange: Exchange) -> None:
        refused = exchange.path != "/"
        body = json.dumps({"__type": kind, "message": MESSAGES[kind]})
        reply(body if refused else "{}", status if refused else 404)(exchange)

    stub.script = script
    env = {**BEDROCK, "LOOM_LLM_BEDROCK_ENDPOINT": stub.url.removesuffix("/v1"), "LOOM_LLM_BEDROCK_REGION": "us-west-2"}
    code, found = findings("-p", "bedrock", "--live", env=env)
    assert code == 1
    assert re.search(said, found["answer"]["fix"])


def test_troubleshooting_bedrock_without_any_credentials() -> None:
    code, found = findings("-p", "bedrock", env={"LOOM_LLM_BEDROCK_REGION": "us-west-2"})
    assert code == 1
    assert "aws configure" in found["connection"]["fix"]


def test_troubleshooting_model_not_found_azure_deployment(stub: Stub) -> None:
    body = json.dumps({"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}})
    stub.script = reply(body, 404)
    env = {
        "LOOM_LLM_AZURE_OPENAI_API_KEY": CANARY,
        "LOOM_LLM_AZURE_OPENAI_ENDPOINT": stub.url.removesuffix("/v1"),
        "LOOM_LLM_AZURE_OPENAI_DEPLOYMENT_ID": "mine",
    }
    code, found = findings("-p", "azure-openai", "--live", env=env)
    assert code == 1
    assert (
        "llm.azure_openai_deployment_id is the name of a deployment: check it, and the resource's region"
        in (found["answer"]["fix"])
    )


@pytest.mark.parametrize(("provider", "seconds"), [("openai", 120), ("ollama", 300)])
def test_troubleshooting_timeout_or_request_took_too_long(provider: str, seconds: int, stub: Stub) -> None:
    stub.script = Exchange.wait_closed
    env = at(stub, provider, LOOM_LLM_OLLAMA_ENDPOINT=stub.url.removesuffix("/v1"))
    result = run("doctor", "--json", "-p", f"{provider}:{MODEL}", "--timeout", "0.1", env=env)
    assert result.exit_code == 1
    found = {each["name"]: each for each in json.loads(result.stdout)["findings"]}
    assert f"looms config set llm.timeout_seconds {seconds}" in found["connection"]["fix"]


@pytest.mark.parametrize(
    ("status", "body", "kind", "fix"),
    [
        (429, {"error": {"message": "slow down"}}, "RateLimited", "requests_per_second"),
        (429, {"error": {"code": "insufficient_quota", "message": "no credit"}}, "QuotaExhausted", "add credit"),
        (500, {"error": {"message": "oops"}}, "ServerFault", "try again later"),
        (503, {"error": {"message": "busy"}}, "Overloaded", "fallback"),
    ],
)
def test_other_answers_of_a_host(status: int, body: dict[str, Any], kind: str, fix: str, stub: Stub) -> None:
    stub.script = reply(json.dumps(body), status)
    code, found = findings("-p", f"openai:{MODEL}", env=at(stub, "openai"))
    assert code == 1
    assert found["account"]["said"].startswith(kind)
    assert fix in found["account"]["fix"]


def test_a_configuration_that_cannot_be_read(home: Path) -> None:
    (home / "looms.yaml").write_text("llm:\n  temprature: 1\n")
    code, found = findings()
    assert code == 1
    assert "did you mean 'temperature'?" in found["configuration"]["said"]


# --- providers --check ---------------------------------------------------------------------------


def test_providers_are_reached_where_it_is_asked_for(stub: Stub) -> None:
    stub.script = reply(models("gpt-4o"))
    plain = json.loads(run("providers", "openai", "--json", env=at(stub, "openai")).stdout)[0]
    assert (plain["usable"], plain["reachable"], stub.exchanges) == (True, None, [])
    checked = run("providers", "openai", "--check", "--json", env=at(stub, "openai"))
    assert json.loads(checked.stdout)[0]["reachable"] is True
    assert checked.exit_code == 0
    assert "reached         yes, 1 models" in run("providers", "openai", "--check", env=at(stub, "openai")).stdout
    stub.script = reply("{}", 401)
    refused = run("providers", "openai", "--check", "--json", env=at(stub, "openai"))
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)[0]["reached"].startswith("AuthFailed")


def test_a_key_alone_makes_vertex_usable() -> None:
    row = json.loads(run("providers", "vertex-ai", "--json", env={"LOOM_LLM_VERTEX_API_KEY": CANARY}).stdout)[0]
    assert (row["usable"], row["source"]) == (True, "environment LOOM_LLM_VERTEX_API_KEY")


def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    code, found = findings("-p", "local", "--offline")
    assert code == 1
    assert found["extras"]["fix"] == "pip install 'loomstream[local]'"


@pytest.mark.anyio
async def test_on_both_event_loops(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.script = reply(models(MODEL))
    for name, value in at(stub, "openai").items():
        monkeypatch.setenv(name, value)
    found = await diagnose(Wish(spec=f"openai:{MODEL}"))
    assert {finding.status for finding in found} <= {"ok", "skipped", "warning"}
    assert "lists 1 models" in next(finding.said for finding in found if finding.name == "connection")
    reached = await reach_all(["openai"], load(environ={"LOOM_CONFIG": ""}))
    assert (reached["openai"].reachable, reached["openai"].said) == (True, "yes, 1 models")
    stub.script = reply("{}", 401)
    reached = await reach_all(["openai"], load(environ={"LOOM_CONFIG": ""}))
    assert reached["openai"].said.startswith("AuthFailed")
