"""`models:`: what a configuration says of models, in the place of what the catalog says.

Contract: each entry is checked by `loomstream.catalog.said`; what is wrong is a `ConfigError` with file, line, column
and path. Nothing is laid over the catalog here: who uses the settings does that. A file that was merely found in the
working folder cannot say what a model costs, for budgets are kept by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loomstream.catalog import configure
from loomstream.catalog.said import MONEY, Change, Unfit, change
from loomstream.config.settings import ModelEntry, PoolEntry, Settings
from loomstream.config.yaml_tree import MODELS, Tree, place_of
from loomstream.errors import ConfigError
from loomstream.providers import look_up
from loomstream.providers.config_file import File, distrust

if TYPE_CHECKING:
    from loomstream.providers.yaml_file import Value

_LONGEST = 80


def models_of(tree: Tree, pool: Sequence[PoolEntry]) -> tuple[ModelEntry, ...]:
    """Give the entries of a file's `models:`. Raises `ConfigError`."""
    listed = None if tree.document is None else tree.document.root.mapping.get(MODELS)
    if tree.document is None or listed is None:
        return ()
    from loomstream.providers.yaml_file import MAPPING, NOTHING, fault  # noqa: PLC0415 (imports PyYAML)

    file = tree.document.file
    if listed.kind not in (MAPPING, NOTHING):
        problem = f"this must be a mapping of PROVIDER:MODEL to what is said of it, not {listed.kind}"
        raise fault(file.path, listed, MODELS, problem)
    made: dict[tuple[str, str], ModelEntry] = {}
    for key, value in listed.mapping.items():
        path = f"{MODELS}.{key}"
        named = _named(file, value, key, pool)
        if named in made:
            raise fault(file.path, value, path, "this model stands here under another name too")
        said = _change(file, value, path)
        made[named] = ModelEntry(provider=named[0], model=named[1], change=said, where=place_of(file, value))
    return tuple(made.values())


def lay(settings: Settings) -> None:
    """Lay what a configuration says of models over the catalog of this process; what it said before is gone."""
    configure(settings.file, {(entry.provider, entry.model): entry.change for entry in settings.models})


def _named(file: File, value: Value, key: str, pool: Sequence[PoolEntry]) -> tuple[str, str]:
    """Give the provider, by its own name, and the model that a key names."""
    from loomstream.providers.yaml_file import fault  # noqa: PLC0415 (imports PyYAML)

    path = f"{MODELS}.{key[:_LONGEST]}"
    name, _, model = key.partition(":")
    if not name or not model or model != model.strip() or not key.isprintable():
        raise fault(file.path, value, path, "write the provider and the model, as in openai:gpt-4o")
    entry = next((entry for entry in pool if entry.name == name), None)
    if entry is not None and entry.provider:
        raise fault(file.path, value, path, f"{name} is a name of yours: write {entry.provider}:{model[:_LONGEST]}")
    if entry is not None:
        return name, model
    try:
        return look_up(name).name, model
    except ConfigError as error:  # unknown, or a package's row that cannot be used
        problem = str(error)
    raise fault(file.path, value, path, problem)


def _change(file: File, value: Value, path: str) -> Change:
    from loomstream.providers.yaml_file import MAPPING, NOTHING, fault  # noqa: PLC0415 (imports PyYAML)

    if value.kind not in (MAPPING, NOTHING):
        raise fault(file.path, value, path, f"this must be a mapping of what is said of the model, not {value.kind}")
    for field, inner in value.mapping.items():
        if field in MONEY and inner.kind != NOTHING and not file.own:
            problem = distrust(file.owner, "it cannot say what a model costs;")
            raise fault(file.path, inner, f"{path}.{field}", problem)
    try:
        return change({field: inner.plain() for field, inner in value.mapping.items()})
    except Unfit as error:
        field, problem = error.field, str(error)
    inner = value.mapping.get(field, value)
    raise fault(file.path, inner, f"{path}.{field}" if field else path, problem)
