"""Calls in text: each syntax at every cut, what is no call, and what is hostile."""

from __future__ import annotations

import json
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.accumulate import Accumulator
from loomstream.adapt.called_events import CalledEvents
from loomstream.events import (
    Citation,
    Event,
    Notice,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    Stop,
    StopReason,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)
from loomstream.testing import check_order

TOOLS = {"get_weather": True, "now": False}
OSLO = ("get_weather", {"city": "Oslo"})
NOW = ("now", {})
Call = tuple[str, object]

GOLDENS: dict[str, tuple[str, str, list[Call]]] = {
    "hermes": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        "",
        [OSLO],
    ),
    "hermes-with-text-and-two-calls": (
        (
            'Let me see.\n<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>\n'
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\nWait <b>please</b>.'
        ),
        "Let me see.\n\nWait <b>please</b>.",
        [OSLO, NOW],
    ),
    "hermes-two-in-one": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n{"name": "now"}\n</tool_call>',
        "",
        [OSLO, NOW],
    ),
    "hermes-list": (
        '<tool_call>[{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "now"}]</tool_call>',
        "",
        [OSLO, NOW],
    ),
    "hermes-marker-in-a-string": (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "</tool_call><tool_call>{"}}</tool_call>',
        "",
        [("get_weather", {"city": "</tool_call><tool_call>{"})],
    ),
    "hermes-unknown-tool": (
        '<tool_call>{"name": "fly", "arguments": {"to": [1]}}</tool_call>',
        "",
        [("fly", {"to": [1]})],
    ),
    "hermes-never-closed": ('<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}', "", [OSLO]),
    "hermes-a-brace-short": (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}</tool_call>.',
        ".",
        [OSLO],
    ),
    "hermes-two-braces-short": (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"</tool_call>',
        "",
        [OSLO],
    ),
    "hermes-a-brace-too-many": (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}}\n</tool_call>',
        "",
        [OSLO],
    ),
    "hermes-as-python": (
        "<tool_call>{'name': 'get_weather', 'arguments': {'city': 'Oslo',}}</tool_call>",
        "",
        [OSLO],
    ),
    "llama-python-tag": ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}<|eom_id|>', "", [OSLO]),
    "llama-python-tag-two": (
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}; {"name": "now", "parameters": {}}',
        "",
        [OSLO, NOW],
    ),
    "llama-call": ('<|python_tag|>get_weather.call(city="Oslo")<|eom_id|>', "", [OSLO]),
    "llama-call-of-an-unknown-tool": (
        "<|python_tag|>brave_search.call(query='Oslo', count=2, deep={\"a\": [None]})",
        "",
        [("brave_search", {"query": "Oslo", "count": 2, "deep": {"a": [None]}})],
    ),
    "llama-plain-call": ('<|python_tag|>get_weather(city="Oslo")', "", [OSLO]),
    "llama-code": ("<|python_tag|>import math\nprint(math.pi)", "<|python_tag|>import math\nprint(math.pi)", []),
    "llama-code-that-calls": ("<|python_tag|>print(1)", "<|python_tag|>print(1)", []),
    "bare": ('{"name": "get_weather", "parameters": {"city": "Oslo"}}', "", [OSLO]),
    "bare-by-grammar": ('{"name":"get_weather","arguments":{"city":"Oslo"}}', "", [OSLO]),
    "bare-behind-space": (
        '\n\n {"type": "function", "name": "get_weather", "parameters": {"city": "Oslo"}}\n',
        "",
        [OSLO],
    ),
    "bare-as-openai": (
        '{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}}',
        "",
        [OSLO],
    ),
    "bare-arguments-first": ('{"parameters": {"city": "Oslo"}, "name": "get_weather"}', "", [OSLO]),
    "bare-two": (
        '{"name": "get_weather", "parameters": {"city": "Oslo"}};\n{"name": "now", "parameters": null}',
        "",
        [OSLO, NOW],
    ),
    "bare-list": ('[{"name": "get_weather", "parameters": {"city": "Oslo"}}, {"name": "now"}]', "", [OSLO, NOW]),
    "bare-with-text-behind": ('{"name": "now", "parameters": {}}\nSo.', "\nSo.", [NOW]),
    "mistral": ('[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo"}}]', "", [OSLO]),
    "mistral-two": (
        'Yes. [TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "now", "arguments": {}}]',
        "Yes. ",
        [OSLO, NOW],
    ),
    "mistral-named": ('[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}', "", [OSLO]),
    "mistral-named-two": (
        '[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{"city": "Oslo"}[TOOL_CALLS]now[ARGS]{}',
        "",
        [OSLO, NOW],
    ),
    "fenced": ('Sure:\n```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```', "Sure:\n", [OSLO]),
    "fenced-without-language": ('```\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```\nok', "\nok", [OSLO]),
    "fenced-twice": (
        '```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```\n\n```json\n{"name": "now"}\n```\n',
        "",
        [OSLO, NOW],
    ),
    "fenced-list": (
        '```tool_call\n[{"name": "now"}, {"name": "get_weather", "arguments": {"city": "Oslo"}}]\n```',
        "",
        [NOW, OSLO],
    ),
}
CODER = "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
GOLDENS |= {
    "tagged": (CODER, "", [OSLO]),
    "tagged-with-text-and-two-calls": (
        f"Let me see.\n{CODER}\n<tool_call>\n<function=now>\n</function>\n</tool_call>\nWait.",
        "Let me see.\n\nWait.",
        [OSLO, NOW],
    ),
    "tagged-without-the-outer-tag": (
        "See: <function=get_weather><parameter=city>Oslo</parameter></function></tool_call> ok",
        "See:  ok",
        [OSLO],
    ),
    "tagged-two-in-one": (
        "<tool_call><function=get_weather><parameter=city>Oslo</parameter></function>\n<function=now></function></tool_call>",
        "",
        [OSLO, NOW],
    ),
    "tagged-values": (
        (
            "<tool_call><function=get_weather>\n<parameter=city>\n12 <b>\n\n</parameter>\n"
            "<parameter=days>\n3\n</parameter>\n<parameter=deep>{'a': [True]}</parameter>"
            '<parameter=unit>°C "x"</parameter>\n</function>\n</tool_call>'
        ),
        "",
        [("get_weather", {"city": "12 <b>\n", "days": 3, "deep": {"a": [True]}, "unit": '°C "x"'})],
    ),
    "tagged-a-number-that-is-a-text": (
        "<tool_call><function=get_weather><parameter=city>0150</parameter></function></tool_call>",
        "",
        [("get_weather", {"city": "0150"})],
    ),
    "tagged-without-the-end-of-the-function": (
        "<tool_call><function=get_weather><parameter=city>Oslo</parameter></tool_call>.",
        ".",
        [OSLO],
    ),
    "tagged-without-the-end-of-the-parameter": (
        "<tool_call><function=get_weather>\n<parameter=city>\nOslo\n</function>\n</tool_call>",
        "",
        [OSLO],
    ),
    "tagged-unknown-tool": (
        "<tool_call><function=fly><parameter=to>Oslo</parameter></function></tool_call>",
        "",
        [("fly", {"to": "Oslo"})],
    ),
}
TEXTS = {
    "a tag in words": "Write <function=get_weather or <function=fly> or <function> to call.",
    "an unknown tool in a tag": "<function=fly><parameter=to>Oslo</parameter></function>",
    "plain": "The weather is fine.",
    "space": " \n ",
    "html": "a < b, <tool>, <tool_cal l>, x[TOOL], [1] and `code`",
    "a marker in words": "Write <tool_call> before the call, [TOOL_CALLS] or <|python_tag|>.",
    "a marker at the end": "The tag is <tool_call>",
    "nonsense in a tag": "<tool_call>what is this</tool_call>",
    "an unknown tool": '{"name": "fly", "parameters": {"to": "Oslo"}}',
    "an unknown tool in a fence": 'See:\n```json\n{"name": "fly", "arguments": {}}\n```\n',
    "an object": '{"city": "Oslo", "name": "get_weather"}',
    "a tool described": '{"name": "get_weather", "description": "x", "parameters": {"type": "object"}}',
    "a tool without its arguments": '{"name": "get_weather"}',
    "a tool without its end": '{"name": "now"',
    "a tag that holds a list": "<tool_call>{1: 2",
    "a list": "[1, 2, 3]",
    "code": 'Look:\n```json\n{"a": [1, {"b": null}]}\n```\nand\n```py\nx = {"name": "now", "arguments": 0}\n```\nend',
    "code that ends before an object": '```json\n{"a": 1}\n```\n{"name": "now", "arguments": {}}',
    "a fence within a line": 'x ```json\n{"name": "now", "arguments": {}}',
    "four backticks": '````\n{"name": "now", "arguments": {}}\n````',
    "an object in prose": 'Use {"name": "now", "arguments": {}} for it.',
}


