"""The hosts of Chat Completions: each row's requests go where they should, with what that host takes."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import loomstream
from loomstream.accumulate import fold
from loomstream.dialects import Target, openai_chat
from loomstream.errors import AuthFailed, BadRequest, ContentFiltered, ModelNotFound, ProviderError, RateLimited
from loomstream.events import Usage
from loomstream.messages import Message, Request, ToolCall, ToolChoice, ToolResult, system, user
from loomstream.middleware.cost import reported_cost
from loomstream.providers import look_up, route
from loomstream.providers.table import TABLE

sys.path.insert(0, str(Path(__file__).parent))

from chat_streams import chunk, requested, sse


def target_of(provider: str, model: str = "m", *, base_url: str = "", **given: str) -> Target:
    """Give where a model of the table's row is spoken to."""
    row = look_up(provider)
    settings = {setting.name: setting.default for setting in row.settings if not setting.keyring} | given
    found = route(row, model, dialect="openai_chat", settings=settings)
    address = (base_url or found.base_url).format_map(settings)
    return Target(provider=row.name, model=model, base_url=address, quirks=found.quirks, settings=settings)


def url_of(target: Target) -> str:
    return openai_chat.build_request(Request(messages=(user("hi"),)), target).url


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "settings", "url"),
    [
        ("alibaba", {}, "https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions"),
        ("cerebras", {}, "https://api.cerebras.ai/v1/chat/completions"),
        (
            "cloudflare",
            {"account_id": "a1"},
            "https://api.cloudflare.com/client/v4/accounts/a1/ai/v1/chat/completions",
        ),
        (
            "databricks",
            {"workspace": "dbc-1.cloud.databricks.com"},
            "https://dbc-1.cloud.databricks.com/serving-endpoints/chat/completions",
        ),
        ("deepseek", {}, "https://api.deepseek.com/v1/chat/completions"),
        ("doubleword", {}, "https://api.doubleword.ai/v1/chat/completions"),
        ("fireworks", {}, "https://api.fireworks.ai/inference/v1/chat/completions"),
        ("github-copilot", {}, "https://api.githubcopilot.com/chat/completions"),
        ("gpustack", {}, "http://localhost/v1/chat/completions"),
        ("groq", {}, "https://api.groq.com/openai/v1/chat/completions"),
        ("huggingface", {}, "https://router.huggingface.co/v1/chat/completions"),
        ("litellm", {}, "http://localhost:4000/v1/chat/completions"),
        ("llamacpp", {}, "http://localhost:8080/v1/chat/completions"),
        ("lmstudio", {}, "http://localhost:1234/v1/chat/completions"),
        ("mistral", {}, "https://api.mistral.ai/v1/chat/completions"),
        ("mistralrs", {}, "http://localhost:1234/v1/chat/completions"),
        ("moonshot", {}, "https://api.moonshot.ai/v1/chat/completions"),
        ("nvidia", {}, "https://integrate.api.nvidia.com/v1/chat/completions"),
        ("openai", {}, "https://api.openai.com/v1/chat/completions"),
        ("openrouter", {}, "https://openrouter.ai/api/v1/chat/completions"),
        ("perplexity", {}, "https://api.perplexity.ai/chat/completions"),
        ("sambanova", {}, "https://api.sambanova.ai/v1/chat/completions"),
        (
            "snowflake",
            {"account": "org-acme"},
            "https://org-acme.snowflakecomputing.com/api/v2/cortex/v1/chat/completions",
        ),
        ("together", {}, "https://api.together.xyz/v1/chat/completions"),
        ("venice", {}, "https://api.venice.ai/api/v1/chat/completions"),
        ("vercel-gateway", {}, "https://ai-gateway.vercel.sh/v1/chat/completions"),
        ("vllm", {}, "http://localhost:8000/v1/chat/completions"),
        ("xai", {}, "https://api.x.ai/v1/chat/completions"),
        ("zai", {}, "https://api.z.ai/api/paas/v4/chat/completions"),
    ],
)
def test_a_row_s_requests_go_to_its_host(provider: str, settings: dict[str, str], url: str) -> None:
    assert url_of(target_of(provider, **settings)) == url


