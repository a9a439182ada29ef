"""What leaves for Gemini: settings, conversations, and the hosts that serve it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from loomstream.dialects import Quirks, Target, anthropic_messages
from loomstream.dialects import gemini as dialect
from loomstream.errors import RequestError
from loomstream.messages import (
    Document,
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
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
from loomstream.wire import WireRequest

sys.path.insert(0, str(Path(__file__).parent))

from gemini_bodies import BASE, HI, NEW, OLD, TOOL, asking, body_of, parts_of, raw, saying

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
