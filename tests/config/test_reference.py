"""The shipped JSON Schema and the reference are those of the table. `python tests/config/test_reference.py --write`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from loomstream.config import load as loading
from loomstream.config.load import SETTINGS, json_schema, load
from loomstream.config.reference import reference

SCHEMA = Path(loading.__file__).with_name("looms.schema.json")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def schema_text() -> str:
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def test_the_shipped_schema_is_current() -> None:
    assert SCHEMA.read_text("utf-8") == schema_text(), "run python tests/config/test_reference.py --write"


def test_the_reference_is_current() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run python tests/config/test_reference.py --write"


def test_the_reference_has_every_setting_and_every_variable() -> None:
    page = reference()
    for row in SETTINGS:
        assert f"| `{row.path}` |" in page
        assert all(f"`{name}`" in page for name in (*row.environment, *row.vendor_environment, *row.aliases))


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", reference(), re.DOTALL))
def test_each_example_of_the_reference_works(text: str, tmp_path: Path) -> None:
    path = tmp_path / "looms.yaml"
    path.write_text(text + ("" if "providers:" in text else POOL), "utf-8")
    path.chmod(0o600)
    assert all(entry.row is not None for entry in load(path, environ={}).providers)


POOL = "providers: [{name: fast, provider: ollama}, {name: acme, base_url: 'https://a.test/v1'}]\n"


# --- the schema says what `load` says -----------------------------------------------------------------


def problems(schema: Any, value: Any, path: str = "") -> list[str]:  # noqa: ANN401 (JSON)
    """Check a value by the few words of JSON Schema that the shipped one uses."""
    types = schema.get("type", [])
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    kind = "null" if value is None else names[type(value)]
    allowed = [types] if isinstance(types, str) else types
    if allowed and kind not in allowed and not (kind == "integer" and "number" in allowed):
        return [f"{path}: {kind}"]
    found: list[str] = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: enum")
    if kind in {"integer", "number"}:
        found += [f"{path}: minimum"] * (value < schema.get("minimum", value))
        found += [f"{path}: maximum"] * (value > schema.get("maximum", value))
    if kind == "object":
        known = schema.get("properties", {})
        found += [f"{path}: required"] * (not set(schema.get("required", ())) <= value.keys())
        for name, inner in value.items():
            rest = schema.get("additionalProperties", True)
            if name not in known and rest is False:
                found.append(f"{path}.{name}: unknown")
            found += problems(known.get(name, rest if isinstance(rest, dict) else {}), inner, f"{path}.{name}")
    if kind == "array":
        for inner in value:
            found += problems(schema.get("items", {}), inner, path)
    return found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", None),
        ("llm: {provider: openai, temperature: 0, rate_limit: {max_retries: 0}}", None),
        ("rate_limit: {max_retries: 0}\nmiddleware: {retry: , budget: {limit_usd: 1}}", None),
        ("llm: {litellm_base_url: 'http://x', litellm_extra_headers: {a: b}}", None),
        ("providers: [{name: a, provider: ollama, ollama_model: m, rate_limit: {max_retries: 1}}]", None),
        ("observability: {flush_interval: 30s}\nembedding: {x: 1}", None),
        ("llm: {temprature: 1}", ".llm.temprature: unknown"),
        ("llm: {temperature: 3}", ".llm.temperature: maximum"),
        ("llm: {temperature: hot}", ".llm.temperature: string"),
        ("llm: {max_tokens: 1.5}", ".llm.max_tokens: number"),
        ("rate_limit: {max_retries: -1}", ".rate_limit.max_retries: minimum"),
        ("middleware: {retry: {tries: 1}}", ".middleware.retry.tries: unknown"),
        ("observability: {mode: x}", ".observability.mode: enum"),
        ("zzz: 1", ".zzz: unknown"),
        ("models: {'openai:gpt-4o': {input: 1, output: '2.50', vision: , tools: none, as_of: '2026-11-01'}}", None),
        ("models: {'openai:gpt-4o': {visoin: true}}", ".models.openai:gpt-4o.visoin: unknown"),
        ("models: {'openai:gpt-4o': {context_tokens: 0}}", ".models.openai:gpt-4o.context_tokens: minimum"),
        ("models: {'openai:gpt-4o': {tools: some}}", ".models.openai:gpt-4o.tools: enum"),
        ("providers: [{provider: ollama}]", ".providers: required"),
        ("providers: [{name: a, temperature: 3}]", ".providers.temperature: maximum"),
    ],
)
def test_the_schema_allows_what_is_allowed(text: str, problem: str | None, tmp_path: Path) -> None:
    assert problems(json_schema(), yaml.safe_load(text) or {}) == ([] if problem is None else [problem])
    if problem is None:
        path = tmp_path / "looms.yaml"
        path.write_text(text, "utf-8")
        load(path, environ={})


if __name__ == "__main__" and "--write" in sys.argv:
    SCHEMA.write_text(schema_text(), "utf-8")
    PAGE.write_text(reference(), "utf-8")