RESOURCE = "https://res.openai.azure.com"


@pytest.mark.parametrize(
    ("base_url", "settings", "url"),
    [
        (RESOURCE, {}, "/openai/v1/chat/completions"),
        (
            RESOURCE,
            {"api_version": "2024-10-21"},
            "/openai/deployments/my%2Fgpt/chat/completions?api-version=2024-10-21",
        ),
        (
            RESOURCE,
            {"api_version": "2025-01-01-preview"},
            "/openai/deployments/my%2Fgpt/chat/completions?api-version=2025-01-01-preview",
        ),
        (RESOURCE, {"api_version": "v1"}, "/openai/v1/chat/completions"),
        (f"{RESOURCE}/openai/v1", {}, "/openai/v1/chat/completions"),
        (f"{RESOURCE}/openai/v1", {"api_version": "v1"}, "/openai/v1/chat/completions"),
        (f"{RESOURCE}/openai/v1/chat/completions", {"api_version": "v1"}, "/openai/v1/chat/completions"),
    ],
)
def test_a_deployment_s_address(base_url: str, settings: dict[str, str], url: str) -> None:
    assert url_of(target_of("azure-openai", "my/gpt", base_url=base_url, **settings)) == RESOURCE + url


@pytest.mark.parametrize("ending", ["", "/v1", "/v1/chat/completions"])
def test_a_proxy_may_be_named_by_its_host_or_by_its_whole_address(ending: str) -> None:
    url = url_of(target_of("litellm", base_url=f"http://localhost:4000{ending}"))
    assert url in {"http://localhost:4000/chat/completions", "http://localhost:4000/v1/chat/completions"}


@pytest.mark.parametrize("ending", ["", "/serving-endpoints"])
def test_a_workspace_may_be_named_with_or_without_its_path(ending: str) -> None:
    target = target_of("databricks", base_url=f"https://dbc-1.cloud.databricks.com{ending}")
    assert url_of(target) == "https://dbc-1.cloud.databricks.com/serving-endpoints/chat/completions"


def test_copilot_is_told_who_asks() -> None:
    request = Request(messages=(user("hi"),), extra_headers={"x-a": "b"})
    target = target_of("github-copilot", editor_version="acme/2.0")
    headers = openai_chat.build_request(request, target).headers
    assert headers["copilot-integration-id"] == "vscode-chat"
    assert headers["editor-version"] == "acme/2.0"
    assert headers["x-a"] == "b"


def test_who_pays_is_said_by_an_extra_header() -> None:
    request = Request(messages=(user("hi"),), extra_headers={"X-HF-Bill-To": "acme"})
    assert openai_chat.build_request(request, target_of("huggingface")).headers["X-HF-Bill-To"] == "acme"


def test_a_suffix_of_the_model_s_id_passes_through() -> None:
    for model in ("moonshotai/Kimi-K2:groq", "Qwen/Qwen3:fastest", "Qwen/Qwen3:cheapest"):
        assert requested(target=target_of("huggingface", model))["model"] == model


