# ruff: noqa: ANN401 (these tests take apart JSON of any shape)
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from goldens import Goldens, sse_frames
from models import CANARY, connected
from msgspec import Raw

from loomstream.accumulate import fold
from loomstream.dialects import Quirks, Target
from loomstream.dialects import openai_responses as dialect
from loomstream.errors import RequestError
from loomstream.events import Citation, Opaque
from loomstream.messages import (
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
from loomstream.wire import Frame

TARGET = Target(provider="openai", model="gpt-9", base_url="https://api.openai.com/v1")
GOLDENS = Goldens(dialect, TARGET, "openai_responses", sse_frames, after=Frame("", b"{}"))
WEATHER = Tool("get_weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
HI = {"type": "message", "role": "user", "content": "hi"}


def target(**quirks: Any) -> Target:
    return Target(provider="openai", model="gpt-9", base_url="https://api.openai.com/v1", quirks=Quirks(**quirks))


def body_of(request: Request, to: Target = TARGET) -> dict[str, Any]:
    value = json.loads(dialect.build_request(request, to).body)
    assert isinstance(value, dict)
    return value


def ask(*messages: Message, **options: Any) -> Request:
    return Request(messages=messages or (user("hi"),), **options)


def sent(*messages: Message, to: Target = TARGET) -> Any:
    return body_of(ask(*messages), to)["input"]


def warned(request: Request, to: Target = TARGET) -> tuple[str, ...]:
    return dialect.build_request(request, to).warnings


# --- the plain request -----------------------------------------------------------------------------


def test_the_plain_request() -> None:
    wire = dialect.build_request(ask(extra_headers={"x-mine": "1"}), TARGET)
    assert (wire.method, wire.url) == ("POST", "https://api.openai.com/v1/responses")
    assert wire.headers == {
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "x-mine": "1",
    }
    assert json.loads(wire.body) == {"model": "gpt-9", "input": [HI], "store": False, "stream": True}
    assert warned(ask()) == ()


def test_without_streaming() -> None:
    assert "stream" not in body_of(ask(stream=False))


@pytest.mark.parametrize(
    ("quirks", "url"),
    [
        ({"path": "/openai/responses?api-version={v}"}, "https://h/openai/responses?api-version=2025-04-01%2Bx"),
        ({"path": "/d/{model}/r", "stream_path": "/s/{model}"}, "https://h/s/gpt%2F9"),
    ],
)
def test_where_it_goes(quirks: dict[str, Any], url: str) -> None:
    to = Target(
        provider="p", model="gpt/9", base_url="https://h", quirks=Quirks(**quirks), settings={"v": "2025-04-01+x"}
    )
    assert dialect.build_request(ask(), to).url == url


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {}),
        ({"organization": "org-1"}, {"openai-organization": "org-1"}),
        ({"organization": "org-1", "project": "p"}, {"openai-organization": "org-1", "openai-project": "p"}),
    ],
)
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5"])
def test_organisation_and_project(settings: dict[str, str], headers: dict[str, str], model: str) -> None:
    row = look_up("openai")
    to = Target(provider="openai", model=model, quirks=route(row, model).quirks, settings=settings)
    wire = dialect.build_request(ask(), to)
    assert {name: value for name, value in wire.headers.items() if name.startswith("openai-")} == headers


@pytest.mark.anyio
async def test_organisation_and_project_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-vendor")
    monkeypatch.setenv("LOOM_LLM_OPENAI_ORGANIZATION", "org-seed")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_1")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"status": "completed", "output": []})

    model, client = connected(answer, "openai:gpt-5", api_key=CANARY)
    async with client, model:
        assert (await model.complete("hi")).complete
    [request] = seen
    assert str(request.url) == "https://api.openai.com/v1/responses"
    assert request.headers["openai-organization"] == "org-seed"
    assert request.headers["openai-project"] == "proj_1"


def test_the_settings() -> None:
    request = ask(
        system="Be brief.",
        max_tokens=40,
        temperature=0.0,
        top_p=0.5,
        reasoning_effort="low",
        parallel_tool_calls=False,
        tools=(WEATHER, Tool("f")),
        tool_choice=ToolChoice("tool", "f"),
    )
    body = body_of(request, target(encrypted_reasoning=True))
    del body["input"], body["model"], body["store"], body["stream"]
    assert body == {
        "instructions": "Be brief.",
        "max_output_tokens": 40,
        "temperature": 0.0,
        "top_p": 0.5,
        "reasoning": {"effort": "low"},
        "parallel_tool_calls": False,
        "include": ["reasoning.encrypted_content"],
        "tools": [
            {
                "type": "function",
                "name": "get_weather",
                "description": "Tells the weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                "strict": False,
            },
            {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False},
        ],
        "tool_choice": {"type": "function", "name": "f"},
    }
    assert warned(request) == ()


