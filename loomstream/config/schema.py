"""The JSON Schema of `looms.yaml`, for editors, made from the table of settings.

Contract: pure. It allows what `load` allows, as far as JSON Schema can say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from loomstream.catalog.said import FIELDS
from loomstream.config.kinds import KINDS
from loomstream.config.settings import SettingRow
from loomstream.config.table import CALL_ROWS, MIDDLEWARE_NAMES, SECTIONS, SETTINGS
from loomstream.dialects import Quirks
from loomstream.providers import dialect_names
from loomstream.providers.custom import OF_OTHERS, SCHEMES, Entry

_Node = dict[str, object]
_TEXT: _Node = {"type": "string"}


def json_schema() -> _Node:
    """Give the JSON Schema (2020-12) of a `looms.yaml`."""
    root = _object("loomstream's configuration: docs/reference/configuration.md says what each key means.")
    for path in sorted(SECTIONS):
        _put(root, path, _object(""))
    for row in SETTINGS:
        for path in (row.path, *row.aliases):
            _put(root, path, _leaf(row))
    properties = cast("dict[str, _Node]", root["properties"])
    for name in MIDDLEWARE_NAMES:
        cast("dict[str, _Node]", properties["middleware"]["properties"])[name]["type"] = ["object", "null"]
    properties["middleware"]["additionalProperties"] = {"type": ["object", "null"]}  # of installed packages
    properties["providers"] = {"type": ["array", "null"], "items": _entry()}
    properties["models"] = _models()
    properties |= {name: {"description": "of the seed system; not read here"} for name in OF_OTHERS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "looms.yaml",
        **root,
    }


def _models() -> _Node:
    """Give the schema of `models:`, by PROVIDER:MODEL."""
    said = {name: {"description": row.help, **_nullable(row.schema)} for name, row in FIELDS.items()}
    entry = {"type": ["object", "null"], "properties": said, "additionalProperties": False}
    return {
        "description": "what is said of models, by PROVIDER:MODEL, in the place of what the catalog says",
        "type": ["object", "null"],
        "propertyNames": {"pattern": "^[^:]+:.+$"},
        "additionalProperties": entry,
    }


def _object(text: str) -> _Node:
    said: _Node = {"description": text} if text else {}
    return {**said, "type": ["object", "null"], "properties": {}, "additionalProperties": False}


def _put(root: _Node, path: str, node: _Node) -> None:
    *sections, name = path.split(".")
    inner = root
    for section in sections:
        inner = cast("dict[str, _Node]", inner["properties"])[section]
    cast("dict[str, _Node]", inner["properties"]).setdefault(name, node)


def _leaf(row: SettingRow) -> _Node:
    node: _Node = {"description": _described(row), **cast("Mapping[str, object]", _nullable(KINDS[row.kind].schema))}
    bounds = {"minimum": row.least, "maximum": row.most}
    node |= {name: bound for name, bound in bounds.items() if bound is not None}
    if row.choices:
        node["enum"] = [*row.choices, None]
    if row.default is not None:
        node["default"] = row.default
    if row.deprecated:
        node["deprecated"] = True
    return node


def _nullable(schema: Mapping[str, object]) -> _Node:
    kind = schema["type"]
    kinds = [kind] if isinstance(kind, str) else list(cast("list[str]", kind))
    choices = {"enum": [*cast("list[str]", schema["enum"]), None]} if "enum" in schema else {}
    return {**schema, **choices, "type": [*kinds, "null"]}


def _described(row: SettingRow) -> str:
    said = [row.help, f"variable {row.environment[0]}" if row.environment else ""]
    said.append("a secret: better in the keyring (looms config set-key)" if row.secret else "")
    return "; ".join(filter(None, said))


def _entry() -> _Node:
    """Give the schema of an entry of `providers:`; the keys of `llm:` for one provider may stand in it too."""
    properties: dict[str, _Node] = {name: dict(_TEXT) for name in Entry.__struct_fields__}
    texts: _Node = {"type": "object", "additionalProperties": _TEXT}
    quirks: _Node = {"type": "object", "propertyNames": {"enum": list(Quirks.__struct_fields__)}}
    properties |= {"settings": texts, "extra_headers": texts, "quirks": quirks, "api_key": dict(_TEXT)}
    properties["api_key_env"] = {"type": ["string", "array"], "items": _TEXT}
    properties["dialect"] = {"enum": list(dialect_names())}
    properties["auth"] = {"enum": list(SCHEMES)}
    root: _Node = {"type": "object", "properties": properties, "required": ["name"]}
    properties["rate_limit"] = _object("")
    for row in CALL_ROWS:
        _put(root, row.path.removeprefix("llm."), _leaf(row))
    return root
