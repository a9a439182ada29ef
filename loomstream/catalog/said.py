"""What a user may say of a model: each field with what it takes.

Contract: pure. `change` gives what takes the place of an entry's fields, or raises `Unfit` with the field that is wrong
and words for it, which never hold what was given. It knows no place and no file: who calls it does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import NamedTuple, cast, get_args

import msgspec

from loomstream.catalog.entry import Price, Rates, Tools

Change = Mapping[str, object]
"""Fields of `Entry`, each with its new value."""

_MOST_TOKENS = 1_000_000_000
_DEAREST = 1_000_000
_DECIMALS = 20
"""Rates beyond these are no prices, and would overflow in arithmetic."""

_MOST_CHARS = 200
_RATE = re.compile(r"\+?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
"""How a rate is written: `Decimal` would take `1_0` and other scripts' digits too."""

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_SIMILAR = 0.6


class Unfit(Exception):
    """A field that there is not, or a value that it cannot have; `field` is empty where it is none of them alone."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


class FieldRow(NamedTuple):
    """A field: what it means, the words for what it takes, its value (None: it is none), and its JSON Schema."""

    help: str
    words: str
    read: Callable[[object], object | None]
    schema: Mapping[str, object]


# --- readings: None where it is not of the kind --------------------------------------------------


def _tokens(given: object) -> int | None:
    is_whole = isinstance(given, int) and not isinstance(given, bool)
    return cast("int", given) if is_whole and 1 <= cast("int", given) <= _MOST_TOKENS else None


def _flag(given: object) -> bool | None:
    return given if isinstance(given, bool) else None


def _tools(given: object) -> str | None:
    return given if isinstance(given, str) and given in get_args(Tools) else None


def _day(given: object) -> date | None:
    if type(given) is date:
        return given
    try:
        return date.fromisoformat(given) if isinstance(given, str) and _DAY.fullmatch(given) else None
    except ValueError:  # no day of any month
        return None


def _name(given: object) -> str | None:
    is_name = isinstance(given, str) and given.isprintable() and 0 < len(given.strip()) <= _MOST_CHARS
    return cast("str", given).strip() if is_name else None


def _rate(given: object) -> Decimal | None:
    if isinstance(given, bool) or not isinstance(given, int | float | str | Decimal):
        return None
    try:
        written = str(given).strip()
        rate = Decimal(written) if _RATE.fullmatch(written) else None
    except (InvalidOperation, ValueError):  # ValueError: a whole number of more digits than Python turns into text
        return None
    is_price = rate is not None and rate <= _DEAREST and not (rate and rate.adjusted() < -_DECIMALS)
    return rate if is_price else None


# --- fields --------------------------------------------------------------------------------------

_COUNT = ("a whole number of at least 1", _tokens, {"type": "integer", "minimum": 1, "maximum": _MOST_TOKENS})
_YES_NO = ("true or false", _flag, {"type": "boolean"})
_DATE = ("a day as '2027-01-31', in quotes", _day, {"type": "string", "format": "date"})
_USD = (
    f"US dollars per million tokens, from 0 to {_DEAREST}",
    _rate,
    {"type": ["number", "string"], "minimum": 0, "maximum": _DEAREST},
)

FIELDS: Mapping[str, FieldRow] = {
    "context_tokens": FieldRow("the most tokens of prompt and answer", *_COUNT),
    "max_output_tokens": FieldRow("the most tokens of an answer", *_COUNT),
    "streaming": FieldRow("answers can be streamed", *_YES_NO),
    "tools": FieldRow(
        "how it calls tools: by its own protocol, by text in the prompt, or not at all",
        f"one of {', '.join(get_args(Tools))}",
        _tools,
        {"type": "string", "enum": [*get_args(Tools)]},
    ),
    "parallel_tools": FieldRow("several calls in one turn", *_YES_NO),
    "vision": FieldRow("images in the prompt", *_YES_NO),
    "reasoning": FieldRow("it reasons before it answers", *_YES_NO),
    "prefill": FieldRow("the answer continues an assistant turn that the request ends with", *_YES_NO),
    "structured_output": FieldRow("an answer held to a JSON Schema by the provider", *_YES_NO),
    "input": FieldRow("the price of what is sent; `output` beside it", *_USD),
    "output": FieldRow("the price of what is answered, reasoning included; `input` beside it", *_USD),
    "cache_read": FieldRow("the price of what is read from a cache", *_USD),
    "cache_write_5m": FieldRow("the price of what is written to a cache for its usual time", *_USD),
    "cache_write_1h": FieldRow("the same for an hour", *_USD),
    "free": FieldRow("nobody bills it", *_YES_NO),
    "deprecated_on": FieldRow("the day on which it is taken away", *_DATE),
    "successor": FieldRow("the model to ask then", f"a text of at most {_MOST_CHARS} characters", _name,
                          {"type": "string"}),
    "as_of": FieldRow("the day of what is said here", *_DATE),
}  # fmt: skip
"""Everything that can be said of a model."""

_RATES = Rates.__struct_fields__
MONEY = frozenset((*_RATES, "free"))
"""The fields that say what a model costs."""


def change(said: Mapping[str, object]) -> Change:
    """Give what takes the place of an entry's fields; what is None is not said.

    Rates take the place of the whole price, and a model that has one is not free unless that is said too. Raises
    `Unfit`.
    """
    values = {field: _value(field, given) for field, given in said.items() if given is not None or field not in FIELDS}
    rates = {field: value for field, value in values.items() if field in _RATES}
    fields = {field: value for field, value in values.items() if field not in _RATES}
    if not rates:
        return fields
    if missing := [field for field in ("input", "output") if field not in rates]:
        problem = f"a price needs `input` and `output`: {missing[0]} is not here"
        raise Unfit(field="", problem=problem)
    return {"free": False, **fields, "price": msgspec.convert(rates, Price)}


def _value(field: str, given: object) -> object:
    row = FIELDS.get(field)
    if row is None:
        raise Unfit(field, unknown(field))
    value = row.read(given)
    if value is None:
        raise Unfit(field, f"this must be {row.words}")
    return value


def unknown(field: str) -> str:
    """Say that there is no such field, and which may be meant."""
    near = difflib.get_close_matches(field, FIELDS, n=1, cutoff=_SIMILAR)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FIELDS)}"
    return f"there is no such field: {hint}"
