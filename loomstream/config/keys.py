"""Finds a provider's credential: argument, our variables, `looms.yaml`, the vendor's variables, the system's keyring.

Contract: a credential leaves here only as a `Secret`; no error, note or repr shows any part of one. The keyring is
asked only when nothing else has the key (see `keyring_store`). This module never writes a key and knows no provider:
names, and what the file holds, come from the caller.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from functools import partial

from msgspec import Struct

from loomstream.config.keyring_store import KEYRING_TIMEOUT_S, SERVICE, read_entry, source_of
from loomstream.errors import ConfigError, MissingKey
from loomstream.wire import Secret

__all__ = ("KEYRING_TIMEOUT_S", "SERVICE", "ResolvedKey", "by_rank", "checked", "hide", "missing_key", "resolve_key",
           "resolve_key_sync")  # fmt: skip

_OURS = "LOOM_"


class ResolvedKey(Struct, frozen=True):
    """A credential and where it was found: `argument`, `environment NAME`, `file PATH:LINE`, `keyring loom/NAME`."""

    secret: Secret
    source: str


async def resolve_key(  # noqa: PLR0913 (where to look, in order; all keyword-only)
    *,
    provider: str,
    argument: str | Secret | None = None,
    env_names: Sequence[str] = (),
    in_file: ResolvedKey | None = None,
    keyring_name: str = "",
    environ: Mapping[str, str] | None = None,
    notes: MutableSequence[str] | None = None,
    timeout_s: float = KEYRING_TIMEOUT_S,
    is_header: bool = True,
) -> ResolvedKey | None:
    """Find the key of a provider, or None; see `resolve_key_sync`. The event loop goes on meanwhile."""
    argument = hide(argument)
    found = _given(provider, argument, env_names, environ, in_file, is_header=is_header)
    if found is not None or not keyring_name:
        return found
    from anyio import to_thread  # noqa: PLC0415 (only inside an event loop)

    ask = partial(_from_keyring, keyring_name, notes=notes, timeout_s=timeout_s, is_header=is_header)
    return await to_thread.run_sync(ask, abandon_on_cancel=True)


def resolve_key_sync(  # noqa: PLR0913 (as above)
    *,
    provider: str,
    argument: str | Secret | None = None,
    env_names: Sequence[str] = (),
    in_file: ResolvedKey | None = None,
    keyring_name: str = "",
    environ: Mapping[str, str] | None = None,
    notes: MutableSequence[str] | None = None,
    timeout_s: float = KEYRING_TIMEOUT_S,
    is_header: bool = True,
) -> ResolvedKey | None:
    """Find the key of a provider, or None.

    The order is: `argument`, the `LOOM_…` names among `env_names`, `in_file` (what a `looms.yaml` holds), the other
    names in their order, and `keyring_name` in the system's keyring. What is empty or blank counts as not set. White
    space around a key is dropped.

    `environ` is `os.environ` by default. Reasons why the keyring could not be asked are appended to `notes`, for
    `missing_key`. Raises `ConfigError` where a key holds a character that no HTTP header can carry, unless
    `is_header` is False: then it is a document (the JSON of a service account), not what is sent.
    """
    argument = hide(argument)
    found = _given(provider, argument, env_names, environ, in_file, is_header=is_header)
    if found is not None or not keyring_name:
        return found
    return _from_keyring(keyring_name, notes=notes, timeout_s=timeout_s, is_header=is_header)


def missing_key(
    provider: str, env_names: Sequence[str] = (), keyring_name: str = "", notes: Iterable[str] = ()
) -> MissingKey:
    """Give the error that says how to set a provider's key: one sentence."""
    ways: list[str] = []
    names = by_rank(env_names)
    if names:
        ways.append(f"set {names[0]}" + (f" (or {', '.join(names[1:])})" if names[1:] else ""))
    if keyring_name:
        ways.append(f"run `looms config set-key {keyring_name}`")
    ways.append("pass api_key=…")
    text = f"no API key for {provider}: " + (", ".join(ways[:-1]) + " or " if ways[:-1] else "") + ways[-1]
    reasons = "; ".join(notes)
    return MissingKey(f"{text} ({reasons})" if reasons else text, provider=provider)


def by_rank(env_names: Sequence[str]) -> list[str]:
    """Give the variables in the order in which they count: `LOOM_…` before others, else as they are."""
    return sorted(env_names, key=lambda name: not name.startswith(_OURS))


# No function that raises holds a credential in a plain variable: reports of errors may show local variables.


def hide(argument: str | Secret | None) -> Secret | None:
    """Wrap what a caller gave as a credential; whether it is a string shows where it is looked at."""
    return Secret(argument) if argument is not None and not isinstance(argument, Secret) else argument


def _given(
    provider: str,
    argument: Secret | None,
    env_names: Sequence[str],
    environ: Mapping[str, str] | None,
    in_file: ResolvedKey | None,
    *,
    is_header: bool,
) -> ResolvedKey | None:
    if argument is not None:
        kind = type(argument.reveal())
        if kind is not str:
            msg = f"the API key for {provider} must be a string, not {kind.__name__}"
            raise ConfigError(msg, provider=provider)
    for candidate in _candidates(argument, env_names, environ, in_file):
        found = _cleaned(candidate.secret, candidate.source, is_header=is_header)
        if found is not None:
            return found
    return None


def _candidates(
    argument: Secret | None,
    env_names: Sequence[str],
    environ: Mapping[str, str] | None,
    in_file: ResolvedKey | None,
) -> Iterator[ResolvedKey]:
    """Give what may be the key, the strongest first; empty ones too."""
    if argument is not None:
        yield ResolvedKey(argument, "argument")
    ours = [name for name in env_names if name.startswith(_OURS)]
    yield from (ResolvedKey(_variable(name, environ), f"environment {name}") for name in ours)
    if in_file is not None:
        yield in_file
    others = [name for name in env_names if name not in ours]
    yield from (ResolvedKey(_variable(name, environ), f"environment {name}") for name in others)


def _variable(name: str, environ: Mapping[str, str] | None) -> Secret:
    return Secret((os.environ if environ is None else environ).get(name, ""))


def checked(secret: Secret, *, source: str, is_header: bool = True) -> Secret:
    """Give a key without the white space around it.

    Raises `ConfigError` where it holds a character that no HTTP header can carry (unless `is_header` is False).
    """
    found = _cleaned(secret, source, is_header=is_header)
    return Secret("") if found is None else found.secret


def _cleaned(secret: Secret, source: str, *, is_header: bool) -> ResolvedKey | None:
    problem = _problem(secret.reveal().strip()) if is_header else ""
    if problem:
        msg = f"the API key ({source}) holds {problem}: copy the key again and nothing else"
        raise ConfigError(msg)
    cleaned = Secret(secret.reveal().strip())
    return ResolvedKey(cleaned, source) if cleaned else None


def _problem(value: str) -> str:
    for position, character in enumerate(value, start=1):
        if not " " <= character <= "~":
            what = "a control character" if character.isascii() else "a character that is not ASCII"
            return f"{what} at position {position}"
    return ""


def _from_keyring(
    name: str, *, notes: MutableSequence[str] | None, timeout_s: float, is_header: bool
) -> ResolvedKey | None:
    found = read_entry(name, notes=notes, timeout_s=timeout_s)
    return None if found is None else _cleaned(found, source_of(name), is_header=is_header)