def events_of(pieces: list[str], stop: StopReason = "end_turn") -> list[Event]:
    """Read an answer of these pieces, and hold what comes to the order law."""
    stage = CalledEvents(TOOLS, (f"call_{number}" for number in count()), {"get_weather": frozenset({"city"})})
    deltas = [TextDelta(0, piece) for piece in pieces if piece]
    given: list[Event] = [Start(), TextStart(0), *deltas, TextEnd(0), Usage(final=True), Stop(stop, "raw")]
    events = [made for event in given for made in stage.feed(event)]
    assert stage.flush() == []
    check_order(events)
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def ends_of(events: list[Event]) -> list[ToolCallEnd]:
    return [event for event in events if isinstance(event, ToolCallEnd)]


def calls_of(events: list[Event]) -> list[Call]:
    return [(end.name, json.loads(end.arguments)) for end in ends_of(events) if end.executable]


def folded(events: list[Event]) -> object:
    accumulator = Accumulator()
    for event in events:
        accumulator.add(event)
    response = accumulator.response
    notices = [event for event in events if isinstance(event, Notice)]
    return response.message, response.stop, notices


@pytest.mark.parametrize("name", GOLDENS)
def test_the_calls_of_each_syntax_at_every_cut(name: str) -> None:
    answer, text, calls = GOLDENS[name]
    whole = events_of([answer])
    assert text_of(whole) == text
    assert calls_of(whole) == calls
    assert all(end.executable for end in ends_of(whole))
    assert whole[-1] == (Stop("tool_use", "raw") if calls else Stop("end_turn", "raw"))
    assert folded(events_of(list(answer))) == folded(whole)
    for cut in range(1, len(answer)):
        assert folded(events_of([answer[:cut], answer[cut:]])) == folded(whole), cut


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_call_is_text_unchanged_at_every_cut(name: str) -> None:
    answer = TEXTS[name]
    for pieces in ([answer], list(answer), *([answer[:cut], answer[cut:]] for cut in range(1, len(answer)))):
        events = events_of(pieces)
        assert text_of(events) == answer
        assert ends_of(events) == []
        assert events[-1] == Stop("end_turn", "raw")


