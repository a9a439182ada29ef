"""The entries of `providers:`: rows by `loomstream.providers.custom`, and what each says of its calls.

Contract: an entry that is wrong holds its error and breaks no other entry. The keys of a call are those of `llm:`, by
the same rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn, cast

from msgspec.structs import replace

from loomstream.config.settings import PoolEntry, SettingRow
from loomstream.config.settings import Value as SettingValue
from loomstream.config.table import CALL_ROWS
from loomstream.config.yaml_tree import Tree, converted, place_of
from loomstream.errors import ConfigError
from loomstream.providers.config_file import File, distrust
from loomstream.providers.custom import OF_A_CALL, base_of, pool, secret_of
from loomstream.wire import Secret

if TYPE_CHECKING:
    from loomstream.providers.yaml_file import Value

_ROWS = {row.path.removeprefix("llm."): row for row in CALL_ROWS}
_RATE_LIMIT = "rate_limit"


def entries_of(tree: Tree) -> tuple[PoolEntry, ...]:
    """Give the pool of a file. Raises `ConfigError` where the list as a whole is wrong."""
    if tree.document is None:
        return ()
    file = tree.document.file
    found = pool(file)
    made: dict[str, PoolEntry] = {}
    for position, value in enumerate(tree.entries):
        path = f"providers[{position}]"
        scalar = value.mapping["name"].scalar if "name" in value.mapping else None
        name = scalar if isinstance(scalar, str) and scalar in found else path
        made.setdefault(name, _entry(file, value, path, PoolEntry(name=name, where=place_of(file, value))))
    return tuple(_with_row(entry, found[entry.name]) for entry in made.values())


def _with_row(entry: PoolEntry, found: object) -> PoolEntry:
    if isinstance(found, ConfigError):
        return replace(entry, error=entry.error or str(found))
    return replace(entry, row=None if entry.error else found)


def _entry(file: File, value: Value, path: str, entry: PoolEntry) -> PoolEntry:
    named = value.mapping.get("provider")
    try:
        base = base_of(str(named.scalar)) if named else None
        values = dict(_call_values(file, value, path))
        secrets = {
            name: _secret(file, inner, f"{path}.{key}")
            for key, inner in value.mapping.items()
            if (name := secret_of(key, base))
        }
    except ConfigError as error:
        return replace(entry, error=str(error))
    return replace(entry, provider=base.name if base else "", values=values, secrets=secrets)


def _call_values(file: File, entry: Value, path: str) -> Iterator[tuple[str, SettingValue]]:
    from loomstream.providers.yaml_file import MAPPING, NOTHING  # noqa: PLC0415 (imports PyYAML)

    for key in OF_A_CALL:
        if key not in entry.mapping:
            continue
        value = entry.mapping[key]
        if key == _RATE_LIMIT:
            if value.kind not in (MAPPING, NOTHING):
                _refuse(file, value, f"{path}.{key}", f"this must be a mapping of its keys, not {value.kind}")
            for name, inner in value.mapping.items():
                yield from _call_value(file, f"{key}.{name}", inner, path)
        else:
            yield from _call_value(file, key, value, path)


def _call_value(file: File, key: str, value: Value, path: str) -> Iterator[tuple[str, SettingValue]]:
    from loomstream.providers.yaml_file import NOTHING  # noqa: PLC0415 (imports PyYAML)

    row = _ROWS.get(key)
    if row is None:
        _refuse(file, value, f"{path}.{key}", f"there is no key {key.rpartition('.')[2]!r}: known are {_known()}")
    if value.kind != NOTHING:
        given = converted(file, row, value, f"{path}.{key}")
        if row.own_only and given and not file.own:
            _refuse(file, value, f"{path}.{key}", distrust(file.owner, "it cannot say this;"))
        yield key, given


def _known() -> str:
    return ", ".join(name.rpartition(".")[2] for name in _ROWS if name.startswith(_RATE_LIMIT))


_SECRET = SettingRow(path="api_key", secret=True)


def _secret(file: File, value: Value, path: str) -> Secret:
    return cast("Secret", converted(file, _SECRET, value, path))


def _refuse(file: File, value: Value, path: str, problem: str) -> NoReturn:
    from loomstream.providers.yaml_file import fault  # noqa: PLC0415 (imports PyYAML)

    raise fault(file.path, value, path, problem)
