"""What a model is told of a function: goldens of schemas, and what cannot be a tool."""

# ruff: noqa: ARG001, ARG002 (signatures are the point)

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Optional, TypedDict, Union

import msgspec
import pytest

from loomstream import errors, tool

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Place:
    city: str
    country: str = "NO"


class Trip(msgspec.Struct):
    start: Place
    stops: list[Place] = []


class Options(TypedDict):
    depth: int
    quiet: NotRequired[bool]


class Node(msgspec.Struct):
    children: list[Node] = []


class Opaque:
    """A class that JSON knows nothing of."""


class Doc:
    def __init__(self, text: str) -> None:
        self.documentation = text


PLACE = {
    "title": "Place",
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string", "default": "NO"}},
    "required": ["city"],
}
TRIP = {
    "title": "Trip",
    "type": "object",
    "properties": {
        "start": {"$ref": "#/$defs/Place"},
        "stops": {"type": "array", "items": {"$ref": "#/$defs/Place"}, "default": []},
    },
    "required": ["start"],
}

PROPERTIES = [
    (str, {"type": "string"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (None, {"type": "null"}),
    (Any, {}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    (
        tuple[int, str],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
            "items": False,
        },
    ),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045 (as users write it)
    (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007 (as users write it)
    (Literal["a", "b"], {"enum": ["a", "b"]}),
    (Colour, {"$ref": "#/$defs/Colour"}),
    (dt.date, {"type": "string", "format": "date"}),
    (Annotated[int, msgspec.Meta(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
    (Annotated[str, "the city"], {"type": "string", "description": "the city"}),
    (Annotated[str, Doc("the town")], {"type": "string", "description": "the town"}),
    (Annotated[str, msgspec.Meta(description="a place")], {"type": "string", "description": "a place"}),
    (Annotated[Place, "where"], {"$ref": "#/$defs/Place", "description": "where"}),
    (Options, {"$ref": "#/$defs/Options"}),
    (Trip, {"$ref": "#/$defs/Trip"}),
]


def taking(hint: object, *default: object) -> Callable[..., object]:
    def function(value: object) -> None: ...

    function.__annotations__["value"] = hint
    function.__defaults__ = default
    return function


def value_schema(function: Callable[..., object]) -> object:
    properties = tool(function).parameters["properties"]
    assert isinstance(properties, dict)
    return properties["value"]


@pytest.mark.parametrize(("hint", "expected"), PROPERTIES, ids=lambda value: str(value)[:60])
def test_a_type_has_its_schema(hint: object, expected: object) -> None:
    assert value_schema(taking(hint)) == expected


def test_a_whole_schema() -> None:
    def plan(trip: Trip, colour: Colour = Colour.RED, *, days: int = 3, note: str | None = None) -> str:
        return ""

    assert tool(plan).parameters == {
        "type": "object",
        "properties": {
            "trip": {"$ref": "#/$defs/Trip"},
            "colour": {"$ref": "#/$defs/Colour", "default": "red"},
            "days": {"type": "integer", "default": 3},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["trip"],
        "additionalProperties": False,
        "$defs": {"Colour": {"title": "Colour", "enum": ["blue", "red"]}, "Place": PLACE, "Trip": TRIP},
    }


def test_a_function_without_parameters() -> None:
    def now() -> str:
        return ""

    assert tool(now).parameters == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


def test_a_type_called_arguments_keeps_its_place() -> None:
    arguments = msgspec.defstruct("Arguments", [("x", int)])
    parameters = tool(taking(arguments)).parameters
    definitions = parameters["$defs"]
    assert isinstance(definitions, dict)
    (name,) = definitions
    assert parameters["properties"] == {"value": {"$ref": f"#/$defs/{name}"}}
    assert definitions[name]["properties"] == {"x": {"type": "integer"}}


def test_a_type_that_holds_itself() -> None:
    assert tool(taking(Node)).parameters["$defs"] == {
        "Node": {
            "title": "Node",
            "type": "object",
            "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []}},
            "required": [],
        }
    }


@pytest.mark.parametrize("default", [Opaque(), float("inf")])
def test_a_default_that_json_cannot_write_is_not_told(default: object) -> None:
    parameters = tool(taking(float, default)).parameters
    assert parameters["required"] == []
    assert parameters["properties"] == {"value": {"type": "number"}}


def test_what_a_partial_has_filled_is_not_told() -> None:
    def search(base: str, query: str, key: str = "secret") -> str:
        """Search."""
        return ""

    made = tool(partial(partial(search, "base"), key="secret"))
    assert (made.name, made.description) == ("search", "Search.")
    assert made.parameters["properties"] == {"query": {"type": "string"}}


class Shop:
    """A shop.

    Args:
        no: Not of a method.
    """

    def price(self, item: str) -> float:
        """Give a price.

        Args:
            item: What to buy.
        """
        return 1.0

    def __call__(self, item: str) -> float:
        """Buy it."""
        return 2.0


class Silent:
    """An object without words on its call."""

    def __call__(self, item: str) -> None: ...


def test_methods_and_objects() -> None:
    price, shop, silent = tool(Shop().price), tool(Shop()), tool(Silent())
    assert (price.name, price.description) == ("price", "Give a price.")
    assert price.parameters["properties"] == {"item": {"type": "string", "description": "What to buy."}}
    assert (shop.name, shop.description) == ("Shop", "Buy it.")
    assert shop.parameters["properties"] == {"item": {"type": "string"}}
    assert silent.description == "An object without words on its call."


def test_a_decorated_function_is_read_through() -> None:
    def inner(place: Place) -> None:
        """Go."""

    @wraps(inner)
    def outer(*args: object, **kwargs: object) -> None: ...

    assert tool(outer).parameters["properties"] == {"place": {"$ref": "#/$defs/Place"}}


def variable(*names: str) -> None: ...
def keywords(**names: str) -> None: ...
def positional(name: str, /) -> None: ...
def bare(city) -> None: ...  # noqa: ANN001 (the point)
def odd(thing: Opaque) -> None: ...
def called(thing: Callable[[], int]) -> None: ...
def mixed(thing: int | Opaque) -> None: ...
def later(price: OnlyForCheckers) -> None: ...
def second(fine: int, thing: Opaque) -> None: ...


WRONG = [
    (variable, r"variable: the parameter \*names cannot be filled by a model: name each parameter; a list"),
    (keywords, r"keywords: the parameter \*\*names cannot be filled by a model: name each parameter; a dict"),
    (positional, "positional: the parameter name cannot be filled .* drop the /"),
    (bare, "bare: the parameter city has no type: annotate it"),
    (odd, "odd: the parameter thing has a type that no tool can have .*Opaque.* use types that JSON can say"),
    (called, "called: the parameter thing has a type that no tool"),
    (mixed, "mixed: the parameter thing has a type that no tool"),
    (second, "second: the parameter thing has a type that no tool"),
    (later, "later: the parameter price has a type that cannot be read .*OnlyForCheckers.* at module level"),
    (lambda: None, "a tool cannot be called <lambda>: give it a name"),
    (Place, "a class: give a function"),
    (7, "a tool cannot be made of 7, an int: give a function"),
    (min, "min has no signature to read .* wrap it"),
]


@pytest.mark.parametrize(("function", "message"), WRONG, ids=[message[:20] for _, message in WRONG])
def test_what_cannot_be_a_tool_says_what_to_do(function: Any, message: str) -> None:  # noqa: ANN401 (anything is given)
    with pytest.raises(errors.RequestError, match=message):
        tool(function)


def test_a_lambda_with_a_name() -> None:
    assert tool(lambda: None, name="nothing", description="Do nothing.").name == "nothing"