@pytest.mark.parametrize("stop", ["max_tokens", "context_window", "content_filter", "stop_sequence", "other"])
@pytest.mark.parametrize("name", GOLDENS)
def test_a_call_that_was_cut_is_never_executable(name: str, stop: StopReason) -> None:
    """Whatever is left of an answer, each call that may be run is one of the whole answer's."""
    answer, text, calls = GOLDENS[name]
    for cut in range(len(answer)):
        events = events_of([answer[:cut]], stop)
        found = calls_of(events)
        assert found == calls[: len(found)]
        for end in ends_of(events)[len(found) :]:
            assert not end.executable
        if not ends_of(events):
            assert text_of(events).strip() == answer[:cut].strip() or text.startswith(text_of(events))


def test_the_end_of_an_answer_is_no_cut_where_only_brackets_are_missing() -> None:
    unclosed = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"'
    assert calls_of(events_of([unclosed])) == [OSLO]
    assert calls_of(events_of([unclosed], "max_tokens")) == []
    for broken in (unclosed[:-1], unclosed + ","):
        assert calls_of(events_of([broken])) == []


def test_arguments_that_are_no_json_are_reported_as_they_came() -> None:
    events = events_of(['<tool_call>{"name": "get_weather", "arguments": {"city": ]Oslo[}}</tool_call> after'])
    (end,) = ends_of(events)
    assert (end.executable, end.arguments) == (False, '{"city":]Oslo[}}')
    assert [event.detail for event in events if isinstance(event, Notice)] == [
        "the call of get_weather (call_0) must not be run: its arguments are no JSON"
    ]
    assert text_of(events) == " after"


