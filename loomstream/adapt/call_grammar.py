"""The JSON Schema of a call that must be made: a server with a grammar writes nothing else.

Contract: pure. Definitions within a tool's schema move to the root, where references are looked up; each keeps the
name of its tool, so that two tools' definitions never meet. Raises `RequestError` for parameters that are no schema.
"""

from __future__ import annotations

from collections.abc import Sequence

from loomstream.dialects.fields import JSONObject, as_object
from loomstream.dialects.schemas import rewritten
from loomstream.messages import Tool

_DEFINITIONS = ("$defs", "definitions")


def call_schema(tools: Sequence[Tool], arguments: str) -> JSONObject:
    """Give the schema of one call of one of the tools; `arguments` is the key of its arguments."""
    definitions: JSONObject = {}
    calls = [_call(tool, arguments, definitions) for tool in tools]
    schema: JSONObject = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _call(tool: Tool, arguments: str, definitions: JSONObject) -> JSONObject:
    schema = rewritten(tool.parameters, lambda members: _moved(members, tool.name))
    for key in _DEFINITIONS:
        for name, definition in as_object(schema.pop(key, None)).items():
            definitions[f"{tool.name}.{name}"] = definition
    schema.pop("$schema", None)
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, arguments: schema},
        "required": ["name", arguments],
        "additionalProperties": False,
    }


def _moved(members: JSONObject, tool: str) -> JSONObject:
    """Give a schema whose reference points to where its definition is now."""
    reference = members.get("$ref")
    for key in _DEFINITIONS:
        beginning = f"#/{key}/"
        if isinstance(reference, str) and reference.startswith(beginning):
            return {**members, "$ref": f"#/$defs/{tool}.{reference.removeprefix(beginning)}"}
    return members
