"""Custom providers: rows that `looms.yaml` adds."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import loomstream
from loomstream.dialects import Quirks
from loomstream.endpoint import Endpoint
from loomstream.errors import ConfigError, MissingKey, UnknownProvider
from loomstream.events import TextDelta
from loomstream.model import Model, connect
from loomstream.providers import Listed, all_providers, custom, is_known, known_names, listing, look_up
from loomstream.providers.table import TABLE
from loomstream.testing import Recording, ReplayTransport, replay_model
from loomstream.wire import Secret
from tests.providers.conftest import Install

CANARY = "sk-canary-7f3a9c2e41d8"
ACME = """
providers:
  - name: acme
    base_url: https://llm.acme.test/v1
"""
ANSWER = (
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the user's own `looms.yaml`."""

    def writing(text: str) -> Path:
        path = tmp_path / "data" / "looms.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return writing


@pytest.fixture
def write_here(tmp_path: Path) -> Write:
    """Write a `looms.yaml` into the working folder."""

    def writing(text: str) -> Path:
        path = tmp_path / "work" / "looms.yaml"
        path.write_text(text, "utf-8")
        return path

    return writing


def entry(text: str, name: str = "acme") -> str:
    lines = "".join(f"    {line.strip()}\n" for line in text.split(";") if line.strip())
    return f"providers:\n  - name: {name}\n{lines}"


def error_of(name: str = "acme") -> str:
    with pytest.raises(ConfigError) as caught:
        look_up(name)
    assert not isinstance(caught.value, UnknownProvider), str(caught.value)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert CANARY not in shown
    return str(caught.value)


# --- what works ------------------------------------------------------------------------------------


def test_a_host_needs_a_name_and_an_address(write: Write) -> None:
    path = write(ACME)
    row = look_up("acme")
    assert (row.dialect, row.auth, row.base_url) == ("openai_chat", "bearer", "https://llm.acme.test/v1")
    assert row.key_environment == ("LOOM_LLM_ACME_API_KEY", "ACME_API_KEY")
    assert (row.keyring, row.needs_key) == ("acme_api_key", False)
    assert is_known("acme")
    assert "acme" in known_names()
    assert listing()[-1] == Listed(name="acme", origin=f"file {path}", row=row)


def test_everything_that_a_host_can_say(write: Write) -> None:
    write(
        entry(
            "dialect: anthropic_messages; base_url: https://llm.acme.test/; model: big-1; api_key_env: [A_KEY, B_KEY];"
            "auth: bearer; quirks: {needs_max_tokens: 100, model_in_body: false}"
        )
    )
    row = look_up("acme")
    assert (row.dialect, row.auth, row.default_model) == ("anthropic_messages", "bearer", "big-1")
    assert (row.key_environment, row.needs_key) == (("A_KEY", "B_KEY"), True)
    assert row.quirks == Quirks(needs_max_tokens=100, model_in_body=False)
    assert row.base_url == "https://llm.acme.test"


def test_what_a_dialect_usually_wants_is_there(write: Write) -> None:
    write(entry("dialect: anthropic_messages; base_url: https://llm.acme.test"))
    row = look_up("acme")
    assert (row.auth, row.quirks) == ("x-api-key", Quirks(needs_max_tokens=4096))


def test_a_host_without_keys(write: Write) -> None:
    write(entry("base_url: localhost:1234/v1; auth: none"))
    row = look_up("acme")
    assert (row.base_url, row.key_environment, row.keyring) == ("http://localhost:1234/v1", (), "")


