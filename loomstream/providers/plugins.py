"""Plug-ins: rows and dialects of installed packages, found by their entry points.

Contract: a package names a `Provider` in the group `loomstream.providers`, a dialect's module in `loomstream.dialects`,
a function that gives middleware in `loomstream.middleware`; only what is asked for is imported. Whatever a plug-in's
code raises, or gives of the wrong kind, becomes a typed error, so that it breaks nobody else. This module knows no
built-in row.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import TypeVar, cast

import msgspec
from msgspec.structs import replace

from loomstream.auth import scheme
from loomstream.dialects import Dialect, Target, Translator
from loomstream.errors import ConfigError, Failure, LoomstreamError, MiddlewareError, ProviderError
from loomstream.events import Event, EventBase
from loomstream.kind_names import kind_of
from loomstream.messages import Request
from loomstream.providers import Provider, check_templates, dialect_module, dialects_of
from loomstream.wire import Frame, WireRequest

PROVIDERS = "loomstream.providers"
"""The group whose entries name a `Provider`; an entry is called as the row, or as one of its aliases."""

DIALECTS = "loomstream.dialects"
"""The group whose entries name a dialect's module."""

MIDDLEWARE = "loomstream.middleware"
"""The group whose entries name a function that gives middleware, for `middleware:` of a configuration."""

FRAMINGS = ("aws", "json", "ndjson", "sse")
"""What a dialect's `FRAMING` may be: how the body of a streamed answer is cut into frames."""

_OURS = "LOOM_LLM_"
_FUNCTIONS = ("build_request", "translator", "parse_response", "parse_error")
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)
_Out = list[Event | Failure]


# --- entry points --------------------------------------------------------------------------------


def names(group: str) -> tuple[str, ...]:
    """Give the names that installed packages offer in a group, in order; nothing of theirs is imported."""
    return tuple(_entries(group, tuple(sys.path)))


def packages(group: str, name: str) -> str:
    """Say which packages offer a name."""
    found = _entries(group, tuple(sys.path)).get(name, ())
    return " and ".join(f"package {entry.dist.name}" if entry.dist else "a package" for entry in found)


@functools.lru_cache(maxsize=8)
def _entries(group: str, path: tuple[str, ...]) -> dict[str, tuple[metadata.EntryPoint, ...]]:
    del path  # where packages are looked for: another path may have others
    found: dict[str, tuple[metadata.EntryPoint, ...]] = {}
    for entry in sorted(_all_entries(group), key=lambda entry: entry.name):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def _all_entries(group: str) -> Iterable[metadata.EntryPoint]:
    try:
        return metadata.entry_points(group=group)
    except Exception:  # noqa: BLE001 (one package's malformed file is as if it had none)
        return [entry for package in metadata.distributions() for entry in _readable(package) if entry.group == group]


def _readable(package: metadata.Distribution) -> Iterable[metadata.EntryPoint]:
    try:
        return package.entry_points
    except Exception as error:  # noqa: BLE001 (see above)
        words = "the entry points of package %s cannot be read (%s: %s), and are left out: repair or uninstall it"
        _log.warning(words, package.name, type(error).__name__, error)
        return ()


def _loaded(group: str, name: str) -> object:
    """Import what an entry names."""
    entries = _entries(group, tuple(sys.path))[name]
    if len({entry.value for entry in entries}) > 1:
        msg = f"{name!r} is offered by {packages(group, name)} (group {group}): uninstall all but one"
        raise ConfigError(msg)
    try:
        return entries[0].load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a module's code raises: no await is in it, so it is no cancellation
        msg = f"{_place(group, name)} cannot be loaded ({type(error).__name__}: {error}): repair or uninstall it"
        raise ConfigError(msg) from error


def _place(group: str, name: str) -> str:
    return f"the entry point {name!r} of {packages(group, name)} (group {group})"


def middleware(name: str) -> object:
    """Give the function that an installed package offers under this name.

    Raises `ConfigError` where it cannot be loaded, or is no function.
    """
    made = _loaded(MIDDLEWARE, name)
    if not callable(made):
        msg = f"{_place(MIDDLEWARE, name)} gives {kind_of(made)}, no function"
        raise ConfigError(msg)
    return made


# --- rows ----------------------------------------------------------------------------------------


def provider(name: str) -> Provider | None:
    """Give the row that an installed package offers under this name, None where none does.

    Raises `ConfigError` where it cannot be loaded, is no usable row, or is called otherwise.
    """
    if name not in names(PROVIDERS):
        return None
    row = _loaded(PROVIDERS, name)
    place = _place(PROVIDERS, name)
    if not issubclass(type(row), Provider):
        msg = f"{place} gives {kind_of(row)}, no Provider"
        raise ConfigError(msg)
    with _usable(f"{place} gives a row that cannot be used"):
        checked = _checked_row(row)
    if name not in (checked.name, *checked.aliases):
        msg = f"{place} gives a row called {checked.name!r}: the entry point must have the row's name"
        raise ConfigError(msg)
    return checked


def _checked_row(row: object) -> Provider:
    """Give the row, made anew of plain values, for what a package gives was checked by nobody."""
    checked = msgspec.convert(msgspec.to_builtins(row, enc_hook=_plain), Provider)
    check_templates(checked)
    for spoken in () if checked.handler else dialects_of(checked):
        dialect_module(spoken)
    scheme(checked.auth)
    return _with_variables(checked)


