"""Finds a provider's credential: argument, then environment, then the system's keyring.

Contract: a credential leaves here only as a `Secret`; no error, note or repr shows any part of one. The keyring is
another program that may ask its user, hang or be absent, so it is imported only when nothing else has the key, is
asked in a thread of its own, and is given up after `KEYRING_TIMEOUT_S`. What keeps keys in plain text is not asked.
This module never writes a key and knows no provider: names come from the caller.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from functools import partial
from typing import TYPE_CHECKING

from anyio import to_thread
from msgspec import Struct

from loomstream.errors import ConfigError, MissingKey
from loomstream.wire import Secret

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE = "loom"
"""The keyring service under which every key is kept."""

KEYRING_TIMEOUT_S = 5.0
"""How long the keyring may take to answer, in seconds."""

_OURS = "LOOM_"
_ABSENT = ("keyring.backends.fail", "keyring.backends.null")
_CHAIN = "keyring.backends.chainer"
_PLAIN_TEXT = "keyrings.alt"


def _from_hex(text: str) -> bytes:
    return bytes.fromhex(text)


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "go-keyring-encoded:": _from_hex,
    "go-keyring-base64:": _from_base64,
}
"""How other programs that share the service wrap a value (zalando/go-keyring, on macOS)."""


class ResolvedKey(Struct, frozen=True):
    """A credential and where it was found: `argument`, `environment NAME`, or `keyring loom/NAME`."""

    secret: Secret
    source: str


async def resolve_key(  # noqa: PLR0913 (where to look, in order; all keyword-only)
    *,
    provider: str,
    argument: str | Secret | None = None,
    env_names: Sequence[str] = (),
    keyring_name: str = "",
    environ: Mapping[str, str] | None = None,
    notes: MutableSequence[str] | None = None,
    timeout_s: float = KEYRING_TIMEOUT_S,
    is_header: bool = True,
) -> ResolvedKey | None:
    """Find the key of a provider, or None; see `resolve_key_sync`. The event loop goes on meanwhile."""
    argument = hide(argument)
    found = _given(provider, argument, env_names, environ, is_header=is_header)
    if found is not None or not keyring_name:
        return found
    ask = partial(_from_keyring, keyring_name, notes=notes, timeout_s=timeout_s, is_header=is_header)
    return await to_thread.run_sync(ask, abandon_on_cancel=True)


def resolve_key_sync(  # noqa: PLR0913 (as above)
    *,
    provider: str,
    argument: str | Secret | None = None,
    env_names: Sequence[str] = (),
    keyring_name: str = "",
    environ: Mapping[str, str] | None = None,
    notes: MutableSequence[str] | None = None,
    timeout_s: float = KEYRING_TIMEOUT_S,
    is_header: bool = True,
) -> ResolvedKey | None:
    """Find the key of a provider, or None.

    The order is: `argument`, the `LOOM_…` names among `env_names`, its other names in their order, and `keyring_name`
    in the system's keyring. What is empty or blank counts as not set. White space around a key is dropped.

    `environ` is `os.environ` by default. Reasons why the keyring could not be asked are appended to `notes`, for
    `missing_key`. Raises `ConfigError` where a key holds a character that no HTTP header can carry, unless
    `is_header` is False: then it is a document (the JSON of a service account), not what is sent.
    """
    argument = hide(argument)
    found = _given(provider, argument, env_names, environ, is_header=is_header)
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
        ways.append(f"run `keyring set {SERVICE} {keyring_name}`")
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
    *,
    is_header: bool,
) -> ResolvedKey | None:
    if argument is not None:
        kind = type(argument.reveal())
        if kind is not str:
            msg = f"the API key for {provider} must be a string, not {kind.__name__}"
            raise ConfigError(msg, provider=provider)
        found = _cleaned(argument, "argument", is_header=is_header)
        if found is not None:
            return found
    for name in by_rank(env_names):
        found = _cleaned(_variable(name, environ), f"environment {name}", is_header=is_header)
        if found is not None:
            return found
    return None


def _variable(name: str, environ: Mapping[str, str] | None) -> Secret:
    return Secret((os.environ if environ is None else environ).get(name, ""))


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


class _Inquiry(threading.Thread):
    """Asks the keyring for one entry. A daemon: a keyring that hangs must not keep the process alive."""

    def __init__(self, name: str) -> None:
        super().__init__(name=f"keyring {SERVICE}/{name}", daemon=True)
        self._entry = name
        self.value: str | None = None
        self.notes: list[str] = []

    def run(self) -> None:
        try:
            self.value = _ask(self._entry, self.notes)
        except Exception as error:  # noqa: BLE001 (backends are plug-ins: they raise anything, and its text may hold a key)
            self.notes.append(f"the keyring could not be read: {type(error).__name__}")


_stuck: list[_Inquiry] = []
"""Inquiries that were given up; while one still hangs, no other is begun."""


def _from_keyring(
    name: str, *, notes: MutableSequence[str] | None, timeout_s: float, is_header: bool
) -> ResolvedKey | None:
    reasons: MutableSequence[str] = [] if notes is None else notes
    _stuck[:] = [inquiry for inquiry in _stuck if inquiry.is_alive()]
    if _stuck:
        reasons.append("the keyring does not answer")
        return None
    inquiry = _Inquiry(name)
    inquiry.start()
    inquiry.join(timeout_s)
    if inquiry.is_alive():
        _stuck.append(inquiry)
        reasons.append(f"the keyring did not answer within {timeout_s:g} s")
        return None
    reasons.extend(inquiry.notes)
    source = f"keyring {SERVICE}/{name}"
    if inquiry.value is None:
        return None
    return _cleaned(_decoded(Secret(inquiry.value), source), source, is_header=is_header)


def _ask(name: str, notes: list[str]) -> str | None:
    import keyring  # noqa: PLC0415 (64 ms, and only where no other place has the key)
    from keyring.errors import KeyringLocked, NoKeyringError  # noqa: PLC0415 (the same)

    for backend in _usable(keyring.get_keyring(), notes):
        try:
            value = backend.get_password(SERVICE, name)
        except NoKeyringError:
            continue
        except KeyringLocked:
            notes.append("the keyring is locked")
            continue
        if value is not None:
            return value
    return None


def _usable(backend: KeyringBackend, notes: list[str]) -> Iterable[KeyringBackend]:
    module = type(backend).__module__
    if module == _CHAIN:
        for link in getattr(backend, "backends", ()):
            yield from _usable(link, notes)
    elif module == _PLAIN_TEXT or module.startswith(_PLAIN_TEXT + "."):
        notes.append(f"the keyring {module}.{type(backend).__name__} keeps keys in plain text and is not used")
    elif module not in _ABSENT:
        yield backend


def _decoded(secret: Secret, source: str) -> Secret:
    prefix = next((prefix for prefix in _ENCODINGS if secret.reveal().startswith(prefix)), "")
    if not prefix:
        return secret
    plain = _unwrapped(secret.reveal().removeprefix(prefix).strip(), _ENCODINGS[prefix])
    if plain is None:
        msg = f"the API key ({source}) is wrapped as {prefix!r} but cannot be unwrapped: set it again"
        raise ConfigError(msg)
    return Secret(plain)


def _unwrapped(text: str, decode: Callable[[str], bytes]) -> str | None:
    try:
        return decode(text).decode("utf-8")
    except ValueError:  # not raised from: a UnicodeDecodeError holds the key
        return None
