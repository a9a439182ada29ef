"""The options that take a key: five of them, each where the table has its provider.

Contract: THE place that names them. A key on the command line draws a warning, because other users see arguments;
`-` reads it from standard input. Keys leave here as `Secret`s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from loomstream.cli.output import warn
from loomstream.cli.standard_input import DASH, read_key
from loomstream.providers.table import BY_NAME
from loomstream.wire import Secret

_FLAGS = {
    "anthropic": "--anthropic-key",
    "openai": "--openai-key",
    "mistral": "--mistral-key",
    "gemini": "--gemini-key",
    "huggingface": "--huggingface-token",
}
KEY_FLAGS = {provider: flag for provider, flag in _FLAGS.items() if provider in BY_NAME}
"""The option of each provider that has one."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def key_options(function: _Function) -> _Function:
    """Add the options to a command; their values arrive under the names that `parameter` gives."""
    for provider, flag in reversed(KEY_FLAGS.items()):
        text = f"The key for {provider}; other users can see arguments, so better - (standard input)."
        function = click.option(flag, parameter(provider), metavar="KEY", help=text)(function)
    return function


def parameter(provider: str) -> str:
    """Give the name under which a provider's key arrives."""
    return f"key_of_{provider}"


def read_keys(values: Mapping[str, str | None]) -> tuple[dict[str, Secret], bool]:
    """Give the keys by provider, and whether one was read from standard input.

    Raises `click.UsageError` where two are to come from there, or none does.
    """
    given = {provider: value for provider in KEY_FLAGS if (value := values.get(parameter(provider)))}
    from_stdin = [provider for provider, value in given.items() if value == DASH]
    if len(from_stdin) > 1:
        msg = f"standard input can hold one key: {' and '.join(KEY_FLAGS[name] for name in from_stdin)} both ask for it"
        raise click.UsageError(msg)
    for provider in given:
        if provider not in from_stdin:
            warn(
                f"{KEY_FLAGS[provider]}: other users of this machine can see arguments; give the key on standard input "
                f"({KEY_FLAGS[provider]} -), or set {BY_NAME[provider].key_environment[-1]}"
            )
    keys = {name: read_key(name) if value == DASH else Secret(value) for name, value in given.items()}
    for name in from_stdin:
        if not keys[name]:
            msg = f"standard input is empty: {KEY_FLAGS[name]} - reads the key from it"
            raise click.UsageError(msg)
    return keys, bool(from_stdin)