def _with_variables(row: Provider) -> Provider:
    """Give the row with our own variables, `LOOM_LLM_NAME_…`, before its others: they are its keys in a `looms.yaml`.

    What has one keeps it; a host without authentication has no key, a handler of its own no address.
    """
    settings = (
        replace(setting, environment=_first_ours(row, setting.name, setting.environment)) for setting in row.settings
    )
    changed = replace(row, model_environment=_first_ours(row, "model", row.model_environment), settings=tuple(settings))
    if row.auth != "none":
        changed = replace(changed, key_environment=_first_ours(row, "api_key", row.key_environment))
    if not row.handler:
        changed = replace(changed, base_url_environment=_first_ours(row, "base_url", row.base_url_environment))
    return changed


def _first_ours(row: Provider, what: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if any(name.startswith(_OURS) for name in names):
        return names
    return (_OURS + re.sub(r"\W", "_", f"{row.name}_{what}").upper(), *names)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    msg = f"{kind_of(value)} has no place in a row"
    raise TypeError(msg)


@contextmanager
def _usable(otherwise: str) -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # any code may stand in what a package names
        reason = str(error) if isinstance(error, LoomstreamError) else f"{type(error).__name__}: {error}"
        msg = f"{otherwise}: {reason}"
        raise ConfigError(msg) from error


# --- dialects ------------------------------------------------------------------------------------


def dialect(name: str) -> PluginDialect | None:
    """Give the dialect that an installed package offers under this name, None where none does.

    Raises `ConfigError` where it cannot be loaded, lacks a function of the contract, or has no known `FRAMING`.
    """
    if name not in names(DIALECTS):
        return None
    module = _loaded(DIALECTS, name)
    missing = [function for function in _FUNCTIONS if not callable(getattr(module, function, None))]
    if missing:
        msg = f"{_place(DIALECTS, name)} lacks {', '.join(missing)}: see loomstream.dialects for what a dialect offers"
        raise ConfigError(msg)
    framing = getattr(module, "FRAMING", None)
    if framing not in FRAMINGS:
        msg = f"{_place(DIALECTS, name)} has FRAMING = {framing!r}: give one of {', '.join(FRAMINGS)}"
        raise ConfigError(msg)
    return PluginDialect(name, str(framing), cast("Dialect", module))


class PluginDialect:
    """A dialect of a package: what its code raises, or gives of the wrong kind, becomes a `MiddlewareError`."""

    def __init__(self, name: str, framing: str, module: Dialect) -> None:
        self.name = name
        self.framing = framing
        self._module = module

    def build_request(self, request: Request, target: Target) -> WireRequest:
        """Give the wire request; raises what the plug-in's typed errors are, else `MiddlewareError`."""
        with _typed(self.name, "build_request"):
            wire_request = _of_type(WireRequest, self._module.build_request(request, target))
            for warning in wire_request.warnings:
                _of_type(str, warning)
            return wire_request

    def translator(self, target: Target) -> Translator:
        """Give a translator that never raises, whatever the plug-in's does."""
        with _typed(self.name, "translator"):
            return _PluginTranslator(self.name, self._module.translator(target))

    def parse_response(self, body: bytes, target: Target) -> _Out:
        """Give the events of a whole body."""
        try:
            return _checked(self._module.parse_response(body, target))
        except Exception as error:  # noqa: BLE001 (any code may stand here; only typed errors leave)
            return [Failure(_error(self.name, "parse_response", error))]

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
        """Give the typed error of an error response."""
        with _typed(self.name, f"parse_error(status={status})"):
            return _of_type(ProviderError, self._module.parse_error(status, headers, body, target))


class _PluginTranslator:
    __slots__ = ("_inner", "_name")

    def __init__(self, name: str, inner: Translator) -> None:
        self._name = name
        self._inner = inner

    def feed(self, frame: Frame) -> _Out:
        try:
            return _checked(self._inner.feed(frame))
        except Exception as error:  # noqa: BLE001 (any code may stand here; only typed errors leave)
            return [Failure(_error(self._name, "translator", error))]

    def finish(self) -> _Out:
        try:
            return _checked(self._inner.finish())
        except Exception as error:  # noqa: BLE001 (the same)
            return [Failure(_error(self._name, "translator", error))]


@contextmanager
def _typed(name: str, function: str) -> Generator[None]:
    try:
        yield
    except Exception as error:
        raise _error(name, function, error) from error


def _error(name: str, function: str, error: Exception) -> LoomstreamError:
    if isinstance(error, LoomstreamError):
        return error
    typed = MiddlewareError(f"the dialect {name!r} raised in its {function}: {type(error).__name__}: {error}")
    typed.__cause__ = error
    return typed


def _of_type(kind: type[_Result], value: object) -> _Result:
    if isinstance(value, kind):
        return value
    msg = f"it gave {kind_of(value)}, no {kind.__name__}"
    raise TypeError(msg)


def _checked(out: object) -> _Out:
    """Give the list, or raise where it holds anything but events and, last, a failure."""
    items = _of_type(list, out)  # pyright: ignore[reportUnknownVariableType] (its items are looked at here)
    for item in cast("list[object]", items):
        if not isinstance(item, EventBase) and not (isinstance(item, Failure) and item is items[-1]):
            msg = f"it gave {kind_of(item)} where an event was expected"
            raise TypeError(msg)
    return cast("_Out", items)
