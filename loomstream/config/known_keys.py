"""The names under which keys are kept, and where each key comes from here and now.

Contract: names, variables and paths come from the tables of providers and settings; there is no list here. A status
says where a key was found; of the key itself it holds nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, MutableSequence
from typing import TYPE_CHECKING

from msgspec import Struct

from loomstream.auth import API_KEY
from loomstream.config.keyring_store import read_entry, source_of
from loomstream.config.keys import ResolvedKey, by_rank, resolve_key_sync
from loomstream.config.table import SETTINGS, fed_by
from loomstream.errors import ConfigError
from loomstream.providers import Provider, listing
from loomstream.wire import Secret

if TYPE_CHECKING:
    from loomstream.config.settings import Settings

_SHOWN_CHARS = 4
_LEAST_MASKED_CHARS = 16
"""A shorter value is not shown at all: eight of its characters would be too many."""


class KnownKey(Struct, frozen=True, kw_only=True):
    """A key that can be kept: `name` is the keyring entry, empty where a package's provider has none.

    `provider` and `setting` (`api_key`, or the name of a secret setting) are empty for what is no provider's. `path` is
    its place in a `looms.yaml`, `variables` are those that set it, in the order in which they count. `is_header` says
    that it is sent as it is; else it may be a document of several lines.
    """

    name: str
    provider: str = ""
    setting: str = ""
    path: str = ""
    variables: tuple[str, ...] = ()
    is_header: bool = True

    @property
    def variable(self) -> str:
        """The first variable that sets it; empty where none does."""
        return next(iter(self.variables), "")


class KeyStatus(Struct, frozen=True, kw_only=True):
    """Where a key comes from: `source` is the place that wins, empty where the key is nowhere; `error` what is wrong.

    `in_keyring` says whether the keyring has it, whoever wins; None where the keyring could not be asked.
    """

    name: str
    provider: str
    source: str
    in_keyring: bool | None
    variables: tuple[str, ...]
    error: str = ""


# --- names ---------------------------------------------------------------------------------------


def known_keys() -> tuple[KnownKey, ...]:
    """Give every key that can be kept: those of all providers, installed packages' included, then others' (Hawk's)."""
    found: dict[str, KnownKey] = {}
    rows = [listed.row for listed in listing(with_file=False) if listed.row is not None]
    for key in (*(key for row in rows for key in keys_of(row)), *_others()):
        if key.name:
            found.setdefault(key.name, key)
    return tuple(found.values())


def keys_of(row: Provider) -> Iterator[KnownKey]:
    """Give the keys of one provider: its own first."""
    if row.keyring or row.key_environment:
        yield _known(row, row.keyring, API_KEY, row.key_environment)
    for setting in row.settings:
        if setting.keyring:
            yield _known(row, setting.keyring, setting.name, setting.environment)


def _known(row: Provider, name: str, setting: str, variables: tuple[str, ...]) -> KnownKey:
    fed = fed_by(row.name, setting)
    return KnownKey(
        name=name,
        provider=row.name,
        setting=setting,
        path="" if fed is None else fed.path,
        variables=tuple(by_rank(variables)),
        is_header=setting == API_KEY,
    )


def _others() -> Iterator[KnownKey]:
    for row in SETTINGS:
        if row.keyring and not row.provider:
            yield KnownKey(name=row.keyring, path=row.path, variables=(*row.environment, *row.vendor_environment))


def known_key(name: str) -> KnownKey:
    """Give the key of this name. Raises `ConfigError`, which suggests the nearest one."""
    known = {key.name: key for key in known_keys()}
    if name in known:
        return known[name]
    begun = (each for each in known if name and each.startswith(name.lower()))
    near = next(iter(difflib.get_close_matches(name.lower(), known, n=1)), "") or min(begun, key=len, default="")
    hint = f"did you mean {near!r}?" if near else "looms config list-keys has all"
    msg = f"there is no key of the name {name[:80]!r}: {hint}"
    raise ConfigError(msg)


# --- where they come from ------------------------------------------------------------------------


def in_file(key: KnownKey, settings: Settings | None) -> ResolvedKey | None:
    """Give what the configuration file holds of a key."""
    if settings is None or not key.path or settings.origin(key.path).layer != "file":
        return None
    value = settings.given(key.path)
    return ResolvedKey(value, f"file {settings.origin(key.path).where}") if isinstance(value, Secret) else None


def find_key(
    key: KnownKey, settings: Settings | None = None, notes: MutableSequence[str] | None = None
) -> ResolvedKey | None:
    """Give a key and where it comes from, None where it is nowhere. Raises `ConfigError` where it cannot be used."""
    return resolve_key_sync(
        provider=key.provider or key.name,
        env_names=key.variables,
        in_file=in_file(key, settings),
        keyring_name=key.name,
        notes=notes,
        is_header=key.is_header,
    )


def status(key: KnownKey, settings: Settings | None = None) -> KeyStatus:
    """Say where a key comes from, and whether the keyring has it."""
    notes: list[str] = []
    error, source = "", ""
    try:
        kept = read_entry(key.name, notes=notes) is not None
        found = resolve_key_sync(
            provider=key.provider or key.name,
            env_names=key.variables,
            in_file=in_file(key, settings),
            is_header=key.is_header,
        )
        source = found.source if found is not None else source_of(key.name) if kept else ""
    except ConfigError as problem:
        kept, error = False, str(problem)
    return KeyStatus(
        name=key.name,
        provider=key.provider,
        source=source,
        in_keyring=None if notes and not kept else kept,
        variables=key.variables,
        error=error or "; ".join(notes),
    )


def masked(secret: Secret) -> str:
    """Give what may be shown of a key: its first and last four characters; of a short one, or of a document, nothing.

    >>> masked(Secret("sk-0123456789abcdef"))
    'sk-0...cdef'
    """
    value = secret.reveal()
    if len(value) < _LEAST_MASKED_CHARS or not value.isprintable() or value.startswith("{"):
        return "***"
    return f"{value[:_SHOWN_CHARS]}...{value[-_SHOWN_CHARS:]}"
