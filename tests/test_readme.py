"""The README's table of providers is the table of providers. `python tests/test_readme.py --write` renews it."""

from __future__ import annotations

import sys
from pathlib import Path

from loomstream.providers import DIALECTS, Provider
from loomstream.providers.table import TABLE

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- providers:begin -->\n", "<!-- providers:end -->"


def row(provider: Provider) -> str:
    keys = " or ".join(f"`{name}`" for name in provider.key_environment)
    if provider.launch:
        keys = "none: starts a model on this machine"
    elif provider.auth == "none":
        keys = "none"
    elif provider.key_optional:
        keys += ", if it wants one"
    model = f"`{provider.default_model}`" if provider.default_model else "—"
    return f"| `{provider.name}` | `{provider.dialect}` | {DIALECTS[provider.dialect]} | {keys} | {model} |\n"


def table() -> str:
    head = "| provider | dialect | framing | key | default model |\n|---|---|---|---|---|\n"
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
