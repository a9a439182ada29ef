"""The options and blocks of a request as bedrock_converse sends them: a golden for each, checked by botocore too."""

# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from loomstream.dialects import Quirks, Target
from loomstream.dialects import bedrock_converse as dialect
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
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    assistant,
    system,
    user,
)

MODEL = get_session().get_service_model("bedrock-runtime")
TARGET = Target(provider="bedrock", model="asked-model", base_url="https://bedrock-runtime.us-west-2.amazonaws.com")
FIVE, HOUR = {"cachePoint": {"type": "default"}}, {"cachePoint": {"type": "default", "ttl": "1h"}}
PDF, PNG = b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"
CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
CLOSED = {**CITY, "additionalProperties": False}
HI = {"role": "user", "content": [{"text": "Hi"}]}


def with_quirks(**flags: Any) -> Target:
    return msgspec.structs.replace(TARGET, quirks=Quirks(**flags))


def built(request: Request, target: Target = TARGET) -> tuple[Any, tuple[str, ...]]:
    """Give the body and the warnings, after botocore has found nothing wrong with the body."""
    wire_request = dialect.build_request(request, target)
    body = json.loads(wire_request.body)
    operation = MODEL.operation_model("ConverseStream" if request.stream else "Converse")
    report = ParamValidator().validate({**body, "modelId": target.model}, operation.input_shape)
    assert not report.has_errors(), report.generate_report()
    return body, wire_request.warnings


def asked(*messages: Message, **fields: Any) -> Request:
    return Request(messages=messages or (user("Hi"),), **fields)


def turn(role: str, *content: Any) -> Any:
    return {"role": role, "content": list(content)}


def tool(name: str) -> Any:
    return {"toolSpec": {"name": name, "inputSchema": {"json": Tool(name).parameters}}}


# --- options ---------------------------------------------------------------------------------------------------------

GUARDRAIL = {"guardrailIdentifier": "abc123", "guardrailVersion": "1"}
OPTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "latency": ({"latency": "optimized"}, {"performanceConfig": {"latency": "optimized"}}),
    "service-tier": ({"service_tier": "flex"}, {"serviceTier": {"type": "flex"}}),
    "metadata": ({"metadata": {"team": "a b", "cost:1": ""}}, {"requestMetadata": {"team": "a b", "cost:1": ""}}),
    "guardrail": ({"extra_body": {"guardrailConfig": GUARDRAIL}}, {"guardrailConfig": GUARDRAIL}),
    "additional": (
        {"extra_body": {"additionalModelRequestFields": {"x": 1}}},
        {"additionalModelRequestFields": {"x": 1}},
    ),
}


@pytest.mark.parametrize(("fields", "expected"), OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("stream", [True, False])
def test_an_option(fields: dict[str, Any], expected: Any, stream: bool) -> None:  # noqa: FBT001 (a table's column)
    assert built(asked(**fields, stream=stream)) == ({"messages": [HI], **expected}, ())


def test_an_output_goes_as_the_text_of_its_schema() -> None:
    body, warnings = built(asked(output=Output(schema=CITY, name="city", description="A city")))
    definition = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert json.loads(definition.pop("schema")) == CLOSED
    assert definition == {"name": "city", "description": "A city"}
    assert body["outputConfig"]["textFormat"]["type"] == "json_schema"
    assert warnings == ()


def test_what_a_schema_loses_is_told() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "maxItems": 3}
    _, warnings = built(asked(output=Output(schema=schema)))
    assert warnings == ("this wire does not hold the answer to output.schema.maxItems",)


def test_a_schema_that_is_no_json_is_refused() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [object()]}}}
    with pytest.raises(RequestError, match="cannot be written as JSON"):
        built(asked(output=Output(schema=schema)))


