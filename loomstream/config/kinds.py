"""What a setting may be: how a file, a variable and a caller write it, and how JSON Schema says it.

Contract: pure. A function gives the value, or raises `Unfit` with words that say what was expected; the words never
hold what was given, which may be a secret in the wrong place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import NamedTuple, cast

from loomstream.config.settings import SettingRow, Value
from loomstream.errors import ConfigError
from loomstream.providers.custom import header_problem
from loomstream.transport.outgoing import check_base_url, check_url
from loomstream.wire import Secret

_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_MOST_CHARS = 8192
_LONG = 1_000_000
"""From here on `:g` would write an exponent."""


class Unfit(Exception):
    """A value that a setting cannot have; its text is what was expected."""


class KindRow(NamedTuple):
    """A kind: its words, the value of what YAML or a caller gives, of a variable's text, and its JSON Schema."""

    words: str
    of_value: Callable[[object], Value]
    of_text: Callable[[str], Value]
    schema: Mapping[str, object]


def convert(row: SettingRow, given: object) -> Value:
    """Give the value of a setting from what YAML or a caller gives. Raises `Unfit`."""
    kind = KINDS[row.kind]
    return _finished(row, _tried(kind.words, kind.of_value, given.reveal() if isinstance(given, Secret) else given))


def parse(row: SettingRow, text: str) -> Value:
    """Give the value of a setting from the text of a variable. Raises `Unfit`."""
    kind = KINDS[row.kind]
    return _finished(row, _tried(kind.words, kind.of_text, text.strip()))


def expected(row: SettingRow) -> str:
    """Say what a setting takes."""
    return f"this must be {KINDS[row.kind].words}"


def _tried(words: str, reading: Callable[..., Value], given: object) -> Value:
    try:
        value = reading(given)
    except (ValueError, TypeError, InvalidOperation, OverflowError, ConfigError):
        value = None
    if value is None:
        msg = f"this must be {words}"
        raise Unfit(msg)
    return value


def _finished(row: SettingRow, value: Value) -> Value:
    """Check the bounds and hide what is secret."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        below, above = row.least is not None and value < row.least, row.most is not None and value > row.most
        if below or above:
            raise Unfit(_bounds(row))
    if row.choices and value not in row.choices:
        msg = f"this must be one of {', '.join(row.choices)}"
        raise Unfit(msg)
    if isinstance(value, str) and (len(value) > _MOST_CHARS or "\x00" in value):
        msg = f"this must be a text of at most {_MOST_CHARS} characters"
        raise Unfit(msg)
    if isinstance(value, str) and not _is_whole(value):
        msg = "this holds half of a character (a lone surrogate): write it again"
        raise Unfit(msg)
    if row.secret and isinstance(value, str):
        return Secret(value)
    if isinstance(value, Mapping) and not row.secret:
        _check_headers(value)
    if row.secret and isinstance(value, Mapping):
        return cast("Value", {name: Secret(text) for name, text in value.items()})
    return value


def _check_headers(headers: Mapping[str, object]) -> None:
    for name, text in headers.items():
        if problem := header_problem(name, str(text)):
            raise Unfit(problem)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bounds(row: SettingRow) -> str:
    words = KINDS[row.kind].words
    if row.most is None:
        return f"this must be {words} of at least {row.least:g}"
    return f"this must be {words} from {row.least or 0:g} to {plain(row.most)}"


def plain(bound: float) -> str:
    """Give a bound as it is read: `0.5`, `1,000,000`."""
    return f"{bound:g}" if bound < _LONG else f"{bound:,.0f}"


# --- readings: None where it is not of the kind --------------------------------------------------


def _text(given: object) -> Value:
    return given.strip() if isinstance(given, str) and given.strip() else None


def _address(given: object) -> Value:
    text = _text(given)
    if isinstance(text, str):
        check_url(check_base_url(text), allow_http=True)
    return text


def _whole(given: object) -> Value:
    return given if isinstance(given, int) and not isinstance(given, bool) else None


def _number(given: object) -> Value:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return cast("float", given) if is_number and math.isfinite(cast("float", given)) else None


def _number_of(text: str) -> Value:
    return _number(int(text) if text.lstrip("+-").isdecimal() else float(text))


def _flag(given: object) -> Value:
    return given if isinstance(given, bool) else None


def _flag_of(text: str) -> Value:
    word = text.lower()
    return True if word in _YES else False if word in _NO else None


def _duration(given: object) -> Value:
    return _duration_of(given.strip()) if isinstance(given, str) else _number(given)


def _duration_of(text: str) -> Value:
    found = _DURATION.fullmatch(text)
    return _number(float(found[1]) * _UNITS[found[2]]) if found else _number_of(text)


def _headers(given: object) -> Value:
    if not isinstance(given, Mapping):
        return None
    pairs = cast("Mapping[object, object]", given)
    if not all(isinstance(name, str) and isinstance(text, str) for name, text in pairs.items()):
        return None
    return cast("Mapping[str, str]", dict(pairs))


def _headers_of(text: str) -> Value:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(equals and name.strip() for name, equals, _ in pairs):
        return None
    return {name.strip(): value.strip() for name, _, value in pairs}


def _names(given: object) -> Value:
    if isinstance(given, str):
        return _names_of(given)
    if not isinstance(given, list | tuple):
        return None
    items = cast("list[object]", given)
    return tuple(cast("list[str]", items)) if all(isinstance(item, str) and item for item in items) else None


def _names_of(text: str) -> Value:
    return tuple(part.strip() for part in text.split(",") if part.strip()) or None


def _money(given: object) -> Value:
    if isinstance(given, bool) or not isinstance(given, str | int | float | Decimal):
        return None
    amount = Decimal(str(given))
    return str(amount) if amount.is_finite() and amount >= 0 else None


_TEXTS: Mapping[str, object] = {"type": "string"}

KINDS: Mapping[str, KindRow] = {
    "text": KindRow("a text", _text, _text, _TEXTS),
    "address": KindRow("an address, such as https://host/v1", _address, _text, _TEXTS),
    "whole": KindRow("a whole number", _whole, int, {"type": "integer"}),
    "number": KindRow("a number", _number, _number_of, {"type": "number"}),
    "flag": KindRow("true or false", _flag, _flag_of, {"type": "boolean"}),
    "duration": KindRow(
        "seconds, as a number or as 500ms, 30s, 5m",
        _duration,
        _duration_of,
        {"type": ["number", "string"], "minimum": 0, "pattern": r"^\d+(\.\d+)?(ms|s|m|h)?$"},
    ),
    "headers": KindRow(
        "a mapping of names to texts (in a variable NAME=VALUE,NAME=VALUE)",
        _headers,
        _headers_of,
        {"type": "object", "additionalProperties": _TEXTS},
    ),
    "names": KindRow(
        "a list of texts (in a variable with commas between them)",
        _names,
        _names_of,
        {"type": ["array", "string"], "items": _TEXTS},
    ),
    "money": KindRow("an amount in US dollars, such as 0.50", _money, _money, {"type": ["number", "string"]}),
}
"""Each kind by its name."""
