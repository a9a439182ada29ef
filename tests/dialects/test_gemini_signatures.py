"""What Gemini signed goes back where it was, and to its issuer alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loomstream.accumulate import fold
from loomstream.dialects import Target, anthropic_messages
from loomstream.dialects import gemini as dialect
from loomstream.dialects.gemini.request import PLACEHOLDER_SIGNATURE
from loomstream.errors import Failure
from loomstream.events import Event, Opaque
from loomstream.messages import (
    FileBlock,
    Message,
    Reasoning,
    Request,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    ToolCall,
    tool_result,
    user,
)
from loomstream.wire import Frame

sys.path.insert(0, str(Path(__file__).parent))

from gemini_bodies import NEW, OLD, body_of, parts_of, raw, saying

GOLDENS = Path(__file__).parents[1] / "streams" / "gemini"


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
