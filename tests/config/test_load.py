"""The configuration: what a whole file means, what it may not hold, and what nobody may see of it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from documents import document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loomstream.config.load import Settings, find_file, load
from loomstream.config.table import BY_PATH
from loomstream.errors import ConfigError, UnknownProvider
from loomstream.wire import Secret

CANARY = "sk-canary-7f3a9c2e41d8"
Write = Callable[..., Path]


def error_of(path: Path, environ: Mapping[str, str] | None = None, **overrides: object) -> str:
    """Give the message, once it is sure that no report of the error shows a secret."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ or {}, overrides=overrides)
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [
        str(frame.locals) for frame in report.stack if "loomstream/" in frame.filename and "tests" not in frame.filename
    ]
    assert ours
    assert CANARY not in "".join(ours) + str(caught.value)
    return str(caught.value)


# --- each setting in each layer --------------------------------------------------------------------
# --- the seed's "Configuration Reference", a row each ----------------------------------------------


REFERENCE = [
    ("provider", "anthropic"),
    ("temperature", 1.0),
    ("max_tokens", 4096),
    ("timeout_seconds", 60),
    ("anthropic_model", "claude-sonnet-4-5-20250929"),
    ("bedrock_region", "us-west-2"),
    ("bedrock_model_id", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("bedrock_profile", "default"),
    ("ollama_endpoint", "http://localhost:11434"),
    ("ollama_model", "qwen2.5:7b"),
    ("openai_model", "gpt-4o"),
    ("azure_openai_endpoint", "https://your-resource.openai.azure.com"),
    ("azure_openai_deployment_id", "gpt-4o-deployment"),
    ("mistral_model", "mistral-large-latest"),
    ("gemini_model", "gemini-2.5-flash"),
    ("huggingface_model", "meta-llama/Meta-Llama-3.1-70B-Instruct"),
    ("vertex_project_id", "your-gcp-project"),
    ("vertex_location", "us-central1"),
    ("vertex_model", "claude-3-5-sonnet@20241022"),
]


@pytest.mark.parametrize(("key", "value"), REFERENCE, ids=[key for key, _ in REFERENCE])
def test_configuration_reference(key: str, value: object, write: Write) -> None:
    found = load(write(f"llm:\n  {key}: {value}\n"), environ={})
    assert found.value(f"llm.{key}") == value
    assert found.warnings == ()


SEED_PROVIDERS = "anthropic bedrock ollama openai azure-openai azureopenai mistral gemini huggingface litellm vertex-ai"


@pytest.mark.parametrize("name", SEED_PROVIDERS.split())
def test_configuration_reference_provider(name: str, write: Write) -> None:
    assert load(write(f"llm: {{provider: {name}}}"), environ={}).llm.provider == name


# --- the whole file ---------------------------------------------------------------------------------


def test_a_whole_file(write: Write) -> None:
    text = """
llm:
  provider: fast
  temperature: 0
  rate_limit: {max_retries: 0, requests_per_second: 0}
providers:
  - {name: fast, provider: ollama, ollama_model: llama, temperature: 0.5, rate_limit: {max_retries: 1}}
  - {name: acme, base_url: "https://llm.acme.test/v1", max_tokens: 9}
  - {name: broken, base_url: "https://llm.acme.test/v1", temperature: 9}
active_provider: acme
middleware:
  retry:
  budget: {limit_usd: 0.50, per: day}
observability: {enabled: false, flush_interval: 1m, hawk_endpoint: "http://localhost:9090"}
embedding: {provider: openai}
database: {path: x}
"""
    found = load(write(text), environ={"LOOM_LLM_MAX_TOKENS": "10", "LOOM_MIDDLEWARE_LIMITS_BURST": "3"})
    assert (found.llm.provider, found.llm.temperature, found.llm.max_tokens) == ("fast", 0, 10)
    assert found.llm.rate_limit == {"max_retries": 0, "requests_per_second": 0}
    assert (found.observability.enabled, found.observability.flush_interval) == (False, 60)
    assert found.active_provider == "acme"
    assert [(named.name, named.options) for named in found.middleware] == [
        ("retry", {}),
        ("budget", {"limit_usd": "0.5", "per": "day"}),
        ("limits", {"burst": 3}),
    ]
    fast, acme, broken = found.providers
    assert (fast.provider, fast.values) == ("ollama", {"temperature": 0.5, "rate_limit.max_retries": 1})
    assert acme.row is not None
    assert acme.row.base_url == "https://llm.acme.test/v1"
    assert broken.row is None
    assert "providers[2].temperature: this must be a number from 0 to 2" in broken.error
    assert found.entry("nobody") is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "llm:\nproviders:\n", "llm: {rate_limit: , openai_model: }", "{}"])