@pytest.mark.anyio
async def test_a_custom_provider_works_everywhere(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(entry("base_url: https://llm.acme.test/v1; api_key_env: ACME_KEY; quirks: {top_k: true}"))
    transport = ReplayTransport(Recording([ANSWER]))
    async with replay_model("acme", transport=transport, model="some:model", top_k=3) as model:
        assert (await model.complete("x")).text == "a"
    assert transport.requests[0].url == "https://llm.acme.test/v1/chat/completions"
    assert b'"top_k":3' in transport.requests[0].body
    assert TextDelta(0, "a") in list(loomstream.decode("acme", ANSWER))
    async with connect("acme:some:model") as model:
        assert (model.provider, model.model) == ("acme", "some:model")
        with pytest.raises(MissingKey, match="set ACME_KEY"):
            await model.complete("x")
    monkeypatch.setenv("LOOM_LLM_PROVIDER", "acme:m")
    assert connect().provider == "acme"


def test_a_built_in_provider_under_another_name(write: Write) -> None:
    write(entry("provider: anthropic; model: claude-haiku-4-5"))
    row, base = look_up("acme"), look_up("anthropic")
    assert (row.name, row.default_model) == ("acme", "claude-haiku-4-5")
    assert (row.key_environment, row.base_url, row.quirks) == (base.key_environment, base.base_url, base.quirks)


@pytest.mark.parametrize(
    ("text", "provider", "model", "base_url"),
    [
        ("provider: anthropic; anthropic_model: claude-x", "anthropic", "claude-x", "https://api.anthropic.com"),
        ("provider: ollama; ollama_endpoint: http://localhost:1; ollama_model: m", "ollama", "m", "http://localhost:1"),
        ("provider: openai; base_url: https://gate.test/v1", "openai", "gpt-4o", "https://gate.test/v1"),
    ],
)
def test_the_seed_s_keys_of_an_entry(write: Write, text: str, provider: str, model: str, base_url: str) -> None:
    write(entry(text))
    row = look_up("acme")
    assert (row.dialect, row.default_model, row.base_url) == (look_up(provider).dialect, model, base_url)


SEED_KEYS: list[tuple[str, str, dict[str, str], dict[str, str]]] = [
    ("anthropic", "anthropic_model: a", {"default_model": "a"}, {}),
    ("bedrock", "bedrock_region: r", {}, {"region": "r"}),
    ("bedrock", "bedrock_model_id: a", {"default_model": "a"}, {}),
    ("bedrock", "bedrock_profile: p", {}, {"profile": "p"}),
    ("ollama", "ollama_endpoint: http://localhost:1", {"base_url": "http://localhost:1"}, {}),
    ("ollama", "ollama_model: a", {"default_model": "a"}, {}),
    ("openai", "openai_model: a", {"default_model": "a"}, {}),
    ("azure-openai", "azure_openai_endpoint: https://a.test", {"base_url": "https://a.test"}, {}),
    ("azure-openai", "azure_openai_deployment_id: a", {"default_model": "a"}, {}),
    ("azureopenai", "azure_openai_deployment_id: a", {"default_model": "a"}, {}),
    ("mistral", "mistral_model: a", {"default_model": "a"}, {}),
    ("gemini", "gemini_model: a", {"default_model": "a"}, {}),
    ("huggingface", "huggingface_model: a", {"default_model": "a"}, {}),
    ("litellm", "litellm_endpoint: http://localhost:1/v1", {"base_url": "http://localhost:1/v1"}, {}),
    ("litellm", "litellm_model: a/b", {"default_model": "a/b"}, {}),
    ("vertex-ai", "vertex_project_id: p", {}, {"project": "p"}),
    ("vertex-ai", "vertex_location: us-central1", {}, {"location": "us-central1"}),
    ("vertex-ai", "vertex_model: a", {"default_model": "a"}, {}),
]
"""The provider's keys of the seed's configuration that hold no secret."""


@pytest.mark.parametrize(("provider", "text", "fields", "settings"), SEED_KEYS)
def test_each_key_of_the_seed(
    write: Write, provider: str, text: str, fields: dict[str, str], settings: dict[str, str]
) -> None:
    write(entry(f"provider: {provider}; {text}"))
    row = look_up("acme")
    assert {name: getattr(row, name) for name in fields} == fields
    assert {setting.name: setting.default for setting in row.settings if setting.name in settings} == settings


@pytest.mark.parametrize(
    "text",
    [
        "anthropic; anthropic_api_key: k",
        "bedrock; bedrock_access_key_id: k",
        "bedrock; bedrock_secret_access_key: k",
        "bedrock; bedrock_session_token: k",
        "bedrock; bedrock_bearer_token: k",
        "openai; openai_api_key: k",
        "azure-openai; azure_openai_api_key: k",
        "azure-openai; azure_openai_entra_token: k",
        "mistral; mistral_api_key: k",
        "gemini; gemini_api_key: k",
        "huggingface; huggingface_token: k",
        "litellm; litellm_api_key: k",
    ],
)
def test_each_secret_of_the_seed_is_left_to_the_configuration(write: Write, text: str) -> None:
    write(entry(f"provider: {text}"))
    assert look_up("acme").keyring == look_up(text.partition(";")[0]).keyring, "the row knows nothing of it"


@pytest.mark.parametrize("key", ["litellm_extra_headers", "extra_headers"])
def test_headers_of_an_entry(write: Write, key: str) -> None:
    write(entry(f"provider: litellm; {key}: {{x-team: blue}}"))
    assert look_up("acme").quirks.headers == {"x-team": "blue"}


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ("{authorization: x}", "'authorization' may hold a key"),
        ("{X-Api-Key: x}", "'X-Api-Key' may hold a key"),
        ("{'a b': x}", "'a b' is not the name of an HTTP header"),
        ("{x-a: '{region}'}", "names 'region'"),
        ("{x-a: 5}", "Expected `str`, got `int`"),
    ],
)
def test_headers_that_an_entry_cannot_have(write: Write, headers: str, what: str) -> None:
    write(entry(f"provider: litellm; extra_headers: {headers}"))
    assert what in error_of()


