# ruff: noqa: ANN401 (these tests take apart JSON of any shape)
"""OpenAI's strict mode: the first thing in a schema that it refuses, by its path."""

from __future__ import annotations

from typing import Any

import pytest

from loomstream.dialects.strict import MAX_DEPTH, output_format, strict_obstacle
from loomstream.errors import RequestError
from loomstream.messages import Output


def an_object(**properties: Any) -> dict[str, Any]:
    """Give the schema of an object that strict mode takes."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nested(levels: int) -> dict[str, Any]:
    schema = an_object()
    for _ in range(levels - 1):
        schema = an_object(a=schema)
    return schema


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        an_object(),
        an_object(a=TEXT, b={"type": ["string", "null"], "title": "B", "description": "b"}),
        an_object(a={"type": "array", "items": an_object(b=TEXT), "minItems": 1, "maxItems": 3}),
        an_object(a={"anyOf": [TEXT, {"type": "null"}]}, b={"enum": ["x", 1]}, c={"const": 1}),
        an_object(a={"type": "number", "minimum": 0, "multipleOf": 2}, b={"type": "string", "format": "date"}),
        {**an_object(a={"$ref": "#/$defs/A"}), "$defs": {"A": an_object(a={"$ref": "#"})}, "$schema": "s"},
        nested(MAX_DEPTH),
    ],
)
def test_what_strict_mode_takes(schema: dict[str, Any]) -> None:
    assert strict_obstacle(schema) == ""
    assert output_format(Output(schema=schema))["strict"] is True
    assert output_format(Output(schema=schema, strict=True))["strict"] is True


@pytest.mark.parametrize(
    ("schema", "obstacle"),
    [
        ({}, "output.schema: strict mode demands an object, and no choice of several"),
        ({"type": "array", "items": TEXT}, "output.schema: strict mode demands an object"),
        ({**an_object(), "anyOf": [TEXT]}, "output.schema: strict mode demands an object"),
        ({**an_object(), "additionalProperties": True}, "output.schema.additionalProperties: strict mode demands that"),
        ({"type": "object", "properties": {}}, "output.schema.additionalProperties: strict mode demands that"),
        (
            {**an_object(a=TEXT, b=TEXT), "required": ["a"]},
            "output.schema.properties.b: strict mode demands that each property is required",
        ),
        ({**an_object(a=TEXT), "required": None}, "output.schema.properties.a: strict mode demands"),
        (an_object(a={"type": "string", "minLength": 1}), "output.schema.properties.a.minLength: strict mode knows no"),
        (an_object(a={"allOf": [TEXT]}), "output.schema.properties.a.allOf: strict mode knows no such keyword"),
        (an_object(a={"type": "string", "format": "uri"}), "output.schema.properties.a.format: strict mode knows no"),
        (
            an_object(a={"type": "array", "items": {"type": "object"}}),
            "output.schema.properties.a.items.additionalProperties: strict mode demands",
        ),
        (
            an_object(a={"type": ["object", "null"]}),
            "output.schema.properties.a.additionalProperties: strict mode demands",
        ),
        (
            an_object(a={"anyOf": [TEXT, {"oneOf": []}]}),
            "output.schema.properties.a.anyOf[1].oneOf: strict mode knows no",
        ),
        (
            {**an_object(), "$defs": {"A": {"type": "string", "default": ""}}},
            "output.schema.$defs.A.default: strict mode knows no",
        ),
        (
            an_object(a={"$ref": "#/$defs/A", "description": "x"}),
            "output.schema.properties.a.description: strict mode takes nothing beside $ref",
        ),
        (an_object(a=True), "output.schema.properties.a: strict mode demands a schema that is an object"),
        (nested(MAX_DEPTH + 1), f"strict mode takes no more than {MAX_DEPTH} objects and lists within each other"),
    ],
)
def test_what_it_refuses_is_named_by_its_path(schema: dict[str, Any], obstacle: str) -> None:
    assert obstacle in strict_obstacle(schema)
    assert output_format(Output(schema=schema))["strict"] is False
    assert output_format(Output(schema=schema, strict=False))["strict"] is False
    with pytest.raises(RequestError) as raised:
        output_format(Output(schema=schema, strict=True))
    assert obstacle in str(raised.value)


def test_a_schema_of_any_depth_is_looked_through() -> None:
    schema: dict[str, Any] = TEXT
    for _ in range(10_000):
        schema = {"anyOf": [schema]}
    assert "within each other" in strict_obstacle(an_object(a=schema))


def test_the_schema_goes_out_as_it_came() -> None:
    schema = an_object(a={"type": "string", "x-mine": 1})
    assert output_format(Output(schema=schema, name="", description="d")) == {
        "name": "answer",
        "description": "d",
        "schema": schema,
        "strict": False,
    }
