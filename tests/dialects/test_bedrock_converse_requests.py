"""What bedrock_converse sends; what it reads stands in test_bedrock_converse.py, its options in …_options.py."""

# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from loomstream import decode
from loomstream.accumulate import fold
from loomstream.dialects import Quirks, Target, bedrock_invoke
from loomstream.dialects import bedrock_converse as dialect
from loomstream.errors import RequestError, Unsupported
from loomstream.events import Citation, Event, Opaque
from loomstream.messages import (
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    ServerToolCallBlock,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    assistant,
    system,
    tool_result,
    user,
)
from loomstream.providers import look_up, route

TARGET = Target(provider="bedrock", model="asked-model", base_url="https://bedrock-runtime.us-west-2.amazonaws.com")
SIGNATURE = "EqQBCgIYAhIkMWEw+/ab=="
PIXEL = b"\x89PNG\r\n\x1a\n"
STREAMS = Path(__file__).parents[1] / "streams" / "bedrock_converse"


def decoded(name: str) -> list[Event]:
    return list(decode("bedrock", (STREAMS / f"{name}.bin").read_bytes()))


MODEL = get_session().get_service_model("bedrock-runtime")
TOOL = Tool("f", "Does it", {"type": "object", "properties": {"a": {"type": "number"}}})


def built(request: Request, target: Target = TARGET) -> Any:
    """Give the body of the wire request, after botocore has found nothing wrong with it."""
    body = json.loads(dialect.build_request(request, target).body)
    operation = MODEL.operation_model("ConverseStream" if request.stream else "Converse")
    report = ParamValidator().validate({**body, "modelId": target.model}, operation.input_shape)
    assert not report.has_errors(), report.generate_report()
    return body


def asked(*messages: Message, **fields: Any) -> Request:
    return Request(messages=messages or (user("Hi"),), **fields)


def with_quirks(**flags: Any) -> Target:
    return Target(provider="bedrock", model="asked-model", base_url=TARGET.base_url, quirks=Quirks(**flags))


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def reasoning(text: str, *opaque: Opaque) -> Message:
    return Message("assistant", (Reasoning(text, opaque),))


HI = {"role": "user", "content": [{"text": "Hi"}]}
CITED = {"title": "T", "location": {"web": {"url": "u", "domain": "d"}}}
SERVER = {"toolUse": {"toolUseId": "t", "name": "nova_grounding", "type": "server_tool_use", "input": {}}}

