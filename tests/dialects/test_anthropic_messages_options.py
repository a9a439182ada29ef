"""The options and blocks of a request as anthropic_messages sends them: a golden for each."""

# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from loomstream.dialects import Quirks, Target
from loomstream.dialects import anthropic_messages as dialect
from loomstream.errors import RequestError, Unsupported
from loomstream.events import Opaque
from loomstream.messages import (
    Audio,
    CachePoint,
    Document,
    Image,
    Message,
    Output,
    Reasoning,
    Request,
    ServerToolCallBlock,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    assistant,
    system,
    user,
)

TARGET = Target(provider="anthropic", model="m", base_url="https://api.anthropic.com")
FIVE, HOUR = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
PDF, PNG = b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"
CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
CLOSED = {**CITY, "additionalProperties": False}


def with_quirks(**flags: Any) -> Target:
    return msgspec.structs.replace(TARGET, quirks=Quirks(**flags))


def built(request: Request, target: Target = TARGET) -> tuple[Any, tuple[str, ...]]:
    wire_request = dialect.build_request(request, target)
    return json.loads(wire_request.body), wire_request.warnings


def asked(*messages: Message, **fields: Any) -> Request:
    return Request(messages=messages or (user("Hi"),), **fields)


def block(text: str, cache: Any = None) -> Any:
    return {"type": "text", "text": text, **({"cache_control": cache} if cache else {})}


def turn(role: str, *content: Any) -> Any:
    return {"role": role, "content": list(content)}


# --- options ---------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "end-user": ({"end_user_id": "u-1"}, {"metadata": {"user_id": "u-1"}}),
    "service-tier": ({"service_tier": "standard_only"}, {"service_tier": "standard_only"}),
    "output": (
        {"output": Output(schema=CITY, name="city", description="A city")},
        {"output_config": {"format": {"type": "json_schema", "schema": {"description": "A city", **CLOSED}}}},
    ),
    "output-and-effort": (
        {"output": Output(schema=CITY), "reasoning_effort": "low"},
        {
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": CLOSED}},
        },
    ),
    "parallel": (
        {"tools": (Tool("f"),), "parallel_tool_calls": False},
        {
            "tools": [{"name": "f", "input_schema": Tool("f").parameters}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        },
    ),
    "schemas-of-tools-are-whole": (
        {"tools": (Tool("f", parameters={"anyOf": [{"minimum": 1, "format": "x"}], "additionalProperties": True}),)},
        {
            "tools": [
                {
                    "name": "f",
                    "input_schema": {"anyOf": [{"minimum": 1, "format": "x"}], "additionalProperties": True},
                }
            ]
        },
    ),
}


@pytest.mark.parametrize(("fields", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_an_option(fields: dict[str, Any], expected: Any) -> None:
    plain, _ = built(asked())
    assert built(asked(**fields)) == ({**plain, **expected}, ())


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"a": "b"}},
        {"logprobs": 1},
        {"latency": "optimized"},
        {"prediction": "x"},
        {"prompt_cache_key": "k"},
        {"cached_content": "c"},
        {"keep_alive_s": 1.0},
        {"context_tokens": 9},
        {"routing": "fastest"},
        {"seed": 1},
    ],
)
def test_what_the_wire_has_no_place_for_is_told(fields: dict[str, Any]) -> None:
    [name] = fields
    assert built(asked(**fields)) == (built(asked())[0], (f"{name} is not sent: this wire has none",))


def test_what_a_schema_loses_is_told() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    body, warnings = built(asked(output=Output(schema=schema)))
    assert body["output_config"]["format"]["schema"]["properties"] == {"n": {"type": "integer"}}
    assert warnings == ("this wire does not hold the answer to output.schema.properties.n.minimum",)


def test_an_output_that_cannot_be_sent_is_refused_with_its_path() -> None:
    with pytest.raises(Unsupported, match=r"output\.schema: "):
        built(asked(output=Output(schema={"type": "object"})))


def test_what_a_model_refuses_is_left_out() -> None:
    target = with_quirks(refused=("temperature", "top_k", "stop_sequences"))
    body, warnings = built(asked(temperature=0.0, top_p=0.5, top_k=3), target)
    assert (body.get("temperature"), body["top_p"], body.get("top_k")) == (None, 0.5, None)
    assert warnings == (
        "temperature is not sent: this model does not take it",
        "top_k is not sent: this model does not take it",
    )


