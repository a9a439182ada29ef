"""The system's keyring: reads, writes and deletes entries of the service `loom`.

Contract: a value enters and leaves as a `Secret`; no error, note or repr shows any part of one. The keyring is another
program that may ask its user, hang or be absent: it is imported when it is first asked, is asked in a thread of its
own, and is given up after a time. What keeps keys in plain text is neither read nor written, and nothing is ever kept
elsewhere in its place. This module knows no provider: names come from the caller.
"""

from __future__ import annotations

import base64
import os
import sys
import threading
from collections.abc import Callable, Iterator, MutableSequence
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from msgspec import Struct

from loomstream.config.keyring_absence import is_plainly_absent
from loomstream.errors import ConfigError
from loomstream.wire import Secret

if TYPE_CHECKING:
    from types import ModuleType

    from keyring.backend import KeyringBackend

SERVICE = "loom"
"""The keyring service under which every key is kept."""

KEYRING_TIMEOUT_S = 5.0
"""How long the keyring may take to answer on the way to something else, in seconds."""

PATIENCE_S = 60.0
"""How long it may take where its user waits for it, and may have to unlock it, in seconds."""

_ABSENT = ("keyring.backends.fail", "keyring.backends.null")
_CHAIN = "keyring.backends.chainer"
_PLAIN_TEXT = "keyrings.alt"
_ONLY_ON_A_MAC = "keyring.backends.macOS.api"

_Result = TypeVar("_Result")


class Backend(Struct, frozen=True):
    """What the keyring is: `name` is that of the part that is written to, empty where none can be used.

    `notes` say what cannot be used, and why.
    """

    name: str
    notes: tuple[str, ...] = ()


# --- encodings -----------------------------------------------------------------------------------


def _from_hex(text: str) -> bytes:
    return bytes.fromhex(text)


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "go-keyring-encoded:": _from_hex,
    "go-keyring-base64:": _from_base64,
}
"""How other programs that share the service wrap a value (zalando/go-keyring, on macOS)."""


def source_of(name: str) -> str:
    """Give how a key of this name is said to come from the keyring."""
    return f"keyring {SERVICE}/{name}"


# No function that raises holds a credential in a plain variable: reports of errors may show local variables.


def _decoded(secret: Secret, name: str) -> Secret:
    prefix = next((prefix for prefix in _ENCODINGS if secret.reveal().startswith(prefix)), "")
    if not prefix:
        return secret
    plain = _unwrapped(secret.reveal().removeprefix(prefix).strip(), _ENCODINGS[prefix])
    if plain is None:
        msg = f"the API key ({source_of(name)}) is wrapped as {prefix!r} but cannot be unwrapped: set it again"
        raise ConfigError(msg)
    return Secret(plain)


def _unwrapped(text: str, decode: Callable[[str], bytes]) -> str | None:
    try:
        return decode(text).decode("utf-8")
    except ValueError:  # not raised from: a UnicodeDecodeError holds the key
        return None


# --- asking --------------------------------------------------------------------------------------


class _Inquiry(threading.Thread, Generic[_Result]):
    """Does one thing with the keyring. A daemon: a keyring that hangs must not keep the process alive."""

    def __init__(self, name: str, work: Callable[[list[str]], _Result]) -> None:
        super().__init__(name=f"keyring {SERVICE}/{name}", daemon=True)
        self._work = work
        self.result: _Result | None = None
        self.notes: list[str] = []

    def run(self) -> None:
        try:
            self.result = self._work(self.notes)
        except BaseException as error:  # noqa: BLE001 (back ends raise anything, SystemExit too; its text may hold a key)
            self.notes.append(f"the keyring could not be read: {type(error).__name__}")


_stuck: list[threading.Thread] = []
"""Inquiries that were given up; while one still hangs, no other is begun."""


def _asked(
    name: str, work: Callable[[list[str]], _Result], reasons: MutableSequence[str], timeout_s: float
) -> _Result | None:
    _stuck[:] = [inquiry for inquiry in _stuck if inquiry.is_alive()]
    if _stuck:
        reasons.append("the keyring does not answer")
        return None
    inquiry = _Inquiry(name, work)
    inquiry.start()
    inquiry.join(timeout_s)
    if inquiry.is_alive():
        _stuck.append(inquiry)
        reasons.append(f"the keyring did not answer within {timeout_s:g} s")
        return None
    reasons.extend(inquiry.notes)
    return inquiry.result


def _usable(backend: KeyringBackend, notes: list[str]) -> Iterator[KeyringBackend]:
    module = type(backend).__module__
    if module == _CHAIN:
        for link in getattr(backend, "backends", ()):
            yield from _usable(link, notes)
    elif module == _PLAIN_TEXT or module.startswith(_PLAIN_TEXT + "."):
        notes.append(f"the keyring {_title(backend)} keeps keys in plain text and is not used")
    elif module not in _ABSENT:
        yield backend


def _title(backend: KeyringBackend) -> str:
    return f"{type(backend).__module__}.{type(backend).__name__}"


def _backends(notes: list[str]) -> Iterator[KeyringBackend]:
    if is_plainly_absent(os.environ):
        return iter(())
    if sys.platform != "darwin":  # keyring tries this one everywhere: it starts a compiler to find the Mac's libraries
        sys.modules.setdefault(_ONLY_ON_A_MAC, cast("ModuleType", None))
    import keyring  # noqa: PLC0415 (64 ms, and only where no other place has the key)

    return _usable(keyring.get_keyring(), notes)