def test_a_setting_of_a_built_in_provider(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_VERSION", "from-environment")
    write(entry("provider: azure-openai; azure_openai_api_version: '2025-01-01'; base_url: https://a.test"))
    setting = next(setting for setting in look_up("acme").settings if setting.name == "api_version")
    assert (setting.default, setting.environment) == ("2025-01-01", ())
    write(entry("provider: azure-openai; settings: {api_version: v1}; azure_openai_deployment_id: d"))
    row = look_up("acme")
    assert next(setting for setting in row.settings if setting.name == "api_version").default == "v1"
    assert row.default_model == "d"


def test_the_last_file_counts_when_it_changes(write: Write) -> None:
    write(ACME)
    assert look_up("acme").base_url == "https://llm.acme.test/v1"
    write(ACME.replace("/v1", "/v2/longer"))
    assert look_up("acme").base_url == "https://llm.acme.test/v2/longer"


@pytest.mark.parametrize("text", ["", "providers:\n", "providers: []\n", "llm:\n  provider: openai\n"])
def test_a_file_that_adds_none(write: Write, text: str) -> None:
    write(text)
    assert listing()[-1].name == TABLE[-1].name
    with pytest.raises(UnknownProvider, match="unknown provider 'acme'"):
        look_up("acme")


def test_what_a_file_adds_is_suggested_but_never_chosen(
    write: Write, no_keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del no_keys
    monkeypatch.setenv("LOOM_DATA_DIR", str(write(ACME).parent))
    monkeypatch.setenv("ACME_API_KEY", CANARY)
    with pytest.raises(UnknownProvider, match="did you mean 'acme'"):
        look_up("acmee")
    assert all_providers() == TABLE
    assert connect().provider != "acme"


# --- where the file is -----------------------------------------------------------------------------


def test_the_order_of_the_places(
    write: Write, write_here: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_here(ACME.replace("llm.", "here."))
    assert look_up("acme").base_url == "https://here.acme.test/v1"
    write(ACME.replace("llm.", "data."))
    assert look_up("acme").base_url == "https://data.acme.test/v1"
    named = tmp_path / "named.yaml"
    named.write_text(ACME.replace("llm.", "named."), "utf-8")
    monkeypatch.setenv("LOOM_CONFIG", str(named))
    assert look_up("acme").base_url == "https://named.acme.test/v1"


def test_the_home_folder_counts_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOM_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / ".loom").mkdir()
    (tmp_path / ".loom" / "looms.yaml").write_text(ACME, "utf-8")
    assert look_up("acme").name == "acme"


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_CONFIG", "/nowhere/looms.yaml")
    assert error_of() == "/nowhere/looms.yaml cannot be read: No such file or directory"
    assert look_up("openai").name == "openai"
    assert known_names() == tuple(row.name for row in TABLE)


def test_yaml_is_imported_for_a_name_that_a_file_may_have_only(write: Write) -> None:
    write(ACME)
    code = (
        "import sys; from loomstream.providers import look_up; look_up('openai'); assert 'yaml' not in sys.modules; "
        "look_up('acme'); assert 'yaml' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


# --- what is wrong -----------------------------------------------------------------------------------

GOOD = "base_url: https://llm.acme.test/v1"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", ":1:1: a configuration is a mapping, this is a list"),
        ("providrs: []", ":1:11: providrs: there is no key 'providrs': did you mean 'providers'?"),
        ("providers: {name: acme}", ":1:12: providers: this must be a list of entries (`- name: …`), not a mapping"),
        ("providers: [", ":1:13: this is no configuration that can be read"),
        (entry(GOOD) + "llm: [", "this is no configuration that can be read"),
    ],
)
def test_a_file_that_is_wrong(write: Write, text: str, what: str) -> None:
    path = write(text)
    assert error_of().startswith(str(path))
    assert what in error_of()
    with pytest.raises(ConfigError, match="looms"):
        listing()
    assert look_up("openai").name == "openai"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "base_urll: https://x",
            ":3:16: providers[0].base_urll: there is no key 'base_urll': did you mean 'base_url'?",
        ),
        ("frobnicate: 1", "there is no key 'frobnicate': known are name, base_url, model, api_key_env, dialect, auth,"),
        ("dialect: openai_chat", ":2:5: providers[0]: an entry needs base_url: https://…, or provider: "),
        ("base_url: 5", ":3:15: providers[0].base_url: Expected `str`, got `int`"),
        (f"{GOOD}; dialect: openai_chatt", "there is no dialect 'openai_chatt': did you mean 'openai_chat'?"),
        (f"{GOOD}; auth: basic", ":4:11: providers[0].auth: there is no scheme 'basic': known are bearer, x-api-key"),
        (f"{GOOD}; auth: 'os:system'", "there is no scheme 'os:system'"),
        (f"{GOOD}; quirks: {{done_markr: true}}", "there is no quirk 'done_markr': did you mean 'done_marker'?"),
        (f"{GOOD}; quirks: {{done_marker: maybe}}", "quirks: Expected `bool`, got `str` - at `done_marker`"),
        (f"{GOOD}; quirks: true", "providers[0].quirks: Expected `object`, got `bool`"),
        (f"{GOOD}; model: 4", ":4:12: providers[0].model: Expected `str`, got `int`"),
        (f"{GOOD}; api_key_env: {{a: b}}", "providers[0].api_key_env: Expected `str | array`, got `object`"),
        (f"{GOOD}; api_key_env: {CANARY}", "this must be the name of an environment variable, not the key itself"),
        (
            f"{GOOD}; openai_api_key: {CANARY}",
            ":4:21: providers[0].openai_api_key: a key does not stand here: name its",
        ),
        (f"provider: openai; mistral_api_key: {CANARY}", "providers[0].mistral_api_key: a key does not stand here"),
        ("base_url: https://host/v1?x=1", "has a query"),
        ("base_url: word", "providers[0].base_url: "),
        ("provider: opnai", "there is no built-in provider 'opnai': did you mean 'openai'?"),
        ("provider: [openai]", "providers[0].provider: give a name"),
        ("provider: openai; dialect: openai_chat", "'dialect' goes without `provider`, which takes a built-in"),
        (f"{GOOD}; settings: {{a: b}}", "'settings' goes with `provider`"),
        ("provider: openai; model: a; openai_model: b", "this is the same as 'model', which stands here too"),
        ("provider: azure-openai; settings: {regoin: x}", "there is no setting of azure-openai 'regoin': known are"),
        ("provider: azure-openai; settings: {api_version: 5}", "providers[0].settings: Expected `str`, got `int`"),
        (f"{GOOD}; temperatur: 1", "there is no key 'temperatur'"),
    ],
)
def test_an_entry_that_is_wrong_says_where_and_breaks_itself_alone(write: Write, text: str, what: str) -> None:
    path = write(entry(text) + "  - name: good\n    base_url: https://good.test\n")
    assert error_of().startswith(f"{path}:")
    assert what in error_of()
    assert look_up("good").base_url == "https://good.test"
    listed = {listed.name: listed for listed in listing()}
    assert listed["acme"].error == error_of()
    assert listed["good"].row is not None


