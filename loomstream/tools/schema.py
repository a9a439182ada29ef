"""A function's parameters, and any type: as a msgspec type to decode into, and as JSON Schema.

Contract: pure. Whatever cannot be a parameter of a tool raises `RequestError`, which names the function, the parameter
and what to do; `type_schema` raises what types raise. msgspec writes the schema; pydantic's models write their own part
(they are recognised by their methods: pydantic is never imported).
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn, cast, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Struct

from loomstream.errors import RequestError
from loomstream.tools import docstring

Function = Callable[..., object]
JSONObject = dict[str, object]

_PLACE = re.compile(r"(.*) - at `(.*)`", re.DOTALL)
_DEFINITIONS = "#/$defs/"
_VARIADIC = {
    inspect.Parameter.VAR_POSITIONAL: ("*", "name each parameter; a list makes many of one kind"),
    inspect.Parameter.VAR_KEYWORD: ("**", "name each parameter; a dict[str, …] makes any names"),
    inspect.Parameter.POSITIONAL_ONLY: ("", "arguments come by name: drop the / from the signature"),
}
"""Kinds of parameters that a model cannot fill, with their mark and what to do."""


class Shape(NamedTuple):
    """What a function takes: the type that its arguments decode into, and the same as JSON Schema."""

    type: type[Struct]
    parameters: JSONObject


class _Field(NamedTuple):
    name: str
    type: Any
    default: object
    description: str


def shape(function: Function, name: str) -> Shape:
    """Give what a function takes; `name` is what errors call it.

    What `functools.partial` has filled is left out. Raises `RequestError` for a parameter that cannot be one of a tool:
    variable or positional-only, without a type, of a type that JSON Schema cannot say.
    """
    fields = _fields(function, name)
    try:
        kind = _struct(fields)
        schema = _schema(kind)
        msgspec.json.Decoder(kind, dec_hook=decode_hook)  # not all that has a schema can be decoded
    except Exception as error:  # types may write their own schema, and fail in any way
        raise _unusable(name, fields, error) from error
    properties = cast("dict[str, JSONObject]", schema["properties"])
    for field in fields:
        _describe(properties[field.name], field)
    return Shape(kind, schema)


def _fields(function: Function, name: str) -> list[_Field]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        msg = f"{name} has no signature to read ({error}): wrap it in a function of your own"
        raise RequestError(msg) from error
    filled = _filled(function)
    described = docstring.parse(inspect.getdoc(_inner(function))).parameters
    hints = _hints(function)
    return [_field(name, each, hints, described) for each in parameters if each.name not in filled]


def _field(
    name: str, parameter: inspect.Parameter, hints: Callable[[str, object], object], described: Mapping[str, str]
) -> _Field:
    mark, remedy = _VARIADIC.get(parameter.kind, ("", ""))
    if remedy:
        _refuse(name, mark + parameter.name, f"cannot be filled by a model: {remedy}")
    if parameter.annotation is inspect.Parameter.empty:
        own = parameter.name in {"self", "cls"}
        remedy = f"make the tool of the bound method, as in tool(instance.{name})" if own else "annotate it"
        _refuse(name, parameter.name, f"has no type: {remedy}")
    try:
        hint = hints(parameter.name, parameter.annotation)
    except Exception as error:  # noqa: BLE001 (an annotation that is a text may be any code)
        reason = f"{type(error).__name__}: {error}"
        _refuse(name, parameter.name, f"has a type that cannot be read ({reason}): define or import it at module level")
    return _Field(parameter.name, hint, parameter.default, _note(hint) or described.get(parameter.name, ""))


def _refuse(name: str, parameter: str, reason: str) -> NoReturn:
    msg = f"{name}: the parameter {parameter} {reason}"
    raise RequestError(msg)


def _filled(function: object) -> set[str]:
    return set(cast("partial[object]", function).keywords) if isinstance(function, partial) else set()


def _inner(function: Function) -> Function:
    """Give the function whose code runs: of a partial, of an object that can be called."""
    while isinstance(function, partial):
        function = cast("Function", function.func)
    if inspect.isroutine(function):
        return inspect.unwrap(function)
    return cast("Function", type(function).__call__)


def _hints(function: Function) -> Callable[[str, object], object]:
    """Give what reads an annotation, which may be a text, in the names of the function's module."""
    names = cast("dict[str, Any]", getattr(_inner(function), "__globals__", {}))

    def read(parameter: str, annotation: object) -> object:
        holder = SimpleNamespace(__annotations__={parameter: annotation})
        return get_type_hints(holder, globalns=names, include_extras=True)[parameter]

    return read


def _note(hint: object) -> str:
    """Give the description in `Annotated[T, "…"]`; `Doc` and pydantic's `Field` hold it as an attribute."""
    for item in cast("Iterable[object]", getattr(hint, "__metadata__", ())):
        text = item if isinstance(item, str) else getattr(item, "documentation", getattr(item, "description", None))
        if isinstance(text, str):
            return text
    return ""


# --- the type ------------------------------------------------------------------------------------


def _struct(fields: Iterable[_Field]) -> type[Struct]:
    """Give a type with the parameters as fields; what is absent stays `UNSET`, for the function's default to hold."""
    absent = msgspec.field(default_factory=lambda: UNSET)
    return msgspec.defstruct(
        "Arguments",
        [
            (field.name, field.type) if field.default is inspect.Parameter.empty else (field.name, field.type, absent)
            for field in fields
        ],
        kw_only=True,
        forbid_unknown_fields=True,
    )


