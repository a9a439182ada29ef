"""`models:` of a `looms.yaml`: what is said of models, and how what is wrong is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from loomstream import catalog
from loomstream.config.load import load
from loomstream.config.models import lay
from loomstream.errors import ConfigError

Write = Callable[..., Path]
POOL = "providers: [{name: acme, base_url: 'https://acme.test/v1'}, {name: mine, provider: openai}]\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))

    def writing(text: str) -> Path:
        path = tmp_path / "looms.yaml"
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        return path

    return writing


def test_what_is_said_of_models(write: Write) -> None:
    path = write(
        POOL
        + """
models:
  openai:gpt-4o: {input: 1, output: "2.50", as_of: "2026-11-01", vision: false, cache_read: }
  azureopenai:mine: {context_tokens: 4096}
  acme:big:
    free: true
    deprecated_on: "2027-01-31"
    successor: bigger
  ollama:llama3.1:8b: {tools: prompt}
"""
    )
    openai, azure, acme, ollama = load(path, environ={}).models
    assert (openai.provider, openai.model, openai.where) == ("openai", "gpt-4o", f"{path}:4")
    price = catalog.Price(input=Decimal(1), output=Decimal("2.50"))
    assert openai.change == {"free": False, "as_of": date(2026, 11, 1), "vision": False, "price": price}
    assert (azure.provider, azure.model) == ("azure-openai", "mine")
    assert acme.change == {"free": True, "deprecated_on": date(2027, 1, 31), "successor": "bigger"}
    assert (ollama.model, ollama.change) == ("llama3.1:8b", {"tools": "prompt"})


def test_it_holds_where_the_settings_are_used_and_not_before(write: Write) -> None:
    settings = load(write("models: {'openai:gpt-4o': {context_tokens: 17}}"), environ={})
    try:
        assert known("gpt-4o").context_tokens == 128_000
        lay(settings)
        assert (known("gpt-4o").context_tokens, known("gpt-4o").source) == (17, settings.file)
        lay(load(write("models:"), environ={}))
        assert known("gpt-4o").context_tokens == 128_000
    finally:
        catalog.configure(settings.file, {})


def known(model: str) -> catalog.Entry:
    entry = catalog.look_up("openai", model)
    assert entry is not None
    return entry


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("models: [a]", ":2:9: models: this must be a mapping of PROVIDER:MODEL to what is said of it, not a list"),
        ("models:\n  gpt-4o: {}", ":3:11: models.gpt-4o: write the provider and the model, as in openai:gpt-4o"),
        ("models: {'openai:': {}}", "models.openai:: write the provider and the model"),
        ('models: {"openai:\\e[31mx": {}}', "write the provider and the model, as in openai:gpt-4o"),
        ("models: {'openai: x': {}}", "write the provider and the model"),
        ("models: {'openai:x ': {}}", "write the provider and the model"),
        ("models: {'openai:x': {visoin: null}}", "models.openai:x.visoin: there is no such field: did you mean"),
        ("models: {'opnai:x': {}}", "models.opnai:x: unknown provider 'opnai': did you mean 'openai'?"),
        ("models: {'mine:x': {}}", "models.mine:x: mine is a name of yours: write openai:x"),
        (
            "models: {'openai:x': 7}",
            "models.openai:x: this must be a mapping of what is said of the model, not a whole",
        ),
        (
            "models: {'azure-openai:x': {}, 'azureopenai:x': {}}",
            "models.azureopenai:x: this model stands here under another name too",
        ),
        (
            "models:\n  openai:x:\n    visoin: true",
            ":4:13: models.openai:x.visoin: there is no such field: did you mean",
        ),
        ("models: {'openai:x': {input: -1, output: 1}}", "models.openai:x.input: this must be US dollars per million"),
        ("models: {'openai:x': {input: .nan, output: 1}}", "models.openai:x.input: this must be US dollars"),
        ("models: {'openai:x': {input: .inf, output: 1}}", "models.openai:x.input: this must be US dollars"),
        ("models: {'openai:x': {input: 1e999, output: 1}}", "models.openai:x.input: this must be US dollars"),
        (f"models: {{'openai:x': {{input: {'9' * 4000}, output: 1}}}}", "models.openai:x.input: this must be US"),
        ("models: {'openai:x': {input: [1], output: 1}}", "models.openai:x.input: this must be US dollars"),
        ("models: {'openai:x': {output: 1}}", "models.openai:x: a price needs `input` and `output`: input is not here"),
        ("models: {'openai:x': {context_tokens: 1e9}}", "models.openai:x.context_tokens: this must be a whole number"),
        ("models: {'openai:x': {tools: true}}", "models.openai:x.tools: this must be one of native, prompt, none"),
        ("models: {'openai:x': {deprecated_on: 2027-01-31}}", "put anything else in quotes"),
        ("models: {'openai:x': {deprecated_on: soon}}", "models.openai:x.deprecated_on: this must be a day as"),
        ("models: {'openai:sk-canary-7f3a9c2e41d8': {zz: 1}}", "there is no such field"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, what: str, write: Write) -> None:
    path = write(POOL + text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert str(caught.value).startswith(f"{path}:")
    assert what in str(caught.value)
    assert "canary" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_name_of_half_a_million_characters_is_told_in_a_line(write: Write) -> None:
    path = write(f"models:\n  ? openai:{'k' * 500_000}\n  : {{bogus: 1}}")
    with pytest.raises(ConfigError, match=r"models\.openai:k+…: there is no such field") as caught:
        load(path, environ={})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("field", ["input: 0, output: 0", "free: true"])
def test_a_file_of_the_working_folder_cannot_say_what_a_model_costs(field: str, write: Write) -> None:
    write(f"models: {{'openai:gpt-4o': {{vision: false, {field}}}}}")
    with pytest.raises(ConfigError, match="it cannot say what a model costs; name the file"):
        load(environ={})
    assert load("looms.yaml", environ={}).models[0].change["vision"] is False


def test_a_file_of_the_working_folder_may_say_what_a_model_can(write: Write) -> None:
    write("models: {'openai:gpt-4o': {vision: false, input: , free: }}")
    assert load().models[0].change == {"vision": False}
