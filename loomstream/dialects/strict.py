"""OpenAI's form of a demand for JSON of a schema, and whether its strict mode can take the schema.

Contract: pure. The schema goes out whole: strict mode is asked for only where the schema keeps its rules as it stands.
Knows no wire: the two that share this form put it where they want it.

Source: https://platform.openai.com/docs/guides/structured-outputs, "Supported schemas".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import cast

from loomstream.dialects.fields import JSONObject
from loomstream.errors import RequestError
from loomstream.messages import Output

MAX_DEPTH = 10
"""More objects and lists within each other than this are refused by strict mode."""

_DEEPEST = 4 * MAX_DEPTH
_NAME_MAX = 64
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_KEYWORDS = frozenset(
    {
        *("type", "title", "description", "enum", "const", "$schema", "$defs", "definitions", "anyOf"),
        *("properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format"),
    }
)
_OF_NAMED = ("properties", "$defs", "definitions")
_Found = Iterator[tuple[str, str]]


def output_format(output: Output) -> JSONObject:
    """Give `name`, `description`, `schema` and `strict` as OpenAI's wires take them.

    A character that names may not hold becomes `_`, and a name is cut at 64 characters. `strict` is what the output
    says, and where it leaves that open, whether the schema keeps strict mode's rules.

    Raises `RequestError`, with the path of what breaks which rule, where strict mode is demanded and cannot be.
    """
    obstacle = strict_obstacle(output.schema)
    if output.strict and obstacle:
        msg = f"{obstacle}: change that, or leave output.strict unset"
        raise RequestError(msg)
    name = _FOREIGN.sub("_", output.name)[:_NAME_MAX] or "answer"
    described = {"description": output.description} if output.description else {}
    strict = not obstacle if output.strict is None else output.strict
    return {"name": name, **described, "schema": dict(output.schema), "strict": strict}


def strict_obstacle(schema: Mapping[str, object], path: str = "output.schema") -> str:
    """Give the first thing in a schema that strict mode refuses, as a path and a reason; empty where there is none."""
    if schema.get("type") != "object" or "anyOf" in schema:
        return f"{path}: strict mode demands an object, and no choice of several"
    found = next(_obstacles(schema, path, 0, 0), None)
    return f"{found[0]}: strict mode {found[1]}" if found else ""


def _obstacles(schema: object, path: str, depth: int, level: int) -> _Found:
    if not isinstance(schema, Mapping):
        yield path, "demands a schema that is an object"
        return
    members = cast("Mapping[str, object]", schema)
    if "$ref" in members:
        yield from ((f"{path}.{key}", "takes nothing beside $ref") for key in members if key != "$ref")
        return
    depth += members.get("type") in ("object", "array")
    if depth > MAX_DEPTH or level > _DEEPEST:
        yield path, f"takes no more than {MAX_DEPTH} objects and lists within each other"
        return
    yield from ((f"{path}.{key}", "knows no such keyword") for key in members if key not in _KEYWORDS)
    if "format" in members and members["format"] not in _FORMATS:
        yield f"{path}.format", f"knows no {members['format']!r}"
    yield from _object_obstacles(members, path)
    for place, inner in _within(members, path):
        yield from _obstacles(inner, place, depth, level + 1)


def _object_obstacles(members: Mapping[str, object], path: str) -> _Found:
    named, required = members.get("properties"), members.get("required")
    types = members.get("type")
    is_object = types == "object" or (isinstance(types, list) and "object" in types) or named is not None
    if not is_object:
        return
    if members.get("additionalProperties") is not False:
        yield f"{path}.additionalProperties", "demands that it is false"
    demanded: Collection[object] = cast("list[object]", required) if isinstance(required, list | tuple) else ()
    for name in cast("Mapping[str, object]", named) if isinstance(named, Mapping) else ():
        if name not in demanded:
            yield f"{path}.properties.{name}", "demands that each property is required"


def _within(members: Mapping[str, object], path: str) -> Iterator[tuple[str, object]]:
    for keyword in _OF_NAMED:
        named = members.get(keyword)
        if isinstance(named, Mapping):
            for name, inner in cast("Mapping[str, object]", named).items():
                yield f"{path}.{keyword}.{name}", inner
    if "items" in members:
        yield f"{path}.items", members["items"]
    variants = members.get("anyOf")
    if isinstance(variants, list | tuple):
        for position, inner in enumerate(cast("Sequence[object]", variants)):
            yield f"{path}.anyOf[{position}]", inner