def test_a_file_that_says_nothing(text: str, write: Write) -> None:
    path = write(text)
    assert load(path, environ={}) == Settings(file=str(path), ambient=False)


def test_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"LOOM_DATA_DIR": str(tmp_path / "data")}
    assert find_file(environ) is None
    assert load(environ=environ) == Settings(ambient=False)
    (tmp_path / "looms.yaml").write_text("llm: {temperature: 1}")
    assert find_file(environ) == Path("looms.yaml")
    found = load(environ=environ)
    assert (found.own, found.llm.temperature) == (False, 1)
    assert load(environ={**environ, "LOOM_CONFIG": "looms.yaml"}).own
    assert load("looms.yaml", environ=environ).own


def test_a_file_is_read_anew_when_it_changes(write: Write) -> None:
    assert load(write("llm: {max_tokens: 1}"), environ={}).llm.max_tokens == 1
    assert load(write("llm: {max_tokens: 22}"), environ={}).llm.max_tokens == 22


# --- what is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("llm: {temprature: 1}", ":1:19: llm.temprature: there is no key 'temprature': did you mean 'temperature'?"),
        ("temperature: 1", ":1:14: temperature: there is no key 'temperature' here: did you mean 'llm.temperature'?"),
        (
            "llm: {hawk_endpoint: x}",
            "there is no key 'hawk_endpoint' here: did you mean 'observability.hawk_endpoint'?",
        ),
        ("llm: {zzz: 1}", "llm.zzz: there is no key 'zzz': docs/reference/configuration.md has all"),
        ("zzz: 1", "there is no key 'zzz': known are llm, rate_limit, active_provider, observability, middleware"),
        ("llm: {temperature: 2.1}", "llm.temperature: this must be a number from 0 to 2"),
        ("llm: {temperature: -1}", "llm.temperature: this must be a number from 0 to 2"),
        ("llm: {temperature: .nan}", "llm.temperature: this must be a number, not a number"),
        ("llm: {temperature: true}", "llm.temperature: this must be a number, not true or false"),
        ("llm:\n  temperature: hot", ":2:16: llm.temperature: this must be a number, not a text"),
        ("llm: {max_tokens: 1.5}", "llm.max_tokens: this must be a whole number, not a number"),
        ("llm: {timeout_seconds: -1}", "llm.timeout_seconds: this must be a number of at least 0"),
        ("llm: {openai_model: 4}", "llm.openai_model: this must be a text, not a whole number: put it in quotes"),
        ("llm: {openai_model: [a]}", "llm.openai_model: this must be a text, not a list"),
        ("llm: {openai_base_url: word}", "llm.openai_base_url: this must be an address, such as https://host/v1"),
        ("llm: {openai_base_url: 'ftp://host/v1'}", "llm.openai_base_url: this must be an address"),
        (f"llm: {{openai_base_url: 'https://me:{CANARY}@host/v1'}}", "llm.openai_base_url: this must be an address"),
        (f"llm: {{openai_base_url: 'https://host/v1?key={CANARY}'}}", "llm.openai_base_url: this must be an address"),
        ("observability: {hawk_endpoint: 5}", "observability.hawk_endpoint: this must be an address"),
        ("llm: 5", "llm: this must be a mapping of its keys, not a whole number"),
        ("[]", "a configuration is a mapping, this is a list"),
        ("llm: {litellm_extra_headers: {a: 1}}", "llm.litellm_extra_headers: this must be a mapping of names to texts"),
        ("llm: {litellm_extra_headers: {authorization: x}}", "may hold a key"),
        ("llm: {litellm_extra_headers: {Host: x}}", "belongs to the connection itself"),
        ("llm: {litellm_endpoint: 'http://a', litellm_base_url: 'http://b'}", "the same as 'llm.litellm_endpoint'"),
        ("llm: {rate_limit: {max_retries: 1}}\nrate_limit: {max_retries: 1}", "which stands here too"),
        (
            "rate_limit: {max_retries: -1}",
            "rate_limit.max_retries: this must be a whole number from 0 to 1,000,000,000",
        ),
        (
            "llm: {max_tokens: 1000000000000000000}",
            "llm.max_tokens: this must be a whole number from 0 to 1,000,000,000",
        ),
        (f"llm: {{max_tokens: {'9' * 400}}}", "llm.max_tokens: this must be a whole number from 0 to 1,000,000,000"),
        ("llm: {rate_limit: {retries: 1}}", "llm.rate_limit.retries: there is no key 'retries': did you mean"),
        ("observability: {mode: hawk}", "observability.mode: this must be one of embedded, service, otel, none"),
        (f"observability: {{flush_interval: {'9' * 400}s}}", "this must be seconds, as a number or as 500ms, 30s, 5m"),
        ("observability: {flush_interval: soon}", "this must be seconds, as a number or as 500ms, 30s, 5m"),
        ("middleware: {retri: {}}", "middleware.retri: there is no middleware 'retri': did you mean 'retry'?"),
        ("middleware: {'os:system': {}}", "there is no middleware 'os:system': known are"),
        ("middleware: {os.system: {}}", "code is never named by its path here"),
        ("middleware: {retry: 3}", "middleware.retry: this must be a mapping of its keys, not a whole number"),
        ("middleware: {retry: {tries: 3}}", "middleware.retry.tries: there is no key 'tries'"),
        ("middleware: {budget: {limit_usd: much}}", "this must be an amount in US dollars, such as 0.50, not a text"),
        ("middleware: {budget: {limit_usd: -1}}", "this must be an amount in US dollars"),
        ("middleware: {failover: {to: [1]}}", "middleware.failover.to: this must be a list of texts"),
        (
            "active_provider: fsat\nproviders: [{name: fast, provider: ollama}]",
            ":1: active_provider: providers: has no",
        ),
        ("providers: {}", "providers: this must be a list of entries"),
        ("llm: {provider: Anthropic}", ":1: llm.provider: unknown provider 'Anthropic': did you mean 'anthropic'?"),
    ],
)
def test_what_a_file_may_not_say(text: str, what: str, write: Write) -> None:
    path = write(text)
    message = error_of(path)
    assert message.startswith(f"{path}:")
    assert what in message


