from __future__ import annotations

from typing import Any

import pytest

from loomstream.dialects.closed_schemas import closed_schema
from loomstream.errors import RequestError, Unsupported
from loomstream.messages import Output

CITY = {"type": "object", "properties": {"name": {"type": "string", "format": "uuid", "title": "Name"}}}


@pytest.mark.parametrize(
    ("schema", "sent", "lost"),
    [
        (CITY, {**CITY, "additionalProperties": False}, []),
        (
            {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "examples": [2]}}},
            {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False},
            ["output.schema.properties.n.minimum"],
        ),
        (
            {
                "anyOf": [{"$ref": "#/$defs/A"}, {"type": ["object", "null"], "properties": {}}],
                "$defs": {"A": {**CITY, "additionalProperties": True}},
            },
            {
                "anyOf": [
                    {"$ref": "#/$defs/A"},
                    {"type": ["object", "null"], "properties": {}, "additionalProperties": False},
                ],
                "$defs": {"A": {**CITY, "additionalProperties": False}},
            },
            ["output.schema.$defs.A.additionalProperties"],
        ),
        (
            {"oneOf": [{"type": "string", "pattern": "^a+$"}, {"type": "string", "pattern": "(?=a)b"}]},
            {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"type": "string"}]},
            ["output.schema.oneOf[1].pattern", "output.schema.oneOf"],
        ),
        (
            {"type": "array", "items": {"type": "string", "format": "regex", "maxLength": 3}, "minItems": 1},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ["output.schema.items.format", "output.schema.items.maxLength"],
        ),
        ({"type": "array", "minItems": 2}, {"type": "array"}, ["output.schema.minItems"]),
    ],
)
def test_a_schema_is_closed_and_what_is_lost_is_named(schema: Any, sent: Any, lost: list[str]) -> None:  # noqa: ANN401
    written, warnings = closed_schema(Output(schema=schema))
    assert written == sent
    assert warnings == ([f"this wire does not hold the answer to {', '.join(lost)}"] if lost else [])


def test_the_users_schema_is_left_as_it_is() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    closed_schema(Output(schema=schema))
    assert schema == {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}


def test_many_losses_are_counted() -> None:
    schema = {"type": "object", "properties": {f"n{number}": {"minimum": 1} for number in range(11)}}
    _, [told] = closed_schema(Output(schema=schema))
    assert "output.schema.properties.n7.minimum, and 3 more" in told


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object"}, r"output\.schema: "),
        (
            {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "integer"}}}},
            r"output\.schema\.properties\.a: ",
        ),
    ],
)
def test_an_object_of_keys_without_names_is_refused_with_its_path(schema: Any, place: str) -> None:  # noqa: ANN401
    with pytest.raises(Unsupported, match=place + "this wire takes no object of keys that are not named"):
        closed_schema(Output(schema=schema))


def test_what_is_no_schema_is_refused_with_its_path() -> None:
    with pytest.raises(RequestError, match=r"output\.schema\.properties\.a is an int"):
        closed_schema(Output(schema={"type": "object", "properties": {"a": 1}}))


def test_strict_cannot_be_switched_off() -> None:
    _, warnings = closed_schema(Output(schema=CITY, strict=False))
    assert warnings == ["output.strict is not sent: this wire is always strict"]