@pytest.mark.parametrize(("mode", "word"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_tool_choice(mode: Any, word: str) -> None:
    assert body_of(ask(tools=(WEATHER,), tool_choice=ToolChoice(mode)))["tool_choice"] == word


REFUSING = target(refused=("temperature", "reasoning_effort"), refused_with_effort=("top_p",))


@pytest.mark.parametrize(
    ("options", "to", "keys", "warning"),
    [
        ({"temperature": 0.0}, REFUSING, (), "temperature is not sent: this model does not take it"),
        ({"reasoning_effort": "low"}, REFUSING, (), "reasoning_effort is not sent: this model does not take it"),
        (
            {"top_p": 0.5, "reasoning_effort": "none"},
            target(refused_with_effort=("top_p",)),
            ("reasoning", "top_p"),
            "",
        ),
        (
            {"top_p": 0.5, "reasoning_effort": "high"},
            target(refused_with_effort=("top_p",)),
            ("reasoning",),
            "top_p is not sent: this model does not take it",
        ),
        ({"top_k": 3}, TARGET, (), "top_k is not sent: this model does not take it"),
        ({"top_k": 3}, target(top_k=True), ("top_k",), ""),
        ({"seed": 1}, TARGET, (), "seed is not sent: this wire has none"),
        ({"stop_sequences": ("x",)}, TARGET, (), "stop_sequences are not sent: this wire has none"),
        (
            {"reasoning_budget_tokens": 9},
            TARGET,
            (),
            "reasoning_budget_tokens is not sent: use reasoning_effort with this provider",
        ),
        ({}, target(needs_max_tokens=7), ("max_output_tokens",), ""),
    ],
)
def test_what_is_not_taken_is_left_out_with_a_warning(
    options: dict[str, Any], to: Target, keys: tuple[str, ...], warning: str
) -> None:
    request = ask(**options)
    assert body_of(request, to).keys() - {"model", "input", "store", "stream"} == set(keys)
    assert warned(request, to) == ((warning,) if warning else ())


def test_extra_body_adds_to_the_lists_and_sets_the_rest() -> None:
    request = ask(
        tools=(Tool("f"),),
        reasoning_effort="low",
        extra_body={
            "tools": [{"type": "web_search"}],
            "include": ["web_search_call.action.sources"],
            "input": [{"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}],
            "reasoning": {"summary": "auto"},
            "store": True,
        },
    )
    body = body_of(request, target(encrypted_reasoning=True))
    assert [tool["type"] for tool in body["tools"]] == ["function", "web_search"]
    assert body["include"] == ["reasoning.encrypted_content", "web_search_call.action.sources"]
    assert [item["type"] for item in body["input"]] == ["message", "mcp_approval_response"]
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["store"] is True
    assert body_of(ask(extra_body={"tools": [{"type": "web_search"}]}))["tools"] == [{"type": "web_search"}]


def test_a_body_that_is_no_json_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="cannot be written as JSON"):
        dialect.build_request(ask(extra_body={"x": object()}), TARGET)


# --- messages --------------------------------------------------------------------------------------


def test_a_conversation() -> None:
    call = ToolCall("call_1", "f", '{"a":1}')
    assert sent(
        system("Be kind."),
        user("hi"),
        Message("assistant", (Text("Let me "), Text("look."), call, ToolCall("call_2", "g", "{cut", executable=False))),
        tool_result(call, "42"),
        Message("tool", (ToolResult("call_2", (Text("a"), Text("b"))), Text("And?"))),
        assistant("It is 42."),
        Message("assistant", (Refusal("No."),)),
        Message("assistant", ()),
    ) == [
        {"type": "message", "role": "system", "content": "Be kind."},
        HI,
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me "}, {"type": "output_text", "text": "look."}],
        },
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "call_2", "name": "g", "arguments": "{cut"},
        {"type": "function_call_output", "call_id": "call_1", "output": "42"},
        {"type": "function_call_output", "call_id": "call_2", "output": "ab"},
        {"type": "message", "role": "user", "content": "And?"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is 42."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]


def test_the_role_of_system_turns() -> None:
    assert sent(system("x"), to=target(system_role="developer"))[0]["role"] == "developer"


def test_images_and_documents() -> None:
    message = Message(
        "user",
        (
            Text("See:"),
            Image(b"png"),
            Image(url="https://a/b.png"),
            Image(b"%PDF", "application/pdf"),
            Image(media_type="application/pdf", url="https://a/b.pdf"),
        ),
    )
    [written] = sent(message)
    assert written["content"] == [
        {"type": "input_text", "text": "See:"},
        {"type": "input_image", "image_url": "data:image/png;base64,cG5n", "detail": "auto"},
        {"type": "input_image", "image_url": "https://a/b.png", "detail": "auto"},
        {"type": "input_file", "filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        {"type": "input_file", "file_url": "https://a/b.pdf"},
    ]
    assert warned(ask(message)) == ()


@pytest.mark.parametrize(
    ("content", "output"),
    [
        ((), ""),
        ((Text("a"),), "a"),
        (
            (Text("a"), Image(url="https://i")),
            [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "https://i", "detail": "auto"}],
        ),
        ((Image(url="https://i"),), [{"type": "input_image", "image_url": "https://i", "detail": "auto"}]),
    ],
)
def test_what_a_tool_gives(content: tuple[Text | Image, ...], output: Any) -> None:
    [written] = sent(Message("tool", (ToolResult("c", content),)))
    assert written == {"type": "function_call_output", "call_id": "c", "output": output}


def test_an_error_of_a_tool_is_sent_without_its_flag() -> None:
    message = Message("tool", (ToolResult("c", (Text("no"),), is_error=True),))
    assert warned(ask(message)) == ("tool results are sent without their error flag",)


# --- what goes back --------------------------------------------------------------------------------


def answer(name: str) -> Message:
    return fold(GOLDENS.translate(GOLDENS.frames(name))[0]).message


def item_of(name: str, index: int) -> Any:
    frames = [json.loads(one.data) for one in GOLDENS.frames(name)]
    [item] = [
        value["item"]
        for value in frames
        if value["type"] == "response.output_item.done" and value["output_index"] == index
    ]
    return item


def said(text: str, **fields: str) -> Any:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **fields}


SEALED = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAA=="}
GOES_BACK: dict[str, Callable[[], Any]] = {
    "reasoning-summary": lambda: [item_of("reasoning-summary", 0), said("Four.")],
    "reasoning-encrypted-alone": lambda: [SEALED, said("4")],
    "reasoning-text": lambda: [item_of("reasoning-text", 0), said("4")],
    "messages-with-phases": lambda: [
        said("Let me see.", phase="commentary"),
        said("Done.", phase="final_answer"),
    ],
    "compaction": lambda: [item_of("compaction", 0), said("ok")],
    "web-search": lambda: [item_of("web-search", 0), said("Dry.")],
    "code-interpreter": lambda: [item_of("code-interpreter", 0), said("2")],
    "file-search": lambda: [item_of("file-search", 0), item_of("file-search", 1)],
    "mcp-approval": lambda: [item_of("mcp-approval", 0)],
    "shell-in-a-container": lambda: [item_of("shell-in-a-container", 0), item_of("shell-in-a-container", 1)],
    "image-generation": lambda: [item_of("image-generation", 0)],
    "computer-call": lambda: [item_of("computer-call", 0)],
    "built-in-calls": lambda: [item_of("built-in-calls", index) for index in range(4)],
    "custom-tool-call": lambda: [{"type": "custom_tool_call", "call_id": "call_1", "name": "run", "input": "print(1)"}],
    "custom-tool-call-of-the-provider": lambda: [item_of("custom-tool-call-of-the-provider", 0), said("Found.")],
}


@pytest.mark.parametrize("name", GOES_BACK)
def test_an_answer_goes_back_as_it_came(name: str) -> None:
    message = answer(name)
    assert sent(message) == GOES_BACK[name]()
    assert warned(ask(message)) == ()


@pytest.mark.parametrize("name", ["reasoning-summary", "reasoning-text", "reasoning-encrypted-alone"])
def test_reasoning_goes_to_its_issuer_alone(name: str) -> None:
    other = Target(provider="xai", model="grok")
    message = answer(name)
    assert [item["type"] for item in sent(message, to=other)] == ["message"]
    assert warned(ask(message), other) == (
        "reasoning blocks of earlier turns that this provider did not issue are not sent",
    )


@pytest.mark.parametrize(
    "content",
    [
        (Reasoning("hm"), Text("x")),
        (Reasoning("hm"), ToolCall("c", "f")),
        (Reasoning("hm"),),
        (Reasoning("", (Opaque("anthropic", "redacted", "zz"),)), Text("x")),
    ],
)
def test_reasoning_of_nobody_or_another_is_left_out(content: Any) -> None:
    message = Message("assistant", content)
    assert not [item for item in sent(message) if item["type"] == "reasoning"]
    assert warned(ask(message)) == ("reasoning blocks of earlier turns that this provider did not issue are not sent",)


def test_a_sealed_item_without_an_id() -> None:
    message = Message("assistant", (Reasoning("hm", (Opaque("openai", "encrypted", "gA=="),)),))
    assert sent(message) == [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gA=="}
    ]


def test_a_text_that_is_sealed_and_clear_goes_back_as_both() -> None:
    opaque = (Opaque("openai", "encrypted", "gA==", "rs_1"), Opaque("openai", "text", "", "rs_1"))
    [item] = sent(Message("assistant", (Reasoning("hm", opaque),)))
    assert item == {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
        "encrypted_content": "gA==",
    }


def results(name: str, *contents: Any, is_error: bool = False) -> Any:
    message = answer(name)
    calls = [block for block in message.content if isinstance(block, ToolCall)]
    blocks = tuple(ToolResult(call.id, contents, is_error=is_error) for call in calls)
    return sent(message, Message("tool", blocks))[len(calls) :]


def test_results_of_built_in_tools() -> None:
    screen = Image(url="data:image/png;base64,AA==")
    assert results("computer-call", screen) == [
        {
            "type": "computer_call_output",
            "call_id": "call_1",
            "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,AA=="},
        }
    ]
    assert results("built-in-calls", Text("out"), is_error=True) == [
        {"type": "local_shell_call_output", "call_id": "c1", "output": "out"},
        {
            "type": "shell_call_output",
            "call_id": "c2",
            "output": [{"stdout": "out", "stderr": "", "outcome": {"type": "exit", "exit_code": 1}}],
        },
        {"type": "apply_patch_call_output", "call_id": "c3", "status": "failed", "output": "out"},
        {"type": "computer_call_output", "call_id": "c4", "output": "out"},
    ]
    assert results("custom-tool-call", Text("1")) == [
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "1"}
    ]