@pytest.mark.parametrize("text", [entry(GOOD, "openai"), entry("base_url: http://x", "openai")])
def test_connecting_says_that_a_built_in_provider_is_not_replaced(write: Write, write_here: Write, text: str) -> None:
    for path in (write_here(text), write(text)):
        with pytest.raises(ConfigError, match=r"looms\.yaml:\d+:\d+: providers\[0\]"):
            connect("openai:gpt-4o")
        assert connect("mistral").provider == "mistral"
        path.unlink()
    assert connect("openai:gpt-4o").provider == "openai"


@pytest.mark.parametrize("text", ["llm: {provider: openai}", entry("provider: openai", "mine")])
def test_a_file_without_an_entry_of_that_name_is_no_matter(write: Write, text: str) -> None:
    write(text)
    assert connect("openai:gpt-4o").provider == "openai"


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        ("providers:\n  - base_url: https://x\n", "providers[0]", "an entry needs a name of letters, digits"),
        ("providers:\n  - just text\n", "providers[0]", "this is a text"),
        ("providers:\n  - name: 'a:b'\n", "providers[0]", "an entry needs a name of letters, digits"),
        ("providers:\n  - name: 5\n", "providers[0]", "an entry needs a name of letters, digits"),
        (entry(GOOD, "openai"), "openai", "'openai' is the name of a built-in provider: choose another one"),
        (entry(GOOD, "azureopenai"), "azureopenai", "is the name of a built-in provider"),
        (entry(GOOD, "azure_openai"), "azure_openai", "its key would be that of 'azure-openai'"),
        (entry(GOOD) + entry(GOOD).removeprefix("providers:\n"), "acme", "the name 'acme' stands here twice"),
    ],
)
def test_names(write: Write, text: str, name: str, what: str) -> None:
    write(text)
    (listed,) = [listed for listed in listing() if listed.origin.startswith("file") and listed.name == name]
    assert listed.row is None
    assert what in listed.error or listed.error.startswith("not used: ")
    if name == "openai":
        assert look_up("openai").base_url == "https://api.openai.com/v1"