def _unusable(name: str, fields: Iterable[_Field], error: Exception) -> RequestError:
    """Say which parameter it is that cannot be used."""
    for field in fields:
        try:
            kind = _struct([field])
            _schema(kind)
            msgspec.json.Decoder(kind, dec_hook=decode_hook)
        except Exception as own:  # noqa: BLE001 (it is told)
            remedy = "use types that JSON can say, such as str, int, list[str], Literal, a dataclass or a TypedDict"
            reason = str(own).replace("\n", " ")
            return RequestError(
                f"{name}: the parameter {field.name} has a type that no tool can have ({reason}): {remedy}"
            )
    return RequestError(f"{name}: no tool can have these parameters together: {error}")


# --- JSON Schema ---------------------------------------------------------------------------------


def _schema(kind: type[Struct]) -> JSONObject:
    """Give the schema of the arguments, with the types that it refers to under `$defs`."""
    schema: JSONObject = {"type": "object", "properties": {}, **type_schema(kind)}
    del schema["title"]
    return schema


def type_schema(kind: object) -> JSONObject:
    """Give the schema of a type, with those that it refers to under `$defs`. Raises what the type raises."""
    found: JSONObject = {}
    (top,), components = msgspec.json.schema_components(
        [kind], schema_hook=partial(_schema_hook, found), ref_template=_DEFINITIONS + "{name}"
    )
    definitions = cast("dict[str, JSONObject]", components)
    for name, definition in found.items():
        _add(definitions, name, definition)
    schema = cast("JSONObject", top)
    name = cast("str", schema.get("$ref", "")).removeprefix(_DEFINITIONS)
    if name in definitions:
        schema = definitions[name]
        if not _refers(_DEFINITIONS + name, definitions):  # a type that holds itself stays there too
            del definitions[name]
    return {**schema, "$defs": definitions} if definitions else schema


def _refers(place: str, schema: object) -> bool:
    if isinstance(schema, dict):
        members = cast("JSONObject", schema)
        return members.get("$ref") == place or any(_refers(place, member) for member in members.values())
    return isinstance(schema, list) and any(_refers(place, item) for item in cast("list[object]", schema))


def _schema_hook(found: JSONObject, kind: object) -> JSONObject:
    write = getattr(kind, "model_json_schema", None)
    if write is None:
        raise NotImplementedError  # msgspec says it in its own words
    schema = cast("JSONObject", write(ref_template="#/$defs/{model}"))
    for name, definition in cast("JSONObject", schema.pop("$defs", {})).items():
        _add(found, name, definition)
    return schema


def _add(definitions: JSONObject | dict[str, JSONObject], name: str, definition: object) -> None:
    into = cast("JSONObject", definitions)
    if into.setdefault(name, definition) != definition:
        msg = f"two types are called {name}: rename one"
        raise ValueError(msg)


def _describe(schema: JSONObject, field: _Field) -> None:
    if field.description:
        schema["description"] = field.description
    if field.default is inspect.Parameter.empty:
        return
    try:
        default = msgspec.to_builtins(field.default, enc_hook=encode_hook)
    except (TypeError, ValueError, RuntimeError):
        return  # the function knows its default; the model need not
    if not isinstance(default, float) or math.isfinite(default):
        schema["default"] = default


# --- types that msgspec does not know ------------------------------------------------------------


def decode_hook(kind: Any, value: object) -> object:  # noqa: ANN401 (msgspec's own signature)
    """Read a pydantic model; what it refuses comes out as one line."""
    read = getattr(get_origin(kind) or kind, "model_validate_json", None)
    if read is None:
        msg = f"nothing reads a {getattr(kind, '__name__', kind)}"
        raise TypeError(msg)
    try:
        return read(msgspec.json.encode(value))
    except ValueError as error:
        raise ValueError(_in_one_line(error)) from error


def _in_one_line(error: ValueError) -> str:
    listed = getattr(error, "errors", None)
    if listed is None:
        return str(error)
    items = cast("list[dict[str, Any]]", listed())
    return "; ".join(f"{'.'.join(map(str, item.get('loc', ())))}: {item.get('msg', '')}" for item in items)


def reason(error: Exception) -> str:
    """Give a decoder's words as `$.path: what was expected, and what was there`; empty where the text is no JSON."""
    if isinstance(error, msgspec.ValidationError):
        found = _PLACE.fullmatch(str(error))
        words, place = (found[1], found[2]) if found else (str(error), "$")
        return f"{place}: {words[:1].lower()}{words[1:]}".replace("`", "")
    unreadable = isinstance(error, msgspec.DecodeError | UnicodeDecodeError)
    return "" if unreadable else f"$: refused ({type(error).__name__}: {words_of(error)})"


def words_of(error: BaseException) -> str:
    """Give what an error says; one of a user's class may fail at that."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 (a user's code may raise anything; the failure is told in its place)
        return f"no words: its __str__ raised {type(failure).__name__}"


def encode_hook(value: object) -> object:
    """Give a pydantic model as plain values."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        raise NotImplementedError
    return dump(mode="json")
