# ruff: noqa: ANN401 (these tests take apart JSON of any shape)
"""Chat Completions: sounds, documents, cache points and prefixes, each as the host wants it, or named."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from loomstream.dialects import Quirks, Target, openai_chat
from loomstream.errors import RequestError
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    Image,
    Message,
    Request,
    Text,
    ToolCall,
    ToolResult,
    assistant,
    system,
    user,
)

sys.path.insert(0, str(Path(__file__).parent))

from chat_streams import requested
from test_openai_chat_hosts import target_of

PDF, WAV = b"%PDF-1.7", b"RIFF\x00\x00\x00\x00WAVE"
PDF_64, WAV_64 = base64.b64encode(PDF).decode(), base64.b64encode(WAV).decode()
PLAIN = Target(provider="host", model="m", base_url="https://host/v1")


def host(**quirks: Any) -> Target:
    return Target(provider="host", model="m", base_url="https://host/v1", quirks=Quirks(**quirks))


def content(*blocks: ContentBlock, to: Target = PLAIN, role: Any = "user") -> Any:
    """Give the content of a turn of these blocks."""
    return requested(Message(role, blocks), target=to)["messages"][0]["content"]


def warned(*blocks: ContentBlock, to: Target = PLAIN, role: Any = "user") -> tuple[str, ...]:
    return openai_chat.build_request(Request(messages=(Message(role, (Text("t"), *blocks)),)), to).warnings


# --- documents -----------------------------------------------------------------------------------


def test_a_document_s_bytes_are_a_file_under_its_name() -> None:
    assert content(Text("read"), Document(PDF, name="bill.pdf")) == [
        {"type": "text", "text": "read"},
        {"type": "file", "file": {"filename": "bill.pdf", "file_data": f"data:application/pdf;base64,{PDF_64}"}},
    ]
    assert warned(Document(PDF)) == ()


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ("application/pdf", "document.pdf"),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "document.docx"),
        ("application/", "document.bin"),
    ],
)
def test_a_document_without_a_name_gets_one_that_says_what_it_is(media_type: str, name: str) -> None:
    (part,) = content(Document(b"x", media_type))
    assert part["file"]["filename"] == name


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown; charset=utf-8", "application/json"])
def test_a_document_of_text_is_text(media_type: str) -> None:
    """OpenAI takes no file here but a PDF."""
    assert content(Document("né".encode(), media_type, name="notes")) == [{"type": "text", "text": "notes\n\nné"}]
    assert content(Document(b"a", media_type)) == [{"type": "text", "text": "a"}]


def test_a_document_s_address_is_sent_where_the_host_takes_one() -> None:
    block = Document(url="https://x/y.pdf", name="y.pdf")
    assert content(block, to=target_of("openrouter")) == [
        {"type": "file", "file": {"filename": "y.pdf", "file_data": "https://x/y.pdf"}}
    ]
    assert requested(Message("user", (Text("t"), block)))["messages"] == [{"role": "user", "content": "t"}]
    assert warned(block) == ("documents by their address are not sent: this host takes their bytes",)


@pytest.mark.parametrize(
    ("provider", "block", "part"),
    [
        (
            "mistral",
            Document(PDF, name="a.pdf"),
            {
                "type": "document_url",
                "document_url": f"data:application/pdf;base64,{PDF_64}",
                "document_name": "a.pdf",
            },
        ),
        ("mistral", Document(url="https://x/y"), {"type": "document_url", "document_url": "https://x/y"}),
        (
            "perplexity",
            Document(PDF, name="a.pdf"),
            {"type": "file_url", "file_url": {"url": PDF_64}, "file_name": "a.pdf"},
        ),
        ("perplexity", Document(url="https://x/y"), {"type": "file_url", "file_url": {"url": "https://x/y"}}),
        ("mistral", Audio(WAV), {"type": "input_audio", "input_audio": WAV_64}),
        ("mistral", Audio(url="https://x/y.mp3"), {"type": "input_audio", "input_audio": "https://x/y.mp3"}),
        (
            "openrouter",
            Audio(b"x", "audio/x-m4a"),
            {"type": "input_audio", "input_audio": {"data": "eA==", "format": "m4a"}},
        ),
    ],
)
def test_a_host_has_its_own_parts(provider: str, block: ContentBlock, part: object) -> None:
    assert content(block, to=target_of(provider)) == [part]
    assert warned(block, to=target_of(provider)) == ()


@pytest.mark.parametrize("provider", ["groq", "cerebras", "deepseek", "together"])
def test_a_host_that_takes_no_files_gets_none(provider: str) -> None:
    target = target_of(provider)
    blocks = (Text("t"), Document(PDF), Audio(WAV))
    assert content(*blocks, to=target) == "t"
    assert warned(*blocks, to=target) == (
        "documents are not sent: this host takes none but texts",
        "sounds are not sent: this host takes none",
    )


def test_a_document_of_text_in_a_tool_s_result_is_text() -> None:
    document = Document(b"# Ebb", "text/markdown", name="tides.md")
    results = (ToolResult("a", (Text("see "), document)), ToolResult("b", (Text("x"), Document(PDF))))
    request = Request(messages=(Message("tool", results),))
    wire = openai_chat.build_request(request, PLAIN)
    assert [message["content"] for message in json.loads(wire.body)["messages"]] == ["see tides.md\n\n# Ebb", "x"]
    left_out = "documents that are no text at hand in tool results are not sent: this provider takes text there"
    assert left_out in wire.warnings


def test_a_text_that_is_none_is_refused_with_its_place() -> None:
    broken = Document(b"a\xff", "text/plain")
    with pytest.raises(RequestError, match=r"messages\[0\]\.content\[1\]\.data is no UTF-8 .* at byte 1"):
        content(Text("see"), broken)
    with pytest.raises(RequestError, match=r"messages\[0\]\.content\[0\]\.content\[0\]\.data is no UTF-8"):
        content(ToolResult("a", (broken,)), role="tool")


def test_citations_of_a_document_cannot_be_asked_for() -> None:
    (warning,) = warned(Document(PDF, citations=True))
    assert "citations of documents are not asked for" in warning


# --- sounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "written"),
    [("audio/wav", "wav"), ("audio/x-wav", "wav"), ("audio/mpeg", "mp3"), ("audio/mp3", "mp3"), ("audio/WAV", "wav")],
)
def test_a_sound_is_sent_with_its_format(media_type: str, written: str) -> None:
    assert content(Text("say"), Audio(WAV, media_type)) == [
        {"type": "text", "text": "say"},
        {"type": "input_audio", "input_audio": {"data": WAV_64, "format": written}},
    ]
    assert warned(Audio(WAV, media_type)) == ()


def test_a_sound_that_the_host_cannot_take_is_named() -> None:
    assert content(Text("t"), Audio(b"x", "audio/flac")) == "t"
    assert warned(Audio(b"x", "audio/flac")) == (
        "sounds of the type audio/flac are not sent: this host takes wav, mp3",
    )
    assert warned(Audio(url="https://x/y.mp3")) == (
        "sounds by their address are not sent: this host takes their bytes",
    )


# --- cache points --------------------------------------------------------------------------------

HISTORY = (
    Message("system", (Text("long"), CachePoint("1h"))),
    Message("user", (Text("a"), Image(url="https://x/y"), CachePoint(), Text("b"))),
    Message("assistant", (Text("c"), CachePoint())),
)


def test_a_cache_point_marks_the_part_before_it() -> None:
    assert requested(*HISTORY, target=target_of("openrouter"))["messages"] == [
        {
            "role": "system",
            "content": [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "https://x/y"}, "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "b"},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}}],
        },
    ]


def test_openai_s_newer_models_have_a_mark_of_their_own() -> None:
    target = target_of("openai", "gpt-5.6")
    wire = openai_chat.build_request(Request(messages=HISTORY[:1]), target)
    assert json.loads(wire.body)["messages"][0]["content"] == [
        {"type": "text", "text": "long", "prompt_cache_breakpoint": {"mode": "explicit"}}
    ]
    assert wire.warnings == (
        "the time for which to cache is not sent: this host keeps what it caches for at least 30 minutes",
    )


def test_a_tool_s_result_can_be_marked() -> None:
    turn = Message("tool", (ToolResult("a", (Text("1"),)), CachePoint(), CachePoint("1h"), ToolResult("b", ())))
    assert requested(turn, target=host(cache_points="cache_control"))["messages"] == [
        {
            "role": "tool",
            "tool_call_id": "a",
            "content": [{"type": "text", "text": "1", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        },
        {"role": "tool", "tool_call_id": "b", "content": ""},
    ]


@pytest.mark.parametrize("blocks", [(CachePoint(),), (Text(""), CachePoint()), (ToolCall("a", "f"), CachePoint())])
def test_a_cache_point_behind_nothing_is_named(blocks: tuple[ContentBlock, ...]) -> None:
    target = host(cache_points="cache_control")
    wire = openai_chat.build_request(Request(messages=(user("hi"), Message("assistant", blocks))), target)
    assert b"cache_control" not in wire.body
    assert wire.warnings == ("cache points with nothing before them in their turn are not sent",)


def test_a_host_that_caches_by_itself_gets_no_marks() -> None:
    wire = openai_chat.build_request(Request(messages=HISTORY), PLAIN)
    assert b"cache" not in wire.body
    assert wire.warnings == ("cache points are not sent: this host caches by itself, or not at all",)


def test_a_cache_point_of_the_system_s_turn_goes_with_its_text() -> None:
    target = host(system_role="user", cache_points="cache_control")
    marked = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert requested(HISTORY[0], assistant("c"), target=target)["messages"][0]["content"] == [marked]
    assert requested(HISTORY[0], user("hi"), target=target)["messages"][0]["content"] == [
        {**marked, "text": "long\n\n"},
        {"type": "text", "text": "hi"},
    ]


# --- prefixes ------------------------------------------------------------------------------------


def test_an_assistant_s_last_turn_is_the_beginning_of_the_answer() -> None:
    target = target_of("mistral")
    assert requested(assistant("x"), user("hi"), assistant("{"), target=target)["messages"] == [
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "{", "prefix": True},
    ]


@pytest.mark.parametrize(
    "last",
    [user("a"), Message("assistant", (Text("a"), ToolCall("c", "f"))), Message("assistant", (ToolCall("c", "f"),))],
)
def test_nothing_else_is_a_beginning(last: Message) -> None:
    messages = requested(user("hi"), last, target=target_of("mistral"))["messages"]
    assert all("prefix" not in message for message in messages)
    assert "prefix" not in requested(user("hi"), assistant("a"))["messages"][-1]
    assert requested(system(""), target=target_of("mistral"))["messages"]


def test_a_host_may_take_beginnings_at_another_address_alone() -> None:
    for address, marked in (("https://api.deepseek.com/beta", True), ("https://api.deepseek.com/v1", False)):
        target = target_of("deepseek", base_url=address)
        assert ("prefix" in requested(user("hi"), assistant("{"), target=target)["messages"][-1]) == marked