@pytest.mark.parametrize("choice", [ToolChoice("any"), ToolChoice("tool", "f")])
def test_a_model_that_cannot_be_made_to_call_a_tool(choice: ToolChoice) -> None:
    request = asked(tools=(Tool("f"),), tool_choice=choice)
    body, warnings = built(request, with_quirks(forced_tools=False))
    assert body["tool_choice"] == {"type": "auto"}
    assert warnings == (f"tool_choice {choice.mode} is sent as auto: this model cannot be made to call a tool",)


@pytest.mark.parametrize(
    ("flags", "fields", "thinking", "told"),
    [
        ({"thinking_off": ""}, {"reasoning_effort": "none"}, None, "this model always thinks"),
        ({"thinking_off": ""}, {"reasoning_budget_tokens": 0}, None, "this model always thinks"),
        (
            {"thinking_off": "between_tools"},
            {"reasoning_effort": "none"},
            {"type": "between_tools"},
            "thinks between calls of tools",
        ),
        (
            {"thinking_budgets": False},
            {"reasoning_budget_tokens": 5000, "reasoning_effort": "high"},
            {"type": "adaptive"},
            "reasoning_budget_tokens is not sent",
        ),
        ({"thinking_budgets": False}, {"reasoning_budget_tokens": 0}, {"type": "disabled"}, ""),
    ],
)
def test_what_thinking_a_model_takes(flags: Any, fields: Any, thinking: Any, told: str) -> None:
    body, warnings = built(asked(**fields), with_quirks(**flags, needs_max_tokens=100))
    assert body.get("thinking") == thinking
    assert body["max_tokens"] == 100
    assert (told in warnings[0]) if told else warnings == ()


# --- blocks ----------------------------------------------------------------------------------------------------------

PDF_SOURCE = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjc="}
BLOCKS: dict[str, tuple[Any, Any]] = {
    "pdf": (Document(PDF), {"type": "document", "source": PDF_SOURCE}),
    "pdf-by-address": (
        Document(url="https://e.x/a.pdf", name="a.pdf", citations=True),
        {
            "type": "document",
            "source": {"type": "url", "url": "https://e.x/a.pdf"},
            "title": "a.pdf",
            "citations": {"enabled": True},
        },
    ),
    "text": (
        Document("é".encode(), "text/markdown; charset=utf-8", name="n"),
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}, "title": "n"},
    ),
    "json": (
        Document(b"{}", "application/json"),
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "{}"}},
    ),
    "image": (
        Image(PNG, "image/PNG"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
    ),
    "jpg": (
        Image(b"x", "image/jpg"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "eA=="}},
    ),
}


