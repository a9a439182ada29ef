"""Which providers the live tests ask, and what they say is missing."""

from __future__ import annotations

from collections.abc import Iterator

import keyring
import pytest
from live_sites import AMBIENT, CHOSEN, MODELS, live_sites
from live_suite import EVERYTHING, KEYS, TOOLS
from models import Keyring

from loomstream.errors import UnknownProvider
from loomstream.model import connect
from loomstream.providers.table import BY_NAME, TABLE


@pytest.fixture(autouse=True)
def _nothing_set(no_keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    del no_keys
    for name in (MODELS, *(name for names in AMBIENT.values() for name in names)):
        monkeypatch.delenv(name, raising=False)
    live_sites.cache_clear()
    yield
    live_sites.cache_clear()


def missing(provider: str) -> str:
    (reason,) = {site.missing() for site in live_sites().values() if site.row.name == provider}
    return reason


def test_every_provider_that_is_not_started_from_here_has_a_site() -> None:
    assert {site.row.name for site in live_sites().values()} == {row.name for row in TABLE if not row.launch}
    assert CHOSEN.keys() <= BY_NAME.keys()


def test_each_names_a_variable_that_its_row_reads() -> None:
    for site in live_sites().values():
        row = site.row
        settings = [name for setting in row.settings for name in setting.environment]
        names = {*row.key_environment, *row.base_url_environment, *settings}
        head, _, named = site.missing().partition("; to test it: set ")
        assert head.startswith(f"NOT TESTED: {row.name} has no ")
        assert named.partition(" ")[0] in names, site.name


FOUND = {
    "anthropic": {"ANTHROPIC_API_KEY": "k"},
    "openai": {"LOOM_LLM_OPENAI_API_KEY": "k"},
    "azure-openai": {"AZURE_OPENAI_ENDPOINT": "https://x", "AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_DEPLOYMENT": "d"},
    "vertex-ai": {"GOOGLE_APPLICATION_CREDENTIALS": "/adc.json"},
    "bedrock": {"AWS_PROFILE": "work"},
    "ollama": {"OLLAMA_HOST": "http://localhost:11434"},
    "cloudflare": {"CLOUDFLARE_ACCOUNT_ID": "a", "CLOUDFLARE_API_TOKEN": "k", MODELS: "cloudflare:m"},
}


@pytest.mark.parametrize("provider", FOUND)
def test_what_is_there_is_asked(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing(provider)
    for name, value in FOUND[provider].items():
        monkeypatch.setenv(name, value)
    live_sites.cache_clear()
    assert missing(provider) == ""
    for site in live_sites().values():
        if site.row.name == provider:
            assert connect(site.site().spec, dialect=site.dialect or None).provider == provider


STILL = {
    "azure-openai": ({"AZURE_OPENAI_API_KEY": "k"}, "has no address"),
    "cloudflare": ({"CLOUDFLARE_API_TOKEN": "k"}, "has no account_id"),
    "groq": ({"GROQ_API_KEY": " "}, "has no credentials"),
    "nvidia": ({"NVIDIA_API_KEY": "k"}, f"has no model; to test it: set {MODELS}=nvidia:MODEL-ID"),
    "vllm": ({"VLLM_BASE_URL": "http://localhost:8000/v1"}, "has no model"),
}


@pytest.mark.parametrize("provider", STILL)
def test_what_is_still_missing(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, words = STILL[provider]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words in missing(provider)


def test_the_keyring_counts() -> None:
    keyring.set_keyring(Keyring("anthropic_api_key", "k"))
    assert missing("anthropic") == ""
    assert missing("openai") != ""


def test_other_models_are_named_in_the_place_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS, "groq:one, openai:two,groq:three")
    live_sites.cache_clear()
    models = {name: site.model for name, site in live_sites().items() if site.row.name in {"groq", "openai"}}
    assert models == {"groq-one": "one", "openai-two": "two", "groq-three": "three"}


def test_an_unknown_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS, "grog:one")
    live_sites.cache_clear()
    with pytest.raises(UnknownProvider, match="did you mean 'groq'"):
        live_sites()


def test_what_a_site_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    able = {site.row.name: site.able for site in live_sites().values()}
    assert able["openai"] == able["bedrock"] == EVERYTHING
    assert able["perplexity"] == EVERYTHING - {TOOLS}
    assert able["vllm"] == EVERYTHING - {KEYS}
    monkeypatch.setenv("VLLM_API_KEY", "k")
    assert {site.able for site in live_sites().values() if site.row.name == "vllm"} == {EVERYTHING}
