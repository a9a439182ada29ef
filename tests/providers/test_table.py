"""The table: what a row names exists, and its profiles can be laid over it."""

from __future__ import annotations

from string import Formatter

import pytest

from loomstream.errors import ConfigError
from loomstream.providers import (
    DIALECTS,
    Profile,
    Provider,
    check_templates,
    dialects_of,
    look_up,
    route,
    settings_of_address,
)
from loomstream.providers.table import TABLE

each_row = pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])

HOSTS = [
    "alibaba",
    "cerebras",
    "cloudflare",
    "databricks",
    "deepseek",
    "doubleword",
    "fireworks",
    "github-copilot",
    "gpustack",
    "groq",
    "llamacpp",
    "lmstudio",
    "mistralrs",
    "moonshot",
    "nvidia",
    "openrouter",
    "perplexity",
    "sambanova",
    "snowflake",
    "together",
    "venice",
    "vercel-gateway",
    "vllm",
    "xai",
    "zai",
]
"""The OpenAI-shaped hosts that must be there."""


def names_in(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def templates_of(row: Provider) -> list[str]:
    """Give every text of a row, and of its profiles, that may name a setting."""
    found = [row.base_url, row.quirks.path, row.quirks.stream_path, *row.quirks.headers.values()]
    for profile in row.profiles:
        quirks = profile.quirks
        found += [profile.base_url, str(quirks.get("path", "")), str(quirks.get("stream_path", ""))]
    return found


@pytest.mark.parametrize("name", HOSTS)
def test_every_host_has_its_row(name: str) -> None:
    row = look_up(name)
    assert row.dialect == "openai_chat"
    assert row.key_environment[0].startswith("LOOM_LLM_")
    assert row.keyring


@each_row
def test_what_a_template_names_is_a_setting(row: Provider) -> None:
    known = {setting.name for setting in row.settings} | {"model"}
    for template in templates_of(row):
        assert names_in(template) <= known


@each_row
def test_a_condition_names_a_setting(row: Provider) -> None:
    known = {setting.name for setting in row.settings if not setting.keyring}
    for profile in row.profiles:
        assert profile.settings.keys() <= known


@each_row
def test_every_profile_can_be_laid_over_its_row(row: Provider) -> None:
    assert set(dialects_of(row)) <= DIALECTS.keys()
    for profile in row.profiles:
        for pattern in profile.models or ("*",):
            model = pattern.replace("*", "x")
            found = route(row, model, dialect=profile.dialect, settings=profile.settings)
            if profile.dialect:
                assert found.dialect == profile.dialect


@each_row
def test_a_host_on_this_machine_needs_no_key(row: Provider) -> None:
    if row.base_url.startswith("http://localhost"):
        assert not row.needs_key


@pytest.mark.parametrize("name", ["azure-openai", "azureopenai"])
def test_an_alias_is_the_same_row(name: str) -> None:
    assert look_up(name).name == "azure-openai"


@pytest.mark.parametrize(
    ("provider", "first", "then"),
    [
        ("huggingface", "LOOM_LLM_HUGGINGFACE_TOKEN", "HF_TOKEN"),
        ("azure-openai", "LOOM_LLM_AZURE_OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"),
        ("vercel-gateway", "LOOM_LLM_VERCEL_GATEWAY_API_KEY", "AI_GATEWAY_API_KEY"),
        ("alibaba", "LOOM_LLM_ALIBABA_API_KEY", "DASHSCOPE_API_KEY"),
        ("databricks", "LOOM_LLM_DATABRICKS_API_KEY", "DATABRICKS_TOKEN"),
        ("github-copilot", "LOOM_LLM_GITHUB_COPILOT_API_KEY", "GITHUB_COPILOT_TOKEN"),
    ],
)
def test_keys_are_looked_up_under_the_vendor_s_names_too(provider: str, first: str, then: str) -> None:
    names = look_up(provider).key_environment
    assert names[0] == first
    assert then in names


@pytest.mark.parametrize(
    ("provider", "keyring"),
    [
        ("mistral", "mistral_api_key"),
        ("huggingface", "huggingface_token"),
        ("azure-openai", "azure_openai_api_key"),
        ("litellm", "litellm_api_key"),
    ],
)
def test_the_keyring_s_entries_have_the_names_that_are_in_use(provider: str, keyring: str) -> None:
    assert look_up(provider).keyring == keyring


@each_row
def test_a_variable_of_ours_names_the_model(row: Provider) -> None:
    name = {"azure-openai": "AZURE_OPENAI_DEPLOYMENT_ID", "bedrock": "BEDROCK_MODEL_ID", "vertex-ai": "VERTEX_MODEL"}
    usual = row.name.upper().replace("-", "_") + "_MODEL"
    assert row.model_environment[0] == f"LOOM_LLM_{name.get(row.name, usual)}"


@pytest.mark.parametrize("variable", ["ANTHROPIC_DEFAULT_MODEL", "OPENAI_DEFAULT_MODEL"])
def test_the_seed_s_variables_name_the_model(variable: str) -> None:
    assert variable in look_up(variable.partition("_")[0].lower()).model_environment


@pytest.mark.parametrize("provider", ["openai", "azure-openai"])
def test_models_that_reason_are_asked_for_their_reasoning(provider: str) -> None:
    models = ("gpt-5.1", "gpt-5-mini", "o4-mini", "gpt-4o", "gpt-5-chat", "my-deployment")
    routes = {model: route(look_up(provider), model, dialect="openai_responses") for model in models}
    assert [name for name, found in routes.items() if found.quirks.encrypted_reasoning] == [*models[:3]]


@each_row
def test_its_templates_name_its_settings(row: Provider) -> None:
    check_templates(row)


def test_what_decides_where_a_key_goes() -> None:
    decisive = {row.name: set(settings_of_address(row)) for row in TABLE if settings_of_address(row)}
    assert decisive == {
        "bedrock": {"region"},
        "cloudflare": {"account_id"},
        "databricks": {"workspace"},
        "snowflake": {"account"},
        "vertex-ai": {"location", "express"},
    }


@pytest.mark.parametrize("quirks", [{"path": 5}, {"tool_id_chars": -1}])
def test_a_profile_with_a_wrong_quirk_is_a_config_error(quirks: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="a quirk in a profile of acme is wrong: Expected"):
        route(Provider(name="acme", profiles=(Profile(quirks=quirks),)), "m")


@pytest.mark.parametrize(
    ("name", "per_minute"),
    [
        ("anthropic", 50),
        ("bedrock", 100),
        ("ollama", 0),
        ("openai", 60),
        ("azure-openai", 60),
        ("mistral", 60),
        ("gemini", 60),
        ("huggingface", 0),
        ("local", 0),
    ],
)
def test_requests_per_minute_are_the_seed_s(name: str, per_minute: float) -> None:
    assert look_up(name).requests_per_minute == per_minute
