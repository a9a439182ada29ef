"""A program that names nobody, under one configuration after another: what goes over the wire."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import keyring
import pytest
from models import ANSWER, CANARY, Keyring

from loomstream.config.load import Settings, load
from loomstream.configured.choice import chosen
from loomstream.errors import (
    AuthFailed,
    BudgetExceeded,
    ConfigError,
    LoomstreamError,
    RateLimited,
    UnknownModel,
    UnknownProvider,
    UsageError,
)
from loomstream.messages import Timeouts
from loomstream.model import Model, connect
from loomstream.providers import Provider
from loomstream.providers.table import BY_NAME, TABLE

Write = Callable[..., Path]


class Site:
    """A provider that notes each request and answers as it is told."""

    def __init__(self, *statuses: int) -> None:
        self.requests: list[httpx.Request] = []
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))
        self._statuses = list(statuses)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self._statuses.pop(0) if self._statuses else 200
        if status != 200:
            return httpx.Response(status, json={"error": {"message": "no"}})
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=ANSWER)

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.requests[-1].content)

    @property
    def host(self) -> str:
        return self.requests[-1].url.host


async def program(site: Site, **options: object) -> str:
    """A program: it names no provider, no model, no key."""
    async with site.client, connect(client=site.client, **options) as model:
        return (await model.complete("Hello")).text


# --- a migration is a change of the configuration -----------------------------------------------------


MIGRATIONS = {
    "anthropic": ("anthropic_api_key: K\n  anthropic_model: M", "api.anthropic.com", ("x-api-key", "K")),
    "bedrock": (
        "bedrock_region: us-west-2\n  bedrock_model_id: M\n  bedrock_bearer_token: K",
        "bedrock-runtime.us-west-2.amazonaws.com",
        ("authorization", "Bearer K"),
    ),
    "ollama": ("ollama_endpoint: http://localhost:1234\n  ollama_model: M", "localhost", None),
    "openai": ("openai_api_key: K\n  openai_model: M", "api.openai.com", ("authorization", "Bearer K")),
    "azure-openai": (
        (
            "azure_openai_endpoint: https://mine.openai.azure.com\n  azure_openai_deployment_id: M\n"
            "  azure_openai_api_key: K"
        ),
        "mine.openai.azure.com",
        ("api-key", "K"),
    ),
    "azureopenai": (
        (
            "azure_openai_endpoint: https://mine.openai.azure.com\n  azure_openai_deployment_id: M\n"
            "  azure_openai_entra_token: K"
        ),
        "mine.openai.azure.com",
        ("authorization", "Bearer K"),
    ),
    "mistral": ("mistral_api_key: K\n  mistral_model: M", "api.mistral.ai", ("authorization", "Bearer K")),
    "gemini": (
        "gemini_api_key: K\n  gemini_model: M",
        "generativelanguage.googleapis.com",
        ("x-goog-api-key", "K"),
    ),
    "huggingface": (
        "huggingface_token: K\n  huggingface_model: M",
        "router.huggingface.co",
        ("authorization", "Bearer K"),
    ),
    "vertex-ai": (
        "vertex_api_key: K\n  vertex_model: gemini-M\n  vertex_project_id: p\n  vertex_location: europe-west1",
        "europe-west1-aiplatform.googleapis.com",
        ("x-goog-api-key", "K"),
    ),
    "litellm": (
        (
            "litellm_endpoint: http://localhost:4000/v1/chat/completions\n  litellm_api_key: K\n  litellm_model: M\n"
            "  litellm_extra_headers: {X-Team: blue}"
        ),
        "localhost",
        ("authorization", "Bearer K"),
    ),
    "cohere": ("cohere_api_key: K\n  cohere_model: M", "api.cohere.com", ("authorization", "Bearer K")),
    "groq": ("groq_api_key: K\n  groq_model: M", "api.groq.com", ("authorization", "Bearer K")),
}
COMMON = "  temperature: 0\n  max_tokens: 17\n  rate_limit: {max_retries: 0}\n"


@pytest.mark.anyio
@pytest.mark.parametrize("provider", MIGRATIONS)
async def test_one_program_moves_to_each_provider_by_its_configuration_alone(provider: str, write: Write) -> None:
    text, host, key = MIGRATIONS[provider]
    path = write(f"llm:\n  provider: {provider}\n  {text}\n{COMMON}")
    site = Site(401, 401)
    with pytest.raises(AuthFailed):
        await program(site)
    request = site.requests[0]
    assert (request.url.host, host in str(request.url)) == (host, True)
    if key is not None:
        assert request.headers[key[0]] == key[1]
    sent = f"{request.url} {request.content.decode()}"
    assert '"M"' in sent or "/M" in sent or "gemini-M" in sent
    numbers = {str(number) for number in numbers_in(json.loads(request.content))}
    assert "17" in numbers, "max_tokens is sent, whatever its name is"
    assert numbers & {"0", "0.0"}, "temperature 0 is sent"
    path.unlink()


def test_every_provider_of_the_seed_is_moved_to() -> None:
    seed = "anthropic bedrock ollama openai azure-openai mistral gemini huggingface litellm vertex-ai cohere"
    assert set(seed.split()) <= set(MIGRATIONS)


def numbers_in(value: object) -> list[object]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers_in(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers_in(inner)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


@pytest.mark.anyio
async def test_what_is_unset_is_not_sent(write: Write) -> None:
    write("llm: {provider: openai, openai_api_key: k}")
    site = Site()
    assert await program(site) == "hi"
    assert set(site.body) == {"model", "messages", "stream", "stream_options"}
    assert site.body["model"] == "gpt-4o"


@pytest.mark.anyio
async def test_headers_and_whole_endpoints_of_a_gateway(write: Write) -> None:
    write(f"llm:\n  provider: litellm\n  {MIGRATIONS['litellm'][0]}\n")
    site = Site()
    await program(site)
    assert site.requests[0].headers["x-team"] == "blue"
    assert str(site.requests[0].url) == "http://localhost:4000/v1/chat/completions"


# --- precedence over the wire ------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_key_comes_from_the_strongest_layer(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sent(**options: object) -> str:
        site = Site()
        await program(site, **options)
        return site.requests[0].headers["authorization"].removeprefix("Bearer ")

    monkeypatch.setenv("LOOM_LLM_PROVIDER", "openai")
    keyring.set_keyring(Keyring("openai_api_key", "of-keyring"))
    assert await sent() == "of-keyring"
    monkeypatch.setenv("OPENAI_API_KEY", "of-vendor")
    assert await sent() == "of-vendor"
    write("llm: {openai_api_key: of-file}")
    assert await sent() == "of-file"
    monkeypatch.setenv("LOOM_LLM_OPENAI_API_KEY", "of-loom")
    assert await sent() == "of-loom"
    assert await sent(config=load(overrides={"llm.openai_api_key": "of-override"})) == "of-override"
    assert await sent(api_key="of-argument") == "of-argument"


@pytest.mark.anyio
async def test_an_environment_that_is_given_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_LLM_OPENAI_API_KEY", "of-process")
    monkeypatch.setenv("LOOM_LLM_OPENAI_PROJECT", "of-process")
    environ = {"LOOM_LLM_PROVIDER": "openai", "OPENAI_API_KEY": "given", "OPENAI_PROJECT": "mine"}
    site = Site()
    await program(site, config=load(environ=environ))
    assert site.requests[0].headers["authorization"] == "Bearer given"
    assert site.requests[0].headers["openai-project"] == "mine"
    site = Site()
    await program(site, config=load(overrides={"llm.provider": "openai", "llm.openai_project": "argument"}))
    assert site.requests[0].headers["openai-project"] == "argument"


@pytest.mark.anyio
async def test_what_is_passed_wins_and_the_rest_is_the_configuration_s(write: Write) -> None:
    write("llm: {openai_api_key: k, openai_base_url: 'https://gate.test/v1', temperature: 0.5, max_tokens: 9}")
    site = Site()
    async with site.client, connect("openai:gpt-4.1", client=site.client, max_tokens=3) as model:
        await model.complete("x")
        assert (site.host, site.body["model"]) == ("gate.test", "gpt-4.1")
        assert (site.body["temperature"], site.body["max_completion_tokens"]) == (0.5, 3)
        await model.complete("x", temperature=1)
        assert site.body["temperature"] == 1


def test_a_configuration_is_named_or_given(write: Write, tmp_path: Path) -> None:
    write("llm: {provider: openai}")
    other = tmp_path / "other.yaml"
    other.write_text("llm: {provider: ollama}")
    assert connect().provider == "openai"
    assert connect(config=other).provider == "ollama"
    assert connect(config=str(other)).provider == "ollama"
    assert connect(config=Settings()).provider == "local", "a program may want none"
    with pytest.raises(ConfigError, match=r"nothing\.yaml cannot be read"):
        connect(config=tmp_path / "nothing.yaml")


# --- who answers -------------------------------------------------------------------------------------


def test_the_pool(write: Write) -> None:
    write(
        "llm: {provider: openai, temperature: 1, openai_api_key: k}\nactive_provider: fast\nproviders:\n"
        "  - {name: fast, provider: ollama, ollama_model: llama, temperature: 0, timeout_seconds: 7}\n"
        "  - {name: main, provider: openai, openai_model: gpt-4.1}\n"
        "  - {name: acme, base_url: 'https://llm.acme.test/v1', model: m, api_key: a}\n"
    )
    model = connect()
    assert (model.provider, model.model) == ("ollama", "llama")
    assert model.request_defaults["temperature"] == 0
    assert model.request_defaults["timeouts"] == Timeouts(first_event_s=7, idle_s=7, whole_s=7)
    assert (connect("main").provider, connect("main").model) == ("openai", "gpt-4.1")
    assert connect("main").request_defaults["temperature"] == 1
    assert connect("main:o3").model == "o3"
    assert (connect("acme").provider, connect("acme").model) == ("acme", "m")
    assert (connect("openai").provider, connect("openai").model) == ("openai", "gpt-4o")


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "key"), [("main", "of-entry"), ("other", "of-llm"), ("acme", "of-host")])
async def test_the_key_of_an_entry(name: str, key: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        "llm: {openai_api_key: of-llm}\nproviders:\n"
        "  - {name: main, provider: openai, openai_api_key: of-entry}\n  - {name: other, provider: openai}\n"
        "  - {name: acme, base_url: 'https://llm.acme.test/v1', model: m, api_key: of-host}\n"
    )
    monkeypatch.setenv("OPENAI_API_KEY", "of-vendor")
    site = Site()
    async with site.client, connect(name, client=site.client) as model:
        await model.complete("x")
    assert site.requests[0].headers["authorization"] == f"Bearer {key}"


def test_the_stronger_layer_names_who_answers(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("active_provider: fast\nllm: {provider: anthropic}\nproviders: [{name: fast, provider: ollama}]")
    assert connect().provider == "ollama"
    monkeypatch.setenv("LOOM_LLM_PROVIDER", "mistral")
    assert connect().provider == "mistral"


def test_an_entry_that_is_wrong_is_no_matter_until_it_is_named(write: Write) -> None:
    path = write("providers:\n  - {name: bad, provider: openai, temperature: 9}\n  - {name: good, provider: ollama}\n")
    assert connect("good").provider == "ollama"
    with pytest.raises(ConfigError, match=r"providers\[0\]\.temperature: this must be a number from 0 to 2") as caught:
        connect("bad")
    assert str(caught.value).startswith(f"{path}:2:")


def test_one_key_decides_and_several_are_an_error(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write("llm: {mistral_api_key: k}")
    assert connect().provider == "mistral"
    assert "mistral answers: it is the only provider that has a key" in caplog.text
    write("llm: {mistral_api_key: k, anthropic_api_key: k}")
    with pytest.raises(ConfigError, match=r"several providers were found \(anthropic, mistral\): name one"):
        connect()
    write("llm: {azure_openai_entra_token: k, azure_openai_endpoint: 'https://a.openai.azure.com'}")
    with pytest.raises(UnknownModel, match="azure-openai has no default model"):
        connect()


def test_no_configuration_is_the_embedded_model_and_nothing_is_fetched() -> None:
    model = connect()
    assert model.provider == "local"
    assert model._endpoint._launch_options["download"] is False


@pytest.mark.parametrize("row", [row for row in TABLE if row.default_model], ids=lambda row: row.name)
def test_each_default_model(row: Provider) -> None:
    found = chosen(row.name, Settings(), today=lambda: date(2025, 12, 1))
    assert (found.model, found.warnings) == (row.default_model, ())


def test_a_default_model_that_is_no_more_has_a_successor(caplog: pytest.LogCaptureFixture) -> None:
    found = chosen("anthropic", Settings(), today=lambda: date(2026, 12, 1))
    assert found.model == "claude-sonnet-5-5"
    assert found.warnings == (
        (
            "claude-sonnet-4-5-20250929, the default model of anthropic, is no more since 2026-11-30: "
            "claude-sonnet-5-5 takes its place"
        ),
    )
    named = chosen("anthropic:claude-sonnet-4-5-20250929", Settings(), today=lambda: date(2026, 12, 1))
    assert (named.model, named.warnings) == ("claude-sonnet-4-5-20250929", ())
    assert not caplog.text


def test_the_deprecated_model_key(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write("llm: {provider: openai, model: gpt-4.1}")
    assert connect().model == "gpt-4.1"
    assert "llm.model is deprecated" in caplog.text
    assert connect("anthropic:x").model == "x"
    assert connect("mistral").model == "mistral-large-latest", "it is the model of llm.provider"


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("llm: {provider: opnai}", UnknownProvider, r"looms\.yaml:1: llm\.provider: unknown provider 'opnai': did you"),
        ("llm: {provider: OpenAI}", UnknownProvider, "did you mean 'openai'"),
        (
            "llm: {provider: azure-openai, azure_openai_deployment_id: d}",
            ConfigError,
            "needs an address: pass base_url=",
        ),
    ],
)
def test_troubleshooting(text: str, kind: type[LoomstreamError], what: str, write: Write) -> None:
    write(text)
    with pytest.raises(kind, match=what):
        connect()


# --- time limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "timeouts"),
    [
        ("provider: openai", Timeouts()),
        ("provider: ollama", Timeouts(first_event_s=120, idle_s=120)),
        ("provider: ollama, timeout_seconds: 300", Timeouts(first_event_s=300, idle_s=300, whole_s=300)),
        ("provider: openai, timeout_seconds: 5", Timeouts(first_event_s=5, idle_s=5, whole_s=5)),
        ("provider: openai, total_timeout_seconds: 9", Timeouts(total_s=9)),
        ("provider: openai, timeout_seconds: 0, total_timeout_seconds: 0", Timeouts()),
        ("provider: ollama, timeout_seconds: 0", Timeouts(first_event_s=120, idle_s=120)),
    ],
)
def test_timeouts(text: str, timeouts: Timeouts, write: Write) -> None:
    write(f"llm: {{{text}}}")
    assert connect().request_defaults.get("timeouts", Timeouts()) == timeouts


def test_timeouts_of_the_middleware(write: Write) -> None:
    write("llm: {provider: openai, timeout_seconds: 5}\nmiddleware: {timeout: {connect_seconds: 1, idle_seconds: 2}}")
    expected = Timeouts(connect_s=1, first_event_s=5, idle_s=2, whole_s=5)
    assert connect().request_defaults.get("timeouts") == expected


# --- middleware --------------------------------------------------------------------------------------


OPENAI = "llm:\n  provider: openai\n  openai_api_key: k\n"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "tries"),
    [
        ("  rate_limit: {max_retries: 0}\n", 1),
        ("  rate_limit: {max_retries: 3, retry_backoff_ms: 0}\n", 4),
        ("  rate_limit: {max_retries: 9}\nmiddleware: {retry: {max_retries: 1, backoff_ms: 0}}\n", 2),
    ],
)
async def test_retries(text: str, tries: int, write: Write) -> None:
    write(OPENAI + text)
    site = Site(*[429] * 9)
    with pytest.raises(RateLimited):
        await program(site)
    assert len(site.requests) == tries


@pytest.mark.anyio
async def test_failover_to_entries_of_the_pool(write: Write) -> None:
    write(
        OPENAI + "  rate_limit: {max_retries: 0}\nproviders:\n"
        "  - {name: spare, base_url: 'https://spare.test/v1', model: m, api_key: s}\n"
        "middleware: {failover: {to: [spare]}}\n"
    )
    site = Site(500)
    async with site.client, connect(client=site.client) as model:
        assert (await model.complete("Hello")).text == "hi"
        (spare,) = model._fallbacks
        assert not spare._closed
    assert spare._closed
    assert [request.url.host for request in site.requests] == ["api.openai.com", "spare.test"]
    assert site.requests[1].headers["authorization"] == "Bearer s"


@pytest.mark.anyio
async def test_a_budget_holds_over_calls_and_models(write: Write) -> None:
    write(OPENAI + "middleware: {budget: {limit_tokens: 1200}}\n")
    site = Site()
    async with site.client:
        async with connect(client=site.client) as model:
            await model.complete("x", max_tokens=100)
        async with connect(client=site.client) as model:
            with pytest.raises(BudgetExceeded):
                await model.complete("x", max_tokens=200)
    assert len(site.requests) == 1


@pytest.mark.anyio
async def test_a_cache_answers_the_second_time(write: Write) -> None:
    write(OPENAI + "middleware: {cache: {ttl_seconds: 60}}\n")
    site = Site()
    async with site.client, connect(client=site.client) as model:
        assert (await model.complete("x")).text == (await model.complete("x")).text == "hi"
    assert len(site.requests) == 1


@pytest.mark.anyio
async def test_a_cache_keeps_so_many(write: Write) -> None:
    write(OPENAI + "middleware: {cache: {max_entries: 1}}\n")
    site = Site()
    async with site.client, connect(client=site.client) as model:
        for prompt in ("x", "y", "y", "x"):
            await model.complete(prompt)
    assert len(site.requests) == 3


def test_what_a_middleware_refuses_says_where(write: Write) -> None:
    path = write("llm: {provider: openai}\nmiddleware:\n  budget: {per: day}\n")
    with pytest.raises(ConfigError, match=r"middleware\.budget: ") as caught:
        connect()
    assert str(caught.value).startswith(f"{path}:3: ")


def test_a_program_s_own_middleware_takes_the_place_of_all(write: Write) -> None:
    write("llm: {provider: openai}\nmiddleware:\n  budget: {per: day}\n")
    assert connect(middleware=()).provider == "openai"


# --- a file that may come from anybody ----------------------------------------------------------------


FOREIGN = [
    ("llm: {provider: openai, openai_base_url: 'https://evil.test/v1'}", False),
    ("llm: {provider: openai, openai_endpoint: 'http://localhost:1/v1'}", False),
    ("llm: {provider: openai, openai_base_url: 'https://api.openai.com.evil.test/v1'}", False),
    ("llm: {provider: openai, openai_base_url: 'https://api.openai.com:444/v1'}", False),
    ("llm: {provider: openai, openai_base_url: 'http://api.openai.com/v1'}", False),
    ("llm: {provider: openai, openai_base_url: 'https://api.openai.com/v2'}", True),
    ("llm: {provider: azure-openai, azure_openai_endpoint: 'https://mine.openai.azure.com', model: m}", False),
    ("llm: {provider: azure-openai, azure_openai_endpoint: 'https://evil.test', model: m}", False),
    ("llm: {provider: azure-openai, azure_openai_endpoint: 'https://a.openai.azure.com.evil.test', model: m}", False),
    ("llm: {provider: bedrock, bedrock_region: eu-west-1}", True),
    ("llm: {provider: bedrock, bedrock_region: 'evil.test/x'}", False),
    ("llm: {provider: bedrock, bedrock_endpoint: 'https://evil.test'}", False),
    ("llm: {provider: vertex-ai, vertex_location: us-central1}", True),
    ("llm: {provider: vertex-ai, vertex_location: eu}", True),
    ("llm: {provider: databricks, databricks_workspace: evil.test, model: m}", False),
    ("llm: {provider: ollama, ollama_endpoint: 'http://localhost:1'}", True),
    ("llm: {provider: ollama, ollama_endpoint: 'https://evil.test'}", False),
    ("llm: {provider: litellm, litellm_endpoint: 'https://evil.test'}", False),
    ("llm: {provider: openai, openai_api_key: theirs, openai_base_url: 'https://evil.test/v1'}", True),
    ("llm: {provider: acme}\nproviders: [{name: acme, base_url: 'https://evil.test', model: m}]", False),
    ("active_provider: acme\nproviders: [{name: acme, base_url: 'https://evil.test', model: m}]", False),
    ("llm: {provider: mine}\nproviders: [{name: mine, provider: openai}]", True),
    ("active_provider: a\nproviders: [{name: a, provider: ollama, base_url: 'https://evil.test'}]", False),
    ("active_provider: a\nproviders: [{name: a, provider: ollama, base_url: 'http://localhost:1'}]", True),
    (
        (
            "llm: {provider: openai}\nmiddleware: {failover: {to: [acme]}}\n"
            "providers: [{name: acme, base_url: 'https://evil.test', model: m}]"
        ),
        False,
    ),
    ("active_provider: a\nproviders: [{name: a, provider: openai, allow_http: true}]", False),
]


@pytest.mark.parametrize(("text", "allowed"), FOREIGN)
def test_the_working_folder_sends_no_key_elsewhere(
    text: str, write: Write, monkeypatch: pytest.MonkeyPatch, *, allowed: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    path = write(text, here=True)
    if allowed:
        connect()
        return
    with pytest.raises(ConfigError, match="merely found in the working folder may come from others") as caught:
        connect()
    assert CANARY not in str(caught.value)
    monkeypatch.setenv("LOOM_CONFIG", str(path))
    connect()  # named, it is the user's own


def test_the_working_folder_gets_no_key_that_a_caller_passes(write: Write) -> None:
    write("llm: {openai_base_url: 'https://evil.test/v1'}", here=True)
    with pytest.raises(ConfigError, match="merely found in the working folder"):
        connect("openai", api_key=CANARY)
    with pytest.raises(ConfigError, match="merely found in the working folder"):
        connect("openai", config=load(environ={"OPENAI_API_KEY": CANARY}))
    connect("openai", api_key=CANARY, base_url="https://mine.test/v1")
    connect("openai", api_key=CANARY, allow_custom_host=True)


def test_a_key_of_the_working_folder_opens_no_way_for_another_credential(write: Write) -> None:
    address = "https://evil.test"
    write(f"llm: {{azure_openai_api_key: k, azure_openai_endpoint: '{address}'}}", here=True)
    with pytest.raises(ConfigError, match="merely found in the working folder"):
        connect("azure-openai:m")  # an Entra token of the environment would win over the file's key
    write(f"llm: {{openai_api_key: k, openai_base_url: '{address}'}}", here=True)
    connect("openai")  # what is sent is the file's own


@pytest.mark.parametrize(("config", "kind"), [(5, "an int"), ({"llm": {}}, "a dict"), (b"looms.yaml", "a bytes")])
def test_a_configuration_is_a_path_or_settings(config: object, kind: str) -> None:
    with pytest.raises(UsageError, match=f"config is {kind}: give a path, or what loomstream.config.load.load gives"):
        connect(config=config)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_custom_host_may_be_allowed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("llm: {provider: openai, openai_base_url: 'https://gate.test/v1'}", here=True)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    site = Site()
    await program(site, allow_custom_host=True)
    assert site.host == "gate.test"
    site = Site()
    await program(site, api_key="given", allow_custom_host=True)
    assert (site.host, site.requests[0].headers["authorization"]) == ("gate.test", "Bearer given")
    site = Site()
    await program(site, base_url="https://mine.test/v1")
    assert site.host == "mine.test"


@pytest.mark.parametrize("layer", ["environment", "own file", "argument"])
def test_who_names_the_address_otherwise_is_the_user(layer: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("LOOM_LLM_PROVIDER", "openai")
    if layer == "environment":
        monkeypatch.setenv("LOOM_LLM_OPENAI_BASE_URL", "https://gate.test/v1")
    if layer == "own file":
        write("llm: {openai_base_url: 'https://gate.test/v1'}")
    overrides = {"llm.openai_base_url": "https://gate.test/v1"} if layer == "argument" else {}
    model = connect(config=load(overrides=overrides))
    assert model._endpoint._base_url == "https://gate.test/v1"


@pytest.mark.anyio
async def test_plain_http_leaves_this_machine_only_where_it_is_allowed(write: Write) -> None:
    address = "llm: {provider: openai, openai_api_key: k, openai_base_url: 'http://gate.test/v1'"
    write(address + "}")
    with pytest.raises(ConfigError, match="use https, or pass allow_http=True"):
        async with connect() as model:
            await model.complete("x")
    write(address + ", allow_http: true}")
    assert connect(config=load())._transport is not None


# --- what is asked where the wire demands it -----------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ("anthropic:claude-sonnet-4-5-20250929", 4096),
        ("anthropic:unknown", 4096),
        ("openai:gpt-4o", None),
    ],
)
def test_an_unset_max_tokens(spec: str, most: int | None) -> None:
    model: Model = connect(spec)
    assert model._endpoint.route.quirks.needs_max_tokens == most


def test_the_table_has_the_providers_of_these_tests() -> None:
    assert set(MIGRATIONS) <= set(BY_NAME)
