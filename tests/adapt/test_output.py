"""Answers of a schema by a tool or in words: the answer's text is the JSON, and nothing that came is lost."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream.accumulate import fold
from loomstream.adapt.output import output
from loomstream.adapt.plan import Adapted
from loomstream.dialects import Quirks, Target
from loomstream.errors import BadRequest, RequestError, Unsupported
from loomstream.events import (
    Event,
    Logprobs,
    Notice,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)
from loomstream.messages import Output, OutputMode, Request, RequestOptions, Tool, ToolChoice, user
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model, text_events, tool_call_events

SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
WANTED = Output(schema=SCHEMA, name="Recipe", description="A recipe.")
PLAIN = Request(messages=(user("cook"),), output=WANTED)
TARGET = Target(provider="x", model="m")
JSON = '{"title": "Pan {c}\\"akes\\" ```"}'


def target(mode: OutputMode) -> Target:
    return Target(provider="x", model="m", quirks=Quirks(output_by=mode))  # type: ignore[arg-type]


def asked(mode: OutputMode = "auto", by: OutputMode = "native", **fields: object) -> Adapted | None:
    return output(Request(messages=(user("cook"),), **{"output": WANTED, "output_mode": mode, **fields}), target(by))  # type: ignore[arg-type]


def made(mode: OutputMode, **fields: object) -> Adapted:
    found = asked(mode, **fields)
    assert found
    return found


def read(events: list[Event], mode: OutputMode = "prompt", **fields: object) -> list[Event]:
    """Give the events as the stage of an answer gives them."""
    stage = made(mode, **fields).stage
    assert stage
    found = [one for event in events for one in stage.feed(event)]
    check_order(found)
    assert stage.flush() == []
    return found


def notices(events: list[Event]) -> list[str]:
    return [event.detail for event in events if isinstance(event, Notice)]


class TestRequest:
    def test_native_is_the_dialects_own(self) -> None:
        assert asked() is None
        assert asked("native", by="tool") is None
        assert asked(by="prompt", output=None) is None

    @pytest.mark.parametrize(("by", "words"), [("tool", "call a tool of that form"), ("prompt", "JSON in words")])
    def test_what_was_chosen_for_you_is_a_warning(self, by: OutputMode, words: str) -> None:
        found = asked(by=by)
        assert found
        assert words in found.warnings[0]
        assert found.request == made(by).request
        assert made(by).warnings == ()

    def test_a_tool_of_the_schema_must_be_called(self) -> None:
        request = made("tool").request
        assert request.output is None
        assert request.tools == (Tool("Recipe", "A recipe. Call this to give your final answer.", SCHEMA),)
        assert request.tool_choice == ToolChoice("tool", "Recipe")
        assert request.system == ""

    @pytest.mark.parametrize(
        ("fields", "choice"),
        [
            ({"tools": (Tool("f"),)}, ToolChoice("any")),
            ({"tools": (Tool("f"),), "tool_choice": ToolChoice("auto")}, ToolChoice("any")),
            ({"tools": (Tool("f"),), "tool_choice": ToolChoice("none")}, ToolChoice("tool", "Recipe")),
            ({"tools": (Tool("f"),), "tool_choice": ToolChoice("tool", "f")}, ToolChoice("tool", "f")),
            ({"reasoning_effort": "none"}, ToolChoice("tool", "Recipe")),
            ({"reasoning_effort": "low"}, ToolChoice("auto")),
            ({"reasoning_budget_tokens": 1024}, ToolChoice("auto")),
        ],
    )
    def test_which_tools_must_be_called(self, fields: dict[str, object], choice: ToolChoice) -> None:
        request = made("tool", **fields).request
        assert request.tool_choice == choice
        forced = choice.mode != "auto"
        assert request.system == ("" if forced else request.system)
        assert ("calling the tool Recipe" in request.system) is not forced

    def test_its_name_is_free(self) -> None:
        request = made("tool", tools=(Tool("Recipe"), Tool("Recipe_2"))).request
        assert [tool.name for tool in request.tools] == ["Recipe", "Recipe_2", "Recipe_3"]

    def test_in_words_the_schema_stands_behind_the_user_s_own_system_text(self) -> None:
        request = made("prompt", system="Be brief.").request
        own, words = request.system.split("\n\n")
        assert own == "Be brief."
        assert request.output is None
        assert request.tools == ()
        told, schema = words.split("Schema of Recipe (A recipe.): ")
        assert "nothing else" in told
        assert json.loads(schema) == SCHEMA

    def test_a_tool_takes_an_object(self) -> None:
        numbers = Output(schema={"type": "array", "items": {"type": "integer"}})
        with pytest.raises(Unsupported, match="a tool's arguments are one"):
            asked("tool", output=numbers)
        found = asked(by="tool", output=numbers)
        assert found
        assert "in words" in found.warnings[0]
        assert not found.request.tools

    def test_a_schema_that_is_no_json(self) -> None:
        with pytest.raises(RequestError, match=r"output\.schema is no JSON"):
            asked("prompt", output=Output(schema={"type": "object", "x": object()}))


class TestByTool:
    def test_the_call_is_the_text(self) -> None:
        events = read(tool_call_events("Recipe", '{"tit', 'le": "x"}'), "tool")
        assert events[1:5] == [
            TextStart(0),
            TextDelta(0, '{"tit'),
            TextDelta(0, 'le": "x"}'),
            TextEnd(0),
        ]
        assert events[-1] == Stop("end_turn", "tool_calls")
        assert fold(events).tool_calls == ()

    def test_a_call_without_deltas(self) -> None:
        assert fold(read(tool_call_events("Recipe"), "tool")).text == "{}"

    def test_a_call_whose_arguments_are_white_space(self) -> None:
        assert fold(read(tool_call_events("Recipe", " "), "tool")).text == " {}"

    def test_a_call_that_was_cut_stays_cut(self) -> None:
        events: list[Event] = [
            Start(),
            ToolCallStart(0, "1", "Recipe"),
            ToolCallDelta(0, '{"ti'),
            ToolCallEnd(0, "1", "Recipe", '{"ti', executable=False),
            Stop("max_tokens"),
        ]
        response = fold(read(events, "tool"))
        assert (response.text, response.stop) == ('{"ti', Stop("max_tokens"))

    def test_the_users_own_calls_stay_calls(self) -> None:
        events = tool_call_events("f", "{}")
        assert read(events, "tool", tools=(Tool("f"),)) == events

    def test_an_answer_and_a_call_of_the_users_own(self) -> None:
        events: list[Event] = [
            *tool_call_events("Recipe", JSON)[:-2],
            ToolCallStart(1, "2", "f"),
            ToolCallEnd(1, "2", "f", "{}"),
            Stop("tool_use"),
        ]
        response = fold(read(events, "tool", tools=(Tool("f"),)))
        assert response.text == JSON
        assert [call.name for call in response.tool_calls] == ["f"]
        assert response.stop == Stop("tool_use")

    def test_text_before_the_call_is_a_notice(self) -> None:
        events: list[Event] = [
            Start(),
            TextStart(0),
            TextDelta(0, "Let me "),
            TextDelta(0, "see."),
            TextEnd(0),
            ToolCallStart(1, "1", "Recipe"),
            ToolCallDelta(1, JSON),
            ToolCallEnd(1, "1", "Recipe", JSON),
            Stop("tool_use"),
        ]
        found = read(events, "tool")
        assert fold(found).text == JSON
        assert notices(found) == ["beside the JSON of the answer stood: Let me see."]

    def test_text_that_is_still_open_when_the_call_begins(self) -> None:
        events: list[Event] = [
            Start(),
            TextStart(0),
            TextDelta(0, "Well {"),
            ToolCallStart(1, "1", "Recipe"),
            TextDelta(0, '"so'),
            ToolCallDelta(1, JSON),
            ToolCallEnd(1, "1", "Recipe", JSON),
            TextEnd(0),
            Stop("tool_use"),
        ]
        found = read(events, "tool")
        assert fold(found).text == JSON
        assert notices(found) == [f"beside the JSON of the answer stood: {words}" for words in ("Well {", '"so')]

    def test_text_before_a_call_of_the_users_own_is_text(self) -> None:
        events: list[Event] = [
            Start(),
            TextStart(0),
            TextDelta(0, "I ask f."),
            TextEnd(0),
            ToolCallStart(1, "1", "f"),
            ToolCallEnd(1, "1", "f", "{}"),
            Stop("tool_use"),
        ]
        assert read(events, "tool", tools=(Tool("f"),)) == events

    def test_text_in_the_place_of_a_call_is_the_answer(self) -> None:
        assert fold(read(text_events("Here: ", JSON), "tool")).text == JSON

    def test_a_second_call_stays_a_call(self) -> None:
        events: list[Event] = [
            *tool_call_events("Recipe", JSON)[:-2],
            ToolCallStart(1, "2", "Recipe"),
            ToolCallEnd(1, "2", "Recipe", "{}"),
            Stop("tool_use"),
        ]
        response = fold(read(events, "tool"))
        assert response.text == JSON
        assert len(response.tool_calls) == 1


class TestInWords:
    def test_json_alone_passes_as_it_comes(self) -> None:
        events = text_events('{"ti', 'tle": ', '"x"}')
        assert read(events) == events

    def test_code_fences_go_without_a_word(self) -> None:
        found = read(text_events("```js", "on\n", JSON, "\n``", "`\n"))
        assert (fold(found).text, notices(found)) == (JSON, [])

    def test_other_words_become_notices(self) -> None:
        found = read(text_events("Sure {name}!\n```json\n", JSON, "\n```\nEnjoy ", "{it}."))
        assert fold(found).text == JSON
        assert notices(found) == [
            f"beside the JSON of the answer stood: {words}" for words in ("Sure {name}!", "Enjoy {it}.")
        ]

    @pytest.mark.parametrize("pieces", [["I cannot ", "do {that}."], ["{"], ["{ \n", " "], ["```\nno\n```"]])
    def test_without_json_text_stays_text(self, pieces: list[str]) -> None:
        found = read(text_events(*pieces))
        assert (fold(found).text, notices(found)) == ("".join(pieces), [])

    def test_json_that_is_cut_stays_cut(self) -> None:
        assert fold(read(text_events("```\n", '{"title": "x'))).text == '{"title": "x'

    def test_a_later_block_may_hold_the_json(self) -> None:
        events: list[Event] = [
            *text_events("Sure.")[:-2],
            TextStart(1),
            TextDelta(1, JSON),
            TextEnd(1),
            TextStart(2),
            TextDelta(2, "Enjoy."),
            TextEnd(2),
            Logprobs(1, (TokenLogprob("x", -0.1),)),
            Usage(final=True),
            Stop("end_turn"),
        ]
        found = read(events)
        assert fold(found).text == JSON
        assert len(notices(found)) == 2

    def test_an_array(self) -> None:
        array = Output(schema={"type": "array"})
        assert fold(read(text_events("[see] here: [", "1, [2]] ok"), output=array)).text == "[1, [2]]"

    def test_of_another_schema_nothing_is_taken_away(self) -> None:
        events = text_events("It is ", "{12}")
        assert read(events, output=Output(schema={"type": "integer"})) == events

    def test_choices_are_told_apart(self) -> None:
        events: list[Event] = [
            Start(),
            TextStart(0),
            TextStart(1, choice=1),
            TextDelta(0, JSON),
            TextDelta(1, "No."),
            TextEnd(0),
            TextEnd(1),
            Stop("end_turn"),
        ]
        response = fold(read(events))
        assert [choice.message.text for choice in response.choices] == [JSON, "No."]

    def test_what_is_held_back_comes_before_an_error(self) -> None:
        stage = made("prompt").stage
        assert stage
        events: list[Event] = [one for event in text_events("Well, {")[:3] for one in stage.feed(event)]
        events += stage.flush()
        check_order(events, complete=False)
        assert fold(events).text == "Well, {"


BESIDE = "beside the JSON of the answer stood: "
pieces = st.sampled_from(
    ["Sure! ", "{name} ", "```json\n", "{", "}", '"', "[1] ", " ", "\\", "x", JSON, '{"a":[{"b":"}"}]}']
)


@settings(deadline=None)
@given(st.lists(pieces, max_size=6).map("".join), st.lists(st.integers(min_value=0), max_size=6))
def test_nothing_is_lost_at_any_cut(text: str, places: list[int]) -> None:
    cuts = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    found = read(text_events(*(text[start:end] for start, end in itertools.pairwise(cuts))))
    whole = read(text_events(text))
    assert fold(found).text == fold(whole).text
    given_back = fold(found).text + "".join(words.removeprefix(BESIDE) for words in notices(found))
    assert letters(given_back) == letters(text)


def letters(text: str) -> list[str]:
    """Give what of a text may not be lost: all but fences and white space."""
    return sorted(text.replace("```json", "").replace("```", "").replace(" ", "").replace("\n", ""))


def sse(*chunks: object) -> bytes:
    return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)


def said(**delta: object) -> object:
    return {"choices": [{"index": 0, "delta": delta}]}


def ended(reason: str) -> object:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


CALLED = sse(
    said(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "Recipe", "arguments": ""}}]),
    said(tool_calls=[{"index": 0, "function": {"arguments": '{"title"'}}]),
    said(tool_calls=[{"index": 0, "function": {"arguments": ': "x"}'}}]),
    ended("tool_calls"),
)
SAID = sse(said(content="```json\n"), said(content='{"title"'), said(content=': "x"}\n```'), ended("stop"))


@pytest.mark.anyio
@pytest.mark.parametrize(("mode", "answer"), [("tool", CALLED), ("prompt", SAID)])
async def test_the_whole_way_there_and_back(mode: OutputMode, answer: bytes) -> None:
    transport = ReplayTransport(Recording([answer]))
    async with (
        replay_model("openai", transport=transport) as model,
        model.stream("cook", output=WANTED, output_mode=mode) as stream,
    ):
        events = [event async for event in stream]
    check_order(events)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ['{"title"', ': "x"}']
    assert stream.response.stop is not None
    assert stream.response.stop.reason == "end_turn"
    body = json.loads(transport.requests[0].body)
    assert "response_format" not in body
    assert ("tools" in body) == (mode == "tool")


REFUSAL = b'{"error": {"message": "response_format of type json_schema is not supported with this model."}}'


@pytest.mark.anyio
async def test_a_host_that_knows_no_schemas_is_asked_by_a_tool() -> None:
    transport = ReplayTransport(Recording([REFUSAL], status=400), Recording([CALLED]))
    async with replay_model("openai", transport=transport) as model, model.stream("cook", output=WANTED) as stream:
        events = [event async for event in stream]
    check_order(events)
    assert stream.response.text == '{"title": "x"}'
    assert ["refused 'response_format'" in words for words in notices(events)] == [True]
    first, second = (json.loads(request.body) for request in transport.requests)
    assert first["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "response_format" not in second
    assert second["tool_choice"] == {"type": "function", "function": {"name": "Recipe"}}


@pytest.mark.anyio
@pytest.mark.parametrize("options", [{"output_mode": "native"}, {"unsupported": "error"}])
async def test_but_not_where_the_mode_is_demanded(options: RequestOptions) -> None:
    transport = ReplayTransport(Recording([REFUSAL], status=400))
    async with replay_model("openai", transport=transport) as model:
        with pytest.raises(BadRequest):
            await model.complete("cook", output=WANTED, **options)
    assert len(transport.requests) == 1