def test_a_package_s_name_is_taken(write: Write, install: Install) -> None:
    source = "from loomstream.providers import Provider\nrow = Provider(name='acme', base_url='https://package.test')"
    install("acme_row", source, "acme = acme_row:row")
    write(ACME)
    assert look_up("acme").base_url == "https://package.test"
    assert listing()[-1].error == "not used: 'acme' is taken (package acme_row); give it another name"


# --- a file that may come from anybody -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (GOOD, True),
        (f"{GOOD}; api_key_env: ACME_TOKEN", False),
        (f"{GOOD}; api_key_env: LOOM_LLM_ACME_TOKEN", False),
        (f"{GOOD}; api_key_env: GITHUB_TOKEN", False),
        ("base_url: http://localhost:1234/v1; api_key_env: GITHUB_TOKEN", False),
        ("provider: openai; api_key_env: GITHUB_TOKEN", False),
        ("provider: databricks; settings: {workspace: evil.test}", False),
        ("provider: databricks; databricks_workspace: evil.test", False),
        ("provider: snowflake; settings: {account: evil}", False),
        ("provider: cloudflare; settings: {account_id: evil}", False),
        ("provider: bedrock; bedrock_region: evil", False),
        ("provider: vertex-ai; settings: {location: evil}", False),
        ("provider: vertex-ai; settings: {project: mine}", False),
        ("provider: bedrock; settings: {profile: admin}", False),
        ("provider: openai; extra_headers: {OpenAI-Project: other}", False),
        ("provider: openai; extra_headers: {X-Team: blue}", True),
        ("provider: azure-openai; settings: {api_version: v1}", True),
        ("provider: ollama; base_url: http://localhost:1", True),
        ("provider: openai; model: m", True),
        ("provider: openai; base_url: https://evil.test", False),
        ("provider: openai; openai_endpoint: https://evil.test", False),
    ],
)
def test_the_working_folder_cannot_send_keys_elsewhere(
    write: Write, write_here: Write, text: str, *, allowed: bool
) -> None:
    path = write_here(entry(text))
    if allowed:
        assert look_up("acme").name == "acme"
    else:
        assert "merely found in the working folder may come from others" in error_of()
        assert "name the file (--config, or LOOM_CONFIG=looms.yaml)" in error_of()
    path.unlink()
    write(entry(text))
    assert look_up("acme").name == "acme", "in the user's own file it is allowed"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "variable"),
    [("stripe", "STRIPE_API_KEY"), ("github", "LOOM_LLM_GITHUB_API_KEY"), ("Acme", "LOOM_LLM_ACME_API_KEY")],
)
async def test_no_name_gets_a_host_of_the_working_folder_a_key(
    write_here: Write, monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    path = write_here(entry(GOOD, name))
    monkeypatch.setenv(variable, CANARY)
    assert look_up(name).keyring == ""
    transport = ReplayTransport(Recording([ANSWER]))
    async with Model(Endpoint(look_up(name), "m"), transport=transport) as model:
        await model.complete("x")
    assert "authorization" not in transport.requests[0].headers
    monkeypatch.setenv("LOOM_CONFIG", str(path))
    async with Model(Endpoint(look_up(name), "m"), transport=transport) as model:
        await model.complete("x")
    assert transport.requests[1].headers["authorization"] == Secret(f"Bearer {CANARY}"), "a file that is named"


@pytest.mark.anyio
async def test_a_host_of_the_working_folder_takes_the_key_that_code_gives(write_here: Write) -> None:
    write_here(entry(GOOD))
    transport = ReplayTransport(Recording([ANSWER]))
    async with Model(Endpoint(look_up("acme"), "m", api_key=CANARY), transport=transport) as model:
        await model.complete("x")
    assert transport.requests[0].headers["authorization"] == Secret(f"Bearer {CANARY}")


# --- quirks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quirks", "what"),
    [
        ('path: "/{nope}"', "'/{nope}' names 'nope': only model can stand there"),
        ('path: "/{"', "'/{' is no template: a brace may only stand around a name, as in {name}"),
        ('path: "/}"', "'/}' is no template"),
        ('path: "/{model.__class__}"', "is no template"),
        ('path: "/{model!r:>9}"', "is no template"),
        ('path: "x@evil.test/"', "'x@evil.test/' is no path: it begins with '/'"),
        ('stream_path: "/\\ud800"', "is no path: it begins with '/' and holds printable ASCII"),
        ('headers: {x-a: "{"}', "'{' is no template"),
        ('headers: {x-a: "{0}"}', "'{0}' is no template"),
        ('headers: {x-a: "{nope}"}', "'{nope}' names 'nope': nothing can stand there"),
        ('headers: {x-a: "a\\nb"}', "the header 'x-a' holds a line break"),
        ('headers: {"a b": c}', "'a b' is not the name of an HTTP header"),
        ("needs_max_tokens: -5", "Expected `int` >= 1 - at `needs_max_tokens`"),
        ("needs_max_tokens: 99999999999999999999999", "at `needs_max_tokens`"),
        ("tool_id_chars: 0", "Expected `int` >= 1 - at `tool_id_chars`"),
        ("least_thinking_budget: -1", "Expected `int` >= 0 - at `least_thinking_budget`"),
        ('seed_key: ""', "at `seed_key`"),
    ],
)
def test_quirks_that_cannot_be(write: Write, quirks: str, what: str) -> None:
    path = write(f"{entry(GOOD)}    quirks: {{{quirks}}}\n")
    assert error_of().startswith(f"{path}:4:13: providers[0].quirks: ")
    assert what in error_of()


def test_an_address_names_settings_only(write: Write) -> None:
    write(entry("base_url: 'https://{nope}.test'"))
    assert "providers[0].base_url: 'https://{nope}.test' names 'nope': nothing can stand there" in error_of()
    write(entry("provider: cloudflare; base_url: 'https://gate.test/{account_id}'; settings: {account_id: a}"))
    assert look_up("acme").base_url == "https://gate.test/{account_id}"


HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "custom-providers.md"


def test_the_documented_file_says_what_the_documentation_says(write: Write) -> None:
    write(HOW_TO.read_text("utf-8").split("```yaml\n")[1].split("```")[0])
    acme, fast = look_up("acme"), look_up("fast")
    assert (acme.default_model, acme.key_environment, acme.auth) == ("acme-large", ("ACME_API_KEY",), "bearer")
    assert acme.quirks == Quirks(max_tokens_key="max_completion_tokens")
    assert (fast.dialect, fast.default_model) == ("anthropic_messages", "claude-haiku-4-5")


def test_the_documented_keys_are_those_that_there_are() -> None:
    table = HOW_TO.read_text("utf-8").split("| key | of | meaning |")[1].split("\n\n")[0]
    assert {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")} == set(
        custom.Entry.__struct_fields__
    )