BODIES: dict[str, tuple[Request, Any]] = {
    "plain": (asked(), {"messages": [HI]}),
    "system": (
        asked(system("B"), user("Hi"), system=" A"),
        {"messages": [HI], "system": [{"text": " A"}, {"text": "B"}]},
    ),
    "system-blank": (asked(system=" \n"), {"messages": [HI]}),
    "settings": (
        asked(max_tokens=9, temperature=0.0, top_p=0.5, stop_sequences=("END",)),
        {
            "messages": [HI],
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.0, "topP": 0.5, "stopSequences": ["END"]},
        },
    ),
    "turns-are-joined": (
        asked(user("a"), user("b"), assistant("c"), assistant("d"), user(" "), user("e")),
        {
            "messages": [
                {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
                {"role": "assistant", "content": [{"text": "c"}, {"text": "d"}]},
                {"role": "user", "content": [{"text": "e"}]},
            ]
        },
    ),
    "refusal": (
        asked(user("Hi"), Message("assistant", (Refusal("No."),))),
        {"messages": [HI, {"role": "assistant", "content": [{"text": "No."}]}]},
    ),
    "extra": (
        asked(
            max_tokens=5,
            extra_body={
                "guardrailConfig": {"guardrailIdentifier": "abc123", "guardrailVersion": "1", "trace": "enabled"},
                "inferenceConfig": {"temperature": 0.5},
                "system": [{"text": "S"}, {"cachePoint": {"type": "default"}}],
                "requestMetadata": {"team": "x"},
                "performanceConfig": {"latency": "optimized"},
            },
        ),
        {
            "messages": [HI],
            "inferenceConfig": {"maxTokens": 5, "temperature": 0.5},
            "guardrailConfig": {"guardrailIdentifier": "abc123", "guardrailVersion": "1", "trace": "enabled"},
            "system": [{"text": "S"}, {"cachePoint": {"type": "default"}}],
            "requestMetadata": {"team": "x"},
            "performanceConfig": {"latency": "optimized"},
        },
    ),
    "image": (
        asked(Message("user", (Text("What?"), Image(PIXEL), Image(b"x", "image/JPG; q=1")))),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"text": "What?"},
                        {"image": {"format": "png", "source": {"bytes": base64.b64encode(PIXEL).decode()}}},
                        {"image": {"format": "jpeg", "source": {"bytes": "eA=="}}},
                    ],
                }
            ]
        },
    ),
    "image-by-address": (
        asked(Message("user", (Image(url="s3://bucket/x.png"), Image(media_type="video/mp4", url="s3://b/y")))),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/x.png"}}}},
                        {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://b/y"}}}},
                    ],
                }
            ]
        },
    ),
    "documents": (
        asked(Message("user", (Image(b"x", "application/pdf"), Image(b"y", "text/csv")))),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"document": {"format": "pdf", "source": {"bytes": "eA=="}, "name": "document-1"}},
                        {"document": {"format": "csv", "source": {"bytes": "eQ=="}, "name": "document-2"}},
                    ],
                }
            ]
        },
    ),
    "tool-turns": (
        asked(
            user("Hi"),
            Message("assistant", (ToolCall("call:1/x", "f", '{"a":1.0}'), ToolCall("2" * 70, "f", "cut {"))),
            Message(
                "tool",
                (
                    ToolResult("call:1/x", (Text("one"), Text(""), Image(b"x"))),
                    ToolResult("2" * 70, (Text("no"),), is_error=True),
                ),
            ),
            tool_result(ToolCall("t3", "f"), ""),
        ),
        {
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "content": [
                        {"toolUse": {"toolUseId": "call:1_x", "name": "f", "input": {"a": 1.0}}},
                        {"toolUse": {"toolUseId": "2" * 64, "name": "f", "input": {"INVALID_JSON": "cut {"}}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "toolResult": {
                                "toolUseId": "call:1_x",
                                "content": [
                                    {"text": "one"},
                                    {"image": {"format": "png", "source": {"bytes": "eA=="}}},
                                ],
                            }
                        },
                        {"toolResult": {"toolUseId": "2" * 64, "content": [{"text": "no"}], "status": "error"}},
                        {"toolResult": {"toolUseId": "t3", "content": []}},
                    ],
                },
            ],
            "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": Tool("f").parameters}}}]},
        },
    ),
    "reasoning-goes-back-to-its-issuer": (
        asked(
            user("Hi"),
            reasoning("hm", Opaque("bedrock", "signature", SIGNATURE)),
            reasoning("", Opaque("bedrock", "redacted", "QUJD"), Opaque("bedrock", "other", "x")),
            reasoning("theirs", Opaque("another", "signature", "x")),
            assistant("So."),
        ),
        {
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "content": [
                        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": SIGNATURE}}},
                        {"reasoningContent": {"redactedContent": "QUJD"}},
                        {"text": "So."},
                    ],
                },
            ]
        },
    ),
    "citations-go-back": (
        asked(
            user("Hi"),
            Message(
                "assistant",
                (
                    Text("Cited", (Citation(0, "web", raw=raw(CITED)), Citation(0, "char_location"))),
                    Text("Foreign", (Citation(0, "char_location"),)),
                ),
            ),
        ),
        {
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "content": [
                        {"citationsContent": {"content": [{"text": "Cited"}], "citations": [CITED]}},
                        {"text": "Foreign"},
                    ],
                },
            ]
        },
    ),
    "servers-blocks-go-back": (
        asked(user("Hi"), Message("assistant", (ServerToolCallBlock("t", "nova_grounding", raw=raw(SERVER)),))),
        {"messages": [HI, {"role": "assistant", "content": [SERVER]}]},
    ),
    "tools": (
        asked(tools=(TOOL, Tool("g"))),
        {
            "messages": [HI],
            "toolConfig": {
                "tools": [
                    {"toolSpec": {"name": "f", "inputSchema": {"json": TOOL.parameters}, "description": "Does it"}},
                    {"toolSpec": {"name": "g", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
                ]
            },
        },
    ),
    **{
        f"choice-{mode}": (
            asked(tools=(Tool("g"),), tool_choice=ToolChoice(mode, "g" if mode == "tool" else "")),
            {
                "messages": [HI],
                "toolConfig": {
                    "tools": [{"toolSpec": {"name": "g", "inputSchema": {"json": Tool("g").parameters}}}],
                    "toolChoice": {mode: {"name": "g"} if mode == "tool" else {}},
                },
            },
        )
        for mode in ("auto", "any", "tool")
    },
    "choice-none": (asked(tools=(TOOL,), tool_choice=ToolChoice("none")), {"messages": [HI]}),
    "choice-none-without-tools": (asked(tool_choice=ToolChoice("none")), {"messages": [HI]}),
}


@pytest.mark.parametrize(("request_", "body"), BODIES.values(), ids=BODIES)
def test_the_body(request_: Request, body: Any) -> None:
    assert built(request_) == body


@pytest.mark.parametrize("name", ["plain", "system", "settings", "tools", "choice-none", "image", "documents", "extra"])
def test_nothing_is_warned_of_where_all_is_sent(name: str) -> None:
    assert dialect.build_request(BODIES[name][0], TARGET).warnings == ()


ADDRESSES = [
    ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1%3A0"),
    ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
    (
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12",
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fab12",
    ),
]


@pytest.mark.parametrize(("model", "written"), ADDRESSES)
def test_the_address(model: str, written: str) -> None:
    target = Target(provider="bedrock", model=model, base_url=TARGET.base_url)
    streamed, whole = dialect.build_request(asked(), target), dialect.build_request(asked(stream=False), target)
    assert streamed.url == f"{TARGET.base_url}/model/{written}/converse-stream"
    assert whole.url == f"{TARGET.base_url}/model/{written}/converse"
    assert streamed.method == whole.method == "POST"


def test_the_headers() -> None:
    request = asked(extra_headers={"x-amzn-bedrock-trace": "ENABLED"})
    assert dialect.build_request(request, TARGET).headers == {
        "content-type": "application/json",
        "accept": "application/vnd.amazon.eventstream, application/json",
        "x-amzn-bedrock-trace": "ENABLED",
    }
    assert dialect.build_request(asked(stream=False), TARGET).headers["accept"] == "application/json"


@pytest.mark.parametrize(
    ("flags", "fields", "sent", "warned"),
    [
        ({"top_k_field": "top_k"}, {"top_k": 5}, {"top_k": 5}, ""),
        ({"top_k_field": "inferenceConfig.topK"}, {"top_k": 5}, {"inferenceConfig": {"topK": 5}}, ""),
        ({}, {"top_k": 5}, None, "top_k"),
        (
            {"reasoning_field": "thinking", "top_k_field": "top_k"},
            {"reasoning_effort": "high", "top_k": 2},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "top_k": 2},
            "",
        ),
        (
            {"reasoning_field": "thinking"},
            {"reasoning_effort": "minimal"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            "'minimal' is sent as 'low'",
        ),
        ({"reasoning_field": "thinking"}, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, ""),
        (
            {"reasoning_field": "thinking"},
            {"reasoning_budget_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            "",
        ),
        (
            {"reasoning_field": "thinking_budget"},
            {"reasoning_effort": "low"},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            "",
        ),
        (
            {"reasoning_field": "thinking_budget"},
            {"reasoning_budget_tokens": 5},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            "raised to 1024",
        ),
        (
            {"reasoning_field": "thinking_budget"},
            {"reasoning_budget_tokens": 0},
            {"thinking": {"type": "disabled"}},
            "",
        ),
        (
            {"reasoning_field": "thinking_budget"},
            {"reasoning_budget_tokens": 9000, "max_tokens": 4000},
            {"thinking": {"type": "enabled", "budget_tokens": 3999}},
            "cut to 3999",
        ),
        ({"reasoning_field": "thinking_budget"}, {"reasoning_effort": "low", "max_tokens": 1024}, None, "reasoning"),
        (
            {"reasoning_field": "reasoningConfig"},
            {"reasoning_effort": "max"},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
            "'max' is sent as 'high'",
        ),
        (
            {"reasoning_field": "reasoningConfig"},
            {"reasoning_effort": "none"},
            {"reasoningConfig": {"type": "disabled"}},
            "",
        ),
        ({"reasoning_field": "reasoningConfig"}, {"reasoning_budget_tokens": 9}, None, "reasoning is not set"),
        ({"reasoning_field": "reasoning_effort"}, {"reasoning_effort": "medium"}, {"reasoning_effort": "medium"}, ""),
        ({"reasoning_field": "reasoning_effort"}, {"reasoning_effort": "none"}, None, "reasoning is not set"),
        ({}, {"reasoning_effort": "high"}, None, "reasoning is not set"),
        ({}, {"reasoning_effort": "none"}, None, "reasoning is not set"),
        (
            {"reasoning_field": "thinking_budget"},
            {"reasoning_effort": "low", "reasoning_budget_tokens": 3000},
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            "reasoning_effort is not sent: reasoning_budget_tokens is given too",
        ),
        (
            {"reasoning_field": "reasoning_effort"},
            {"reasoning_effort": "low", "reasoning_budget_tokens": 3000},
            {"reasoning_effort": "low"},
            "reasoning_budget_tokens is not sent",
        ),
    ],
)
def test_what_the_families_take(flags: dict[str, str], fields: Any, sent: Any, warned: str) -> None:
    request, target = asked(**fields), with_quirks(**flags)
    assert built(request, target).get("additionalModelRequestFields") == sent
    said = dialect.build_request(request, target).warnings
    assert (warned in " ".join(said)) if warned else said == ()


@pytest.mark.parametrize(
    ("model", "field", "top_k"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "thinking_budget", "top_k"),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", "thinking_budget", "top_k"),
        ("anthropic.claude-opus-4-1-20250805-v1:0", "thinking_budget", "top_k"),
        ("eu.anthropic.claude-sonnet-4-20250514-v1:0", "thinking_budget", "top_k"),
        ("us.anthropic.claude-opus-4-6-v1", "thinking", "top_k"),
        ("global.anthropic.claude-sonnet-5", "thinking", "top_k"),
        ("amazon.nova-lite-v1:0", "", "inferenceConfig.topK"),
        ("us.amazon.nova-2-lite-v1:0", "reasoningConfig", "inferenceConfig.topK"),
        ("openai.gpt-oss-120b-1:0", "reasoning_effort", ""),
        ("mistral.mistral-large-2407-v1:0", "", "top_k"),
        ("cohere.command-r-plus-v1:0", "", "k"),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12", "", ""),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-7-sonnet-20250219-v1:0",
            "thinking_budget",
            "top_k",
        ),
    ],
)
def test_the_row_knows_the_families(model: str, field: str, top_k: str) -> None:
    chosen = route(look_up("bedrock"), model)
    assert (chosen.dialect, chosen.quirks.reasoning_field, chosen.quirks.top_k_field) == (
        "bedrock_converse",
        field,
        top_k,
    )


