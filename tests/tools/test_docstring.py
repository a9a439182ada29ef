"""Docstrings of three styles, and of none."""

from __future__ import annotations

import pytest

from loomstream.tools.docstring import parse

GOOGLE = """Find a flight,
    also at night.

    It may take long.

    Args:
        origin (str): Where from,
            as a code.
        *stops: In between.
        to: Where to: a code.
        empty:

    Returns:
        flights: The flights.
    """
NUMPY = """Find a flight.

    Parameters
    ----------
    origin : str
        Where from,
        as a code.
    to, via : str, optional
        Where to.
    -x-
        Nothing.

    Returns
    -------
    flights
        The flights.
    """
REST = """
    Find a flight.

    :param str origin: Where from,
        as a code.
    :param to: Where to.
    :type to: str
    :returns: The flights.

    And more: of it.
    """

CASES = [
    (
        GOOGLE,
        "Find a flight, also at night.",
        {"origin": "Where from, as a code.", "stops": "In between.", "to": "Where to: a code."},
    ),
    (NUMPY, "Find a flight.", {"origin": "Where from, as a code.", "to": "Where to.", "via": "Where to."}),
    (REST, "Find a flight.", {"origin": "Where from, as a code.", "to": "Where to."}),
    ("Find.\nArgs:\n  a: One.\n\n  b: Two.", "Find.", {"a": "One.", "b": "Two."}),
    ("Find.\n:param a: One.", "Find.", {"a": "One."}),
    ("\nArgs:\n    a: One.", "", {"a": "One."}),
    ("Note: this is no section.", "Note: this is no section.", {}),
    ("", "", {}),
    (None, "", {}),
]


@pytest.mark.parametrize(("text", "summary", "parameters"), CASES, ids=range(len(CASES)))
def test_what_a_docstring_says(text: str | None, summary: str, parameters: dict[str, str]) -> None:
    assert parse(text) == (summary, parameters)
