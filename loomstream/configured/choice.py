"""Who answers: the row and the model that a spec means, and the spec where a program names nobody.

Contract: values in, values out; only `spec_of` may ask the keyring. A file of the working folder may name a provider,
but no host of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from time import monotonic
from typing import NamedTuple

from msgspec.structs import replace

from loomstream import catalog
from loomstream.auth import API_KEY
from loomstream.auth.signs import sign_of
from loomstream.config.keys import KEYRING_TIMEOUT_S, resolve_key_sync
from loomstream.config.settings import PoolEntry, Settings
from loomstream.config.table import fed_by
from loomstream.errors import ConfigError, UnknownModel, UnknownProvider, UsageError
from loomstream.kind_names import kind_of
from loomstream.providers import Provider, all_providers, look_up, plugins
from loomstream.providers.addresses import is_own_address
from loomstream.providers.config_file import distrust
from loomstream.providers.table import BY_NAME, TABLE
from loomstream.transport.outgoing import is_loopback_url

_log = logging.getLogger(__name__)
_EMBEDDED = "local"
_NAMING = ("active_provider", "llm.provider")
_NAMED = ("llm.provider", "middleware.failover.to")
"""Settings that name providers; an entry of the pool that there is not is told when the file is read."""
_LAYERS = ("argument", "environment", "file", "default")


class Chosen(NamedTuple):
    """A provider's row, a model id, and the entry of the pool that named them."""

    provider: Provider
    model: str
    entry: PoolEntry | None = None
    warnings: tuple[str, ...] = ()


# --- who answers ---------------------------------------------------------------------------------


def configured_spec(settings: Settings) -> str | None:
    """Give who answers by `active_provider` or `llm.provider`, whichever has the stronger layer; None where neither.

    Raises `ConfigError` where the file of a working folder would have a host of its own.
    """
    named = [path for path in _NAMING if settings.given(path) is not None]
    if not named:
        return None
    path = min(named, key=lambda path: _LAYERS.index(settings.origin(path).layer))
    return trusted(settings, str(settings.given(path)), path)


def spec_of(settings: Settings) -> str:
    """Give who answers where a program names nobody: what is configured, else the only one with a credential.

    A key counts before an identity that this machine has of its own. Raises `ConfigError` where several have one, and
    where the file of a working folder would have a host of its own.
    """
    configured = configured_spec(settings)
    if configured is not None:
        return configured
    rows = [row for row in all_providers() if row.auth != "none" and row.key_environment]
    usable = [row.name for row in rows if _has_key(settings, row)] or _in_keyring(rows)
    signs = {} if usable else _identities(settings, rows)
    found = usable or list(signs)
    if len(found) > 1:
        what = "keys" if usable else f"identities of this machine ({', '.join(signs.values())})"
        msg = (
            f"{what} for several providers were found ({', '.join(found)}): name one, as in connect('{found[0]}'), or "
            "set LOOM_LLM_PROVIDER, or llm.provider in looms.yaml"
        )
        raise ConfigError(msg)
    for name in found:
        why = f"for which this machine has an identity ({signs[name]})" if name in signs else "that has a key"
        _log.info("%s answers: it is the only provider %s", name, why)
    return found[0] if found else _EMBEDDED


def trusted(settings: Settings, named: str, path: str) -> str:
    """Give the spec that a setting names, unless a file that may come from anybody has a host of its own answer.

    Raises `ConfigError`.
    """
    if not settings.own and settings.origin(path).layer == "file" and _is_foreign(settings, named):
        how = distrust(settings.owner, "it cannot choose a host of its own to answer;")
        msg = f"{settings.origin(path).where}: {path}: {how}"
        raise ConfigError(msg)
    return named


def _is_foreign(settings: Settings, named: str) -> bool:
    """Say whether the entry that is named sends elsewhere than its provider does, and to another machine."""
    entry = settings.entry(named.partition(":")[0].strip())
    if entry is None or entry.row is None:
        return False
    if not entry.provider:
        return True
    address, base = entry.row.base_url, look_up(entry.provider)
    return address != base.base_url and not is_own_address(base, address) and not is_loopback_url(address)


def _has_key(settings: Settings, row: Provider) -> bool:
    secrets = (API_KEY, *(setting.name for setting in row.settings if setting.keyring))
    paths = [found.path for name in secrets if (found := fed_by(row.name, name)) is not None]
    if any(settings.given(path) is not None for path in paths):
        return True
    return resolve_key_sync(provider=row.name, env_names=row.key_environment) is not None


def _in_keyring(rows: Sequence[Provider]) -> list[str]:
    """Give the providers whose key the keyring holds; it has `KEYRING_TIMEOUT_S` for all of them."""
    end_s = monotonic() + KEYRING_TIMEOUT_S
    return [
        row.name
        for row in rows
        if row.keyring
        and (left_s := end_s - monotonic()) > 0
        and resolve_key_sync(provider=row.name, keyring_name=row.keyring, timeout_s=left_s)
    ]