@pytest.mark.parametrize(("content", "expected"), BLOCKS.values(), ids=BLOCKS)
def test_a_block_of_a_user_and_of_a_tool(content: Any, expected: Any) -> None:
    result = Message("tool", (ToolResult("t", (Text("see"), content)),))
    body, warnings = built(asked(Message("user", (content,)), result))
    assert body["messages"] == [
        turn("user", expected, {"type": "tool_result", "tool_use_id": "t", "content": [block("see"), expected]})
    ]
    assert warnings == ()


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (Document(b"x", "application/zip"), Unsupported, "no document of type 'application/zip': give a PDF"),
        (Document(b"\xff\xfe", "text/plain"), RequestError, r"no UTF-8 \(byte 0\)"),
        (Document(url="https://e.x/a.txt", media_type="text/plain"), Unsupported, "fetches PDFs alone"),
        (Document(url="s3://b/a.pdf"), Unsupported, "fetches https addresses alone, not 's3://b/a.pdf'"),
        (Image(b"II*\x00", "image/tiff"), Unsupported, "no image of type 'image/tiff': give one of image/jpeg"),
        (Image(url="gs://b/a.png"), Unsupported, "give the bytes"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_place(content: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=rf"messages\[1\]\.content\[0\]: .*{words}"):
        built(asked(user("a"), Message("user", (content,))))
    with pytest.raises(error, match=rf"messages\[0\]\.content\[0\]\.content\[1\]: .*{words}"):
        built(asked(Message("tool", (ToolResult("t", (Text("a"), content)),))))


@pytest.mark.parametrize("content", [Image(url="https://e.x/a.png"), Document(url="https://e.x/a.pdf")])
def test_a_host_that_fetches_nothing(content: Any) -> None:
    with pytest.raises(Unsupported, match=r"messages\[0\]\.content\[0\]: anthropic fetches nothing for this model"):
        built(asked(Message("user", (content,))), with_quirks(url_sources=False))


def test_citations_give_way_to_an_output() -> None:
    body, warnings = built(asked(Message("user", (Document(PDF, citations=True),)), output=Output(schema=CITY)))
    assert body["messages"] == [turn("user", {"type": "document", "source": PDF_SOURCE})]
    assert len(warnings) == 1
    assert "citations of documents" in warnings[0]


def test_what_is_left_out_is_told() -> None:
    body, warnings = built(
        asked(
            Message("user", (Audio(b"x"), Text("a"))),
            Message("assistant", (Document(PDF), Text("b"))),
            Message("system", (Text("s"), Image(PNG))),
        )
    )
    assert body["messages"] == [turn("user", block("a")), turn("assistant", block("b"))]
    assert warnings == (
        "messages[2].content[1]: the Image in a system turn, which is text alone, is not sent",
        "system messages within the conversation are sent at its beginning",
        "audio, which this wire has no place for, is not sent",
        "documents in assistant turns are not sent",
    )


def test_the_answer_goes_on_from_text_without_space_at_its_end() -> None:
    body, warnings = built(asked(user("a "), assistant("b "), user("c"), assistant("{ \n")))
    assert [message["content"][0]["text"] for message in body["messages"]] == ["a ", "b ", "c", "{"]
    assert warnings == ("white space at the end of the last assistant turn is not sent",)
    assert built(asked(user("a"), assistant("b")))[1] == ()


# --- cache points ----------------------------------------------------------------------------------------------------

SIGNED = Reasoning("hm", (Opaque("anthropic", "signature", "S=="),))
THINKING = {"type": "thinking", "thinking": "hm", "signature": "S=="}
SERVED = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1.50}}


def test_cache_points_in_messages_system_and_tool_turns() -> None:
    call, point = ToolCall("t", "f"), CachePoint("1h")
    request = asked(
        Message("system", (Text("One."), Text("Two."), point, Text("Three."))),
        system("Four."),
        Message("user", (Text("a"), Image(PNG), CachePoint("1h"), Text("b"))),
        Message("assistant", (SIGNED, call)),
        Message("tool", (ToolResult("t", (Text("r"),)), CachePoint())),
        system=" Zero.",
    )
    body, warnings = built(request)
    assert body["system"] == [block(" Zero.\n\nOne.Two.", HOUR), block("Three.\n\nFour.")]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [block("r")], "cache_control": FIVE}
    assert body["messages"] == [
        turn("user", block("a"), {**image, "cache_control": HOUR}, block("b")),
        turn("assistant", THINKING, {"type": "tool_use", "id": "t", "name": "f", "input": {}}),
        turn("user", result),
    ]
    assert warnings == ()


def test_a_cache_point_behind_what_cannot_carry_it_moves_before_it() -> None:
    body, warnings = built(asked(user("a"), Message("assistant", (Text("b"), SIGNED, CachePoint())), user("c")))
    assert body["messages"][1]["content"] == [block("b", FIVE), THINKING]
    assert warnings == ("a cache point behind reasoning is sent before it: reasoning cannot carry one",)


def test_a_cache_point_without_anything_before_it_falls_to_the_system_or_is_told() -> None:
    first = Message("user", (CachePoint(), Text("a")))
    body, warnings = built(asked(first))
    assert body["messages"] == [turn("user", block("a"))]
    assert warnings == ("a cache point is not sent: nothing that can be cached stands before it",)
    body, warnings = built(asked(first, tools=(Tool("f"),)))
    assert body["tools"] == [{"name": "f", "input_schema": Tool("f").parameters, "cache_control": FIVE}]
    assert warnings == ()


def test_a_servers_block_carries_a_cache_point() -> None:
    raw = msgspec.Raw(json.dumps(SERVED).encode())
    message = Message("assistant", (ServerToolCallBlock("s", "web_search", raw=raw), CachePoint()))
    wire_request = dialect.build_request(asked(user("a"), message), TARGET)
    assert json.loads(wire_request.body)["messages"][1]["content"] == [{**SERVED, "cache_control": FIVE}]
    assert b'"input":{"q":1.5}' in wire_request.body