BROKEN = {
    "tagged-cut": ("<tool_call><function=now><parameter=a>1</parameter><parameter=b>2</para", '{"a":1', ""),
    "tagged-cut-between": ("<tool_call><function=now><parameter=a>1</parameter>\n", '{"a":1', ""),
    "tagged-stray": (
        "<tool_call><function=now>what? <parameter=a>1</parameter></function></tool_call>.",
        '{"a":1}',
        ".",
    ),
    "hermes": ('<tool_call>{"name": "now", "arguments": {"a": !1}</tool_ca</tool_call>.', '{"a":!1}</tool_ca', "."),
    "hermes-word": ('<tool_call>{"name": "now", "arguments": {"a": Oslo}}</tool_call>', '{"a":Oslo}}', ""),
    "hermes-string": ('<tool_call>{"name": "now", "arguments": "{a: ]"}</tool_call>', "{a: ]", ""),
    "hermes-string-cut": ('<tool_call>{"name": "now", "arguments": "{\\"a\\": 1', '{"a": 1', ""),
    "hermes-unclosed-string": ('<tool_call>{"name": "now", "arguments": {"a": "b', '{"a":"b', ""),
    "hermes-open": ('<tool_call>{"name": "now", "arguments": {"a": ;', '{"a":;', ""),
    "hermes-half-closed": ('<tool_call>{"name": "now", "arguments": {"a": 1</tool', '{"a":1</tool', ""),
    "hermes-no-arguments": ('<tool_call>{"name": "now", "arg', "{}", ""),
    "fenced": ('```json\n{"name": "now", "arguments": {"a": ``}}\n``` x', '{"a":``}}\n', " x"),
    "bare": ('{"name": "now", "parameters": {"a": <b>}} and more', '{"a":<b>}} and more', ""),
    "llama": ("<|python_tag|>now.call(a=1, b=os.getcwd())", '{"a":1,"b":os.getcwd())', ""),
    "mistral": ('[TOOL_CALLS]now[ARGS]{"a": 1', '{"a":1', ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_call_that_is_broken_is_reported_as_it_came_at_every_cut(name: str) -> None:
    answer, arguments, text = BROKEN[name]
    whole = events_of([answer], "max_tokens")
    (end,) = ends_of(whole)
    assert (end.name, end.arguments, end.executable) == ("now", arguments, False)
    assert text_of(whole) == text
    assert folded(events_of(list(answer), "max_tokens")) == folded(whole)
    for cut in range(1, len(answer)):
        assert folded(events_of([answer[:cut], answer[cut:]], "max_tokens")) == folded(whole), cut


def test_an_error_within_a_call_leaves_it_open() -> None:
    stage = CalledEvents(TOOLS, iter("a"))
    given: list[Event] = [Start(), TextStart(0), TextDelta(0, '<tool_call>{"name": "now", "arguments": {"a": !</tool')]
    events = [made for event in given for made in stage.feed(event)] + stage.flush()
    check_order(events, complete=False)
    assert text_of(events) == ""
    assert "".join(event.arguments for event in events if isinstance(event, ToolCallDelta)) == '{"a":!</tool'
    assert ends_of(events) == []


def test_white_space_alone_survives_an_error() -> None:
    stage = CalledEvents(TOOLS, iter("a"))
    events = [made for event in (Start(), TextStart(0), TextDelta(0, " \n")) for made in stage.feed(event)]
    assert [*events, *stage.flush()] == [Start(), TextStart(0), TextDelta(0, " \n")]


def test_arguments_that_nest_deeper_than_any_reader_takes_are_not_executable() -> None:
    nested = "[" * 127 + "]" * 127
    (end,) = ends_of(events_of([f'<tool_call>{{"name": "now", "arguments": {{"a": [{nested}]}}}}</tool_call>']))
    assert not end.executable


def test_a_number_that_no_reader_takes_is_not_executable() -> None:
    (end,) = ends_of(events_of([f'<tool_call>{{"name": "now", "arguments": {{"a": {"1" * 9000}}}}}</tool_call>']))
    assert not end.executable


def test_a_tag_that_holds_no_call_stays_and_is_told_of_once() -> None:
    answer = '<tool_call>{"x": 1}</tool_call>' * 3
    events = events_of([answer])
    assert text_of(events) == answer
    assert len([event for event in events if isinstance(event, Notice)]) == 1


def test_text_streams_at_once_and_only_a_marker_s_beginning_waits() -> None:
    stage = CalledEvents(TOOLS, iter(["a"]))
    given = [*stage.feed(Start()), *stage.feed(TextStart(0))]
    assert given == [Start()]
    assert stage.feed(TextDelta(0, "Hello, 1 <")) == [TextStart(0), TextDelta(0, "Hello, 1 ")]
    assert stage.feed(TextDelta(0, "tool_c")) == []
    assert stage.feed(TextDelta(0, "olour")) == [TextDelta(0, "<tool_colour")]
    assert stage.feed(TextDelta(0, "<tool_call>")) == []


def test_arguments_stream_while_they_come() -> None:
    stage = CalledEvents(TOOLS, iter(["id-1"]))
    for event in (Start(), TextStart(0), TextDelta(0, '<tool_call>{"name": "get_weather", ')):
        stage.feed(event)
    assert stage.feed(TextDelta(0, '"arguments": {"city": "Os')) == [
        ToolCallStart(0, "id-1", "get_weather"),
        ToolCallDelta(0, '{"city":"Os'),
    ]
    assert stage.feed(TextDelta(0, "lo ")) == [ToolCallDelta(0, "lo ")]


def test_blocks_are_numbered_anew_and_reasoning_is_left_alone() -> None:
    marker = '<tool_call>{"name": "now"}</tool_call>'
    given: list[Event] = [
        Start(),
        ReasoningStart(0),
        ReasoningDelta(0, marker),
        ReasoningEnd(0),
        TextStart(1),
        TextDelta(1, f"A{marker}B"),
        Citation(1, cited_text="x"),
        TextEnd(1),
        TextStart(2),
        TextDelta(2, marker),
        Citation(2, cited_text="y"),
        TextEnd(2),
        ReasoningStart(3),
        ReasoningDelta(3, "why"),
        ReasoningEnd(3),
        Stop("end_turn"),
    ]
    stage = CalledEvents(TOOLS, (f"call_{number}" for number in count()))
    events = [made for event in given for made in stage.feed(event)]
    check_order(events)
    assert [(type(event).__name__, event.index) for event in events if hasattr(event, "index")] == [
        ("ReasoningStart", 0), ("ReasoningDelta", 0), ("ReasoningEnd", 0),
        ("TextStart", 1), ("TextDelta", 1), ("TextEnd", 1),
        ("ToolCallStart", 2), ("ToolCallEnd", 2),
        ("TextStart", 3), ("TextDelta", 3), ("Citation", 3), ("TextEnd", 3),
        ("ToolCallStart", 4), ("ToolCallEnd", 4),
        ("ReasoningStart", 5), ("ReasoningDelta", 5), ("ReasoningEnd", 5),
    ]  # fmt: skip
    assert [end.id for end in ends_of(events)] == ["call_0", "call_1"]


def test_a_call_that_another_block_interrupts_is_not_executable() -> None:
    given: list[Event] = [
        Start(),
        TextStart(0),
        TextDelta(0, '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"'),
        TextEnd(0),
        TextStart(1),
        TextDelta(1, "Well."),
        TextEnd(1),
        Stop("end_turn"),
    ]
    stage = CalledEvents(TOOLS, iter(["a"]))
    events = [made for event in given for made in stage.feed(event)]
    check_order(events)
    assert [end.executable for end in ends_of(events)] == [False]
    assert text_of(events) == "Well."


def test_a_reset_begins_anew_and_an_error_gives_what_was_held() -> None:
    stage = CalledEvents(TOOLS, iter("ab"))
    reset = Notice("reset", "again")
    given: list[Event] = [Start(), TextStart(0), TextDelta(0, 'Hi <tool_call>{"na'), reset, Start(), TextStart(0)]
    events = [made for event in given for made in stage.feed(event)]
    assert events[-2:] == [reset, Start()]
    assert stage.feed(TextDelta(0, 'So <tool_call>{"na')) == [TextStart(0), TextDelta(0, "So ")]
    assert stage.flush() == [TextDelta(0, '<tool_call>{"na')]


# --- hostile ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<tool_call>",
        "[TOOL_CALLS]",
        "```json\n",
        "[TOOL_CALLS]x",
        "<tool_call> {",
        '{"name":',
        "`",
        "<|python_tag|>a",
    ],
)
def test_a_megabyte_of_beginnings_is_text(unit: str) -> None:
    answer = unit * (1_000_000 // len(unit))
    whole = events_of([answer])
    assert text_of(whole) == answer
    assert ends_of(whole) == []
    small = unit * 2_000
    assert text_of(events_of(list(small))) == small


def test_a_megabyte_of_white_space_within_a_call_is_none() -> None:
    space = " " * 1_000_000
    events = events_of([f'<tool_call>{{"name": "now"{space}}}</tool_call>'])
    assert calls_of(events) == [NOW]
    assert text_of(events) == ""


def test_white_space_before_a_call_is_bounded() -> None:
    answer = "<tool_call>" + " " * 300 + '{"name": "now"}</tool_call>'
    for pieces in ([answer], list(answer)):
        assert text_of(events_of(pieces)) == answer


def test_thousands_of_broken_calls_cost_no_more_than_their_length() -> None:
    unit = '<tool_call>{"name": "now", "arguments": {!}}</tool_call>'
    events = events_of([unit * 2_000])
    assert len(ends_of(events)) == 2_000
    assert calls_of(events) == []
    assert text_of(events) == ""


# --- properties ------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "```", "json",
        "\n", " ", "}", "1",
        '{"name": "now", "arguments": {"a": "b"}}', '{"name": "get_weather", ', '"parameters": {"city": "Os', 'lo"}}',
        "now", "get_weather", ".call(", "(", ")", "a=1", "{", "[", "]", ",", ";", '"', "'", "\\", "text", "<", "`", ":",
        "<|eom_id|>", "null", '"arguments"', '"name"', "é",
    ]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=14).map("".join), st.data(), st.sampled_from(["end_turn", "max_tokens"]))
