# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
"""Function calls whose arguments come in pieces, at paths, beside `tests/streams/gemini/tool-call-in-pieces`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from goldens import Goldens, frame, sse_frames
from hypothesis import given
from hypothesis import strategies as st

from loomstream.accumulate import fold
from loomstream.dialects import Target
from loomstream.dialects import gemini as dialect
from loomstream.errors import LimitExceeded
from loomstream.events import Event, Opaque, Stop, ToolCallDelta, ToolCallEnd, Unknown
from loomstream.testing import check_order

TARGET = Target(provider="vertex-ai", model="m", base_url="https://host.example/v1beta")
GOLDENS = Goldens(dialect, TARGET, "gemini", sse_frames, after=frame({}))


def part(call: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"functionCall": call, **more}]}}]}


def pieces(*values: dict[str, Any]) -> dict[str, Any]:
    return part({"partialArgs": list(values), "willContinue": True})


def at(path: str, value: Any = None, *, more: bool = False) -> dict[str, Any]:
    names = {str: "stringValue", bool: "boolValue", int: "numberValue", float: "numberValue"}
    held = {"nullValue": "NULL_VALUE"} if value is None else {names[type(value)]: value}
    return {"jsonPath": path, **held, **({"willContinue": True} if more else {})}


NAMED = part({"name": "f", "willContinue": True})
LAST = part({})
STOP = {"candidates": [{"finishReason": "STOP"}]}


def events_of(*chunks: dict[str, Any]) -> list[Event]:
    events, error = GOLDENS.translate([frame(chunk) for chunk in chunks])
    assert error is None
    check_order(events)
    return events


def calls_of(events: list[Event]) -> list[ToolCallEnd]:
    return [event for event in events if isinstance(event, ToolCallEnd)]


def call_of(*chunks: dict[str, Any]) -> ToolCallEnd:
    events = events_of(*chunks)
    [call] = calls_of(events)
    joined = "".join(event.arguments for event in events if isinstance(event, ToolCallDelta))
    assert joined == call.arguments or (not joined and call.arguments == "{}")
    return call


# --- whole calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ([], "{}"),
        ([at("$.n", 21.50)], '{"n":21.5}'),
        ([at("$.a", value=True), at("$.b"), at("$.c", "")], '{"a":true,"b":null,"c":""}'),
        ([at("$.s", 'a"\n', more=True), at("$.s", "é", more=True), at("$.s", "z")], '{"s":"a\\"\\né' + 'z"}'),
        ([at("$.s", "a", more=True), {"jsonPath": "$.s"}, at("$.n", 1)], '{"s":"a","n":1}'),
        ([{"jsonPath": "$.s", "willContinue": True}, at("$.s", "a")], '{"s":"a"}'),
        ([at("$.s", "a", more=True), at("$.n", 1, more=True), at("$.m", 2)], '{"s":"a","n":1,"m":2}'),
        (
            [at("$.r.i[0].a", "16", more=True), at("$.r.i[0].n", "oz"), at("$.r.i[1].a", 2), at("$.r.name", "x")],
            '{"r":{"i":[{"a":"16","n":"oz"},{"a":2}],"name":"x"}}',
        ),
        ([at("$.m[0][0]", 1), at("$.m[0][1]", 2), at("$.m[1][0]", 3)], '{"m":[[1,2],[3]]}'),
        ([at("$['a b']['it\\'s']", 1), at('$["c\\u0041"].d', 2)], '{"a b":{"it\'s":1},"cA":{"d":2}}'),
    ],
)
def test_the_pieces_are_one_json_object(values: list[dict[str, Any]], arguments: str) -> None:
    for chunks in ([pieces(value) for value in values], [pieces(*values)]):
        call = call_of(NAMED, *chunks, LAST, STOP)
        assert (call.name, call.arguments, call.executable) == ("f", arguments, True)
        json.loads(arguments)


def test_the_first_piece_may_hold_arguments() -> None:
    first = part({"name": "f", "id": "c1", "partialArgs": [at("$.x", "Bos", more=True)]})
    call = call_of(first, part({"partialArgs": [at("$.x", "ton")]}), LAST, STOP)
    assert (call.id, call.arguments, call.executable) == ("c1", '{"x":"Boston"}', True)


def test_a_piece_comes_out_as_soon_as_it_is_there() -> None:
    translator = dialect.translator(TARGET)
    given_ = [translator.feed(frame(chunk)) for chunk in (NAMED, pieces(at("$.x", "Bos", more=True)))]
    assert given_[1] == [ToolCallDelta(0, '{"x":"Bos')]


def test_an_empty_list_is_a_whole_call() -> None:
    call = call_of(part({"name": "f", "partialArgs": [], "willContinue": False}), STOP)
    assert (call.arguments, call.executable) == ("{}", True)


@pytest.mark.parametrize(
    "after", [part({"name": "g", "args": {"y": 1}}), {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}]
)
def test_what_comes_next_ends_a_call(after: dict[str, Any]) -> None:
    first, *rest = calls_of(events_of(NAMED, pieces(at("$.x", 1)), after, STOP))
    assert (first.arguments, first.executable) == ('{"x":1}', True)
    assert [(call.name, call.arguments) for call in rest] in ([], [("g", '{"y":1}')])


def test_signatures_of_any_piece_belong_to_the_call() -> None:
    signed = part({"name": "f", "willContinue": True}, thoughtSignature="one")
    call = call_of(signed, pieces(at("$.x", 1)), part({}, thoughtSignature="two"), STOP)
    assert call.opaque == tuple(Opaque("vertex-ai", "thought_signature", data) for data in ("one", "two"))


def test_the_answer_stopped_for_the_call() -> None:
    events = events_of(NAMED, pieces(at("$.x", 1)), LAST, STOP)
    assert events[-1] == Stop("tool_use", "STOP")
    assert fold(events).tool_calls[0].executable


# --- calls that are not whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[], [pieces(at("$.x", 1))], [pieces(at("$.x", "a", more=True))]])
def test_a_call_that_the_limit_cut_is_not_run(chunks: list[dict[str, Any]]) -> None:
    cut = call_of(NAMED, *chunks, {"candidates": [{"finishReason": "MAX_TOKENS"}]})
    assert not cut.executable
    assert calls_of(events_of(NAMED, *chunks, STOP))[0].executable


@pytest.mark.parametrize(
    "values",
    [
        [at("$.x", 1), at("$.x", 2)],
        [at("$.x", 1), at("$.x.y", 2)],
        [at("$.x.y", 1), at("$.z", 2), at("$.x.q", 3)],
        [at("$.x[1]", 1)],
        [at("$.x[0]", 1), at("$.x[0]", 2)],
        [at("$.x[0]", 1), at("$.x.y", 2)],
        [at("$.x", "a", more=True), at("$.x", 2)],
        [at("$", 1)],
        [at("$[0]", 1)],
        [at("x", 1)],
        [at("$.x[*]", 1)],
        [at("$..x", 1)],
        [at("$" + ".x" * 101, 1)],
        [{"jsonPath": "$.x"}],
        [{"jsonPath": "$.x", "numberValue": {"a": 1}}],
    ],
)
def test_pieces_that_make_no_object_are_kept_and_not_run(values: list[dict[str, Any]]) -> None:
    events = events_of(NAMED, *(pieces(value) for value in values), pieces(at("$.late", 1)), LAST, STOP)
    [call] = calls_of(events)
    assert not call.executable
    [unknown] = [event for event in events if isinstance(event, Unknown)]
    assert json.loads(unknown.data)["functionCall"]["partialArgs"] == [values[-1]]


@pytest.mark.parametrize("chunk", [LAST, pieces(at("$.x", 1)), part({"args": {"x": 1}})])
def test_a_piece_without_its_call_is_kept(chunk: dict[str, Any]) -> None:
    [unknown] = [event for event in events_of(chunk, STOP) if isinstance(event, Unknown)]
    assert json.loads(unknown.data) == chunk["candidates"][0]["content"]["parts"][0]


def test_too_long_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loomstream.dialects.blocks.MAX_TOOL_ARGUMENTS_CHARS", 8)
    _, error = GOLDENS.translate([frame(chunk) for chunk in (NAMED, pieces(at("$.x", "a" * 9)))])
    assert isinstance(error, LimitExceeded)


def test_half_a_character_in_a_path_is_replaced() -> None:
    assert call_of(NAMED, pieces(at("$['\\ud83d']", 1)), LAST, STOP).arguments == '{"\ufffd":1}'


# --- any object --------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAMES, inner, min_size=1, max_size=3),
    max_leaves=12,
)


def written(value: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    """Give the leaves of an object with their paths, names in quotes."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield path, value
    for key, inner in items:
        step = f"[{key}]" if isinstance(key, int) else "['" + key.replace("\\", "\\\\").replace("'", "\\'") + "']"
        yield from written(inner, path + step)


@given(value=st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), cut=st.integers(0, 3))
def test_any_object_comes_out_as_it_went_in(value: dict[str, Any], cut: int) -> None:
    chunks: list[dict[str, Any]] = []
    for path, leaf in written(value):
        if isinstance(leaf, str):
            chunks += [pieces(at(path, leaf[:cut], more=True)), pieces(at(path, leaf[cut:]))]
        else:
            chunks.append(pieces(at(path, leaf)))
    call = call_of(NAMED, *chunks, LAST, STOP)
    assert call.executable
    assert json.loads(call.arguments) == value
    assert list(json.loads(call.arguments)) == list(value)