@pytest.mark.parametrize(
    "fields",
    [
        {"end_user_id": "u"},
        {"logprobs": 1},
        {"prediction": "x"},
        {"prompt_cache_key": "k"},
        {"cached_content": "c"},
        {"keep_alive_s": 1.0},
        {"context_tokens": 9},
        {"routing": "fastest"},
        {"seed": 1},
        {"parallel_tool_calls": False},
    ],
)
def test_what_the_wire_has_no_place_for_is_told(fields: dict[str, Any]) -> None:
    [name] = fields
    assert built(asked(**fields)) == ({"messages": [HI]}, (f"{name} is not sent: this wire has none",))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"team!": "x"}, r"metadata\['team!'\]"),
        ({"": "x"}, r"metadata\[''\]"),
        ({"team": "é"}, r"metadata\['team'\]"),
        ({"team": "x" * 257}, r"metadata\['team'\]"),
        ({str(number): "x" for number in range(17)}, "metadata has 17 entries: Bedrock takes 16"),
    ],
)
def test_labels_that_cannot_be_kept_are_refused(metadata: dict[str, str], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        built(asked(metadata=metadata))


def test_what_a_model_refuses_is_left_out() -> None:
    target = with_quirks(refused=("temperature", "top_k", "stop_sequences"), top_k_field="top_k")
    body, warnings = built(asked(temperature=0.0, top_p=0.5, top_k=3), target)
    assert body == {"messages": [HI], "inferenceConfig": {"topP": 0.5}}
    assert warnings == (
        "temperature is not sent: this model does not take it",
        "top_k is not sent: this model does not take it",
    )


@pytest.mark.parametrize("choice", [ToolChoice("any"), ToolChoice("tool", "f")])
def test_a_model_that_cannot_be_made_to_call_a_tool(choice: ToolChoice) -> None:
    request = asked(tools=(Tool("f"),), tool_choice=choice)
    body, warnings = built(request, with_quirks(forced_tools=False))
    assert body["toolConfig"]["toolChoice"] == {"auto": {}}
    assert warnings == (f"tool_choice {choice.mode} is sent as auto: this model cannot be made to call a tool",)


@pytest.mark.parametrize(
    ("flags", "fields", "sent", "told"),
    [
        ({"thinking_off": ""}, {"reasoning_effort": "none"}, None, "reasoning is not set as asked"),
        (
            {"thinking_off": "between_tools"},
            {"reasoning_effort": "none"},
            {"thinking": {"type": "between_tools"}},
            "thinks between calls of tools",
        ),
        (
            {"thinking_budgets": False},
            {"reasoning_budget_tokens": 5000},
            {"thinking": {"type": "adaptive"}},
            "reasoning_budget_tokens is not sent",
        ),
        (
            {"thinking_budgets": False},
            {"reasoning_budget_tokens": 5000, "reasoning_effort": "high"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            "reasoning_budget_tokens is not sent",
        ),
        ({"thinking_budgets": False}, {"reasoning_budget_tokens": 0}, {"thinking": {"type": "disabled"}}, ""),
    ],
)
def test_what_thinking_a_model_takes(flags: Any, fields: Any, sent: Any, told: str) -> None:
    body, warnings = built(asked(**fields), with_quirks(reasoning_field="thinking", **flags))
    assert body.get("additionalModelRequestFields") == sent
    assert (told in warnings[0]) if told else warnings == ()


# --- blocks ----------------------------------------------------------------------------------------------------------


def document(form: str, data: bytes, name: str, **fields: Any) -> Any:
    return {"document": {"format": form, "source": {"bytes": base64.b64encode(data).decode()}, "name": name, **fields}}


BLOCKS: dict[str, tuple[Any, Any]] = {
    "pdf": (Document(PDF), document("pdf", PDF, "document-1")),
    "cited": (
        Document(PDF, name="Annual  report\t(2026).pdf", citations=True),
        document("pdf", PDF, "Annual report (2026) pdf", citations={"enabled": True}),
    ),
    "long-name": (Document(PDF, name="a" * 300), document("pdf", PDF, "a" * 200)),
    "foreign-name": (Document(PDF, name="報告"), document("pdf", PDF, "document-1")),
    "text": (Document(b"a", "text/plain; charset=utf-8"), document("txt", b"a", "document-1")),
    "another-text": (Document(b"a", "text/x-python"), document("txt", b"a", "document-1")),
    "json": (Document(b"{}", "application/json"), document("txt", b"{}", "document-1")),
    "markdown": (Document(b"a", "text/markdown"), document("md", b"a", "document-1")),
    "s3": (
        Document(url="s3://bucket/a.pdf"),
        {"document": {"format": "pdf", "source": {"s3Location": {"uri": "s3://bucket/a.pdf"}}, "name": "document-1"}},
    ),
    "audio": (Audio(b"RIFF____WAVE"), {"audio": {"format": "wav", "source": {"bytes": "UklGRl9fX19XQVZF"}}}),
    "audio-s3": (
        Audio(media_type="audio/mpeg", url="s3://bucket/a.mp3"),
        {"audio": {"format": "mp3", "source": {"s3Location": {"uri": "s3://bucket/a.mp3"}}}},
    ),
}


@pytest.mark.parametrize(("content", "expected"), BLOCKS.values(), ids=BLOCKS)
def test_a_block_of_a_user(content: Any, expected: Any) -> None:
    body, warnings = built(asked(Message("user", (Text("see"), content))))
    assert body["messages"] == [turn("user", {"text": "see"}, expected)]
    assert warnings == ()


def test_a_tool_answers_with_a_document() -> None:
    call = ToolCall("t", "f")
    result = ToolResult("t", (Text("see"), Document(PDF, name="a")))  # type: ignore[arg-type]
    request = asked(user("Hi"), Message("assistant", (call,)), Message("tool", (result,)), tools=(Tool("f"),))
    body, _ = built(request)
    content = [{"text": "see"}, document("pdf", PDF, "a")]
    assert body["messages"][2] == turn("user", {"toolResult": {"toolUseId": "t", "content": content}})


def test_documents_have_a_name_each() -> None:
    named = [Document(PDF, name=name) for name in ("a", "a", "a.", "", "a (2)", "b" * 200, "b" * 200)]
    body, _ = built(asked(Message("user", (*named, Image(PDF, "application/pdf")))))
    names = [part["document"]["name"] for part in body["messages"][0]["content"]]
    expected = ["a", "a (2)", "a (3)", "document-4", "a (2) (2)", "b" * 200, "b" * 196 + " (2)", "document-8"]
    assert names == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Document(b"x", "application/zip"), "Converse takes no 'application/zip' here: give one of application/pdf"),
        (Document(url="https://e.x/a.pdf"), "not 'https://e.x/a.pdf': give the document's bytes"),
        (Document(b"x", "image/png"), "no 'image/png' here"),
        (Image(url="https://e.x/a.png"), "give the image's bytes"),
        (Image(b"x", "audio/wav"), "no 'audio/wav' here: give one of image/png"),
        (Audio(b"x", "audio/midi"), "no 'audio/midi' here: give one of audio/mpeg"),
        (Audio(b"x", "text/plain"), "no 'text/plain' here"),
        (Audio(url="https://e.x/a.wav"), "give the audio's bytes"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_place(content: Any, words: str) -> None:
    with pytest.raises(Unsupported, match=rf"messages\[1\]\.content\[0\]: .*{words}"):
        built(asked(user("a"), Message("user", (content,))))
    with pytest.raises(Unsupported, match=rf"messages\[0\]\.content\[0\]\.content\[1\]: .*{words}"):
        built(asked(Message("tool", (ToolResult("t", (Text("a"), content)),))))


def test_citations_give_way_to_an_output() -> None:
    body, warnings = built(asked(Message("user", (Document(PDF, citations=True),)), output=Output(schema=CITY)))
    assert body["messages"] == [turn("user", document("pdf", PDF, "document-1"))]
    assert len(warnings) == 1
    assert "citations of documents" in warnings[0]


def test_what_is_left_out_is_told() -> None:
    body, warnings = built(
        asked(
            Message("system", (Text("s"), Image(PNG), Text("t"))),
            user("a"),
            Message("assistant", (Document(PDF), Audio(b"x"), Text("b"))),
        )
    )
    assert body["system"] == [{"text": "s"}, {"text": "t"}]
    assert body["messages"] == [turn("user", {"text": "a"}), turn("assistant", {"text": "b"})]
    assert warnings == (
        "messages[0].content[1]: the Image in a system turn, which is text alone, is not sent",
        "documents in assistant turns are not sent",
        "sounds in assistant turns are not sent",
    )


def test_the_answer_goes_on_from_text_without_space_at_its_end() -> None:
    body, warnings = built(asked(user("a "), assistant("{ \n")))
    assert body["messages"] == [turn("user", {"text": "a "}), turn("assistant", {"text": "{"})]
    assert warnings == ("white space at the end of the last assistant turn is not sent",)


# --- cache points ----------------------------------------------------------------------------------------------------

SIGNED = Reasoning("hm", (Opaque("bedrock", "signature", "S=="),))
THINKING = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "S=="}}}


