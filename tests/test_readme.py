"""The README's table of providers is the table of providers. `python tests/test_readme.py --write` renews it."""

from __future__ import annotations

import sys
from pathlib import Path

from loomstream.providers import Provider, Setting, dialects_of
from loomstream.providers.table import TABLE

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- providers:begin -->\n", "<!-- providers:end -->"


AUTHENTICATION = {
    "none": "none",
    "bearer": "bearer key",
    "aws": "AWS (SigV4, API key)",
    "azure": "Azure (key, Entra)",
    "google": "Google (ADC, service account)",
}


def row(provider: Provider) -> str:
    keys = " or ".join(f"`{name}`" for name in provider.key_environment)
    authentication = AUTHENTICATION.get(provider.auth, f"`{provider.auth}` header")
    if provider.launch:
        authentication = keys = "none: starts a model on this machine"
    elif provider.key_optional and provider.auth == "bearer":
        authentication += ", if it wants one"
    needed = [
        setting.environment[0] for setting in provider.settings if setting.environment and is_needed(provider, setting)
    ]
    if not provider.base_url and provider.base_url_environment:
        needed.insert(0, provider.base_url_environment[0])
    also = " and ".join(f"`{name}`" for name in needed)
    variables = "; ".join(filter(None, (keys if not provider.launch else "", also)))
    names = " ".join(f"`{name}`" for name in (provider.name, *provider.aliases))
    dialects = " ".join(f"`{dialect}`" for dialect in dialects_of(provider))
    model = f"`{provider.default_model}`" if provider.default_model else "—"
    return f"| {names} | {dialects} | {authentication} | {variables or '—'} | {model} |\n"


def is_needed(provider: Provider, setting: Setting) -> bool:
    """Say whether a request cannot be sent before this setting is made: AWS's region is found without."""
    told = provider.auth == "aws" and setting.name == "region"
    return not setting.default and not told and (setting.required or f"{{{setting.name}}}" in provider.base_url)


def table() -> str:
    head = "| provider | dialects | authentication | variables | default model |\n|---|---|---|---|---|\n"
    return head + "".join(row(provider) for provider in TABLE)


def with_table(text: str) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


def test_the_readme_lists_the_providers() -> None:
    text = README.read_text("utf-8")
    assert with_table(text) == text, "run: python tests/test_readme.py --write"


def test_the_readme_has_the_two_commands() -> None:
    text = README.read_text("utf-8")
    assert "<!-- ci:main -->\n```sh\n" in text
    assert "<!-- ci:test -->\n```sh\n" in text


if __name__ == "__main__" and "--write" in sys.argv:
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
