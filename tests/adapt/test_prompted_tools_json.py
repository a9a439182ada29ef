"""JSON as models write it: what is mended, what is not, and that the cuts do not matter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.adapt.loose_json import Tokens, Writer, mended

MENDED = [
    ('{"a": 1, "b": [true, null, -1.5e3]}', '{"a":1,"b":[true,null,-1.5e3]}'),
    ('{"a": 1,}', '{"a":1}'),
    ('{"a": [1, 2, ], }', '{"a":[1,2]}'),
    ("{'a': 'b'}", '{"a":"b"}'),
    ("{'a': 'it's', 'b': 'x'}", '{"a":"it\'s","b":"x"}'),
    ("{'a': 'the dogs' toys'}", '{"a":"the dogs\' toys"}'),
    ("{'a': 'say \"hi\"', 'b': '\\''}", '{"a":"say \\"hi\\"","b":"\'"}'),
    ("{'a': 'x' , 'b': 'y'\n}", '{"a":"x","b":"y"}'),
    ("{a: True, b_2: False, c: None}", '{"a":true,"b_2":false,"c":null}'),
    ('{"a": "two\nlines\tand\x01"}', '{"a":"two\\nlines\\tand\\u0001"}'),
    ('{"a": "C:\\d \\u12 \\u00e9 \\" \\/"}', '{"a":"C:\\\\d \\\\u12 \\u00e9 \\" \\/"}'),
    ('{"a": {"b": [1', '{"a":{"b":[1]}}'),
    ('{"a": {', '{"a":{}}'),
    ('"text"', '"text"'),
]
BROKEN = [
    '{"a": "never closed',
    '{"a": 1,',
    '{"a":',
    '{"a"',
    '{"a": 1 "b": 2}',
    '{"a": tru}',
    '{"a": 01}',
    '{"a": +1}',
    '{"a": 1}}',
    '{"a": 1] ',
    '{"a": ,}',
    '{"a": 1,,}',
    "[1, 2}",
    "[:]",
    "{;}",
    '{"a" 1}',
    "",
    "[" * 200,
]


def at_once(text: str) -> str | None:
    return mended(text)


def in_pieces(pieces: list[str]) -> str | None:
    tokens, writer, written = Tokens(), Writer(), ""
    found: list[tuple[str, str]] = []
    for piece in pieces:
        position = 0
        while (token := tokens.next(piece, position)) is not None:
            found.append((token[0], token[1]))
            position = token[2]
    while (token := tokens.finish()) is not None:
        found.append((token[0], token[1]))
    for kind, text in found:
        made = None if writer.done else writer.take(kind, text)
        if made is None:
            return None
        written += made
    closing = None if tokens.in_string else writer.finish()
    return None if closing is None else written + closing


@pytest.mark.parametrize(("text", "expected"), MENDED)
def test_what_models_get_wrong_is_mended(text: str, expected: str) -> None:
    assert mended(text) == expected
    json.loads(expected)


@pytest.mark.parametrize("text", BROKEN)
def test_what_could_mean_anything_is_not(text: str) -> None:
    assert mended(text) is None


@pytest.mark.parametrize("text", [*(text for text, _ in MENDED), *BROKEN])
def test_the_cuts_do_not_matter(text: str) -> None:
    assert in_pieces(list(text)) == mended(text)
    for cut in range(len(text)):
        assert in_pieces([text[:cut], text[cut:]]) == mended(text)


def test_a_quote_before_much_space_is_decided_the_same_at_every_cut() -> None:
    for spaces in range(58, 70):
        text = "{'a': 'x'" + " " * spaces + "y'}"
        assert in_pieces(list(text)) == mended(text)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_VALUES, st.booleans())
def test_json_stays_what_it_is(value: object, ascii_only: bool) -> None:  # noqa: FBT001 (hypothesis gives it by position)
    written = mended(json.dumps(value, ensure_ascii=ascii_only))
    assert written is not None
    assert json.loads(written) == value


@given(st.text(alphabet="{}[]\",:'\\ abu01.-\nT"), st.lists(st.integers(0, 40)))
def test_whatever_comes_the_cuts_do_not_matter_and_what_is_written_is_json(text: str, cuts: list[int]) -> None:
    places = sorted({min(cut, len(text)) for cut in cuts})
    pieces = [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]
    written = mended(text)
    assert in_pieces(pieces) == written
    if written is not None:
        json.loads(written)
