"""What a value is, in the words of an error message."""

from __future__ import annotations

_VOWELS = tuple("aeiouAEIO")  # no U: it is "a Usage"


def kind_of(value: object) -> str:
    """Give the name of a value's class with its article, as in "an int"; None is "None"."""
    return name_of(type(value))


def name_of(kind: type[object]) -> str:
    """Give a class's name with its article."""
    if kind is type(None):
        return "None"
    return f"{'an' if kind.__name__.startswith(_VOWELS) else 'a'} {kind.__name__}"