def _looked_up(name: str, notes: list[str]) -> Secret | None:
    for backend in _backends(notes):
        from keyring.errors import KeyringLocked, NoKeyringError  # noqa: PLC0415 (only where there is a keyring)

        try:
            value = backend.get_password(SERVICE, name)
        except NoKeyringError:
            continue
        except KeyringLocked:
            notes.append("the keyring is locked")
            continue
        if isinstance(value, str):
            return Secret(value)
        if value is not None:
            notes.append(f"the keyring {_title(backend)} gave no text")
    return None


# --- entries -------------------------------------------------------------------------------------


def read_entry(
    name: str, *, notes: MutableSequence[str] | None = None, timeout_s: float = KEYRING_TIMEOUT_S
) -> Secret | None:
    """Give what the keyring holds under a name; None where it holds nothing or cannot be asked: then `notes` say why.

    Raises `ConfigError` for a value that another program wrapped and that cannot be unwrapped.
    """
    found = _asked(name, lambda told: _looked_up(name, told), [] if notes is None else notes, timeout_s)
    return None if found is None else _decoded(found, name)


def get_key(name: str, *, variable: str = "", timeout_s: float = PATIENCE_S) -> Secret | None:
    """Give the entry of this name, None where there is none.

    Raises `ConfigError` where the keyring cannot be asked; it names `variable` as the other way to set the key.
    """
    reasons: list[str] = []
    found = read_entry(name, notes=reasons, timeout_s=timeout_s)
    if found is None and (reasons or not backend(timeout_s=timeout_s).name):
        raise _unusable(reasons, _by_variable(variable))
    return found


def set_key(name: str, value: Secret, *, variable: str = "", timeout_s: float = PATIENCE_S) -> str:
    """Write an entry, read it back, and give the name of the keyring that holds it.

    Raises `ConfigError` where the value is empty, and where there is no keyring that keeps it encrypted, or it refuses
    the value; it names `variable` as the other way to set the key.
    """
    if not value:
        msg = f"the value of {name} is empty: nothing is stored"
        raise ConfigError(msg)
    reasons: list[str] = []
    kept = _asked(name, lambda told: _written(name, value, told), reasons, timeout_s)
    if not kept:
        raise _unusable(reasons, _by_variable(variable))
    return kept


def _written(name: str, value: Secret, notes: list[str]) -> str:
    for backend in _backends(notes):
        problem = _refusal(partial(_write, backend, name, value))
        if not problem and backend.get_password(SERVICE, name) != value.reveal():
            problem = "it gives back another value than it was given"
        if not problem:
            return _title(backend)
        notes.append(f"the keyring {_title(backend)} refused the value: {problem}")
    return ""


def _write(backend: KeyringBackend, name: str, value: Secret) -> None:
    backend.set_password(SERVICE, name, value.reveal())  # pyright: ignore[reportUnknownMemberType] (no types)


def _refusal(write: Callable[[], None]) -> str:
    """Do it, and give why it failed: the kind alone, for the text may hold the value."""
    try:
        write()
    except BaseException as error:  # noqa: BLE001 (backends are plug-ins: they raise anything)
        return type(error).__name__
    return ""


def delete_key(name: str, *, variable: str = "", timeout_s: float = PATIENCE_S) -> bool:
    """Delete the entry of this name from every keyring that has it; False where none has.

    Raises `ConfigError` where the keyring cannot be asked, or refuses.
    """
    reasons: list[str] = []
    deleted = _asked(name, lambda told: _deleted(name, told), reasons, timeout_s)
    if deleted is None or (not deleted and (reasons or not backend(timeout_s=timeout_s).name)):
        instead = f"Nothing was deleted: where {_named(variable)} is set, unset it"
        raise _unusable(reasons, instead)
    return deleted > 0


def _deleted(name: str, notes: list[str]) -> int:
    count = 0
    for backend in _backends(notes):
        if backend.get_password(SERVICE, name) is None:
            continue
        problem = _refusal(partial(backend.delete_password, SERVICE, name))
        count += not problem
        if problem:
            notes.append(f"the keyring {_title(backend)} did not delete it: {problem}")
    return count


def backend(*, timeout_s: float = KEYRING_TIMEOUT_S) -> Backend:
    """Say which keyring there is, without reading an entry."""
    reasons: list[str] = []
    names = _asked("backend", lambda told: [_title(found) for found in _backends(told)], reasons, timeout_s)
    return Backend(names[0] if names else "", tuple(reasons))


def _by_variable(variable: str) -> str:
    """Say how a key is set without a keyring."""
    return f"Nothing is stored in plain text: set {_named(variable)} in its place"


def _named(variable: str) -> str:
    return f"the variable {variable}" if variable else "the key's variable"


def _unusable(reasons: list[str], instead: str) -> ConfigError:
    """Give the error that explains what to do without a keyring; `instead` is what can be done beside."""
    why = "; ".join(dict.fromkeys(reasons)) or "there is none on this machine, as is usual without a desktop"
    return ConfigError(
        f"the system's keyring cannot be used: {why}. {instead}, or unlock or install "
        "a keyring (Linux: gnome-keyring, started under dbus-run-session)"
    )
