"""The JSON Schema of an answer for wires that hold it to the schema exactly, and refuse what they cannot hold it to.

Contract: pure. Every object is closed, keywords that are refused are left out, and what that loses is named with its
path. Knows no provider: Anthropic's models and Bedrock compile schemas by the same rules.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs, JSON Schema limitations, and
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html.
"""

from __future__ import annotations

import re
from typing import cast

from loomstream.dialects.fields import JSONObject
from loomstream.dialects.schemas import rewritten_at, schema_of
from loomstream.errors import Unsupported
from loomstream.messages import Output

FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"},
)
"""The formats of texts that an answer is held to."""

_HELD = frozenset(
    {
        *("type", "enum", "const", "anyOf", "allOf", "properties", "required", "additionalProperties", "items"),
        *("format", "minItems", "pattern", "title", "description", "default", "$ref", "$defs", "definitions"),
    }
)
_ELSEWHERE = frozenset({"$ref", "anyOf", "allOf", "oneOf", "const", "enum"})
"""Keywords that say what an object holds where `properties` does not."""
_NOTES = frozenset({"examples", "example", "deprecated", "readOnly", "writeOnly", "$schema", "$comment", "$id"})
"""Keywords that demand nothing of a value."""
_SHOWN = 8
_MOST_MIN_ITEMS = 1
_BEYOND = re.compile(r"\(\?|\\[1-9bB]")
"""Look-around, references back and word boundaries: what a compiled pattern cannot hold."""


def closed_schema(output: Output) -> tuple[JSONObject, list[str]]:
    """Give the schema as it is sent, and what is to be said of it.

    Raises `RequestError`, with the path, where something within it is no schema, and `Unsupported` for an object of
    keys that are not named: closed, it could hold nothing.
    """
    lost: list[str] = []
    schema = rewritten_at(schema_of(output), lambda members, path: _closed(members, path, lost))
    warnings = ["output.strict is not sent: this wire is always strict"] if output.strict is False else []
    if lost:
        more = f", and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        warnings.append(f"this wire does not hold the answer to {', '.join(lost[:_SHOWN])}{more}")
    return schema, warnings


def _closed(schema: JSONObject, path: str, lost: list[str]) -> JSONObject:
    closed: JSONObject = {}
    for keyword, value in schema.items():
        if keyword in _HELD and not _is_beyond(keyword, value):
            closed[keyword] = value
        elif keyword not in _NOTES:
            lost.append(f"{path}.{keyword}")
    if "oneOf" in schema and "anyOf" not in closed:
        closed["anyOf"] = schema["oneOf"]
    if _is_object(schema):
        if "properties" not in schema and not schema.keys() & _ELSEWHERE:
            remedy = "name them in properties, give a list of objects of key and value, or output_mode='tool'"
            msg = f"{path}: this wire takes no object of keys that are not named; {remedy}"
            raise Unsupported(msg)
        closed["additionalProperties"] = False
    return closed


def _is_object(schema: JSONObject) -> bool:
    kind = schema.get("type")
    kinds = cast("list[object]", kind) if isinstance(kind, list) else [kind]
    return "object" in kinds or "properties" in schema


def _is_beyond(keyword: str, value: object) -> bool:
    """Say whether the wire refuses this value of a keyword that it knows."""
    match keyword:
        case "format":
            return value not in FORMATS
        case "minItems":
            return value not in range(_MOST_MIN_ITEMS + 1)
        case "pattern":
            return isinstance(value, str) and _BEYOND.search(value) is not None
        case "additionalProperties":
            return value is not False
        case _:
            return False