def test_case_matters_in_a_provider_s_name(write: Write) -> None:
    with pytest.raises(UnknownProvider, match="did you mean 'anthropic'"):
        load(write("llm: {provider: Anthropic}"), environ={})


DEEP = "a: " + "[" * 200_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "an anchor bomb": (BOMB, "it holds more than 10000 values"),
    "an alias of itself": ("llm: &a {x: *a}", "nested more than 32 levels deep"),
    "a tag of Python": ("llm: !!python/object/apply:os.system ['true']", "only texts, numbers"),
    "a tag of one's own": ("llm: !x {}", "only texts, numbers"),
    "a date": ("llm: {openai_model: 2026-01-01}", "only texts, numbers"),
    "bytes": ("llm: {openai_model: !!binary aGk=}", "only texts, numbers"),
    "a merge": ("a: &a {provider: openai}\nllm: {<<: *a}", "only texts, numbers"),
    "a name twice": ("llm: {max_tokens: 1, max_tokens: 2}", "the same name stands here twice"),
    "a name that is none": ("llm: {1: x}", "the name of an entry must be a text"),
    "two documents": ("llm: {}\n---\nllm: {}", "but found another document"),
    "a tab": ("llm:\n\tprovider: openai", "that cannot start any token"),
    "an open bracket": ("llm: [", "this is no configuration that can be read"),
    "a nul": ("llm: {openai_model: 'a\0b'}", "a character that is not printable"),
    "a nul that is escaped": ('llm: {openai_model: "a\\0b"}', "this must be a text of at most"),
    "a long text": (f"llm: {{openai_model: {'x' * 9000}}}", "this must be a text of at most 8192 characters"),
    "a huge file": ("#" * (1024 * 1024 + 1), "is larger than 1024 KiB"),
    "depth": (DEEP, "levels deep"),
    "an undefined alias": ("llm: *nobody", "this is no configuration that can be read"),
    "a half surrogate": ('llm: {openai_model: "\\ud800"}', "half of a character"),
}


