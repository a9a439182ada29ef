"""Each setting in each layer: where a value may stand, where it comes from, and which of several wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from loomstream.config.load import SETTINGS, Origin, SettingRow, Settings, load
from loomstream.config.table import CALL_ROWS
from loomstream.middleware.rate_limit import RateLimitSettings
from loomstream.providers.custom import OF_A_CALL
from loomstream.wire import Secret

Write = Callable[..., Path]


SAMPLES: dict[str, list[tuple[object, str]]] = {
    "address": [("https://one.test", "https://one.test"), ("https://two.test", "https://two.test")] * 2,
    "text": [("one", "one"), ("two", "two"), ("three", "three")],
    "whole": [(0, "0"), (1, "1"), (2, "2")],
    "number": [(0, "0"), (0.5, "0.5"), (1, "1")],
    "flag": [(True, "true"), (False, "no"), (True, "1")],
    "duration": [(0, "0"), (30, "30s"), (0.5, "500ms")],
    "headers": [({"x-a": "1"}, "x-a=1"), ({"x-b": "2"}, "x-b=2"), ({"x-c": "3"}, "x-c=3")],
    "names": [(["a"], "a"), (["b", "c"], "b, c"), (["d"], "d")],
    "money": [("0", "0"), (0.5, "0.5"), ("2.50", "2.50")],
}


def samples(row: SettingRow) -> list[tuple[object, str]]:
    if row.path in {"llm.provider", "active_provider"}:
        return [("mine", "mine"), ("other", "other"), ("mine", "mine")]
    if row.path == "middleware.failover.to":
        return [(["mine"], "mine"), (["other", "openai:gpt-4o"], "other, openai:gpt-4o"), (["openai"], "openai")]
    if row.choices:
        return [(row.choices[at % len(row.choices)],) * 2 for at in range(3)]  # pyright: ignore[reportReturnType]
    found = SAMPLES[row.kind]
    return [pair for pair in found if not (row.least and isinstance(pair[0], int) and pair[0] < row.least)] * 2


def plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return value.reveal() if isinstance(value, Secret) else value


def wanted(row: SettingRow, value: object) -> object:
    return str(value) if row.kind == "money" else value


class Layers:
    """All settings set at once, in one layer after the other: the first sample in the file, the second in variables."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "looms.yaml"
        self.empty = self._load("")
        vendors = {name: self.sample(row, 1)[1] for row in SETTINGS for name in row.vendor_environment}
        self.in_file = [self._load(self._document(at), vendors) for at in range(3)]
        text = self._document(0)
        self.in_environment = [self._load(text, self._variables("environment", at, 1)) for at in range(3)]
        self.blank = self._load(text, {name: "  " for row in SETTINGS for name in row.environment})
        overrides = {row.path: self.sample(row, 2)[0] for row in SETTINGS}
        self.argument = self._load(text, self._variables("environment", 0, 1), overrides)
        self.of_vendors = [self._load("", self._variables("vendor_environment", at, 2)) for at in range(4)]

    @staticmethod
    def sample(row: SettingRow, at: int) -> tuple[object, str]:
        return samples(row)[at]

    def _load(self, text: str, environ: Mapping[str, str] | None = None, overrides: object = None) -> Settings:
        self.file.write_text(POOL + text, "utf-8")
        self.file.chmod(0o600)
        return load(self.file, environ=environ or {}, overrides=overrides)  # pyright: ignore[reportArgumentType]

    def _document(self, at: int) -> str:
        root: dict[str, object] = {}
        for row in SETTINGS:
            *sections, name = (row.path, *row.aliases)[min(at, len(row.aliases))].split(".")
            inner = root
            for section in sections:
                inner = inner.setdefault(section, {})  # pyright: ignore[reportAssignmentType]
            inner[name] = self.sample(row, 0)[0]
        return yaml.safe_dump(root)

    def _variables(self, field: str, at: int, which: int) -> dict[str, str]:
        found: dict[str, str] = {}
        for row in SETTINGS:
            names: tuple[str, ...] = getattr(row, field)
            if names:
                found[names[min(at, len(names) - 1)]] = self.sample(row, which)[1]
        return found


