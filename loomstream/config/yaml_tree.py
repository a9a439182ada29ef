"""A `looms.yaml` as the settings that it gives, each checked by its row, with the line where it stands.

Contract: everything in the file is looked at. What is not allowed is a `ConfigError` with file, line, column and path,
which suggests what was meant. What a secret holds is wrapped before anything can raise.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

from loomstream.config import kinds
from loomstream.config.settings import SettingRow
from loomstream.config.settings import Value as SettingValue
from loomstream.config.table import BY_PATH, MIDDLEWARE_NAMES, SECTIONS, by_path, names_like, row_of
from loomstream.errors import ConfigError
from loomstream.providers.config_file import Document, File, distrust, document
from loomstream.providers.custom import OF_OTHERS
from loomstream.transport.outgoing import is_loopback_url
from loomstream.wire import Secret

if TYPE_CHECKING:
    from loomstream.providers.yaml_file import Value

POOL = "providers"
"""The list of entries, which `loomstream.config.pool` reads."""

MODELS = "models"
"""What is said of models, which `loomstream.config.models` reads."""

_OWN_READERS = (POOL, MODELS)
_MIDDLEWARE = "middleware"
_MOST_LISTED = 12


class Given(NamedTuple):
    """A value of the file, and where it stands: `FILE:LINE`."""

    value: SettingValue
    where: str


class Tree(NamedTuple):
    """What a file gives: settings by path, and the names under `middleware:` with their place and their options."""

    document: Document | None = None
    given: Mapping[str, Given] = {}
    middleware: Mapping[str, tuple[str, Mapping[str, object]]] = {}

    @property
    def entries(self) -> tuple[Value, ...]:
        """The entries of `providers:` as they stand there."""
        listed = None if self.document is None else self.document.root.mapping.get(POOL)
        return () if listed is None else tuple(listed.items)


def read_tree(file: File | None) -> Tree:
    """Give what the file gives; nothing where there is none. Raises `ConfigError`."""
    if file is None:
        return Tree()
    from loomstream.providers.yaml_file import MAPPING, fault  # noqa: PLC0415 (imports PyYAML)

    read = document(file)
    if read.root.kind != MAPPING:
        raise fault(file.path, read.root, "", f"a configuration is a mapping, this is {read.root.kind}")
    reader = _Reader(read.file)
    reader.walk(read.root, "")
    return Tree(read, reader.given, reader.middleware)


def place_of(file: File, value: Value) -> str:
    """Give where a value stands."""
    return f"{file.path}:{value.line}"


class _Reader:
    """Walks through a document and collects what it gives."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.given: dict[str, Given] = {}
        self.middleware: dict[str, tuple[str, Mapping[str, object]]] = {}

    def walk(self, section: Value, path: str) -> None:
        """Take in what stands in a section."""
        for name, value in section.mapping.items():
            inner = f"{path}.{name}" if path else name
            if row := by_path(inner):
                self._take(row, value, inner)
            elif inner in SECTIONS:
                self._enter(value, inner)
            elif path == _MIDDLEWARE:
                self._take_middleware(value, name)
            elif path or name not in (*_OWN_READERS, *OF_OTHERS):
                self._refuse(value, inner, _unknown(path, name))

    def _enter(self, value: Value, path: str) -> None:
        from loomstream.providers.yaml_file import MAPPING, NOTHING  # noqa: PLC0415 (imports PyYAML)

        if value.kind not in (MAPPING, NOTHING):
            self._refuse(value, path, f"this must be a mapping of its keys, not {value.kind}")
        section, _, name = path.partition(".")
        if section == _MIDDLEWARE and name:
            self.middleware[name] = (place_of(self._file, value), {})
        self.walk(value, path)

    def _take(self, row: SettingRow, value: Value, path: str) -> None:
        from loomstream.providers.yaml_file import NOTHING  # noqa: PLC0415 (imports PyYAML)

        if value.kind == NOTHING:
            return
        if row.path in self.given:
            self._refuse(value, path, f"this is the same as {row.path!r}, which stands here too")
        self.given[row.path] = Given(converted(self._file, row, value, path), place_of(self._file, value))

    def _take_middleware(self, value: Value, name: str) -> None:
        """Take in the middleware of an installed package; what it makes of its options is its own."""
        from loomstream.providers.plugins import MIDDLEWARE, names  # noqa: PLC0415 (looks through the installed packages)
        from loomstream.providers.yaml_file import MAPPING, NOTHING  # noqa: PLC0415 (imports PyYAML)

        path = f"{_MIDDLEWARE}.{name}"
        installed = names(MIDDLEWARE)
        if name not in installed:
            self._refuse(value, path, _unknown_middleware(name, installed))
        if not self._file.own:
            instead = "it cannot have the code of an installed package run;"
            self._refuse(value, path, distrust(self._file.owner, instead))
        if value.kind not in (MAPPING, NOTHING):
            self._refuse(value, path, f"this must be a mapping of its options, not {value.kind}")
        options = {option: inner.plain() for option, inner in value.mapping.items()}
        self.middleware[name] = (place_of(self._file, value), options)

    def _refuse(self, value: Value, path: str, problem: str) -> NoReturn:
        from loomstream.providers.yaml_file import fault  # noqa: PLC0415 (imports PyYAML)

        raise fault(self._file.path, value, path, problem)


