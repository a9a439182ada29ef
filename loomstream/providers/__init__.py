"""Providers: hosts that speak a dialect. A provider is a row of data; `table.py` is the table.

Contract: adding an OpenAI-compatible host is one row. No other module names a provider in a condition. A package can
add rows through the entry-point group `loomstream.providers`: each entry names a `Provider` value.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from typing import TYPE_CHECKING, Literal, cast

import msgspec
from msgspec import Struct

from loomstream.dialects import Dialect, Quirks
from loomstream.errors import ConfigError, UnknownProvider

if TYPE_CHECKING:
    from importlib import metadata

ENTRY_POINT_GROUP = "loomstream.providers"

DIALECTS = {"anthropic_messages": "sse", "ollama_chat": "ndjson", "openai_chat": "sse"}
"""The dialects' module names, each with the framing of its streams."""

_SIMILAR = 0.7
"""How much alike two names must be for a suggestion: a typing error, not a chance likeness."""


class Provider(Struct, frozen=True, kw_only=True):
    """One host. `key_environment` and `base_url_environment` are looked up in order; the first that is set wins.

    `auth` names a scheme of `loomstream.auth`; `key_optional` is for hosts that may want no key. `keyring` is the name
    of the key in the system keyring (service `loom`). `launch` names the function (`module:function`) that starts the
    host as a process of its own, for a provider that has no base URL before.
    """

    name: str
    dialect: str = "openai_chat"
    base_url: str = ""
    auth: Literal["bearer", "x-api-key", "none"] = "bearer"
    key_optional: bool = False
    key_environment: tuple[str, ...] = ()
    base_url_environment: tuple[str, ...] = ()
    keyring: str = ""
    default_model: str = ""
    quirks: Quirks = Quirks()
    launch: str = ""

    @property
    def needs_key(self) -> bool:
        """Whether no request can be sent without a credential."""
        return self.auth != "none" and not self.key_optional


@functools.cache
def _installed() -> dict[str, Provider]:
    from importlib import metadata  # noqa: PLC0415 (30 ms, and only for a name that the table does not have)

    rows = [_loaded(entry) for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)]
    return {row.name: row for row in rows}


def _loaded(entry: metadata.EntryPoint) -> Provider:
    place = f"the entry point {entry.name!r} of group {ENTRY_POINT_GROUP}"
    try:
        row = entry.load()
    except Exception as error:
        msg = f"{place} cannot be loaded ({type(error).__name__}: {error}): repair or uninstall its package"
        raise ConfigError(msg) from error
    if not isinstance(row, Provider):
        msg = f"{place} gives a {type(row).__name__}, no Provider"
        raise ConfigError(msg)
    try:
        dialect_module(row.dialect)
        return msgspec.convert(msgspec.structs.asdict(row), Provider)
    except (ConfigError, msgspec.ValidationError) as error:
        msg = f"{place} gives a row that cannot be used: {error}"
        raise ConfigError(msg) from error


def all_providers() -> tuple[Provider, ...]:
    """Give every row: the table's, then those of installed packages, which cannot take the place of one of the table.

    Raises `ConfigError` for a bad entry point.
    """
    from loomstream.providers.table import BY_NAME, TABLE  # noqa: PLC0415 (the table imports this module)

    return (*TABLE, *(row for name, row in _installed().items() if name not in BY_NAME))


def look_up(name: str) -> Provider:
    """Give the row of this name (case-sensitive).

    Raises `UnknownProvider`, which suggests the nearest name, and `ConfigError` for a bad entry point.
    """
    from loomstream.providers.table import BY_NAME  # noqa: PLC0415 (the table imports this module)

    row = BY_NAME.get(name) or _installed().get(name)
    if row is None:
        known = [provider.name for provider in all_providers()]
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=_SIMILAR)
        hint = f"did you mean {near[0]!r}? " if near else ""
        msg = f"unknown provider {name!r}: {hint}known are {', '.join(sorted(known))}; any OpenAI-compatible host "
        raise UnknownProvider(msg + "works as openai-compatible with base_url=")
    return row


def dialect_module(name: str) -> Dialect:
    """Give a dialect's module by its name, or raise `ConfigError`."""
    if name not in DIALECTS:
        msg = f"unknown dialect {name!r}: known are {', '.join(DIALECTS)}"
        raise ConfigError(msg)
    return cast("Dialect", importlib.import_module(f"loomstream.dialects.{name}"))