WARNED: list[tuple[Request, str]] = [
    (asked(seed=1), "seed"),
    (asked(parallel_tool_calls=False), "parallel_tool_calls"),
    (asked(tool_choice=ToolChoice("any")), "no tools"),
    (
        asked(user("Hi"), Message("assistant", (ToolCall("t", "f"),)), tools=(TOOL,), tool_choice=ToolChoice("none")),
        "tool_choice none",
    ),
    (asked(user("a"), system("late"), user("b")), "at its beginning"),
    (asked(Message("assistant", (Image(PIXEL),))), "images in assistant turns"),
    (asked(reasoning("x")), "did not sign"),
    (asked(Message("assistant", (FileBlock("image/png", PIXEL),))), "files that a model made"),
    (asked(Message("assistant", (ServerToolCallBlock("t", "f"),))), "another provider's own tools"),
]


HISTORY = (user("Hi"), Message("assistant", (ToolCall("t", "f"),)), tool_result(ToolCall("t", "f"), "1"), user("so?"))


@pytest.mark.parametrize("choice", [None, ToolChoice("none")])
def test_tools_of_earlier_turns_are_declared_where_the_request_has_none(choice: ToolChoice | None) -> None:
    request_ = asked(*HISTORY, tool_choice=choice)
    assert built(request_)["toolConfig"] == {
        "tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": Tool("f").parameters}}}]
    }
    [told] = dialect.build_request(request_, TARGET).warnings
    assert "the tools of earlier turns are declared without their parameters (f)" in told