def test_whatever_is_written_the_cuts_do_not_matter(answer: str, data: st.DataObject, stop: StopReason) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(answer)))))
    pieces = [answer[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    whole = events_of([answer], stop)
    assert folded(events_of(pieces, stop)) == folded(whole)
    assert folded(events_of(list(answer), stop)) == folded(whole)


@given(st.text(max_size=200))
def test_text_without_calls_comes_out_as_it_went_in(answer: str) -> None:
    events = events_of([answer])
    assert text_of(events) == answer
    assert ends_of(events) == []


_ARGUMENTS = st.dictionaries(
    st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
)


@given(_ARGUMENTS, st.sampled_from(["hermes", "llama", "mistral", "fenced"]), st.text(alphabet="ab \n.", max_size=9))
def test_what_a_syntax_writes_is_read(arguments: dict[str, object], name: str, before: str) -> None:
    call = json.dumps({"name": "get_weather", "arguments": arguments}, ensure_ascii=False)
    around = {
        "hermes": ("<tool_call>", "</tool_call>"),
        "llama": ("<|python_tag|>", ""),
        "mistral": ("[TOOL_CALLS] [", "]"),
        "fenced": ("\n```json\n", "\n```"),
    }
    opened, closed = around[name]
    assert calls_of(events_of(list(before + opened + call + closed))) == [("get_weather", arguments)]