def test_what_a_built_in_tool_s_result_cannot_hold_is_named() -> None:
    screen, note = Image(url="data:image/png;base64,AA=="), Document(b"%PDF-x")
    message = answer("computer-call")
    asked = ask(message, Message("tool", (ToolResult("call_1", (screen, Text("clicked"))),)))
    assert "the result of 'computer_call' is one image: what else it holds is not sent" in warned(asked)
    message = answer("built-in-calls")
    answers = (ToolResult("c2", (Text("out"), screen)), ToolResult("c3", (Text("out"), note)))
    asked = ask(message, Message("tool", answers))
    assert {text for text in warned(asked) if text.startswith("the result of")} == {
        "the result of 'shell_call' is text: what else it holds is not sent",
        "the result of 'apply_patch_call' is text: what else it holds is not sent",
    }


def test_an_image_that_was_not_made_goes_back_as_it_came() -> None:
    assert sent(answer("images-odd")) == [item_of("images-odd", 0), item_of("images-odd", 1)]


def test_what_the_wire_cannot_carry_is_left_out_with_a_warning() -> None:
    message = Message(
        "assistant",
        (
            Image(b"x"),
            FileBlock("audio/wav", b"x"),
            ServerToolCallBlock("s1", "web_search"),
            ServerToolResultBlock("s1", "web_search"),
            ServerToolResultBlock("s1", "w", raw=Raw(b'{"type":"web_search_tool_result"}')),
        ),
    )
    asked = ask(message, Message("system", (Image(b"x"),)))
    assert body_of(asked)["input"] == []
    assert warned(asked) == (
        "files that a model made are not sent: this wire has no place for them",
        "calls of another provider's own tools, and their results, are not sent",
        "images in assistant turns are not sent: this wire has no place for them",
        "images in system turns are not sent: this wire has no place for them",
    )


def test_citations_of_this_wire_go_back_as_they_came() -> None:
    flat = b'{"type":"url_citation","url":"https://a.example","title":"A","start_index":0,"end_index":2}'
    nested = b'{"type":"url_citation","url_citation":{"url":"https://a.example"}}'
    ours, other = Citation(0, "url_citation", raw=Raw(flat)), Citation(0, "url_citation", raw=Raw(nested))
    said = Message("assistant", (Text("Hi", (ours, other)),))
    wire = dialect.build_request(ask(user("hi"), said, user("more")), TARGET)
    (part,) = json.loads(wire.body)["input"][1]["content"]
    assert part == {"type": "output_text", "text": "Hi", "annotations": [json.loads(flat)]}
    assert wire.warnings == ("citations of earlier turns that are not of this wire are not sent",)
    alone = dialect.build_request(ask(user("hi"), Message("assistant", (Text("Hi", (ours,)),)), user("more")), TARGET)
    assert alone.warnings == ()