def test_cache_points_in_messages_system_and_tool_turns() -> None:
    request = asked(
        Message("system", (Text("One."), CachePoint("1h"), Text("Two."))),
        Message("user", (Text("a"), CachePoint("1h"), Text("b"))),
        Message("assistant", (SIGNED, ToolCall("t", "f"))),
        Message("tool", (ToolResult("t", (Text("r"),)), CachePoint("5m"))),
        tools=(Tool("f"),),
    )
    body, warnings = built(request)
    assert body == {
        "system": [{"text": "One."}, HOUR, {"text": "Two."}],
        "messages": [
            turn("user", {"text": "a"}, HOUR, {"text": "b"}),
            turn("assistant", THINKING, {"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}),
            turn("user", {"toolResult": {"toolUseId": "t", "content": [{"text": "r"}]}}, FIVE),
        ],
        "toolConfig": {"tools": [tool("f")]},
    }
    assert warnings == ()


def test_a_cache_point_behind_reasoning_moves_before_it() -> None:
    body, warnings = built(asked(user("a"), Message("assistant", (Text("b"), SIGNED, CachePoint())), user("c")))
    assert body["messages"][1]["content"] == [{"text": "b"}, FIVE, THINKING]
    assert warnings == ("a cache point behind reasoning is sent before it: reasoning cannot carry one",)


def test_blank_text_in_a_system_turn_is_no_piece_of_it() -> None:
    body, warnings = built(
        asked(Message("system", (Text(" "), CachePoint(), Text("s"), CachePoint(), Text("\n"))), user("a"))
    )
    assert body["system"] == [{"text": "s"}, FIVE]
    assert warnings == ("a cache point is not sent: nothing that can be cached stands before it",)


def test_automatic_cache_points() -> None:
    request = asked(
        *(user("a"), assistant("b"), user("c"), user("d"), assistant("e"), user("f")),
        system="s",
        tools=(Tool("f"), Tool("g")),
        cache_prompt="1h",
    )
    body, warnings = built(request)
    assert body == {
        "system": [{"text": "s"}, HOUR],
        "messages": [
            turn("user", {"text": "a"}),
            turn("assistant", {"text": "b"}),
            turn("user", {"text": "c"}, {"text": "d"}, HOUR),
            turn("assistant", {"text": "e"}),
            turn("user", {"text": "f"}, HOUR),
        ],
        "toolConfig": {"tools": [tool("f"), tool("g"), HOUR]},
    }
    assert warnings == ()


def test_at_most_four_cache_points_and_an_hour_first() -> None:
    marks = [CachePoint(), CachePoint("1h"), CachePoint("1h"), CachePoint(), CachePoint("1h")]
    turns = [Message("user", (Text(str(number)), mark)) for number, mark in enumerate(marks)]
    body, warnings = built(asked(*turns))
    texts = ["0", "1", HOUR, "2", HOUR, "3", FIVE, "4", FIVE]
    assert body["messages"] == [turn("user", *(part if isinstance(part, dict) else {"text": part} for part in texts))]
    assert warnings == (
        "1 of 5 cache points are not sent: a request takes 4",
        "a cache point of 1h behind one of 5m is sent as one of 5m: longer ones must stand first",
    )


def test_a_model_with_less_of_a_cache() -> None:
    target = with_quirks(cache_points_in=("system", "messages"), longest_cache_ttl="5m")
    body, warnings = built(asked(user("a"), system="s", tools=(Tool("f"),), cache_prompt="1h"), target)
    assert body == {
        "system": [{"text": "s"}, FIVE],
        "messages": [turn("user", {"text": "a"}, FIVE)],
        "toolConfig": {"tools": [tool("f")]},
    }
    assert warnings == ("cache_prompt 1h is sent as 5m: this model knows no longer one",)


def test_a_model_without_a_cache() -> None:
    request = asked(system("s"), Message("user", (Text("a"), CachePoint())), tools=(Tool("f"),), cache_prompt="5m")
    body, warnings = built(request, with_quirks(cache_points_in=()))
    assert "cachePoint" not in json.dumps(body)
    assert warnings == (
        "a cache point is not sent: nothing that can be cached stands before it",
        "cache_prompt is not sent: this model has no cache for what the request holds",
    )
