"""Reads the configuration: a caller's overrides, the environment and `looms.yaml` become `Settings`.

Contract: the strongest layer that sets a value wins, whichever setting it is: argument, `LOOM_…` variable, file, the
vendor's own variable, default. Everything in the file is checked, also what a stronger layer replaces. Whatever is
wrong is a `ConfigError` with file, line and path, or the variable's name, and never shows a value that may be a secret.
Nothing is imported or run that a file names, the keyring is not asked, and nothing is written.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import msgspec

from loomstream.config import kinds
from loomstream.config.models import models_of
from loomstream.config.pool import entries_of
from loomstream.config.schema import json_schema
from loomstream.config.settings import LLM, Named, Observability, Origin, SettingRow, Settings, Value
from loomstream.config.table import BY_VARIABLE, MIDDLEWARE_NAMES, SETTINGS, by_variable, row_of
from loomstream.config.yaml_tree import Tree, read_tree, refuse_diverted, refuse_foreign, refuse_shared, secrets_of
from loomstream.errors import ConfigError, UnknownProvider
from loomstream.providers import config_file, look_up
from loomstream.providers.config_file import File
from loomstream.providers.table import BY_NAME
from loomstream.wire import Secret

__all__ = ("SETTINGS", "Origin", "SettingRow", "Settings", "find_file", "json_schema", "load")


_SECTIONS = ("LOOM_LLM_", "LOOM_MIDDLEWARE_", "LOOM_OBSERVABILITY_")
_KEY = "_API_KEY"
"""What the key of a provider of one's own ends in."""
_LIKENESS = 0.85


def find_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Give the configuration file that counts, None where there is none; one that is named need not be there."""
    found = config_file.find_file(environ)
    return None if found is None else found.path


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Give the settings: `overrides` (by path, as in `{"llm.temperature": 0}`) > `LOOM_…` > the file > defaults.

    `path` is the file (default: the one that `find_file` finds, and none where there is none), `environ` the
    environment (default: that of the process). An override that is None counts as not given.

    Raises `ConfigError` for what no setting can be, in any layer, and for a file that cannot be used or holds a secret
    that others can read.
    """
    ambient = environ is None or environ is os.environ
    layers = _Layers(overrides or {}, os.environ if environ is None else environ, path)
    del environ, overrides  # no report of an error shows what they hold
    values: dict[str, Value] = {}
    origins: dict[str, Origin] = {}
    for row in layers.rows():
        found = layers.pick(row)
        if found is not None:
            values[row.path], origins[row.path] = found
    return msgspec.structs.replace(_settings(layers, values, origins), ambient=ambient)


def _settings(layers: _Layers, values: dict[str, Value], origins: dict[str, Origin]) -> Settings:
    tree = layers.tree
    file = layers.file if tree.document is None else tree.document.file
    pool = entries_of(tree)
    in_file = [*secrets_of(tree), *((f"providers: {entry.name}", entry.where) for entry in pool if entry.secrets)]
    refuse_shared(tree, in_file)
    refuse_foreign(tree)
    refuse_diverted(tree, lambda path: path in origins and origins[path].layer == "file", layers.environ)
    settings = Settings(
        llm=_llm(values),
        observability=_observability(values),
        middleware=tuple(_middleware(values, tree)),
        providers=pool,
        models=models_of(tree, pool),
        active_provider=cast("str | None", values.get("active_provider")),
        file="" if file is None else str(file.path),
        own=file is None or file.own,
        owner="" if file is None else file.owner,
        warnings=(
            *_secrets_in_file(in_file),
            *_deprecated(origins),
            *_unused(origins),
            *layers.warnings,
            *layers.misspelt(),
        ),
        values=values,
        origins=origins,
    )
    _check_names(settings)
    return settings


# --- layers --------------------------------------------------------------------------------------


class _Layers:
    """Where a value may come from; a class without a repr of its own, for what is in it may be secret."""

    def __init__(
        self, overrides: Mapping[str, object], environ: Mapping[str, str], path: str | os.PathLike[str] | None
    ) -> None:
        self._overrides = overrides
        self.environ = environ
        self.file = _file(environ, path)
        self.tree = read_tree(self.file)
        self.warnings: list[str] = []
        for name in overrides:
            row_of(name)

    def rows(self) -> Iterator[SettingRow]:
        """Give the rows that some layer may set, in the order of the table; behind it, those of packages."""
        named = {row.path: row for name in self.environ for row in by_variable(name)}
        named |= {row.path: row for row in map(row_of, (*self._overrides, *self.tree.given))}
        of_table = [row for row in SETTINGS if named.pop(row.path, None) is not None]
        return iter([*of_table, *named.values()])

    def pick(self, row: SettingRow) -> tuple[Value, Origin] | None:
        """Give the value of the strongest layer that sets it, and which that is. Raises `ConfigError`."""
        return (
            self._argument(row)
            or self._variable(row, row.environment)
            or self._given(row)
            or self._vendors_variable(row)
        )

    def _argument(self, row: SettingRow) -> tuple[Value, Origin] | None:
        for path in (row.path, *row.aliases):
            if self._overrides.get(path) is not None:
                return _converted(row, Secret(cast("str", self._overrides[path])), path), Origin("argument")
        return None

    def _variable(self, row: SettingRow, names: tuple[str, ...]) -> tuple[Value, Origin] | None:
        name = next((name for name in names if self.environ.get(name, "").strip()), None)
        if name is None:
            return None
        try:
            return kinds.parse(row, self.environ[name]), Origin("environment", name)
        except kinds.Unfit as error:
            problem = f"the variable {name} ({row.path}): {error}"
        raise ConfigError(problem)

    def _vendors_variable(self, row: SettingRow) -> tuple[Value, Origin] | None:
        """The same for a variable that other programs read too: what is wrong with it is no error here."""
        try:
            return self._variable(row, row.vendor_environment)
        except ConfigError as error:
            self.warnings.append(f"{error}: not used")
            return None

    def misspelt(self) -> Iterator[str]:
        """Give a warning for each variable that is nearly a setting's."""
        for name in self.environ:
            if name.startswith(_SECTIONS) and not by_variable(name) and not name.endswith(_KEY):
                near = difflib.get_close_matches(name, BY_VARIABLE, n=1, cutoff=_LIKENESS)
                if near:
                    yield f"the variable {name} is no setting's: did you mean {near[0]}?"

    def _given(self, row: SettingRow) -> tuple[Value, Origin] | None:
        given = self.tree.given.get(row.path)
        return None if given is None else (given.value, Origin("file", given.where))