def test_the_users_own_values_are_not_written_into() -> None:
    request = asked(user("a"), tools=(Tool("f"),), cache_prompt="1h", system="s")
    before = msgspec.json.encode(request.tools), dialect.build_request(request, TARGET).body
    assert before == (msgspec.json.encode(request.tools), dialect.build_request(request, TARGET).body)


def test_at_most_four_cache_points() -> None:
    turns = [Message("user", (Text(str(number)), CachePoint(), Text("x"))) for number in range(5)]
    body, warnings = built(asked(Message("system", (Text("s"), CachePoint())), *turns))
    assert body["system"] == [block("s", FIVE)]
    marked = [part["text"] for part in body["messages"][0]["content"] if "cache_control" in part]
    assert marked == ["2", "3", "4"]
    assert warnings == ("2 of 6 cache points are not sent: a request takes 4",)


def test_blank_text_in_a_system_turn_is_no_piece_of_it() -> None:
    body, warnings = built(
        asked(Message("system", (Text(" "), CachePoint(), Text("s"), CachePoint(), Text("\n"))), user("a"))
    )
    assert body["system"] == [block("s", FIVE)]
    assert warnings == ("a cache point is not sent: nothing that can be cached stands before it",)


def cached_at(body: Any) -> list[str]:
    """Give the places of the breakpoints, each with its time."""
    found: list[str] = []
    sections = [("tools", body.get("tools", [])), ("system", body.get("system", []))]
    sections += [(f"messages[{number}]", message["content"]) for number, message in enumerate(body["messages"])]
    for name, parts in sections:
        for number, part in enumerate(parts):
            if isinstance(part, dict) and "cache_control" in part:
                found.append(f"{name}[{number}] {part['cache_control'].get('ttl', '5m')}")
    return found


CALLED = ToolCall("t", "f")
CONVERSATION = (
    user("a"),
    assistant("b"),
    user("c"),
    Message("assistant", (CALLED,)),
    Message("tool", (ToolResult("t", (Text("r"),)),)),
    user("d"),
)
AUTOMATIC: dict[str, tuple[Request, list[str]]] = {
    "all": (
        asked(*CONVERSATION, system="s", tools=(Tool("f"), Tool("g")), cache_prompt="5m"),
        ["tools[1] 5m", "system[0] 5m", "messages[2][0] 5m", "messages[4][1] 5m"],
    ),
    "hour": (
        asked(*CONVERSATION, system="s", cache_prompt="1h"),
        ["system[0] 1h", "messages[2][0] 1h", "messages[4][1] 1h"],
    ),
    "first-turn": (asked(user("a"), cache_prompt="5m"), ["messages[0][0] 5m"]),
    "beside-own-points": (
        asked(
            Message("system", (Text("s"), CachePoint())),
            Message("user", (Text("a"), CachePoint(), Text("b"), CachePoint())),
            assistant("c"),
            user("d"),
            tools=(Tool("f"),),
            cache_prompt="5m",
        ),
        ["system[0] 5m", "messages[0][0] 5m", "messages[0][1] 5m", "messages[2][0] 5m"],
    ),
}


@pytest.mark.parametrize(("request_", "places"), AUTOMATIC.values(), ids=AUTOMATIC)
def test_automatic_cache_points(request_: Request, places: list[str]) -> None:
    body, warnings = built(request_)
    assert cached_at(body) == places
    assert warnings == ()


def test_an_automatic_cache_point_fits_in_with_the_users_own() -> None:
    request = asked(user("a"), Message("assistant", (Text("b"), CachePoint("1h"))), user("c"), cache_prompt="5m")
    body, warnings = built(request)
    assert cached_at(body) == ["messages[0][0] 1h", "messages[1][0] 1h", "messages[2][0] 5m"]
    assert warnings == ("cache_prompt 5m is sent as 1h where the request's own cache points leave no other",)


def test_without_any_cache_point_the_system_is_one_text() -> None:
    assert built(asked(system="s"))[0]["system"] == "s"
    assert built(asked(system="s", cache_prompt="5m"))[0]["system"] == [block("s", FIVE)]
