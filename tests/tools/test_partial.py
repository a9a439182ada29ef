"""The incremental JSON reader agrees with a whole parse at every prefix, and takes linear time by construction."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.errors import InvalidOutput
from loomstream.tools.partial import LONGEST_NUMBER, PartialJSON
from loomstream.wire.json import MAX_DEPTH

NOTHING = object()
"""Where no value has begun."""


# --- the reference: cut what is open, close what is open, parse it whole -------------------------


def repaired(prefix: str) -> str:
    """Give a prefix of JSON text as whole JSON: what is not yet whole is taken away, what is open is closed."""
    closers, in_string, start = [], False, 0
    position = 0
    while position < len(prefix):
        char = prefix[position]
        if in_string:
            if char == "\\":
                position += 1
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string, start = True, position
        elif char in "[{":
            closers.append("]" if char == "[" else "}")
        elif char in "]}":
            closers.pop()
        position += 1
    ending = "".join(reversed(closers))
    if not in_string:
        return without_rest(prefix) + ending
    before = prefix[:start].rstrip(" \t\n\r")
    if closers and closers[-1] == "}" and before[-1] in "{,":  # a name
        return without_rest(prefix[:start]) + ending
    return prefix[:start] + whole_characters(prefix[start:]) + '"' + ending


def whole_characters(string: str) -> str:
    """Take an open escape away, and the first half of a character while the second may still come."""
    string = re.sub(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?\Z", r"\1", string)
    return re.sub(r"(?<!\\)((?:\\\\)*)\\u[dD][89abAB][0-9a-fA-F]{2}$", r"\1", string)


def without_rest(prefix: str) -> str:
    """Take away a number or literal at the end, a name without a value, a comma without what follows it."""
    prefix = re.sub(r"[-+.0-9a-zA-Z]+\Z", "", prefix).rstrip(" \t\n\r")
    prefix = re.sub(r'"(?:[^"\\]|\\.)*"\s*:\Z', "", prefix).rstrip(" \t\n\r")
    if re.search(r'[{,]\s*"(?:[^"\\]|\\.)*"\Z', prefix) and is_name(prefix):
        prefix = re.sub(r'"(?:[^"\\]|\\.)*"\Z', "", prefix).rstrip(" \t\n\r")
    return prefix.removesuffix(",")


def is_name(prefix: str) -> bool:
    """Say whether the string at the end stands where a name does."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', "s", prefix)
    while (closed := re.sub(r"\{[^\[\]{}]*\}|\[[^\[\]{}]*\]", "v", plain)) != plain:
        plain = closed
    inside = re.search(r"[\[{][^\[\]{}]*\Z", plain)
    return bool(inside) and inside.group()[0] == "{"


def reference(prefix: str) -> object:
    text = repaired(prefix)
    return json.loads(text) if text.strip() else NOTHING


# --- the properties ------------------------------------------------------------------------------

strings = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\/\b\n\t[]{},:😀é\x00')))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=12,
)
spaces = st.sampled_from([None, 1, "\t"])
texts = st.builds(
    lambda value, indent, ascii_only: json.dumps(value, indent=indent, ensure_ascii=ascii_only),
    values,
    spaces,
    st.booleans(),
)


def same(one: object, other: object) -> bool:
    """Say whether two values are equal and of the same types (1 and 1.0 and True are not)."""
    return repr(one) == repr(other)


@settings(deadline=None)
@given(texts)
def test_every_prefix_agrees_with_a_whole_parse(text: str) -> None:
    reader = PartialJSON()
    for end, char in enumerate(text, start=1):
        before = copy.deepcopy(reader.value) if reader.begun else NOTHING
        grown = reader.feed(char)
        value = reader.value if reader.begun else NOTHING
        assert same(value, reference(text[:end])), text[:end]
        assert grown == (not same(before, value))
    assert same(reader.finish(), json.loads(text))
    assert reader.whole


@settings(deadline=None)
@given(texts, st.lists(st.integers(min_value=0), max_size=8))
def test_every_cut_gives_the_same(text: str, places: list[int]) -> None:
    cuts = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    reader = PartialJSON()
    for start, end in itertools.pairwise(cuts):
        reader.feed(text[start:end])
        value = reader.value if reader.begun else NOTHING
        assert same(value, reference(text[:end]))
    assert same(reader.finish(), json.loads(text))