def converted(file: File, row: SettingRow, value: Value, path: str) -> SettingValue:
    """Give the value of a setting. Raises `ConfigError`, which says where, and never what stands there."""
    from loomstream.providers.yaml_file import fault  # noqa: PLC0415 (imports PyYAML)

    try:
        return kinds.convert(row, Secret(cast("str", value.plain())) if row.secret else value.plain())
    except kinds.Unfit as error:
        problem = f"{error}, not {value.kind}" if str(error) == kinds.expected(row) else str(error)
    quotes = value.kind != "a text" and row.kind == "text" and value.scalar is not None
    raise fault(file.path, value, path, f"{problem}: put it in quotes" if quotes else problem)


# --- words ---------------------------------------------------------------------------------------


def _children(section: str) -> list[str]:
    start = f"{section}." if section else ""
    paths = (path.removeprefix(start) for path in (*BY_PATH, *SECTIONS) if path.startswith(start))
    return list(dict.fromkeys(path.partition(".")[0] for path in (*paths, *(() if section else _OWN_READERS))))


def _unknown(section: str, name: str) -> str:
    """Say that there is no such key, and which may be meant."""
    known = [*_children(section), *(names_like(name) if section == "llm" else ())]
    elsewhere = [path for path in BY_PATH if path.rpartition(".")[2] == name]
    near = difflib.get_close_matches(name, known, n=1)
    problem = f"there is no key {name[:80]!r}"
    if elsewhere:
        return f"{problem} here: did you mean {elsewhere[0]!r}?"
    if near:
        return f"{problem}: did you mean {near[0]!r}?"
    short = len(known) <= _MOST_LISTED
    return (
        f"{problem}: known are {', '.join(known)}" if short else f"{problem}: docs/reference/configuration.md has all"
    )


def _unknown_middleware(name: str, installed: tuple[str, ...]) -> str:
    known = (*MIDDLEWARE_NAMES, *installed)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    how = "; code is never named by its path here" if ":" in name or "." in name else ""
    return f"there is no middleware {name[:80]!r}: {hint}{how}"


def secrets_of(tree: Tree) -> Iterator[tuple[str, str]]:
    """Give the path and the place of each secret that stands in the file, but for those of entries."""
    for path, given in tree.given.items():
        if row_of(path).secret:
            yield path, given.where


def refuse_shared(tree: Tree, places: list[tuple[str, str]]) -> None:
    """Raise `ConfigError` where secrets stand in a file that others can read."""
    if tree.document is None or not tree.document.shared or not places:
        return
    path, where = places[0]
    file = tree.document.file.path
    msg = (
        f"{where}: {path}: a secret stands here, and others can read the file: run chmod 600 {file}, or take it out "
        "and keep it in the keyring (looms config set-key) or in a variable"
    )
    raise ConfigError(msg)


def refuse_foreign(tree: Tree) -> None:
    """Raise `ConfigError` where a file that may come from anybody switches on, or names, what only a user may."""
    if tree.document is None or tree.document.file.own:
        return
    for path, given in tree.given.items():
        if row_of(path).own_only and not _is_harmless(given.value):
            msg = f"{given.where}: {path}: {distrust(tree.document.file.owner, 'it cannot say this;')}"
            raise ConfigError(msg)


_REPORTS = tuple(
    f"observability.{name}"
    for name in ("hawk_endpoint", "hawk_api_key", "otlp_endpoint", "otlp_headers", "mode", "provider")
)
"""What says that calls are reported, and where; who sets one of them in a variable wants reports."""
_WAYS = ("enabled", "mode", "provider", "prefer_embedded", "hawk_endpoint", "otlp_endpoint", "otlp_include_spans")
"""What says whether, where and which reports are sent."""


def refuse_diverted(tree: Tree, counts: Callable[[str], bool], environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` where a file that may come from anybody ends or diverts reports that a variable asks for.

    `counts` says whether what the file gives of a setting is what counts.
    """
    if tree.document is None or tree.document.file.own:
        return
    rows = [BY_PATH[path] for path in _REPORTS]
    names = [name for row in rows for name in (*row.environment, *row.vendor_environment)]
    asked = next((name for name in names if environ.get(name, "").strip()), None)
    said = [path for name in _WAYS if counts(path := f"observability.{name}") and path in tree.given]
    if asked and said:
        instead = f"it cannot change the reports that the variable {asked} asks for;"
        msg = f"{tree.given[said[0]].where}: {said[0]}: {distrust(tree.document.file.owner, instead)}"
        raise ConfigError(msg)


def _is_harmless(value: SettingValue) -> bool:
    return value is False or (isinstance(value, str) and is_loopback_url(value))