# --- what a host takes ---------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "max_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop_sequences": ("END",),
    "seed": 1,
    "parallel_tool_calls": False,
    "tool_choice": ToolChoice("any"),
    "system": "be brief",
}
ALWAYS = {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("model", "keys", "role"),
    [
        ("gpt-4o", {"temperature", "top_p", "stop", "parallel_tool_calls", "tool_choice"}, "system"),
        ("gpt-4.1-mini", {"temperature", "top_p", "stop", "parallel_tool_calls", "tool_choice"}, "system"),
        ("o1-preview", {"stop"}, "user"),
        ("o1-mini-2024-09-12", {"stop"}, "user"),
        ("o1", {"stop", "tool_choice"}, "developer"),
        ("o1-2024-12-17", {"stop", "tool_choice"}, "developer"),
        ("o3-mini", {"stop", "tool_choice"}, "developer"),
        ("o3", {"tool_choice"}, "developer"),
        ("o4-mini-2025-04-16", {"tool_choice"}, "developer"),
        ("gpt-5", {"parallel_tool_calls", "tool_choice"}, "developer"),
        ("gpt-5-mini-2025-08-07", {"parallel_tool_calls", "tool_choice"}, "developer"),
        (
            "gpt-5-chat-latest",
            {"temperature", "top_p", "stop", "parallel_tool_calls", "tool_choice"},
            "developer",
        ),
        ("gpt-5.2", {"temperature", "top_p", "stop", "parallel_tool_calls", "tool_choice"}, "developer"),
        ("gpt-6.1", {"temperature", "top_p", "stop", "parallel_tool_calls", "tool_choice"}, "developer"),
    ],
)
@pytest.mark.parametrize("version", ["", "v1", "2025-01-01-preview"])
def test_openai_s_models_get_what_they_take(version: str, model: str, keys: set[str], role: str) -> None:
    settings = {"api_version": version} if version else {}
    target = target_of("azure-openai" if version else "openai", model, base_url=RESOURCE, **settings)
    limit = target.quirks.max_tokens_key
    body = requested(target=target, **EVERYTHING)
    assert body.keys() == ALWAYS | keys | {"seed", limit}
    assert limit == (
        "max_tokens" if version.startswith("20") and model.startswith("gpt-4") else "max_completion_tokens"
    )
    assert body["messages"][0]["role"] == role
    said = openai_chat.build_request(Request(messages=(user("hi"),), **EVERYTHING), target).warnings
    optional = {"temperature", "top_p", "stop", "parallel_tool_calls", "tool_choice"}
    assert len(said) == len(optional - keys) + (role == "user")


def test_a_reasoning_effort_excludes_sampling_where_the_model_says_so() -> None:
    target = target_of("openai", "gpt-5.2")
    assert "temperature" not in requested(target=target, temperature=0.5, reasoning_effort="high")
    assert "temperature" in requested(target=target, temperature=0.5, reasoning_effort="none")


@pytest.mark.parametrize("model", ["o1-preview", "o1-mini"])
def test_the_recorded_refusal_of_a_system_role_cannot_come_back(model: str) -> None:
    """On record: 400, `messages[0].role` does not support `system` with this model."""
    request = Request(messages=(user("What is 2+2?"),), system="You are terse.", temperature=0.1, stream=False)
    body = json.loads(openai_chat.build_request(request, target_of("openai", model)).body)
    assert body == {"model": model, "messages": [{"role": "user", "content": "You are terse.\n\nWhat is 2+2?"}]}


def test_azure_s_newer_endpoint_takes_the_newer_key() -> None:
    target = target_of("azure-openai", "my-gpt", base_url=RESOURCE)
    assert requested(target=target, max_tokens=9)["max_completion_tokens"] == 9


def test_mistral_s_own_names() -> None:
    foreign = ToolCall("call_abcdefghijkl", "f")
    history = (user("hi"), Message("assistant", (foreign,)), Message("tool", (ToolResult(foreign.id),)))
    body = requested(*history, target=target_of("mistral"), **EVERYTHING)
    keys = {"max_tokens", "temperature", "top_p", "stop", "random_seed", "parallel_tool_calls", "tool_choice"}
    assert body.keys() == {"model", "messages", "stream"} | keys
    assert (body["random_seed"], body["tool_choice"]) == (1, "any")
    (call,), result = body["messages"][2]["tool_calls"], body["messages"][3]
    assert call["id"] == result["tool_call_id"]
    assert len(call["id"]) == 9
    assert call["id"].isalnum()


@pytest.mark.parametrize(
    ("model", "left_out"),
    [
        ("grok-3", set[str]()),
        ("grok-3-mini", {"stop"}),
        ("grok-4", {"stop", "reasoning_effort"}),
        ("grok-4-fast", {"stop"}),
        ("grok-4-fast-non-reasoning", set[str]()),
    ],
)
def test_xai_s_reasoning_models_get_what_they_take(model: str, left_out: set[str]) -> None:
    body = requested(target=target_of("xai", model), stop_sequences=("a",), reasoning_effort="low")
    assert {"stop", "reasoning_effort"} - body.keys() == left_out


