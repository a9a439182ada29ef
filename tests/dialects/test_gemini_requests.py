# ruff: noqa: ANN401 (these tests build and take apart JSON of any shape)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loomstream.accumulate import fold
from loomstream.dialects import Quirks, Target, anthropic_messages
from loomstream.dialects import gemini as dialect
from loomstream.dialects.gemini.request import PLACEHOLDER_SIGNATURE
from loomstream.errors import Failure, RequestError
from loomstream.events import Event, Opaque
from loomstream.messages import (
    ContentBlock,
    Document,
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    ServerToolCallBlock,
    ServerToolResultBlock,
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
from loomstream.wire import Frame, WireRequest

GOLDENS = Path(__file__).parents[1] / "streams" / "gemini"
BASE = "https://host.example/v1beta"
NEW = Target(provider="gemini", model="gemini-3-flash-preview", base_url=BASE)
OLD = Target(provider="gemini", model="gemini-2.5-flash", base_url=BASE, quirks=Quirks(thinking_by="budget"))
HI = [{"role": "user", "parts": [{"text": "hi"}]}]
TOOL = Tool(
    "f", "Does it.", {"type": "object", "properties": {"x": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}
)


def asking(**settings: Any) -> Request:
    return Request(messages=(user("hi"),), **settings)


def saying(*blocks: ContentBlock, role: Any = "assistant") -> Request:
    return Request(messages=(Message(role, blocks),))


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def body_of(request: Request, target: Target = NEW) -> Any:
    return json.loads(dialect.build_request(request, target).body)


def parts_of(request: Request, target: Target = NEW) -> Any:
    return [part for content in body_of(request, target)["contents"] for part in content["parts"]]


# --- address, headers, settings ----------------------------------------------------------------------------------


def test_the_address_and_the_headers() -> None:
    streamed = dialect.build_request(asking(extra_headers={"x-a": "1"}), NEW)
    assert streamed.url == f"{BASE}/models/gemini-3-flash-preview:streamGenerateContent?alt=sse"
    assert streamed.headers["content-type"] == "application/json"
    assert streamed.headers["x-a"] == "1"
    whole = dialect.build_request(asking(stream=False), NEW)
    assert whole.url == f"{BASE}/models/gemini-3-flash-preview:generateContent"
    assert json.loads(streamed.body) == json.loads(whole.body) == {"contents": HI}


@pytest.mark.parametrize(("model", "path"), [("models/gemma-3", "gemma-3"), ("a b/c", "a%20b%2Fc")])
def test_the_model_s_name_in_the_address(model: str, path: str) -> None:
    target = Target(provider="gemini", model=model, base_url=BASE)
    assert dialect.build_request(asking(stream=False), target).url == f"{BASE}/models/{path}:generateContent"


def test_settings() -> None:
    request = asking(
        system="Be brief.",
        max_tokens=0,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        seed=7,
        stop_sequences=("END",),
        parallel_tool_calls=False,
        extra_body={"safetySettings": [], "generationConfig": {"responseMimeType": "application/json"}},
    )
    assert body_of(request) == {
        "contents": HI,
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {
            "maxOutputTokens": 0,
            "temperature": 0.0,
            "topP": 0.5,
            "topK": 3,
            "seed": 7,
            "stopSequences": ["END"],
            "responseMimeType": "application/json",
        },
        "safetySettings": [],
    }
    assert dialect.build_request(request, NEW).warnings == ()


LEVEL = "is sent as"
PRO_3 = Quirks(thinking_levels=("low", "high"))
PRO_3_1 = Quirks(thinking_levels=("low", "medium", "high"))
LITE = Quirks(thinking_by="budget", least_thinking_budget=512)
THINKING: list[tuple[Quirks, dict[str, Any], Any, str]] = [
    (Quirks(), {}, None, ""),
    (Quirks(), {"reasoning_effort": "minimal"}, {"thinkingLevel": "minimal", "includeThoughts": True}, ""),
    (Quirks(), {"reasoning_effort": "low"}, {"thinkingLevel": "low", "includeThoughts": True}, ""),
    (Quirks(), {"reasoning_effort": "medium"}, {"thinkingLevel": "medium", "includeThoughts": True}, ""),
    (Quirks(), {"reasoning_effort": "high"}, {"thinkingLevel": "high", "includeThoughts": True}, ""),
    (Quirks(), {"reasoning_effort": "max"}, {"thinkingLevel": "high", "includeThoughts": True}, LEVEL),
    (Quirks(), {"reasoning_effort": "none"}, {"thinkingLevel": "minimal"}, LEVEL),
    (PRO_3, {"reasoning_effort": "none"}, {"thinkingLevel": "low"}, LEVEL),
    (PRO_3, {"reasoning_effort": "minimal"}, {"thinkingLevel": "low", "includeThoughts": True}, LEVEL),
    (PRO_3, {"reasoning_effort": "low"}, {"thinkingLevel": "low", "includeThoughts": True}, ""),
    (PRO_3, {"reasoning_effort": "medium"}, {"thinkingLevel": "high", "includeThoughts": True}, LEVEL),
    (PRO_3, {"reasoning_effort": "high"}, {"thinkingLevel": "high", "includeThoughts": True}, ""),
    (PRO_3, {"reasoning_budget_tokens": 5000}, {"thinkingLevel": "high", "includeThoughts": True}, LEVEL),
    (PRO_3_1, {"reasoning_effort": "minimal"}, {"thinkingLevel": "low", "includeThoughts": True}, LEVEL),
    (PRO_3_1, {"reasoning_effort": "medium"}, {"thinkingLevel": "medium", "includeThoughts": True}, ""),
    (LITE, {"reasoning_budget_tokens": 100}, {"thinkingBudget": 512, "includeThoughts": True}, "raised to 512"),
    (LITE, {"reasoning_effort": "none"}, {"thinkingBudget": 0}, ""),
    (LITE, {"reasoning_budget_tokens": 600}, {"thinkingBudget": 600, "includeThoughts": True}, ""),
    (Quirks(), {"reasoning_budget_tokens": 0}, {"thinkingLevel": "minimal"}, LEVEL),
    (Quirks(), {"reasoning_budget_tokens": 500}, {"thinkingLevel": "low", "includeThoughts": True}, LEVEL),
    (Quirks(), {"reasoning_budget_tokens": 5000}, {"thinkingLevel": "medium", "includeThoughts": True}, LEVEL),
    (Quirks(), {"reasoning_budget_tokens": 50000}, {"thinkingLevel": "high", "includeThoughts": True}, LEVEL),
    (OLD.quirks, {"reasoning_effort": "none"}, {"thinkingBudget": 0}, ""),
    (OLD.quirks, {"reasoning_effort": "low"}, {"thinkingBudget": 1024, "includeThoughts": True}, ""),
    (OLD.quirks, {"reasoning_effort": "xhigh"}, {"thinkingBudget": 24576, "includeThoughts": True}, ""),
    (
        OLD.quirks,
        {"reasoning_effort": "low", "reasoning_budget_tokens": 300},
        {"thinkingBudget": 300, "includeThoughts": True},
        "reasoning_effort is not sent: reasoning_budget_tokens is given too",
    ),
    (
        Quirks(thinking_by="budget", least_thinking_budget=128, always_thinks=True),
        {"reasoning_budget_tokens": 0},
        {"thinkingBudget": 128, "includeThoughts": True},
        "raised to 128",
    ),
    (Quirks(thinking_by="none"), {"reasoning_effort": "low"}, None, "not sent"),
]


@pytest.mark.parametrize(("quirks", "settings", "expected", "warned"), THINKING)
def test_thinking(quirks: Quirks, settings: dict[str, Any], expected: object, warned: str) -> None:
    target = Target(provider="gemini", model="m", quirks=quirks)
    assert body_of(asking(**settings), target).get("generationConfig", {}).get("thinkingConfig") == expected
    found = dialect.build_request(asking(**settings), target).warnings
    assert len(found) == bool(warned)
    assert all(warned in text for text in found)


def test_an_effort_and_a_budget_for_a_model_that_takes_levels() -> None:
    request = asking(reasoning_effort="low", reasoning_budget_tokens=9000)
    assert body_of(request)["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "low"
    assert dialect.build_request(request, NEW).warnings == (
        "reasoning_budget_tokens is not sent: this model takes levels",
    )


def test_tools() -> None:
    assert body_of(asking(tools=(TOOL, Tool("g"))))["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "Does it.", "parametersJsonSchema": TOOL.parameters},
                {"name": "g", "parametersJsonSchema": {"type": "object", "properties": {}}},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("any"), {"mode": "ANY"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("tool", "f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_tool_choice(choice: ToolChoice, expected: object) -> None:
    body = body_of(asking(tools=(TOOL,), tool_choice=choice))
    assert body["toolConfig"] == {"functionCallingConfig": expected}


def test_what_tools_cannot_be_told() -> None:
    assert dialect.build_request(asking(tools=(TOOL,), parallel_tool_calls=False), NEW).warnings == (
        "parallel_tool_calls is not sent: this wire has no such setting",
    )
    assert dialect.build_request(asking(tool_choice=ToolChoice("any")), NEW).warnings == (
        "tool_choice is not sent: the request has no tools",
    )
    assert dialect.build_request(asking(tool_choice=ToolChoice("none")), NEW).warnings == ()
    assert "toolConfig" not in body_of(asking(tool_choice=ToolChoice("any")))


def test_a_body_that_is_no_json_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="extra_body"):
        dialect.build_request(asking(extra_body={"x": object()}), NEW)


# --- conversations -----------------------------------------------------------------------------------------------


def test_a_conversation() -> None:
    one, two = ToolCall("id-1", "f", '{"x": 1.50}'), ToolCall("id-2", "g", "")
    request = Request(
        system="First.",
        messages=(
            system("Be brief."),
            Message("user", (Text("Look: "), Text(""), Image(b"x", "image/jpeg"), Image(url="https://e.x/a.png"))),
            Message("assistant", (Reasoning("Hm."), Text("I ask."), one, two)),
            tool_result(one, "42"),
            tool_result(two, "broken", is_error=True),
            user("And?"),
            Message("assistant", (Refusal("No."),)),
        ),
    )
    body = dialect.build_request(request, OLD).body
    assert b'"args":{"x": 1.50}' in body
    assert json.loads(body) == {
        "systemInstruction": {"parts": [{"text": "First.\n\nBe brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "Look: "},
                    {"inlineData": {"mimeType": "image/jpeg", "data": "eA=="}},
                    {"fileData": {"mimeType": "image/png", "fileUri": "https://e.x/a.png"}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"text": "I ask."},
                    {"functionCall": {"name": "f", "args": {"x": 1.5}, "id": "id-1"}},
                    {"functionCall": {"name": "g", "args": {}, "id": "id-2"}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "response": {"output": "42"}, "id": "id-1"}},
                    {"functionResponse": {"name": "g", "response": {"error": "broken"}, "id": "id-2"}},
                    {"text": "And?"},
                ],
            },
            {"role": "model", "parts": [{"text": "No."}]},
        ],
    }
    assert dialect.build_request(request, OLD).warnings == ()


def test_a_system_turn_within_the_conversation_moves_to_the_front() -> None:
    request = Request(messages=(user("hi"), system("Be brief."), assistant("yes"), user("")))
    body = body_of(request)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [content["role"] for content in body["contents"]] == ["user", "model"]
    assert dialect.build_request(request, NEW).warnings == (
        "system messages within the conversation are sent at its beginning",
    )


def test_the_name_of_a_result_comes_from_its_call() -> None:
    call = ToolCall("id-1", "f")
    request = Request(messages=(Message("assistant", (call,)), Message("tool", (ToolResult("id-1"), ToolResult("z")))))
    answers = [part["functionResponse"] for part in parts_of(request, OLD) if "functionResponse" in part]
    assert [(answer["name"], answer["id"]) for answer in answers] == [("f", "id-1"), ("z", "z")]


def test_files_in_a_tool_s_result() -> None:
    """The newer generation takes them within the result, the older one only beside it."""
    request = saying(ToolResult("i", (Text("a"), Image(b"x"), Text("b")), name="f"), role="tool")
    file = {"inlineData": {"mimeType": "image/png", "data": "eA=="}}
    answer = {"name": "f", "response": {"output": "a\nb"}, "id": "i"}
    assert parts_of(request, NEW) == [{"functionResponse": {**answer, "parts": [file]}}]
    assert parts_of(request, OLD) == [{"functionResponse": answer}, file]


def test_documents_in_a_tool_s_result() -> None:
    """An address stands behind the result: within it the Gemini API takes bytes alone."""
    document, fetched = Document(b"%PDF-x", name="tides"), Document(url="https://h.example/a.pdf")
    request = saying(ToolResult("i", (document, Text("a"), fetched), name="f"), role="tool")
    file = {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi14"}}
    answer = {"name": "f", "response": {"output": "a"}, "id": "i", "parts": [file]}
    behind = {"fileData": {"mimeType": "application/pdf", "fileUri": "https://h.example/a.pdf"}}
    assert parts_of(request, NEW) == [{"functionResponse": answer}, behind]
    assert dialect.build_request(request, NEW).warnings == ("the names of documents are not sent",)


def test_a_file_of_a_result_without_a_type_is_refused_with_its_place() -> None:
    request = saying(ToolResult("i", (Text("a"), Image(b"x", "")), name="f"), role="tool")
    with pytest.raises(RequestError, match=r"messages\[0\]\.content\[0\]\.content\[1\] has no media_type"):
        dialect.build_request(request, NEW)


def test_what_a_system_turn_holds_beside_text_is_named() -> None:
    request = Request(messages=(Message("system", (Text("a"), Image(b"x"), Refusal("b"))), user("hi")))
    assert dialect.build_request(request, NEW).warnings == (
        "images in system turns are not sent: this wire has no place for them",
        "refusals in system turns are not sent: this wire has no place for them",
    )


def test_arguments_that_are_no_json_go_back_as_text() -> None:
    [part] = parts_of(saying(ToolCall("c1", "f", '{"x', executable=False)), OLD)
    assert part["functionCall"]["args"] == {"INVALID_JSON": '{"x'}


def test_files_that_a_model_made() -> None:
    request = saying(
        FileBlock("image/png", b"x"),
        FileBlock(url="https://e.x/1"),
        FileBlock("image/png", b"y", raw=raw({"thought": True})),
        FileBlock(id="f1"),
    )
    assert parts_of(request) == [
        {"inlineData": {"mimeType": "image/png", "data": "eA=="}},
        {"fileData": {"fileUri": "https://e.x/1"}},
    ]
    assert dialect.build_request(request, NEW).warnings == (
        "images that were but thoughts are not sent",
        "files that another provider holds are not sent",
    )


# --- signatures --------------------------------------------------------------------------------------------------


def answered(name: str, target: Target = NEW) -> Message:
    """Give the message of a golden's answer."""
    translator = dialect.translator(target)
    items: list[Event | Failure] = []
    for line in (GOLDENS / f"{name}.bin").read_bytes().splitlines():
        if line:
            items += translator.feed(Frame("", line.removeprefix(b"data: ")))
    items += translator.finish()
    return fold([item for item in items if not isinstance(item, Failure)]).message


def test_a_signature_on_an_empty_part_goes_back_on_an_empty_part() -> None:
    assert parts_of(Request(messages=(answered("thinking"),))) == [
        {"text": "**Plan**\nThink on.", "thought": True},
        {"text": "Two parts."},
        {"text": "", "thoughtSignature": "c2ln/0x+A=="},
    ]


def test_signatures_of_thoughts_and_texts_go_back_where_they_were() -> None:
    assert parts_of(Request(messages=(answered("thinking-signed"),))) == [
        {"text": "One.", "thought": True, "thoughtSignature": "dDE="},
        {"text": "Two.", "thought": True},
        {"text": "Answer.", "thoughtSignature": "dDI="},
    ]
    assert parts_of(Request(messages=(answered("thinking-signed-last"),))) == [
        {"text": "One.", "thought": True},
        {"text": "Two.", "thought": True, "thoughtSignature": "dDE="},
        {"text": "x"},
    ]
    assert parts_of(Request(messages=(answered("text-signed-midway"),))) == [
        {"text": "a"},
        {"text": "b", "thoughtSignature": "Yg=="},
        {"text": "c"},
    ]
    assert parts_of(Request(messages=(answered("thinking-signature-alone"),))) == [
        {"text": "", "thought": True, "thoughtSignature": "YQ=="},
        {"text": "x"},
        {"text": "", "thoughtSignature": "Yg=="},
    ]


def test_signatures_of_calls_go_back_and_made_ids_do_not() -> None:
    assert parts_of(Request(messages=(answered("tool-calls-parallel"),))) == [
        {
            "functionCall": {"name": "add", "args": {"a": 2, "b": 3}, "id": "8hd01vsf"},
            "thoughtSignature": "Zmlyc3Q=",
        },
        {"functionCall": {"name": "multiply", "args": {"b": 3, "a": 2}, "id": "k0srpqrc"}},
    ]
    message = answered("tool-call")
    call = next(block for block in message.content if isinstance(block, ToolCall))
    parts = parts_of(Request(messages=(message, tool_result(call, "sun"))))
    assert parts[1:] == [
        {"functionCall": {"name": "get_weather", "args": {"city": "Paris", "days": 1.5}}, "thoughtSignature": "c2ln"},
        {"functionResponse": {"name": "get_weather", "response": {"output": "sun"}}},
    ]


@pytest.mark.parametrize("name", ["code-execution", "server-tools"])
def test_what_the_provider_s_tools_did_goes_back_as_it_came(name: str) -> None:
    lines = (GOLDENS / f"{name}.bin").read_bytes().splitlines()
    frames = [json.loads(line.removeprefix(b"data: ")) for line in lines if line]
    came = [part for frame in frames for part in frame["candidates"][0]["content"]["parts"] if part != {"text": ""}]
    request = Request(messages=(answered(name),))
    assert parts_of(request) == came
    assert dialect.build_request(request, NEW).warnings == ()


def test_a_signed_file_goes_back_signed() -> None:
    assert parts_of(Request(messages=(answered("files"),)))[0] == {
        "inlineData": {"mimeType": "image/png", "data": "iVBORw=="},
        "thoughtSignature": "aW1n",
    }


@pytest.mark.parametrize(
    "name",
    ["thinking", "thinking-signed", "text-signed-midway", "tool-call", "server-tools", "code-execution", "files"],
)
def test_signatures_go_to_their_issuer_alone(name: str) -> None:
    other = Target(provider="vertex-ai", model="gemini-2.5-pro", quirks=OLD.quirks)
    request = Request(messages=(answered(name),))
    assert not any("thoughtSignature" in part for part in parts_of(request, other))
    assert (
        "signatures and encrypted reasoning of another provider are not sent"
        in dialect.build_request(request, other).warnings
    )
    foreign = Target(provider="other", model="m")
    sent = anthropic_messages.build_request(request, foreign).body
    signatures = [opaque.data for block in request.messages[0].content for opaque in getattr(block, "opaque", ())]
    assert signatures
    assert not any(signature.encode() in sent for signature in signatures)


@pytest.mark.parametrize(
    "name",
    ["thinking", "thinking-signed", "text-signed-midway", "tool-call", "server-tools", "code-execution", "files"],
)
def test_one_provider_s_model_families_do_not_get_each_other_s_signatures(name: str) -> None:
    """Vertex serves Gemini and Claude; neither can read what the other has signed."""
    vertex = Target(provider="vertex-ai", model="m", quirks=OLD.quirks)
    ours = answered(name, vertex)
    signatures = [opaque.data for block in ours.content for opaque in getattr(block, "opaque", ())]
    assert signatures
    to_claude = anthropic_messages.build_request(Request(messages=(ours,)), vertex).body
    assert not any(signature.encode() in to_claude for signature in signatures)
    assert any("thoughtSignature" in part for part in parts_of(Request(messages=(ours,)), vertex))


@pytest.mark.parametrize("kind", ["signature", "redacted"])
def test_what_claude_signed_on_vertex_does_not_go_to_gemini(kind: str) -> None:
    vertex = Target(provider="vertex-ai", model="m", quirks=OLD.quirks)
    theirs = Message("assistant", (Reasoning("hm", (Opaque("vertex-ai", kind, "c2ln"),)), Text("Hi")))
    assert parts_of(Request(messages=(theirs,)), vertex) == [{"text": "Hi"}]


def test_calls_that_nobody_signed_go_with_a_placeholder() -> None:
    foreign = (Opaque("anthropic", "signature", "xx"),)
    request = Request(
        messages=(
            user("hi"),
            Message("assistant", (Reasoning("alien", foreign), ToolCall("a", "f"), ToolCall("b", "g"))),
            tool_result(ToolCall("a", "f"), "1"),
            Message("assistant", (ToolCall("c", "f", "{}", (Opaque("gemini", "thought_signature", "c2ln"),)),)),
        )
    )
    signatures = [part.get("thoughtSignature") for part in parts_of(request) if "functionCall" in part]
    assert signatures == [PLACEHOLDER_SIGNATURE, None, "c2ln"]
    assert not any(part.get("text") == "alien" for part in parts_of(request))
    assert dialect.build_request(request, NEW).warnings == (
        "signatures and encrypted reasoning of another provider are not sent",
        "tool calls that this provider did not sign go with a placeholder for the signature",
    )
    assert PLACEHOLDER_SIGNATURE not in json.dumps(body_of(request, OLD))


def test_a_signed_part_before_a_call_does_not_sign_the_call() -> None:
    signed = Reasoning("hm", (Opaque("gemini", "thought_signature", "c2ln"),))
    second = ToolCall("b", "g", "{}", (Opaque("gemini", "thought_signature", "Y2FsbA=="),))
    turn = Message("assistant", (signed, ToolCall("a", "f"), second))
    signatures = [part.get("thoughtSignature") for part in parts_of(Request(messages=(turn,)))]
    assert signatures == ["c2ln", PLACEHOLDER_SIGNATURE, "Y2FsbA=="]


def test_a_signature_whose_part_is_gone_is_left_out() -> None:
    carried = Reasoning("", (Opaque("gemini", "part_signature", "c2ln"),))
    assert parts_of(saying(Text("x"), FileBlock(id="gone"), carried)) == [{"text": "x"}]
    assert body_of(saying(carried))["contents"] == []


def test_tools_of_another_wire_are_left_out() -> None:
    block = ServerToolCallBlock("1", "search", raw=raw({"type": "server_tool_use"}))
    request = saying(block, ServerToolResultBlock("1", "search"), Text("a"))
    assert parts_of(request) == [{"text": "a"}]
    assert dialect.build_request(request, NEW).warnings == (
        "calls of another provider's own tools, and their results, are not sent",
    )


# --- hosts -------------------------------------------------------------------------------------------------------

PROJECT = {"project": "my project", "location": "us-central1"}


def sent_to(provider: str, model: str, settings: dict[str, str], request: Request) -> tuple[str, WireRequest]:
    row = look_up(provider)
    spoken = route(row, model, settings=settings)
    target = Target(
        provider=row.name,
        model=model,
        base_url=spoken.base_url.format_map(settings),
        quirks=spoken.quirks,
        settings=settings,
    )
    module = {"gemini": dialect, "anthropic_messages": anthropic_messages}[spoken.dialect]
    return spoken.dialect, module.build_request(request, target)


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_vertex_s_hosts(location: str, host: str) -> None:
    settings = {"project": "p1", "location": location}
    spoken, wire_request = sent_to("vertex-ai", "gemini-2.5-pro", settings, asking())
    assert spoken == "gemini"
    assert wire_request.url == (
        f"https://{host}/v1/projects/p1/locations/{location}/publishers/google/models/gemini-2.5-pro"
        ":streamGenerateContent?alt=sse"
    )


def test_vertex_without_streaming() -> None:
    _, wire_request = sent_to("vertex-ai", "gemini-2.5-pro", PROJECT, asking(stream=False))
    assert wire_request.url == (
        "https://us-central1-aiplatform.googleapis.com/v1/projects/my%20project/locations/us-central1/publishers/"
        "google/models/gemini-2.5-pro:generateContent"
    )


@pytest.mark.parametrize(("stream", "method"), [(True, "streamRawPredict"), (False, "rawPredict")])
def test_claude_on_vertex(stream: bool, method: str) -> None:  # noqa: FBT001 (a column of the table)
    model = "claude-sonnet-4-5@20250929"
    spoken, wire_request = sent_to("vertex-ai", model, PROJECT, asking(stream=stream))
    assert spoken == "anthropic_messages"
    assert wire_request.url.endswith(f"/publishers/anthropic/models/claude-sonnet-4-5%4020250929:{method}")
    body = json.loads(wire_request.body)
    assert body.pop("stream", False) is stream
    assert body == {
        "anthropic_version": "vertex-2023-10-16",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_tokens": 4096,
    }
    assert "anthropic-version" not in wire_request.headers


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("gemini-3-flash-preview", {"thinkingLevel": "minimal", "includeThoughts": True}),
        ("gemini-3-pro-preview", {"thinkingLevel": "low", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", {"thinkingLevel": "low", "includeThoughts": True}),
        ("gemini-pro-latest", {"thinkingLevel": "low", "includeThoughts": True}),
        ("gemini-flash-latest", {"thinkingLevel": "minimal", "includeThoughts": True}),
        ("gemini-2.5-flash", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.0-flash", None),
        ("gemma-3-27b-it", None),
    ],
)
@pytest.mark.parametrize("provider", ["gemini", "vertex-ai"])
def test_each_generation_is_told_to_think_in_its_own_way(provider: str, model: str, thinking: object) -> None:
    _, wire_request = sent_to(provider, model, PROJECT, asking(reasoning_effort="minimal"))
    body = json.loads(wire_request.body)
    assert body.get("generationConfig", {}).get("thinkingConfig") == thinking


@pytest.mark.parametrize(
    ("model", "level"), [("gemini-3-pro-preview", "high"), ("gemini-3.1-pro-preview", "medium"), ("g-3", "medium")]
)
def test_a_medium_effort_is_the_nearest_level_that_there_is(model: str, level: str) -> None:
    _, wire_request = sent_to("gemini", model, {}, asking(reasoning_effort="medium"))
    assert json.loads(wire_request.body)["generationConfig"]["thinkingConfig"]["thinkingLevel"] == level


@pytest.mark.parametrize(("asked", "sent"), [(0, 0), (1, 512), (600, 600)])
def test_the_least_budget_of_flash_lite(asked: int, sent: int) -> None:
    _, wire_request = sent_to("gemini", "gemini-2.5-flash-lite", {}, asking(reasoning_budget_tokens=asked))
    assert json.loads(wire_request.body)["generationConfig"]["thinkingConfig"]["thinkingBudget"] == sent


def test_the_least_budget_of_a_model_that_always_thinks() -> None:
    _, wire_request = sent_to("gemini", "gemini-2.5-pro", {}, asking(reasoning_effort="none"))
    assert json.loads(wire_request.body)["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 128
