"""Tools in the prompt: when they are, what the model is told, and the whole way from the wire and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

import loomstream as ls
from loomstream.adapt.call_grammar import call_schema
from loomstream.adapt.call_syntaxes import syntax_for
from loomstream.adapt.plan import Adapted
from loomstream.adapt.prompted_tools import prompted_tools
from loomstream.dialects import Quirks, Target
from loomstream.endpoint import Endpoint
from loomstream.errors import BadRequest, ModelNotFound, RequestError, StreamTruncated, Unsupported
from loomstream.events import Event, Notice, Start, TextDelta
from loomstream.messages import (
    Image,
    Message,
    Output,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
    assistant,
    user,
)
from loomstream.model import Model
from loomstream.providers import look_up
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("get_weather", "Give the weather.", CITY)
NOW = Tool("now")
UNKNOWN = Target(provider="x", model="m")
PIXEL = Image(b"\x89PNG\r\n\x1a\n")


def able(*capabilities: str, model: str = "m", grammar: bool = False) -> Target:
    return Target(provider="x", model=model, quirks=Quirks(capabilities=capabilities, output_grammar=grammar))


PLAIN = able("completion")


def adapted(target: Target = PLAIN, **fields: object) -> Adapted:
    found = prompted_tools(msgspec.structs.replace(Request(messages=(user("x"),), tools=(WEATHER,)), **fields), target)
    assert found is not None
    return found


# --- when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "mode", "acts"),
    [
        (UNKNOWN, "auto", False),
        (UNKNOWN, "native", False),
        (UNKNOWN, "prompt", True),
        (able("completion"), "auto", True),
        (able("completion"), "native", False),
        (able("completion", "tools"), "auto", False),
        (able("completion", "tools"), "prompt", True),
        (Target(provider="local", model="any.gguf"), "auto", True),
        (Target(provider="openai", model="o1-mini"), "auto", True),
        (Target(provider="openai", model="gpt-4.1"), "auto", False),
        (Target(provider="ollama", model="lama3", quirks=Quirks(capabilities=("tools",))), "auto", False),
    ],
)
def test_when_tools_go_into_the_prompt(target: Target, mode: ToolMode, acts: bool) -> None:  # noqa: FBT001 (a table's column)
    request = Request(messages=(user("x"),), tools=(WEATHER,), tool_mode=mode)
    assert (prompted_tools(request, target) is not None) is acts


def test_nothing_is_done_without_tools() -> None:
    assert prompted_tools(Request(messages=(user("x"),)), able("completion")) is None


def test_an_earlier_call_is_told_in_words_even_where_no_tools_are_passed() -> None:
    found = adapted(tools=(), messages=(user("x"), CALLED, ANSWERED))
    assert found.stage is None
    assert found.request.system == ""
    assert [message.role for message in found.request.messages] == ["user", "assistant", "user"]


# --- what is told ----------------------------------------------------------------------------------

CALLED = Message(
    "assistant", (Text("I look."), ToolCall("c1", "get_weather", '{"city":"Oslo"}'), ToolCall("c2", "now"))
)
ANSWERED = Message(
    "tool", (ToolResult("c1", (Text("4 °C"),)), ToolResult("c2", (Text("no clock"),), is_error=True, name="now"))
)


@pytest.mark.parametrize(
    ("model", "name", "written"),
    [
        (
            "Qwen2.5-7B",
            "hermes",
            (
                'I look.\n<tool_call>\n{"name":"get_weather","arguments":{"city":"Oslo"}}\n</tool_call>\n'
                '<tool_call>\n{"name":"now","arguments":{}}\n</tool_call>'
            ),
        ),
        (
            "llama3.1:8b",
            "llama",
            'I look.\n{"name":"get_weather","parameters":{"city":"Oslo"}}; {"name":"now","parameters":{}}',
        ),
        (
            "Mistral-7B-Instruct",
            "bracketed",
            'I look.\n[TOOL_CALLS] [{"name":"get_weather","arguments":{"city":"Oslo"}}, {"name":"now","arguments":{}}]',
        ),
        (
            "gemma-2-27b-it",
            "fenced",
            (
                'I look.\n```json\n{"name":"get_weather","arguments":{"city":"Oslo"}}\n```\n'
                '```json\n{"name":"now","arguments":{}}\n```'
            ),
        ),
    ],
)
def test_each_family_is_told_in_the_syntax_that_it_knows(model: str, name: str, written: str) -> None:
    assert syntax_for(model).name == name
    found = adapted(able("completion", model=model), messages=(user("x"), CALLED, ANSWERED), tools=(WEATHER, NOW))
    assert "".join(block.text for block in found.request.messages[1].content if isinstance(block, Text)) == written
    assert '{"name":"get_weather","description":"Give the weather.","parameters":' in found.request.system
    assert found.request.tools == ()
    assert found.request.tool_choice is None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2-135m-instruct", "hermes"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "hermes"),
        ("meta-llama/Llama-3.2-3B-Instruct", "llama"),
        ("Meta-Llama-3-8B", "fenced"),
        ("meta.llama3-1-70b-instruct-v1:0", "llama"),
        ("Llama-3-70B", "fenced"),
        ("mixtral:8x7b", "bracketed"),
        ("phi4", "fenced"),
    ],
)
def test_the_syntax_is_found_by_the_model_s_name(model: str, name: str) -> None:
    assert syntax_for(model).name == name


def test_results_are_told_in_words_in_one_turn_with_what_the_user_says_next() -> None:
    calls = Message("assistant", (ToolCall("c1", "now", '{"a":1}'), ToolCall("c2", "now", '{"a":2}')))
    results = Message("tool", (ToolResult("c2", (Text("two"), PIXEL)), ToolResult("c1", ())))
    found = adapted(messages=(user("x"), calls, results, user("and?"), assistant("y"), user("z"), user("!")))
    told = found.request.messages
    assert [message.role for message in told] == ["user", "assistant", "user", "assistant", "user", "user"]
    first, image, rest = told[2].content
    assert first == Text('now {"a":2} gave this result: two')
    assert image == PIXEL
    assert isinstance(rest, Text)
    assert rest.text.startswith('now {"a":1} gave this result: nothing\n\n')
    assert rest.text.endswith("\n\nand?")


def test_what_the_user_says_beside_a_result_comes_behind_it() -> None:
    result = ToolResult("c1", (Text("ok"),), name="now")
    called = Message("assistant", (ToolCall("c1", "now"),))
    found = adapted(messages=(user("x"), called, Message("user", (result, Text("and?")))))
    assert found.request.messages[2].content == (Text(found.request.messages[2].text),)
    assert "now gave this result: ok" in found.request.messages[2].text
    assert found.request.messages[2].text.endswith("\n\nand?")


def test_a_failed_tool_is_told_as_failed() -> None:
    found = adapted(messages=(user("x"), CALLED, ANSWERED))
    text = found.request.messages[2].text
    assert "get_weather gave this result: 4 °C" in text
    assert "now failed: no clock" in text


def test_a_call_whose_arguments_are_no_json_is_told_as_text() -> None:
    called = Message("assistant", (ToolCall("c1", "now", '{"a": ', executable=False),))
    found = adapted(messages=(user("x"), called, Message("tool", (ToolResult("c1"),))))
    assert '"arguments":"{\\"a\\": "' in found.request.messages[1].text


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (None, "only if it helps"),
        (ToolChoice("any"), "You must call a tool now"),
        (ToolChoice("tool", "get_weather"), "You must call the tool get_weather now"),
    ],
)
def test_the_choice_is_said_in_words(choice: ToolChoice | None, words: str) -> None:
    found = adapted(tool_choice=choice, parallel_tool_calls=False, system="Be brief.")
    assert found.request.system.startswith("Be brief.\n\n")
    assert words in found.request.system
    assert "one tool at most" in found.request.system
    forced = choice is not None
    assert any("tool_choice" in warning for warning in found.warnings) is forced
    assert any("parallel_tool_calls" in warning for warning in found.warnings)


def test_where_no_tool_may_be_called_none_is_told() -> None:
    found = adapted(tool_choice=ToolChoice("none"))
    assert found.request.system == ""
    assert found.stage is None


def test_a_schema_of_the_answer_is_said_in_words_while_tools_may_be_called() -> None:
    output = Output(schema=CITY)
    found = adapted(output=output)
    assert found.request.output is None
    assert '"required":["city"]' in found.request.system
    assert any("output" in warning for warning in found.warnings)
    assert adapted(output=output, tool_choice=ToolChoice("none")).request.output == output


def test_ids_are_none_that_the_history_has() -> None:
    history = (user("x"), Message("assistant", (ToolCall("call_1", "now"),)), Message("tool", (ToolResult("call_1"),)))
    stage = adapted(messages=history).stage
    assert stage is not None
    given = [Start(), ls.TextStart(0), TextDelta(0, '<tool_call>[{"name":"now"},{"name":"now"}]</tool_call>')]
    events: list[Event] = [made for event in given for made in stage.feed(event)]
    assert [event.id for event in events if isinstance(event, ls.ToolCallEnd)] == ["call_2", "call_3"]


def test_parameters_that_are_no_json_are_refused() -> None:
    with pytest.raises(RequestError, match="parameters cannot be written as JSON"):
        adapted(tools=(Tool("a", "", {"x": object()}),))
    with pytest.raises(RequestError, match="schema cannot be written as JSON"):
        adapted(output=Output(schema={"x": object()}))


# --- grammar ---------------------------------------------------------------------------------------


def test_a_call_that_must_be_made_is_held_by_a_grammar() -> None:
    found = adapted(
        able("completion", grammar=True), tools=(WEATHER, NOW), tool_choice=ToolChoice("tool", "get_weather")
    )
    assert found.request.output is not None
    assert found.request.output.schema == {
        "type": "object",
        "properties": {"name": {"const": "get_weather"}, "arguments": CITY},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    assert not any("tool_choice" in warning for warning in found.warnings)
    either = adapted(
        able("completion", grammar=True), tools=(WEATHER, NOW), tool_choice=ToolChoice("any")
    ).request.output
    assert either is not None
    assert len(either.schema["anyOf"]) == 2  # type: ignore[arg-type]


def test_where_text_may_come_there_is_no_grammar() -> None:
    assert adapted(able("completion", grammar=True)).request.output is None


def test_definitions_move_to_the_root_under_their_tool_s_name() -> None:
    def tool(name: str, kind: str) -> Tool:
        inner = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "v": {"type": kind}}}
        own = {"type": "object", "properties": {"root": {"$ref": "#/$defs/Node"}, "$ref": {"type": "string"}}}
        return Tool(name, "", {**own, "$defs": {"Node": inner}})

    schema: Mapping[str, Any] = call_schema([tool("a", "string"), tool("b", "integer")], "parameters")
    assert set(schema["$defs"]) == {"a.Node", "b.Node"}
    assert schema["$defs"]["b.Node"]["properties"]["next"] == {"$ref": "#/$defs/b.Node"}
    first = schema["anyOf"][0]["properties"]["parameters"]["properties"]
    assert first == {"root": {"$ref": "#/$defs/a.Node"}, "$ref": {"type": "string"}}


# --- the whole way ---------------------------------------------------------------------------------

ANSWER = 'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def sse(text: str, reason: str = "stop") -> Recording:
    pieces = [{"choices": [{"index": 0, "delta": {"content": char}}]} for char in text]
    frames = [*pieces, {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}]
    return Recording([f"data: {json.dumps(frame)}\n\n".encode() for frame in frames])


def ndjson(text: str) -> Recording:
    lines = [{"message": {"role": "assistant", "content": char}, "done": False} for char in text]
    body = b"".join(msgspec.json.encode(line) + b"\n" for line in [*lines, {"done": True, "done_reason": "stop"}])
    return Recording([body], headers={"content-type": "application/x-ndjson"})


def said(body: object, status: int = 200) -> Recording:
    return Recording([msgspec.json.encode(body)], status, headers={"content-type": "application/json"})


OPENROUTER = {
    "error": {
        "message": "No endpoints found that support tool use. To learn more about provider routing, visit: https://x.example",
        "code": 404,
    }
}


def refusal(message: str, **fields: object) -> Recording:
    return said({"error": {"message": message, **fields}}, 400)


def bodies(transport: ReplayTransport) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in transport.requests]


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_goes_out_in_words_and_comes_back_as_a_call(stream: bool) -> None:  # noqa: FBT001 (a table's column)
    whole = said({"choices": [{"message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}]})
    transport = ReplayTransport(sse(ANSWER) if stream else whole)
    tools = [Tool("get weather", "", CITY)]
    async with (
        replay_model("local", transport=transport, model="qwen.gguf") as model,
        model.stream("weather?", tools=tools, stream=stream) as streamed,
    ):
        events = [event async for event in streamed]
    check_order(events)
    response = streamed.response
    assert response.text == "I look.\n"
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        ("call_0", "get weather", '{"city":"Oslo"}')
    ]
    assert response.stop == ls.Stop("tool_use", "stop")
    assert "described in the prompt" in response.warnings[0]
    (body,) = bodies(transport)
    assert "tools" not in body
    assert "get_weather" in body["messages"][0]["content"]


@pytest.mark.anyio
async def test_a_broken_stream_loses_nothing_and_makes_no_call() -> None:
    cut = sse(ANSWER)
    transport = ReplayTransport(Recording(cut.body[:40]))
    async with replay_model("local", transport=transport) as model:
        with pytest.raises(StreamTruncated) as caught:
            await model.complete("weather?", tools=[WEATHER])
    assert caught.value.partial is not None
    assert caught.value.partial.text == ANSWER[:40]
    assert caught.value.partial.tool_calls == ()


@pytest.mark.anyio
async def test_ollama_s_capabilities_decide() -> None:
    transport = ReplayTransport(said({"capabilities": ["completion"]}), ndjson('{"name": "now", "parameters": {}}'))
    async with Model(Endpoint(look_up("ollama"), "llama3.2:1b"), transport=transport) as model:
        response = await model.complete("time?", tools=[NOW], tool_choice="any")
    assert [call.name for call in response.tool_calls] == ["now"]
    body = bodies(transport)[1]
    assert "tools" not in body
    assert body["format"]["properties"]["name"] == {"const": "now"}
    assert len(response.warnings) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        refusal("registry.ollama.ai/library/gemma:2b does not support tools"),
        refusal("`tool calling` is not supported with this model"),
        refusal("Unsupported parameter: 'tools' is not supported with this model.", param="tools"),
        refusal('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        refusal("This model doesn't support tool use."),
        said(OPENROUTER, 404),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_of_tools_is_learned_from(error: Recording, stream: bool) -> None:  # noqa: FBT001 (a table's column)
    whole = said({"choices": [{"message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}]})
    transport = ReplayTransport(error, sse(ANSWER) if stream else whole)
    async with replay_model("openai-compatible", transport=transport, model="m") as model:
        async with model.stream("weather?", tools=[WEATHER], stream=stream) as streamed:
            events = [event async for event in streamed]
        again = await model.complete("weather?", tools=[WEATHER], stream=stream)
    check_order(events)
    assert isinstance(events[0], Notice)
    assert "refused 'tools'" in events[0].detail
    assert len(streamed.response.tool_calls) == len(again.tool_calls) == 1
    assert ["tools" in body for body in bodies(transport)] == [True, False, False]
    assert "described in the prompt" in again.warnings[0]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("this model does not support tools", {"tool_mode": "native"}),
        ("this model does not support tools", {"unsupported": "error"}),
        ("tools[0].function.parameters: unsupported keyword 'x'", {}),
        ("Invalid schema for function 'get_weather': 'format' is not permitted", {}),
    ],
)
async def test_other_refusals_are_errors(message: str, options: dict[str, Any]) -> None:
    transport = ReplayTransport(refusal(message))
    async with replay_model("openai-compatible", transport=transport, model="m") as model:
        with pytest.raises(BadRequest):
            await model.complete("weather?", tools=[WEATHER], **options)
    assert len(transport.requests) == 1


@pytest.mark.anyio
async def test_a_model_that_is_missing_is_not_asked_again() -> None:
    transport = ReplayTransport(said({"error": {"message": "The model `tools` does not exist", "code": 404}}, 404))
    async with replay_model("openai-compatible", transport=transport, model="m") as model:
        with pytest.raises(ModelNotFound):
            await model.complete("weather?", tools=[WEATHER])
    assert len(transport.requests) == 1


@pytest.mark.anyio
async def test_the_schema_says_which_values_in_tags_are_texts() -> None:
    parameters = {
        "type": "object",
        "properties": {
            "zip": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "unit": {"$ref": "#/$defs/Unit"},
            "days": {"type": "integer"},
            "free": {},
        },
        "$defs": {"Unit": {"enum": ["1", "2"]}},
    }
    values = {"zip": "0150", "unit": "1", "days": "3", "free": "true"}
    tags = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values.items())
    transport = ReplayTransport(sse(f"<tool_call>\n<function=look>\n{tags}</function>\n</tool_call>"))
    async with replay_model("openai-compatible", transport=transport, model="qwen3-coder") as model:
        response = await model.complete("go", tools=[Tool("look", "", parameters)], tool_mode="prompt")
    (call,) = response.tool_calls
    assert json.loads(call.arguments) == {"zip": "0150", "unit": "1", "days": 3, "free": True}


@pytest.mark.anyio
async def test_by_policy_it_must_be_asked_for() -> None:
    transport = ReplayTransport(sse(ANSWER))
    async with replay_model("local", transport=transport, unsupported="error") as model:
        with pytest.raises(Unsupported, match="described in the prompt"):
            await model.complete("weather?", tools=[WEATHER])
        assert transport.requests == []
        response = await model.complete("weather?", tools=[WEATHER], tool_mode="prompt")
    assert len(response.tool_calls) == 1