@settings(deadline=None)
@given(st.text(st.sampled_from('{}[]",:\\u0d8 1.e-tnrl\n'), max_size=12), st.data())
def test_what_is_no_json_is_typed_at_every_cut_and_json_is_read(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    reader = PartialJSON()
    try:
        reader.feed(text[:cut])
        reader.feed(text[cut:])
        value = reader.finish()
    except InvalidOutput:
        with pytest.raises(ValueError, match=r".*"):
            finite(json.loads(text, parse_constant=float))
    else:
        halves = re.compile("[\ud800-\udfff]")
        assert repr(value) == halves.sub("\ufffd", repr_of(json.loads(text)))


def repr_of(value: object) -> str:
    return repr(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def finite(value: object) -> None:
    """Raise where a number is out of range: Python's own parser lets it be infinite."""
    items: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        finite(item)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(value)


# --- cases ---------------------------------------------------------------------------------------


def test_an_open_string_is_given_and_a_number_withheld() -> None:
    reader = PartialJSON()
    seen: list[object] = []
    for piece in ('{"ti', 'tle":', ' "Pan', 'cakes", "serves": 1', "2", ', "done": tru', "e}"):
        reader.feed(piece)
        seen.append(copy.deepcopy(reader.value))
    assert seen == [
        {},
        {},
        {"title": "Pan"},
        {"title": "Pancakes"},
        {"title": "Pancakes"},
        {"title": "Pancakes", "serves": 12},
        {"title": "Pancakes", "serves": 12, "done": True},
    ]


def test_the_value_grows_in_place() -> None:
    reader = PartialJSON()
    reader.feed('{"steps": [{"do": "mix"')
    value: Any = reader.value
    steps, first = value["steps"], value["steps"][0]
    reader.feed(', "minutes": 5}, {"do": "ba')
    assert value is reader.value
    assert steps is value["steps"]
    assert first == {"do": "mix", "minutes": 5}
    assert steps[1] == {"do": "ba"}


@pytest.mark.parametrize(
    ("pieces", "seen"),
    [
        (['"\\', "u00", 'e9"'], ["", "", "é"]),
        (['"\\ud83d', "\\ud", 'e00"'], ["", "", "😀"]),
        (['"\\ud83d', "x"], ["", "\ufffdx"]),
        (['"\\ud83d', "\\n", "x"], ["", "\ufffd\n", "\ufffd\nx"]),
        (['"\\ud83d\\u00', "41"], ["\ufffd", "\ufffdA"]),
        (['"\\ud83d\\ud', "83d\\ude00"], ["", "\ufffd😀"]),
        (['"\\ud83d\\ud83d\\ude00'], ["\ufffd😀"]),
        (['"\\ude00'], ["\ufffd"]),
    ],
)
def test_escapes_are_read_whole(pieces: list[str], seen: list[str]) -> None:
    reader = PartialJSON()
    found: list[object] = []
    for piece in pieces:
        reader.feed(piece)
        found.append(reader.value)
    assert found == seen


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,}', r"at character 8 \('}'\): expected a name"),
        ("[1,]", r"at character 3 \('\]'\): expected a value"),
        ("Sure! {}", r"at character 0 \('S.*'\): expected a value"),
        ("{} done", r"at character 3 \('d.*'\): expected nothing more"),
        ("[1}", r"at character 2"),
        ("}", r"at character 0"),
        ('{"a" 1}', r"at character 5 \('1.*'\): expected :"),
        ('"\\x"', r"the escape '\\\\x' is none"),
        ('"\\u12g4"', r"the escape"),
        ('"a\nb"', r"a control character"),
        ("[01]", r"'01' before it is no number"),
        ("[nul]", r"'nul' before it is no number, nor true"),
        ("[1e999]", r"the number 1e999 before it is out of range"),
        (f"[{'1' * (LONGEST_NUMBER + 1)}]", r"number"),
        ("[" * (MAX_DEPTH + 1), rf"deeper than {MAX_DEPTH}"),
    ],
)
@pytest.mark.parametrize("size", [1, 1_000_000], ids=["in characters", "at once"])
def test_bad_json_is_typed_with_its_place(text: str, words: str, size: int) -> None:
    reader = PartialJSON()
    with pytest.raises(InvalidOutput, match=words):  # noqa: PT012 (where it shows depends on the pieces)
        for at in range(0, len(text), size):
            reader.feed(text[at : at + size])
        reader.finish()


def test_what_came_before_the_fault_stays() -> None:
    reader = PartialJSON()
    with pytest.raises(InvalidOutput):
        reader.feed('{"a": [1, 2], "b": oops}')
    assert reader.value == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "0: expected a value"), ('{"a": "b', "8: expected the end of a string"), ("[1", "2: expected , or the end")],
)
def test_an_end_too_early_is_typed(text: str, words: str) -> None:
    reader = PartialJSON()
    reader.feed(text)
    with pytest.raises(InvalidOutput, match=f"the JSON ends at character {words}"):
        reader.finish()


def test_a_number_at_the_root_is_closed_by_the_end() -> None:
    reader = PartialJSON()
    reader.feed("12")
    assert not reader.begun
    assert reader.finish() == 12