def _identities(settings: Settings, rows: Sequence[Provider]) -> dict[str, str]:
    """Give the providers that could be asked as this machine, each with the sign of it.

    What else each needs must be said: the address of a resource, a deployment, a project.
    """
    signs = ((row, sign_of(row.auth, os.environ)) for row in rows)
    return {row.name: sign for row, sign in signs if sign and _is_told(settings, row)}


def _is_told(settings: Settings, row: Provider) -> bool:
    needed = [setting.name for setting in row.settings if setting.required and not setting.default]
    needed += ["base_url"] if not row.base_url else []
    needed += ["model"] if not row.default_model else []
    paths = [None if (found := fed_by(row.name, feeds)) is None else found.path for feeds in needed]
    return all(path is not None and settings.given(path) is not None for path in paths)


def chosen(spec: str, settings: Settings, *, today: Callable[[], date] | None = None) -> Chosen:
    """Give the row and the model that `provider:model-id`, or a name alone, means under these settings.

    Raises `UnknownProvider`, `UnknownModel` where no model is named and the provider has no default, `UsageError` where
    it is no text, and `ConfigError` for an entry of the pool that cannot be used.
    """
    if not isinstance(spec, str):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
        msg = f"the spec is {kind_of(spec)}: give a text, as in connect('openai:gpt-4o')"
        raise UsageError(msg)
    name, _, model = spec.partition(":")
    name, model = name.strip(), model.strip()
    entry = settings.entry(name)
    if entry is not None and entry.row is None:
        raise ConfigError(entry.error, provider=name)
    if entry is None or entry.row is None or _is_taken(name):
        entry, row = None, _looked_up(name, settings)
    else:
        row = replace(entry.row, name=entry.provider) if entry.provider else entry.row
    if model:
        return Chosen(row, model, entry)
    return _with_model(row, entry, settings, (today or _today)())


def _looked_up(name: str, settings: Settings) -> Provider:
    """Give the row of a name. Raises `UnknownProvider`, with the place where the configuration names it."""
    try:
        return look_up(name)
    except UnknownProvider as error:
        meant = _with_provider(name)
        problem = f"{name!r} names no provider: write {meant!r}" if meant else str(error)
    places = (place for path in _NAMED if (place := _place(settings, path, name)))
    raise UnknownProvider(": ".join(filter(None, (next(places, ""), problem))))


def _with_provider(name: str) -> str:
    """Give the spec of a model that was written alone, or behind a slash; empty where it is none that is known."""
    before, _, model = name.partition("/")
    if model and before in BY_NAME:
        return f"{before}:{model}"
    found = ((row, catalog.look_up(row.catalog_name or row.name, name)) for row in TABLE)
    # who is free takes any name
    return next((f"{row.name}:{name}" for row, entry in found if entry is not None and not entry.free), "")


def _place(settings: Settings, path: str, name: str) -> str:
    """Give the place of a setting that names a provider; empty where it names another one, or none."""
    given, where = settings.given(path), settings.origin(path).where
    named = given if isinstance(given, tuple) else (given,)
    if not where or name not in (str(each).partition(":")[0].strip() for each in named):
        return ""
    is_variable = settings.origin(path).layer == "environment"
    return f"the variable {where} ({path})" if is_variable else f"{where}: {path}"


def _is_taken(name: str) -> bool:
    return name in BY_NAME or name in plugins.names(plugins.PROVIDERS)


def _today() -> date:
    return datetime.now(UTC).date()


def _with_model(row: Provider, entry: PoolEntry | None, settings: Settings, today: date) -> Chosen:
    """Give the configured model, else the default one, or its successor where it is no more."""
    found = None if entry is not None and not row.model_environment else _configured(settings, row)
    if found is None and entry is None and settings.llm.provider in (None, row.name):
        found = settings.llm.model
    if isinstance(found, str):
        return Chosen(row, found, entry)
    if not row.default_model:
        variables = f" or set {' or '.join(row.model_environment)}" if row.model_environment else ""
        msg = f"{row.name} has no default model: write {row.name}:MODEL-ID{variables}"
        raise UnknownModel(msg, provider=row.name)
    known = catalog.look_up(row.name, row.default_model)
    if entry is not None or known is None or known.deprecated_on is None or known.deprecated_on > today:
        return Chosen(row, row.default_model, entry)
    if known.successor is None:  # each answer says that it is deprecated: once is enough
        return Chosen(row, row.default_model, entry)
    warning = f"{row.default_model}, the default model of {row.name}, is no more since {known.deprecated_on}"
    return Chosen(row, known.successor, entry, (f"{warning}: {known.successor} takes its place",))


def _configured(settings: Settings, row: Provider) -> object:
    found = fed_by(row.name, "model")
    given = None if found is None else settings.given(found.path)
    if given is None and settings.ambient and row.name not in BY_NAME:  # a package's own variables are no setting's
        return next((value for name in row.model_environment if (value := os.environ.get(name, "").strip())), None)
    return given
