"""Events: every class survives JSON, and the schema keeps its promises."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw as RawJSON

from loomstream.errors import Attempt
from loomstream.events import (
    CONTENT_EVENTS,
    NULL,
    SCHEMA_VERSION,
    Event,
    EventBase,
    Limits,
    Notice,
    NoticeKind,
    Opaque,
    Start,
    Stop,
    StopReason,
    TextDelta,
    TokenLogprob,
    Unknown,
    Usage,
    decode,
    encode,
)

CLASSES: tuple[type[EventBase], ...] = get_args(Event)
each_class = pytest.mark.parametrize("cls", CLASSES, ids=[cls.__name__ for cls in CLASSES])

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
count = st.integers(0, 2**53)
maybe_count = st.none() | count
raw = st.sampled_from([NULL, RawJSON(b'{"a":[1,null]}'), RawJSON('"é"'.encode()), RawJSON(b"1.0")])
maybe_usd = st.none() | st.decimals(0, 10**6, allow_nan=False, allow_infinity=False)
seconds = st.none() | st.floats(0, 1e9)
opaque = st.lists(st.builds(Opaque, text, text, text, text), max_size=3).map(tuple)
limits = st.none() | st.builds(
    Limits,
    limit_requests=maybe_count,
    remaining_requests=maybe_count,
    reset_requests_s=seconds,
    limit_tokens=maybe_count,
    remaining_tokens=maybe_count,
    reset_tokens_s=seconds,
)
attempt = st.none() | st.builds(Attempt, text, text, text, seconds)
logprob = st.floats(-1e3, 0)
tokens = st.lists(st.builds(TokenLogprob, text, logprob, st.lists(st.tuples(text, logprob), max_size=2).map(tuple)))
BY_FIELD: dict[str, st.SearchStrategy[object]] = {
    "limits": limits,
    "attempt": attempt,
    "warnings": st.lists(text, max_size=2).map(tuple),
    "opaque": opaque,
    "executable": st.booleans(),
    "final": st.booleans(),
    "exact": st.booleans(),
    "is_error": st.booleans(),
    "may_be_billed": st.booleans(),
    "data": st.binary(max_size=20),
    "raw": raw,
    "content": raw,
    "start": maybe_count,
    "end": maybe_count,
    "amount_usd": maybe_usd,
    "lower_usd": maybe_usd,
    "upper_usd": maybe_usd,
    "tokens": tokens.map(tuple),
    "reason": st.sampled_from(get_args(StopReason)),
}
INTEGERS = {"index", "choice", "schema_version", "attempts"}
BY_CLASS: dict[tuple[str, str], st.SearchStrategy[object]] = {
    ("Stop", "raw"): text,
    ("Notice", "kind"): st.sampled_from(get_args(NoticeKind)),
    ("Unknown", "data"): text,
    ("Raw", "data"): text,
}


def events_of(cls: type[EventBase]) -> st.SearchStrategy[EventBase]:
    fields: dict[str, st.SearchStrategy[object]] = {}
    for name in cls.__struct_fields__:
        default = count if name in INTEGERS or name.endswith("_tokens") else text
        fields[name] = BY_CLASS.get((cls.__name__, name), BY_FIELD.get(name, default))
    return st.builds(cls, **fields)


any_event = st.sampled_from(CLASSES).flatmap(events_of)


@each_class
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_event_survives_a_round_trip_through_one_line_of_json(cls: type[EventBase], data: st.DataObject) -> None:
    event = data.draw(events_of(cls))
    line = encode(event)
    assert b"\n" not in line
    assert decode(line) == event
    assert decode(line.decode()) == event
    assert type(decode(line)) is cls


@each_class
def test_the_type_is_the_class_s_name_in_snake_case(cls: type[EventBase]) -> None:
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in cls.__name__)
    assert cls.__struct_config__.tag == words.removeprefix("_")


@each_class
def test_events_cannot_be_changed(cls: type[EventBase]) -> None:
    event = cls(**dict.fromkeys(cls.__struct_fields__, ""))
    with pytest.raises(AttributeError):
        setattr(event, cls.__struct_fields__[0], None)


@settings(max_examples=50, deadline=None)
@given(any_event, any_event)
def test_events_are_equal_where_their_json_is(one: EventBase, other: EventBase) -> None:
    assert (one == other) == (msgspec.json.encode(one) == msgspec.json.encode(other))


def test_fields_that_a_later_version_adds_are_ignored() -> None:
    assert decode(b'{"type":"text_delta","index":1,"text":"a","later":[]}') == TextDelta(1, "a")


def test_a_start_carries_the_version() -> None:
    assert Start().schema_version == SCHEMA_VERSION == 1
    assert b'"schema_version":1' in encode(Start())


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"no_such_event"}',
        b'{"index":0,"text":"a"}',
        b'{"type":"text_delta","index":"0","text":"a"}',
        b'{"type":"stop","reason":"bored"}',
        b'{"type":"notice","kind":"gossip"}',
        b"[]",
        b"{",
        b"",
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (msgspec words the message)
        decode(line)


def test_content_events_are_events() -> None:
    assert set(CONTENT_EVENTS) < set(CLASSES)
    assert not {Start, Stop, Notice} & set(CONTENT_EVENTS)


def test_a_raw_field_shows_its_json() -> None:
    event = Usage(output_tokens=2, raw=msgspec.Raw(b'{"completion_tokens":2}'))
    assert repr(event).endswith('final=False, raw={"completion_tokens":2})')
    assert repr(Unknown("a", "b")) == "Unknown(name='a', data='b')"
    assert len(repr(Usage(raw=msgspec.Raw(b'"' + b"x" * 999 + b'"')))) < 300


def test_json_that_nests_too_deep_is_no_event() -> None:
    with pytest.raises(ValueError, match="nests too deep"):
        decode(b'{"type":"text_end","index":0,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
