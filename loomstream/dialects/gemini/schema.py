"""The JSON Schema of an answer in the words of `responseJsonSchema`, which knows a part of them.

Contract: pure. What can be said in other words of the same meaning is; the rest goes out as it is, and is not looked
at.

Source: https://ai.google.dev/api/generate-content, `responseJsonSchema`.
"""

from __future__ import annotations

from loomstream.dialects.fields import JSONObject
from loomstream.dialects.schemas import output_warnings, rewritten, schema_of
from loomstream.messages import Output

ENFORCED = frozenset(
    {
        *("type", "format", "enum", "items", "prefixItems", "minItems", "maxItems", "minimum", "maximum"),
        *("anyOf", "oneOf", "properties", "additionalProperties", "required", "propertyOrdering"),
    }
)
"""The keywords that an answer is held to."""


def response_schema(output: Output) -> tuple[JSONObject, list[str]]:
    """Give the schema as it is sent, and what is to be said of it.

    Raises `RequestError`, with the path, where something within it is no schema.
    """
    schema = rewritten(schema_of(output), _known)
    return schema, output_warnings(output, schema, ENFORCED)


def _known(schema: JSONObject) -> JSONObject:
    """Write one schema in keywords that are known, where that says the same."""
    return _alone(_as_enum(schema))


def _as_enum(schema: JSONObject) -> JSONObject:
    """Write a constant as an enumeration of one value, which may hold texts and numbers."""
    value = schema.get("const")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return schema
    return {**{keyword: held for keyword, held in schema.items() if keyword != "const"}, "enum": [value]}


def _alone(schema: JSONObject) -> JSONObject:
    """Put a reference with others beside it into `anyOf`: beside `$ref` stands only what begins with `$`."""
    others = {keyword: value for keyword, value in schema.items() if not keyword.startswith("$")}
    if "$ref" not in schema or not others or "anyOf" in others:
        return schema
    kept = {keyword: value for keyword, value in schema.items() if keyword.startswith("$") and keyword != "$ref"}
    return {**kept, **others, "anyOf": [{"$ref": schema["$ref"]}]}