@pytest.mark.parametrize(("text", "what"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(text: str, what: str, write: Write) -> None:
    path = write(text)
    message = error_of(path)
    assert message.startswith(str(path))
    assert what in message
    assert len(message) < 500


_WORDS = st.sampled_from(
    ["llm", "providers", "middleware", "temperature", "openai_api_key", "name", "provider", "retry", "a"]
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(alphabet=st.sampled_from("llm: {}[]&*!|>'\"\n-#%@,?a1.~<=\t"), max_size=60) | _ANYTHING.map(yaml.safe_dump)
)
def test_any_file_gives_settings_or_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "looms.yaml"
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    try:
        load(path, environ={})
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert message.startswith(str(path))


def test_what_is_no_plain_file(tmp_path: Path, write: Write) -> None:
    assert error_of(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml cannot be read: No such file or directory"
    assert error_of(tmp_path) == f"{tmp_path} is a folder: name a looms.yaml"
    os.mkfifo(tmp_path / "pipe")
    assert error_of(tmp_path / "pipe") == f"{tmp_path}/pipe is no plain file: name a looms.yaml"
    assert "may be changed by every user of this machine" in error_of(write("", 0o666))
    path = write("")
    path.write_bytes(b"llm:\n  openai_model: \xff\n")
    assert error_of(path) == f"{path}:2: this is no UTF-8: save the file as UTF-8"


# --- variables and arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("LOOM_LLM_TEMPERATURE", CANARY, "the variable LOOM_LLM_TEMPERATURE (llm.temperature): this must be a number"),
        ("LOOM_LLM_TEMPERATURE", "3", "this must be a number from 0 to 2"),
        ("LOOM_LLM_TEMPERATURE", "inf", "this must be a number"),
        ("LOOM_LLM_MAX_TOKENS", "1e3", "this must be a whole number"),
        ("LOOM_LLM_ALLOW_HTTP", "maybe", "this must be true or false"),
        (
            "LOOM_LLM_LITELLM_EXTRA_HEADERS",
            CANARY,
            "this must be a mapping of names to texts (in a variable NAME=VALUE",
        ),
        ("LOOM_TRACER_MODE", "hawk", "this must be one of embedded, service, otel, none"),
        ("LOOM_OBSERVABILITY_FLUSH_INTERVAL", "-1", "this must be seconds"),
    ],
)
def test_a_variable_that_is_wrong(name: str, text: str, what: str, write: Write) -> None:
    message = error_of(write(""), {name: text, "OPENAI_API_KEY": CANARY})
    assert f"the variable {name} (" in message
    assert what in message


def test_a_vendor_s_variable_that_is_wrong_is_not_used(write: Write) -> None:
    found = load(write(""), environ={"OTEL_EXPORTER_OTLP_HEADERS": CANARY})
    assert found.observability.otlp_headers is None
    (warning,) = found.warnings
    assert warning.startswith("the variable OTEL_EXPORTER_OTLP_HEADERS (observability.otlp_headers): this must be a")
    assert warning.endswith(": not used")
    assert CANARY not in warning


def test_a_variable_that_is_nearly_a_setting_s(write: Write) -> None:
    environ = {"LOOM_LLM_TEMPRATURE": "0", "LOOM_LLM_ACME_API_KEY": "k", "LOOM_LLM_OPENAI_API_KEY": "k", "LOOM_X": "1"}
    assert load(write(""), environ=environ).warnings == (
        "the variable LOOM_LLM_TEMPRATURE is no setting's: did you mean LOOM_LLM_TEMPERATURE?",
    )


def test_an_argument_that_is_wrong(write: Write) -> None:
    assert "the argument llm.temperature: this must be a number from 0 to 2" in error_of(
        write(""), **{"llm.temperature": 3}
    )
    assert "there is no setting 'llm.temprature': did you mean 'llm.temperature'?" in error_of(
        write(""), **{"llm.temprature": 1}
    )
    with pytest.raises(ConfigError, match="there is no setting"):
        Settings().value("llm.nothing_like_it")


# --- secrets ----------------------------------------------------------------------------------------


SECRETS = [path for path, row in BY_PATH.items() if row.secret and row.kind == "text"]


@pytest.mark.parametrize("path", SECRETS)
def test_a_secret_in_the_file(path: str, write: Write) -> None:
    file = write(document(path, CANARY))
    found = load(file, environ={})
    assert found.value(path) == Secret(CANARY)
    (warning,) = found.warnings
    assert warning.startswith(
        f"{file}:{path.count('.') + 1}: {path}: a secret stands here; better keep it in the keyring"
    )
    assert CANARY not in repr(found) + warning
    for mode in (0o640, 0o604, 0o644):
        message = error_of(write(document(path, CANARY), mode))
        assert (
            f"{BY_PATH[path].path}: a secret stands here, and others can read the file: run chmod 600 {file}" in message
        )


def test_a_secret_of_the_wrong_type_is_not_shown(write: Write) -> None:
    assert "12345678901" not in error_of(write("llm: {openai_api_key: 12345678901}"))
    assert CANARY not in error_of(write(f"llm: {{openai_api_key: [{CANARY}]}}"))
    assert CANARY not in error_of(write(f"llm: {{openai_api_key: {CANARY}, zzz: 1}}"))
    assert CANARY not in error_of(write(f"llm: {{openai_api_key: '{CANARY}"))


@pytest.mark.parametrize(
    "text",
    [
        "llm: {provider: KEY}",
        "llm: {KEY: x}",
        "KEY: x",
        "active_provider: KEY",
        "middleware: {KEY: }",
        "providers: [{name: a, provider: KEY}]",
        "providers: [{name: a, base_url: 'https://a.test', auth: KEY}]",
        "providers: [{name: a, provider: openai, settings: {KEY: x}}]",
    ],
)
def test_a_key_in_the_wrong_place_is_not_shown(text: str, write: Write) -> None:
    path = write(text.replace("KEY", CANARY))
    try:
        said = load(path, environ={}).providers[0].error
    except ConfigError as error:
        said = str(error)
    assert "looms.yaml" in said
    assert CANARY not in said


def test_the_limits_of_an_entry_are_a_mapping(write: Write) -> None:
    found = load(write("providers: [{name: mine, provider: openai, rate_limit: 3}]"), environ={})
    assert "providers[0].rate_limit: this must be a mapping of its keys, not a whole number" in found.providers[0].error


@pytest.mark.parametrize(
    "entry", [f"provider: openai, openai_api_key: {CANARY}", f"base_url: 'https://a.test', api_key: {CANARY}"]
)
def test_a_secret_in_an_entry(entry: str, write: Write) -> None:
    text = f"providers: [{{name: mine, {entry}}}]"
    found = load(write(text), environ={})
    assert found.providers[0].secrets == {"api_key": Secret(CANARY)}
    assert "providers: mine: a secret stands here" in found.warnings[0]
    assert CANARY not in repr(found)
    assert "others can read the file" in error_of(write(text, 0o644))


def test_headers_for_the_collector_are_secrets(write: Write) -> None:
    found = load(write(f"observability: {{otlp_headers: {{authorization: {CANARY}}}}}"), environ={})
    assert found.observability.otlp_headers == {"authorization": Secret(CANARY)}
    assert CANARY not in repr(found)


def test_the_model_key_is_deprecated(write: Write) -> None:
    found = load(write("llm:\n  model: gpt-4o\n"), environ={})
    assert found.warnings == (
        f"{found.file}:2: llm.model is deprecated: use the provider's own key, such as llm.openai_model",
    )


# --- a file that may come from anybody ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("llm: {allow_http: true}", False),
        ("llm: {allow_http: false}", True),
        ("observability: {hawk_endpoint: 'https://evil.test'}", False),
        ("observability: {otlp_endpoint: 'https://evil.test'}", False),
        ("observability: {hawk_endpoint: 'http://localhost:9090'}", True),
        ("observability: {otlp_insecure: true}", False),
        ("observability: {capture_content: true}", False),
        ("observability: {enabled: true}", True),
        ("observability: {sqlite_path: /somewhere/else}", False),
    ],
)
def test_what_the_working_folder_may_not_say(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, allowed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "looms.yaml").write_text(text)
    environ = {"LOOM_DATA_DIR": str(tmp_path / "data")}
    assert load("looms.yaml", environ=environ).own, "a file that is named may say it"
    if allowed:
        assert not load(environ=environ).own
        return
    with pytest.raises(ConfigError, match="merely found in the working folder"):
        load(environ=environ)


def test_what_has_no_effect_here_says_so(write: Write) -> None:
    path = write("observability:\n  mode: embedded\n  storage_type: sqlite\n")
    told = [warning for warning in load(path, environ={}).warnings if "no effect" in warning]
    assert len(told) == 1
    assert told[0].startswith(f"{path}:3: observability.storage_type has no effect: ")
    assert "audit log" in told[0]