def _file(environ: Mapping[str, str], path: str | os.PathLike[str] | None) -> File | None:
    if path is None:
        return config_file.find_file(environ)
    return File(Path(os.path.expanduser(path)), own=True)  # noqa: PTH111 (no error where there is no home)


def _converted(row: SettingRow, given: Secret, path: str) -> Value:
    try:
        return kinds.convert(row, given)
    except kinds.Unfit as error:
        problem = f"the argument {path}: {error}"
    raise ConfigError(problem)


# --- views ---------------------------------------------------------------------------------------


def _section(values: Mapping[str, Value], section: str) -> dict[str, Value]:
    """Give what is set right under a section, by name."""
    rows = (row_of(path) for path in values)
    return {row.name: values[row.path] for row in rows if row.section == section}


def _llm(values: Mapping[str, Value]) -> LLM:
    common = {name: value for name, value in _section(values, "llm").items() if name in LLM.__struct_fields__}
    rates = cast("Mapping[str, float | int | bool]", _section(values, "llm.rate_limit"))
    return msgspec.structs.replace(LLM(), **common, rate_limit=rates)


def _observability(values: Mapping[str, Value]) -> Observability:
    return msgspec.structs.replace(Observability(), **_section(values, "observability"))


def _middleware(values: Mapping[str, Value], tree: Tree) -> Iterator[Named]:
    """Give what is named in the file, in its order, then what only stronger layers set."""
    options = {name: _section(values, f"middleware.{name}") for name in MIDDLEWARE_NAMES}
    for name, (where, own) in tree.middleware.items():
        yield Named(name=name, options=options.pop(name, own), where=where)
    for name, given in options.items():
        if given:
            yield Named(name=name, options=given)


# --- what is said of the whole -------------------------------------------------------------------


def _secrets_in_file(places: list[tuple[str, str]]) -> Iterator[str]:
    for path, where in places:
        yield f"{where}: {path}: a secret stands here; better keep it in the keyring (looms config set-key)"


def _deprecated(origins: Mapping[str, Origin]) -> Iterator[str]:
    for path, origin in origins.items():
        if row_of(path).deprecated:
            yield f"{origin.where or path}: {path} is deprecated: use {row_of(path).deprecated}"


def _unused(origins: Mapping[str, Origin]) -> Iterator[str]:
    for path, origin in origins.items():
        if row_of(path).unused:
            yield f"{origin.where or path}: {path} has no effect: {row_of(path).unused}"


def _check_names(settings: Settings) -> None:
    """Raise where the file names a provider that there is not."""
    active = settings.active_provider
    if active is not None and settings.entry(active) is None:
        from loomstream.transport.record import without_keys  # noqa: PLC0415 (only where something is wrong)

        known = [entry.name for entry in settings.providers]
        near = difflib.get_close_matches(active, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"
        msg = f"{_where(settings, 'active_provider')}: providers: has no entry {without_keys(active)[:80]!r}: {hint}"
        raise ConfigError(msg)
    for path in _NAMING:
        if settings.origin(path).layer == "file":
            given = settings.given(path)
            for named in given if isinstance(given, tuple) else (str(given),):
                _check_provider(settings, path, named.partition(":")[0].strip())


_NAMING = ("llm.provider", "middleware.failover.to")
"""Settings that name providers. What a variable names is looked at where it is used: a program may name another."""


def _check_provider(settings: Settings, path: str, name: str) -> None:
    if name in BY_NAME or settings.entry(name) is not None:
        return
    try:
        look_up(name)
    except UnknownProvider as error:
        problem = str(error)
    else:
        return
    msg = f"{_where(settings, path)}: {problem}"
    raise UnknownProvider(msg)


def _where(settings: Settings, path: str) -> str:
    origin = settings.origin(path)
    return f"{origin.where}: {path}" if origin.where else path