POOL = "providers: [{name: mine, provider: openai}, {name: other, provider: openai}]\n"


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Layers:
    return Layers(tmp_path_factory.mktemp("layers"))


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.path)
def test_each_setting_in_each_layer(row: SettingRow, layers: Layers) -> None:
    first, second, third = (wanted(row, samples(row)[at][0]) for at in range(3))
    assert (layers.empty.value(row.path), layers.empty.origin(row.path)) == (row.default, Origin("default"))
    for at in range(len(row.aliases) + 1):
        found = layers.in_file[at]
        assert plain(found.value(row.path)) == first, "the file wins over a vendor's variable"
        origin = found.origin(row.path)
        assert origin.layer == "file"
        assert origin.where.startswith(f"{layers.file}:")
    for at, name in enumerate(row.environment):
        found = layers.in_environment[at]
        assert plain(found.value(row.path)) == second, f"{name} wins over the file"
        assert found.origin(row.path) == Origin("environment", name)
    assert layers.blank.origin(row.path).layer == "file", "a blank variable is none"
    assert (plain(layers.argument.value(row.path)), layers.argument.origin(row.path)) == (third, Origin("argument"))
    for at, name in enumerate(row.vendor_environment):
        found = layers.of_vendors[at]
        assert (plain(found.value(row.path)), found.origin(row.path).where) == (third, name)


def test_the_line_of_a_value(write: Write) -> None:
    path = write("# a comment\nllm:\n  openai_model: gpt-4o\n\n  temperature: 0\n")
    found = load(path, environ={})
    assert found.origin("llm.openai_model") == Origin("file", f"{path}:3")
    assert found.origin("llm.temperature") == Origin("file", f"{path}:5")


SEED_VARIABLES = [
    "PROVIDER",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_MODEL",
    "BEDROCK_REGION",
    "BEDROCK_MODEL_ID",
    "OLLAMA_ENDPOINT",
    "OLLAMA_MODEL",
    "OPENAI_MODEL",
    "AZURE_OPENAI_ENDPOINT",
    "AZURE_OPENAI_DEPLOYMENT_ID",
    "MISTRAL_MODEL",
    "GEMINI_MODEL",
    "HUGGINGFACE_MODEL",
    "TEMPERATURE",
    "MAX_TOKENS",
    "TIMEOUT_SECONDS",
    "CONCURRENCY_LIMIT",
    "OPENAI_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "MISTRAL_API_KEY",
    "GEMINI_API_KEY",
    "HUGGINGFACE_TOKEN",
    "AZURE_OPENAI_ENTRA_TOKEN",
    "BEDROCK_ACCESS_KEY_ID",
    "BEDROCK_SECRET_ACCESS_KEY",
    "BEDROCK_SESSION_TOKEN",
    "BEDROCK_BEARER_TOKEN",
    "LITELLM_ENDPOINT",
    "LITELLM_API_KEY",
    "LITELLM_MODEL",
    "LITELLM_EXTRA_HEADERS",
    "OPENAI_ENDPOINT",
    "BEDROCK_PROFILE",
    "VERTEX_PROJECT_ID",
    "VERTEX_LOCATION",
    "VERTEX_MODEL",
]
SEED_VENDORS = [
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "MISTRAL_API_KEY",
    "GEMINI_API_KEY",
    "HUGGINGFACE_API_KEY",
    "HUGGINGFACE_TOKEN",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_ENTRA_TOKEN",
    "AZURE_OPENAI_ENDPOINT",
    "AZURE_OPENAI_DEPLOYMENT_ID",
    "LITELLM_API_KEY",
    "LITELLM_ENDPOINT",
    "LITELLM_BASE_URL",
    "OLLAMA_ENDPOINT",
    "OLLAMA_BASE_URL",
    "ANTHROPIC_DEFAULT_MODEL",
    "ANTHROPIC_API_ENDPOINT",
    "OPENAI_DEFAULT_MODEL",
    "OPENAI_API_ENDPOINT",
    "AWS_BEDROCK_MODEL_ID",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_BEARER_TOKEN_BEDROCK",
    "HAWK_ENDPOINT",
    "HAWK_URL",
    "HAWK_API_KEY",
    "LOOM_TRACER_MODE",
    "LOOM_EMBEDDED_STORAGE",
    "LOOM_EMBEDDED_SQLITE_PATH",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "LOOM_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "LOOM_OTLP_HEADERS",
    "LOOM_OTLP_INSECURE",
    "LOOM_TRACER_PREFER_EMBEDDED",
    "OTEL_SERVICE_NAME",
    "OTEL_SERVICE_VERSION",
]


@pytest.mark.parametrize("name", [*(f"LOOM_LLM_{name}" for name in SEED_VARIABLES), *SEED_VENDORS])
def test_each_variable_of_the_seed_is_a_setting_s(name: str) -> None:
    assert any(name in (*row.environment, *row.vendor_environment) for row in SETTINGS)


def test_the_rows_of_a_call_are_said_once() -> None:
    names = [row.path.removeprefix("llm.").partition(".")[0] for row in CALL_ROWS]
    assert tuple(dict.fromkeys(names)) == OF_A_CALL
    rates = {row.name for row in CALL_ROWS if row.section == "llm.rate_limit"}
    assert rates == set(RateLimitSettings.__struct_fields__)
