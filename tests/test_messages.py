"""What can be sent: values are checked before anything leaves the machine, and errors say what to write instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytest

from loomstream.accumulate import fold
from loomstream.errors import RequestError, UsageError
from loomstream.events import Citation, Opaque, Stop
from loomstream.messages import (
    Audio,
    CachePoint,
    Choice,
    Document,
    Image,
    Message,
    Output,
    Prompt,
    Reasoning,
    Refusal,
    Request,
    RequestOptions,
    Response,
    Text,
    Timeouts,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    assistant,
    check_options,
    decode,
    encode,
    make_request,
    system,
    to_messages,
    tool_result,
    user,
)
from loomstream.testing import text_events, tool_call_events

TOOL = Tool("get_weather", "Gives the weather", {"type": "object", "properties": {"city": {"type": "string"}}})


def make(prompt: object = "hi", **options: object) -> Request:
    return make_request(cast("Prompt", prompt), cast("RequestOptions", options))


# --- messages ------------------------------------------------------------------------------------


def test_a_text_is_a_user_s_turn() -> None:
    assert make("hi").messages == (Message("user", (Text("hi"),)),)


def test_one_message_is_a_conversation() -> None:
    assert make(assistant("hi")).messages == (assistant("hi"),)


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_a_conversation_keeps_its_order(kind: Callable[[list[Message]], object]) -> None:
    turns = [system("be brief"), user("hi"), assistant("hello"), user("bye")]
    assert make(kind(turns)).messages == tuple(turns)


def test_an_answer_goes_back_as_history() -> None:
    response = fold(text_events("hello"))
    assert make([user("hi"), response.message, user("more")]).messages[1] == assistant("hello")


def test_a_tool_s_result_answers_its_call() -> None:
    (call,) = fold(tool_call_events("f", id="call_9")).tool_calls
    assert tool_result(call, "4", is_error=True) == Message(
        "tool", (ToolResult("call_9", (Text("4"),), is_error=True, name="f"),)
    )
    assert not cast("ToolResult", tool_result(call, "4").content[0]).is_error


def test_a_message_s_text_is_its_text_blocks() -> None:
    message = Message("assistant", (Text("a"), Reasoning("not this"), Text("b"), Refusal("nor this")))
    assert message.text == "ab"


class Derived(Message):
    """A message of a class that the request does not know."""


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}])
def test_a_message_of_another_class_is_refused_with_options_and_without(options: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="the request cannot be built"):
        make(Derived("user", (Text("a"),)), **options)


@pytest.mark.parametrize("prompt", [[], (), iter([])])
def test_an_empty_conversation_is_refused(prompt: object) -> None:
    with pytest.raises(RequestError, match="the prompt is empty"):
        make(prompt)


@pytest.mark.parametrize(
    ("prompt", "what"),
    [
        ([user("a"), "b"], r"messages\[1\] is a str: use loomstream.user"),
        ([{"role": "user", "content": "hi"}], r"messages\[0\] is a dict"),
        ([None], r"messages\[0\] is None"),
        (b"bytes", r"messages\[0\] is an int"),
        (None, r"the prompt is None"),
        (5, r"the prompt is an int"),
        (Text("a"), r"the prompt is a Text"),
    ],
)
def test_what_is_no_message_is_refused_by_its_place(prompt: object, what: str) -> None:
    with pytest.raises(RequestError, match=what):
        to_messages(cast("Prompt", prompt))


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (Message("user", cast("Any", "hi")), r"messages\[0\].content is a str: .*loomstream.user"),
        (Message("user", cast("Any", ["hi"])), r"messages\[0\].content\[0\] is a str"),
        (Message("user", cast("Any", (Text("a"), None))), r"messages\[0\].content\[1\] is None"),
        (Message("user", cast("Any", None)), r"messages\[0\].content is None"),
        (
            Message("tool", (ToolResult("id", cast("Any", "42")),)),
            r"content\[0\].content is a str: .*loomstream.tool_result",
        ),
        (Message("tool", (ToolResult("id", cast("Any", [{}])),)), r"content\[0\].content\[0\] is a dict"),
        (Message(cast("Any", "bot"), (Text("a"),)), r"messages\[0\].role is 'bot': .*assistant"),
    ],
)
def test_a_message_that_no_wire_could_carry_is_refused(message: Message, what: str) -> None:
    with pytest.raises(RequestError, match=what):
        make(message)


def test_a_list_of_blocks_is_as_good_as_a_tuple() -> None:
    assert make(Message("user", cast("Any", [Text("a"), Image(url="https://x")]))).messages[0].text == "a"


def test_a_conversation_survives_json() -> None:
    history = (
        Message(
            "user", (Text("a"), Image(b"\x89PNG"), Document(b"%PDF-", citations=True), Audio(b"R"), CachePoint("1h"))
        ),
        Message("assistant", (Reasoning("r", (Opaque("anthropic", "signature", "s"),)), ToolCall("1", "f", "{}"))),
        Message("tool", (ToolResult("1", (Text("x"), Image(url="https://x")), is_error=True, name="f"),)),
        Message("tool", (ToolResult("2", (Document(b"%PDF-1", name="a.pdf"),)),)),
    )
    assert decode(encode(history)) == history


@pytest.mark.parametrize("data", [b"", b"{}", b'[{"role":"user","content":[{"type":"text"}]}]', b"\xff"])
def test_what_is_no_conversation_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match="this is no conversation"):
        decode(data)


def test_json_that_nests_too_deep_is_no_conversation() -> None:
    with pytest.raises(RequestError, match="this is no conversation"):
        decode(b'[{"role":"user","content":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]")


@pytest.mark.parametrize("name", [5, None])
def test_a_tool_s_name_is_a_text(name: object) -> None:
    with pytest.raises(RequestError, match=r"tools\[1\] is a Tool: give a loomstream.Tool\(name,"):
        make(tools=[Tool("f"), Tool(cast("str", name))])


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(RequestError, match=r"tools\[0\] and tools\[2\] are both called 'f'"):
        make(tools=[Tool("f"), Tool("g"), Tool("f")])


# --- options -------------------------------------------------------------------------------------


def test_nothing_is_set_that_was_not_given() -> None:
    assert make() == Request(messages=(user("hi"),))


def test_zero_is_a_value() -> None:
    request = make(temperature=0, seed=0, top_p=0.0)
    assert (request.temperature, request.seed, request.top_p) == (0.0, 0, 0.0)


def test_every_option_reaches_the_request() -> None:
    options: dict[str, object] = {
        "system": "s",
        "tools": [TOOL],
        "tool_choice": ToolChoice("any"),
        "parallel_tool_calls": False,
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop_sequences": ["END"],
        "seed": 1,
        "reasoning_effort": "low",
        "reasoning_budget_tokens": 1024,
        "logprobs": 3,
        "output": Output(schema={"type": "object"}),
        "output_mode": "tool",
        "tool_mode": "prompt",
        "cache_prompt": "1h",
        "prompt_cache_key": "k",
        "cached_content": "cachedContents/1",
        "metadata": {"a": "b"},
        "end_user_id": "u",
        "service_tier": "flex",
        "latency": "optimized",
        "prediction": "text",
        "keep_alive_s": -1.0,
        "context_tokens": 8192,
        "routing": "fastest",
        "unsupported": "error",
        "stream": False,
        "raw_events": True,
        "timeouts": Timeouts(idle_s=None),
        "extra_body": {"user": "u"},
        "extra_headers": {"x-a": "b"},
    }
    assert set(options) == set(RequestOptions.__annotations__)
    request = make(**options)
    for name, value in options.items():
        expected = tuple(value) if isinstance(value, list) else value
        assert getattr(request, name) == expected


@pytest.mark.parametrize("name", ["tools", "stop_sequences", "tool_choice", "max_tokens"])
def test_none_is_not_given(name: str) -> None:
    assert make(**{name: None}) == make()


def test_one_stop_sequence_is_not_taken_apart() -> None:
    assert make(stop_sequences="END").stop_sequences == ("END",)


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("auto", ToolChoice("auto")),
        ("any", ToolChoice("any")),
        ("none", ToolChoice("none")),
        ("get_weather", ToolChoice("tool", "get_weather")),
        (ToolChoice("tool", "get_weather"), ToolChoice("tool", "get_weather")),
        (None, None),
    ],
)
def test_a_tool_choice_is_a_mode_or_a_tool_s_name(given: object, choice: ToolChoice | None) -> None:
    assert make(tools=[TOOL], tool_choice=given).tool_choice == choice


@pytest.mark.parametrize("given", ["required", "", ToolChoice("tool", "other"), ToolChoice("tool")])
def test_a_tool_choice_that_names_none_of_the_tools_is_refused(given: object) -> None:
    with pytest.raises(RequestError, match=r"tool_choice names .*auto, any, none.*get_weather"):
        make(tools=[TOOL], tool_choice=given)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": -1}, ">= 0 .*max_tokens"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": math.inf}, "top_p is inf"),
        ({"tool_choice": "f"}, "tool_choice names 'f': .* there are no tools"),
        ({"temperature": "hot"}, "temperature"),
        ({"system": 5}, "system"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"timeouts": 5}, "timeouts"),
        ({"stream": "yes"}, "stream"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"stop_sequences": 1}, "stop_sequences is an int"),
        ({"tool_choice": 3}, "tool_choice"),
        ({"extra_headers": {"x-a": 1}}, "extra_headers"),
        ({"extra_body": "x"}, "extra_body"),
        ({"tools": 5}, "tools is an int"),
        ({"tools": [{"name": "f"}]}, r"tools\[0\] is a dict: give a loomstream.Tool"),
        ({"tools": [TOOL, print]}, r"tools\[1\] is a builtin_function_or_method"),
        ({"tools": TOOL}, "tools is a Tool"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_name(options: dict[str, object], what: str) -> None:
    with pytest.raises(RequestError, match=what):
        make(**options)


@pytest.mark.parametrize("name", Timeouts.__struct_fields__)
@pytest.mark.parametrize("limit_s", [0, -1.0, math.nan, "5"])
def test_a_time_limit_is_above_zero_or_none(name: str, limit_s: object) -> None:
    with pytest.raises(RequestError, match=rf"Timeouts\({name}=.*seconds above 0, or None"):
        Timeouts(**{name: limit_s})  # type: ignore[arg-type]
    assert getattr(Timeouts(**{name: None}), name) is None
    assert getattr(Timeouts(**{name: 0.5}), name) == 0.5


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown option 'max_token': did you mean max_tokens"):
        check_options({"max_token": 5})


def test_an_option_like_no_other_lists_them_all() -> None:
    with pytest.raises(UsageError, match=r"unknown option 'zzz': known are cache_prompt, .*top_p"):
        make(zzz=1)


def test_errors_do_not_chain_to_a_library_s_own() -> None:
    with pytest.raises(RequestError) as raised:
        make(max_tokens="5")
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


# --- the response --------------------------------------------------------------------------------


def test_a_response_s_views_are_its_blocks() -> None:
    call = ToolCall("id", "f")
    message = Message(
        "assistant", (Reasoning("think"), Text("a", (Citation(1),)), Refusal("no"), call, Text("b"), Reasoning("more"))
    )
    response = Response(message=message, choices=(Choice(0, message),), stop=Stop("end_turn"))
    assert response.text == "ab"
    assert response.reasoning == "thinkmore"
    assert response.refusal == "no"
    assert response.tool_calls == (call,)
    assert response.complete


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    assert Tool("f").parameters == {"type": "object", "properties": {}}
    assert Tool("f").parameters is not Tool("g").parameters
