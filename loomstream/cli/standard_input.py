"""What comes on standard input: a prompt, or a key.

Contract: standard input is read once, and never where it is a terminal unless `-` asks for that. A key typed at a
terminal is not shown.
"""

from __future__ import annotations

import sys

import click

from loomstream.wire import Secret

DASH = "-"
"""The argument that means standard input."""


def read_prompt(argument: str | None, *, taken: bool) -> str:
    """Give the prompt: the argument, what is piped in, or both with an empty line between.

    `taken` says that standard input holds a key. Raises `click.UsageError` where there is no prompt.
    """
    if argument == DASH and taken:
        msg = "standard input can hold the key or the prompt, not both: give the prompt as an argument"
        raise click.UsageError(msg)
    piped = "" if taken or not (argument == DASH or _is_piped()) else _read()
    given = "" if argument is None or argument == DASH else _encodable(argument)
    prompt = "\n\n".join(part for part in (given, piped.strip("\n")) if part.strip())
    if not prompt:
        msg = 'there is no prompt: give one, as in `looms ask "Why is the sky blue?"`, or pipe one in'
        raise click.UsageError(msg)
    return prompt


def read_key(provider: str) -> Secret:
    """Give the key that standard input holds; a terminal is asked for it, without an echo."""
    if not _is_piped():
        return Secret(click.prompt(f"Key for {provider} (not shown)", hide_input=True, err=True))
    return Secret(_read().strip())


def _is_piped() -> bool:
    return sys.stdin is not None and not sys.stdin.isatty()  # None where the descriptor is closed


def _read() -> str:
    return "" if sys.stdin is None else sys.stdin.buffer.read().decode("utf-8-sig", "replace")


def _encodable(argument: str) -> str:
    """Replace bytes that were no text: Python hands them on as surrogates, which no JSON can carry."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