def test_a_tool_configuration_of_one_s_own_is_sent_as_it_is() -> None:
    request_ = asked(*HISTORY, extra_body={"toolConfig": {"tools": [{"systemTool": {"name": "s"}}]}})
    assert built(request_)["toolConfig"] == {"tools": [{"systemTool": {"name": "s"}}]}
    assert dialect.build_request(request_, TARGET).warnings == ()


@pytest.mark.parametrize(("request_", "words"), WARNED)
def test_what_is_not_sent_is_told(request_: Request, words: str) -> None:
    [told] = dialect.build_request(request_, TARGET).warnings
    assert words in told
    dialect.build_request(request_, TARGET)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (Image(url="https://example.org/a.png"), "give the image's bytes"),
        (Image(b"x", "image/tiff"), "image/tiff"),
    ],
)
def test_an_image_that_cannot_be_sent_is_refused(block: Image, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        dialect.build_request(asked(Message("user", (block,))), TARGET)


def test_a_body_that_is_no_json_is_refused() -> None:
    with pytest.raises(RequestError):
        dialect.build_request(asked(extra_body={"x": object()}), TARGET)


def test_a_signature_goes_back_through_either_of_bedrock_s_dialects() -> None:
    signed = reasoning("hm", Opaque("bedrock", "signature", SIGNATURE))
    for other in (dialect, bedrock_invoke):
        assert SIGNATURE.encode() in other.build_request(Request(messages=(signed,)), TARGET).body


def test_what_was_answered_can_be_sent_back() -> None:
    response = fold(decoded("server-tool"))
    body = built(asked(user("Hi"), response.message))
    said = body["messages"][1]["content"]
    assert [next(iter(block)) for block in said] == ["toolUse", "toolResult", "text"]
    assert said[1]["toolResult"]["content"] == [{"text": "[HIDDEN]"}, {"json": {"hits": 3.0}}]
    signed = fold(decoded("reasoning")).message
    assert built(asked(user("Hi"), signed))["messages"][1]["content"][0] == {
        "reasoningContent": {"reasoningText": {"text": "Let me see.", "signature": SIGNATURE}}
    }