@pytest.mark.parametrize("provider", [row.name for row in TABLE if row.dialect == "openai_chat"])
def test_every_row_builds_a_plain_request(provider: str) -> None:
    row = look_up(provider)
    settings = {setting.name: "s" for setting in row.settings if not setting.keyring}
    target = target_of(provider, base_url=route(row, "m").base_url or "https://host", **settings)
    body = requested(system("be brief"), user("hi"), target=target)
    assert body["model"] == "m"
    assert body["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert "{" not in url_of(target)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "status", "body", "error", "words"),
    [
        (
            "azure-openai",
            404,
            {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
            ModelNotFound,
            "does not exist. (asked for 'my-gpt')",
        ),
        ("azure-openai", 404, {"error": {"code": "404", "message": "Resource not found"}}, ModelNotFound, "my-gpt"),
        (
            "azure-openai",
            400,
            {
                "error": {
                    "code": "content_filter",
                    "message": "The prompt was filtered.",
                    "status": 400,
                    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
                }
            },
            ContentFiltered,
            "The prompt was filtered.",
        ),
        (
            "azure-openai",
            400,
            {"error": {"code": None, "message": "Filtered.", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            ContentFiltered,
            "Filtered.",
        ),
        ("azure-openai", 401, {"error": {"code": "401", "message": "Access denied"}}, AuthFailed, "Access denied"),
        ("azure-openai", 429, {"error": {"code": "RateLimitReached", "message": "slow"}}, RateLimited, "slow"),
        (
            "mistral",
            400,
            {"object": "error", "message": "Invalid model: my-gpt", "type": "invalid_model", "code": "1500"},
            ModelNotFound,
            "Invalid model: my-gpt",
        ),
        (
            "mistral",
            422,
            {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "x"]}]}},
            BadRequest,
            "extra_forbidden",
        ),
        ("huggingface", 401, {"error": "Invalid username or password."}, AuthFailed, "Invalid username"),
        (
            "huggingface",
            400,
            {"error": {"message": "not supported by any provider", "code": "model_not_supported"}},
            ModelNotFound,
            "not supported by any provider (asked for 'my-gpt')",
        ),
    ],
)
def test_a_host_s_errors_are_typed(
    provider: str, status: int, body: object, error: type[ProviderError], words: str
) -> None:
    found = openai_chat.parse_error(status, {}, json.dumps(body).encode(), target_of(provider, "my-gpt"))
    assert type(found) is error
    assert words in str(found)


def test_a_model_that_the_message_names_is_not_named_twice() -> None:
    body = b'{"error":{"code":"model_not_found","message":"The model `my-gpt` does not exist"}}'
    assert str(openai_chat.parse_error(404, {}, body, target_of("groq", "my-gpt"))).count("my-gpt") == 1


def test_a_missing_page_is_described_not_blamed_on_the_model() -> None:
    found = openai_chat.parse_error(404, {}, b"<html><title>Not here</title></html>", target_of("groq", "my-gpt"))
    assert "an HTML page titled 'Not here'" in str(found)


# --- a proxy's bill ------------------------------------------------------------------------------

BILL = {"x-litellm-response-cost": "3.5e-05"}
MESSAGE = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}


def usage_of(body: bytes, headers: dict[str, str], provider: str = "litellm") -> Usage:
    found = fold(loomstream.decode(provider, body, headers=headers, model="m")).usage
    assert found is not None
    return found


def test_the_cost_in_the_head_of_a_whole_answer_counts() -> None:
    body = json.dumps({"choices": [MESSAGE], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}).encode()
    assert reported_cost(usage_of(body, BILL)) == Decimal("0.000035")
    assert reported_cost(usage_of(body, {})) is None
    assert reported_cost(usage_of(body, {"x-litellm-response-cost": "none"})) is None
    assert reported_cost(usage_of(body, BILL, "openai")) is None


def test_the_cost_in_the_body_counts_more() -> None:
    body = json.dumps({"choices": [MESSAGE], "usage": {"prompt_tokens": 3, "cost": 0.5}}).encode()
    assert reported_cost(usage_of(body, BILL)) == Decimal("0.5")


def test_the_head_of_a_stream_cannot_know_its_cost() -> None:
    body = sse(chunk({"content": "a"}, "stop"), {"choices": [], "usage": {"prompt_tokens": 3}})
    assert reported_cost(usage_of(body, BILL)) is None
