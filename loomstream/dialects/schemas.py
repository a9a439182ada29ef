"""The JSON Schema of an answer, for wires that take the schema as it is but hold the answer to a part of it only.

Contract: pure. A schema goes out whole; each keyword that the wire does not enforce is named with its path, so that
the caller can say so in a warning. Knows no wire: what one enforces, and how it writes things, are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import cast

from loomstream.dialects.fields import JSONObject
from loomstream.errors import RequestError
from loomstream.kind_names import kind_of
from loomstream.messages import Output

PLACE = "output.schema"
"""What a path begins with."""

_DEEPEST = 100
_SHOWN = 8
_NOTES = frozenset(
    {
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$comment", "$id", "$anchor", "$vocabulary", "$defs", "definitions", "$ref"),
    }
)
"""Keywords that demand nothing of a value, or only stand for others."""
_OF_ONE = frozenset(
    {
        *("items", "additionalItems", "unevaluatedItems", "contains", "not", "if", "then", "else"),
        *("additionalProperties", "unevaluatedProperties", "propertyNames"),
    }
)
_OF_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_OF_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})


def schema_of(output: Output) -> JSONObject:
    """Give the schema whole; the output's description stands in it where the schema has none of its own."""
    schema = dict(output.schema)
    return {"description": output.description, **schema} if output.description else schema


def output_warnings(output: Output, schema: Mapping[str, object], enforced: Collection[str]) -> list[str]:
    """Say what of an output a strict wire does not honour that is sent this schema.

    Raises `RequestError`, with the path, where something within the schema is no schema.
    """
    found = list(_ignored(schema, enforced, PLACE, 0))
    warnings = ["output.strict is not sent: this wire is always strict"] if output.strict is False else []
    if found:
        rest = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        warnings.append(f"this wire does not hold the answer to {', '.join(found[:_SHOWN])}{rest}")
    return warnings


def rewritten(schema: Mapping[str, object], change: Callable[[JSONObject], JSONObject]) -> JSONObject:
    """Give the schema with each schema in it, and then itself, changed. Raises what `output_warnings` raises."""
    return rewritten_at(schema, lambda members, _: change(members))


def rewritten_at(schema: Mapping[str, object], change: Callable[[JSONObject, str], JSONObject]) -> JSONObject:
    """Give the same, where a change depends on the path of what it changes."""
    return cast("JSONObject", _rewritten(schema, change, PLACE, 0))


def _rewritten(schema: object, change: Callable[[JSONObject, str], JSONObject], path: str, depth: int) -> object:
    members = _members(schema, path, depth)
    if members is None:
        return schema
    changed: JSONObject = {}
    for keyword, value in members.items():
        place = f"{path}.{keyword}"
        inner = [(key, _rewritten(part, change, _at(place, key), depth + 1)) for key, part in _within(keyword, value)]
        changed[keyword] = _rebuilt(value, inner)
    return change(changed, path)


def _rebuilt(value: object, inner: list[tuple[str | int | None, object]]) -> object:
    """Give a keyword's value with the schemas that it holds in their places."""
    if not inner:
        return value
    if inner[0][0] is None:
        return inner[0][1]
    return dict(inner) if isinstance(value, Mapping) else [part for _, part in inner]


def _ignored(schema: object, enforced: Collection[str], path: str, depth: int) -> Iterator[str]:
    for keyword, value in (_members(schema, path, depth) or {}).items():
        place = f"{path}.{keyword}"
        if keyword not in enforced and keyword not in _NOTES:
            yield place
        for key, subschema in _within(keyword, value):
            yield from _ignored(subschema, enforced, _at(place, key), depth + 1)


def _members(schema: object, path: str, depth: int) -> Mapping[str, object] | None:
    """Give a schema's keywords, None for one that is but true or false."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, Mapping):
        msg = f"{path} is {kind_of(schema)}: give a JSON Schema, which is an object"
        raise RequestError(msg)
    if depth > _DEEPEST:
        msg = f"{path} is more than {_DEEPEST} schemas deep: name what repeats in $defs, and refer to it by $ref"
        raise RequestError(msg)
    return cast("Mapping[str, object]", schema)


def _within(keyword: str, value: object) -> Iterator[tuple[str | int | None, object]]:
    """Give the schemas that a keyword holds, each with its name or number; None where the value itself is one."""
    if keyword in _OF_NAMED and isinstance(value, Mapping):
        yield from cast("Mapping[str, object]", value).items()
    elif (keyword in _OF_MANY or keyword == "items") and isinstance(value, list | tuple):
        yield from enumerate(cast("list[object]", value))
    elif keyword in _OF_ONE | _OF_MANY | _OF_NAMED:
        yield None, value


def _at(place: str, key: str | int | None) -> str:
    if key is None:
        return place
    return f"{place}[{key}]" if isinstance(key, int) else f"{place}.{key}"
