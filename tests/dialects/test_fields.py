"""Side fields are read leniently: whatever they hold, nothing raises and nothing is invented."""

from __future__ import annotations

import pytest
from msgspec import Raw as RawJSON

from loomstream.dialects.fields import (
    Counter,
    as_list,
    as_object,
    as_text,
    count_of,
    freeze,
    is_null,
    read_object,
    read_text,
)
from loomstream.events import NULL

VALUES: list[object] = [None, True, 0, -1, 1.5, "", "a", [], [1], {}, {"a": 1}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_of_another_type_reads_as_empty(value: object) -> None:
    assert as_object(value) == (value if isinstance(value, dict) else {})
    assert as_list(value) == (value if isinstance(value, list) else [])
    assert isinstance(as_text(value), str)


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (1, "1"), (1.5, "1.5"), (True, ""), (None, ""), ([], ""), ({"a": 1}, "")]
)
def test_a_number_reads_as_its_digits(value: object, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("raw", "null"),
    [(NULL, True), (RawJSON(b"null"), True), (RawJSON(b"{}"), False), (RawJSON(b'"null"'), False)],
    ids=["absent", "null", "object", "text"],
)
def test_null_and_absent_are_alike(raw: RawJSON, null: bool) -> None:  # noqa: FBT001 (a parameter of the table)
    assert is_null(raw) == null


@pytest.mark.parametrize("data", [b"null", b"1", b'"a"', b"[]", b"\xff", b"{", b""])
def test_what_is_no_object_reads_as_an_empty_one(data: bytes) -> None:
    assert read_object(RawJSON(data)) == {}


def test_what_is_there_is_read() -> None:
    assert read_object(RawJSON(b'{"a":[1]}')) == {"a": [1]}
    assert read_text(RawJSON(b'"chatcmpl-1"')) == "chatcmpl-1"
    assert read_text(RawJSON(b"17")) == "17"


def test_an_absent_field_is_empty() -> None:
    assert read_object(NULL) == {}
    assert read_text(NULL) == ""
    assert read_text(RawJSON(b"[]")) == ""


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'{"a": 1}', b'{"a": 1}'),
        (b'{\n  "a": [1,\r\n 2]\n}', b'{"a":[1,2]}'),
        (b'"a\\nb"', b'"a\\nb"'),
        (b'{"a":\n1.0,"b":12345678901234567890123}', b'{"a":1.0,"b":12345678901234567890123}'),
    ],
)
def test_a_frozen_field_stands_on_one_line_and_keeps_its_digits(data: bytes, line: bytes) -> None:
    assert bytes(freeze(RawJSON(data))) == line


def test_a_frozen_field_does_not_keep_its_frame_alive() -> None:
    frame = bytearray(b'{"a":1}')
    frozen = freeze(RawJSON(bytes(frame)))
    assert bytes(frozen) == bytes(frame)
    assert frozen is not RawJSON(bytes(frame))


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (7, 7),
        (-7, 0),
        (1.0, 1),
        (-1.0, 0),
        (1.5, None),
        (float("nan"), None),
        (float("inf"), None),
        ("12", 12),
        ("-1", None),
        ("1.0", None),
        ("", None),
        ("٣", None),
        ("9" * 18, int("9" * 18)),
        ("9" * 19, None),
        ("x", None),
        (True, None),
        (None, None),
        ([], None),
        ({}, None),
    ],
    ids=repr,
)
def test_a_count_is_a_whole_number_that_is_not_negative(value: object, count: int | None) -> None:
    assert count_of(value) == count


class TestCounter:
    def test_the_first_path_that_is_there_wins(self) -> None:
        counter = Counter({"a": {"b": 3}, "c": 4})
        assert counter.get("a.b", "c") == 3
        assert counter.get("x", "a.x", "c.x", "c") == 4
        assert counter.mistyped == []

    def test_what_is_nowhere_is_none(self) -> None:
        assert Counter({"a": None}).get("a", "b", "b.c") is None

    @pytest.mark.parametrize("value", [1.0, "1", -1, True, [], {"b": 1}, "x"], ids=repr)
    def test_a_mistyped_field_is_named(self, value: object) -> None:
        counter = Counter({"a": value})
        counter.get("a")
        assert counter.mistyped == ["a"]

    def test_an_unreadable_field_yields_to_the_next(self) -> None:
        counter = Counter({"a": "many", "b": 2})
        assert counter.get("a", "b") == 2
        assert counter.mistyped == ["a"]
