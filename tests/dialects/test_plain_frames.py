"""Frames of the plain form, which are read at once, say what they say to a reader who looks at every member.

A frame with a member that nobody knows is never of the plain form, so the same frames with one are read in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from loomstream.dialects import Target, bedrock_converse, gemini, ollama_chat, openai_chat
from loomstream.dialects.shortcut import PlainReader
from loomstream.errors import Failure
from loomstream.events import Event, Notice, ReasoningDelta, Stop, TextDelta, Usage
from loomstream.wire import Frame

JSON = dict[str, Any]
DIALECTS = {
    "gemini": gemini,
    "bedrock_converse": bedrock_converse,
    "ollama_chat": ollama_chat,
    "openai_chat": openai_chat,
}
UNKNOWN = {"aMemberThatNobodyKnows": 0}


# --- frames --------------------------------------------------------------------------------------


def chunk(*parts: JSON, usage: object = None, finish: str | None = None, **more: object) -> JSON:
    candidate: JSON = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}
    if finish is not None:
        candidate["finishReason"] = finish
    frame: JSON = {"candidates": [candidate], "modelVersion": "m", "responseId": "r"}
    return frame if usage is None else {**frame, "usageMetadata": usage}


def counts(output: object, **more: object) -> JSON:
    return {"promptTokenCount": 9, "candidatesTokenCount": output, "totalTokenCount": 20, **more}


def line(content: object = "", *, done: object = False, **more: object) -> JSON:
    message = {"role": "assistant", "content": content, **more}
    return {"model": "m", "created_at": "2025-10-09T08:53:20.1Z", "message": message, "done": done}


def delta(index: int = 0, **delta: object) -> JSON:
    return {"name": "contentBlockDelta", "contentBlockIndex": index, "delta": delta, "p": "abcdef"}


def said(content: object = None, *, finish: object = None, index: object = 0, **delta: object) -> JSON:
    choice = {"index": index, "delta": {"role": "assistant", "content": content, **delta}, "finish_reason": finish}
    return {"id": "r", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def event(name: str, **fields: object) -> JSON:
    return {"name": name, **fields}


TEXT, THOUGHT = {"text": "a"}, {"text": "t", "thought": True}
CALL = {"functionCall": {"name": "f", "args": {}}}
END = chunk(TEXT, finish="STOP")
TOO_DEEP = json.loads("[" * 200 + "]" * 200)
OPENED = [event("messageStart", role="assistant"), delta(text="a"), delta(text="b")]
CLOSED = [event("contentBlockStop", contentBlockIndex=0), event("messageStop", stopReason="end_turn")]
CALLED = event("contentBlockStart", contentBlockIndex=1, start={"toolUse": {"toolUseId": "i"}})
METADATA = event("metadata", usage={"inputTokens": 1, "outputTokens": 2})

CASES: dict[str, tuple[str, list[JSON]]] = {
    "gemini text": ("gemini", [chunk(TEXT), chunk({"text": "é"}), chunk({"text": ""}), END]),
    "gemini counts": (
        "gemini",
        [
            chunk(TEXT, usage=counts(1)),
            chunk(TEXT, usage=counts(2, thoughtsTokenCount=3, cachedContentTokenCount=4)),
            chunk(TEXT, usage=counts(2, thoughtsTokenCount=3, cachedContentTokenCount=4)),
            chunk(TEXT, usage=counts(5, cachedContentTokenCount=40, toolUsePromptTokenCount=1)),
            chunk(TEXT, usage=counts(None)),
            chunk(TEXT, usage={}),
            chunk(TEXT, usage={"serviceTier": "é"}),
            chunk(TEXT, usage=counts(7, promptTokensDetails=[{"modality": "TEXT", "tokenCount": 9}] * 9)),
            chunk({"text": ""}, usage=counts(8), finish="STOP"),
        ],
    ),
    "gemini odd counts": (
        "gemini",
        [*(chunk(TEXT, usage=odd) for odd in (counts(1), counts("2"), counts(-1), [], "x", 3, counts(4))), END],
    ),
    "gemini counts too deep": (
        "gemini",
        [chunk(TEXT), chunk(TEXT, usage=counts(2, x=TOO_DEEP))],
    ),
    "gemini thoughts": (
        "gemini",
        [
            chunk(THOUGHT),
            chunk(THOUGHT),
            chunk(TEXT),
            chunk(TEXT),
            chunk(THOUGHT),
            chunk(CALL),
            chunk(TEXT, finish="STOP"),
        ],
    ),
    "gemini two parts": (
        "gemini",
        [chunk(TEXT), chunk(TEXT, TEXT), chunk(), chunk(TEXT, CALL), END],
    ),
    "gemini another choice": (
        "gemini",
        [
            chunk(TEXT),
            chunk(TEXT, index=1),
            chunk(TEXT),
            chunk(TEXT, finish="STOP"),
            chunk(TEXT, index=1, finish="STOP"),
        ],
    ),
    "gemini text behind the finish": (
        "gemini",
        [chunk(TEXT, usage=counts(1)), chunk(TEXT, usage=counts(2), finish="STOP"), chunk(TEXT, usage=counts(3))],
    ),
    "gemini error": ("gemini", [chunk(TEXT), {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}]),
    "gemini cut": ("gemini", [chunk(TEXT), chunk(TEXT)]),
    "ollama": (
        "ollama_chat",
        [line("a"), line("b"), line(""), line("c", thinking=""), line("d", thinking=None), line("", done=True)],
    ),
    "ollama thinking": (
        "ollama_chat",
        [
            line(thinking="t"),
            line(thinking="t"),
            line("a", thinking="t"),
            line("a"),
            line("a", thinking="t"),
            line(None, thinking="t"),
            line("a", done=True),
        ],
    ),
    "ollama call": (
        "ollama_chat",
        [line("a"), line("a", tool_calls=[{"function": {"name": "f", "arguments": {}}}]), line("b"), line(done=True)],
    ),
    "ollama odd": ("ollama_chat", [line("a"), line("b", done=0), line("c", done=None), {"error": "boom"}]),
    "ollama cut": ("ollama_chat", [line("a"), line("b")]),
    "chat": (
        "openai_chat",
        [said(""), said("a"), said("b"), said(""), said(), {**said("c"), "usage": None}, said(finish="stop")],
    ),
    "chat, text with its end": ("openai_chat", [said("a"), said("b", finish="length")]),
    "chat, nothing but an end": ("openai_chat", [said(finish="stop")]),
    "chat, an end twice": ("openai_chat", [said("a"), said("b", finish="stop"), said("c", finish="length"), said("d")]),
    "chat, an end that says nothing": ("openai_chat", [said("a"), said("b", finish=""), said(finish="stop")]),
    "chat, an end that is an error": ("openai_chat", [said("a"), said(finish="error"), said("b")]),
    "chat, an error at once": ("openai_chat", [said("a", finish="error")]),
    "chat, two choices": (
        "openai_chat",
        [said("a"), said("x", index=1), said("b"), said(index=1, finish="stop"), said(finish="stop")],
    ),
    "chat, the second choice first": ("openai_chat", [said("x", index=1, finish="stop"), said("a", finish="stop")]),
    "chat, no such index": ("openai_chat", [said("a"), said("b", index=None), said("c")]),
    "chat, a name that is none": ("openai_chat", [{**said("a"), "model": None, "id": 7}, said(finish="stop")]),
    "chat, no name": ("openai_chat", [{"choices": said("a")["choices"]}, said(finish="stop")]),
    "chat, thoughts": (
        "openai_chat",
        [said(reasoning_content="t"), said("", reasoning_content=""), said("a", reasoning_content=None), said("b")],
    ),
    "chat, a refusal": ("openai_chat", [said(refusal=None), said(refusal="no"), said(finish="stop", refusal=None)]),
    "chat, a call": (
        "openai_chat",
        [
            said("a", tool_calls=None, function_call=None),
            said(tool_calls=[{"index": 0, "id": "i", "function": {"name": "f", "arguments": "{"}}]),
            said(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]),
            said("b"),
            said(finish="tool_calls"),
        ],
    ),
    "chat, counts": (
        "openai_chat",
        [
            said("a"),
            {**said("b"), "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
            said(finish="stop"),
            {**said(), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}},
        ],
    ),
    "chat, odd": ("openai_chat", [said("a"), said(["b"]), said(5)]),
    "chat, no choice": (
        "openai_chat",
        [said("a"), {**said(), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, said("b")],
    ),
    "chat, two at once": ("openai_chat", [{**said(), "choices": said("a")["choices"] + said("x", index=1)["choices"]}]),
    "chat, cut": ("openai_chat", [said("a"), said("b")]),
    "converse": (
        "bedrock_converse",
        [*OPENED, delta(text=""), delta(text="é"), {**delta(text="c"), "p": 1}, *CLOSED, METADATA],
    ),
    "converse reasoning": (
        "bedrock_converse",
        [
            OPENED[0],
            delta(reasoningContent={"text": "t"}),
            delta(reasoningContent={"text": "t"}),
            delta(reasoningContent={"text": ""}),
            delta(reasoningContent={"signature": "s"}),
            delta(reasoningContent={"text": "t"}),
            delta(text="a"),
            delta(text="b"),
            delta(text="c", reasoningContent={"text": "t"}),
            *CLOSED,
            METADATA,
        ],
    ),
    "converse two blocks": ("bedrock_converse", [*OPENED, delta(1, text="x"), delta(text="c"), *CLOSED, METADATA]),
    "converse without an index": (
        "bedrock_converse",
        [*OPENED, event("contentBlockDelta", delta={"text": "c"}), *CLOSED],
    ),
    "converse call": (
        "bedrock_converse",
        [*OPENED, CLOSED[0], CALLED, delta(1, toolUse={"input": "{}"}), delta(1, text="no")],
    ),
    "converse closed block": ("bedrock_converse", [*OPENED, CLOSED[0], delta(text="no")]),
    "converse behind the stop": ("bedrock_converse", [*OPENED, CLOSED[1], delta(text="no")]),
    "converse cut": ("bedrock_converse", OPENED),
}


# --- reading -------------------------------------------------------------------------------------


def frames_of(values: list[JSON], **unknown: object) -> Iterator[Frame]:
    for value in values:
        fields = {key: item for key, item in value.items() if key != "name"}
        yield Frame(value.get("name", ""), json.dumps({**fields, **unknown}).encode())


def read(dialect: str, frames: list[Frame], *, at_once: bool) -> list[object]:
    """Give what comes out; a failure as the kind of its error, since its words quote the frame."""
    translator = DIALECTS[dialect].translator(Target(provider="p", model="m"))
    if at_once and hasattr(translator, "feed_all"):
        out: list[Event | Failure] = translator.feed_all(frames)
    else:
        out = [item for frame in frames for item in translator.feed(frame)]
    out += translator.finish()
    return [type(item.error) if isinstance(item, Failure) else item for item in out]


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize(("dialect", "values"), CASES.values(), ids=CASES)
def test_a_plain_frame_says_what_a_full_reading_finds(dialect: str, values: list[JSON], *, at_once: bool) -> None:
    in_full = read(dialect, list(frames_of(values, **UNKNOWN)), at_once=False)
    assert read(dialect, list(frames_of(values)), at_once=at_once) == in_full


def test_the_cases_say_something() -> None:
    came = [item for dialect, values in CASES.values() for item in read(dialect, list(frames_of(values)), at_once=True)]
    kinds = {type(item) for item in came}
    assert {TextDelta, ReasoningDelta, Usage, Notice, Stop} <= kinds
    assert any(isinstance(item, type) for item in came)


HALVES = {
    "gemini": [chunk({"text": text}) for text in ("a", "X", "Y", "c")] + [END],
    "ollama_chat": [line(text) for text in ("a", "X", "Y", "c")] + [line(done=True)],
    "bedrock_converse": [*OPENED, *(delta(text=text) for text in ("X", "Y", "c")), *CLOSED],
    "openai_chat": [*(said(text, finish=None) for text in ("a", "X", "Y", "c")), said(finish="stop")],
}


@pytest.mark.parametrize("dialect", HALVES)
def test_a_character_over_two_plain_frames_is_joined(dialect: str) -> None:
    frames = [
        Frame(frame.name, frame.data.replace(b'"X"', rb'"\ud83d"').replace(b'"Y"', rb'"\ude00!"'))
        for frame in frames_of(HALVES[dialect])
    ]
    texts = [item.text for item in read(dialect, frames, at_once=True) if isinstance(item, TextDelta)]
    assert "😀!c" in "".join(texts)


@pytest.mark.parametrize("dialect", HALVES)
def test_bytes_that_are_no_utf_8_are_told_of(dialect: str) -> None:
    frames = [Frame(frame.name, frame.data.replace(b'"X"', b'"\xff"')) for frame in frames_of(HALVES[dialect])]
    out = read(dialect, frames, at_once=True)
    assert any(isinstance(item, Notice) and "no UTF-8" in item.detail for item in out)


def test_counts_of_a_plain_frame_do_not_hold_line_breaks() -> None:
    frames = [Frame("", json.dumps(chunk(TEXT, usage=counts(n)), indent=1).encode()) for n in range(1, 4)]
    usages = [item for item in read("gemini", frames, at_once=True) if isinstance(item, Usage)]
    assert len(usages) == 3
    assert not any(b"\n" in bytes(usage.raw) for usage in usages)


# --- the reader ----------------------------------------------------------------------------------


def test_a_stream_without_plain_frames_is_given_up_on() -> None:
    reader = PlainReader(msgspec.json.Decoder(int))
    assert [reader.read(b'"x"') for _ in range(7)] == [None] * 7
    assert reader.read(b"1") == 1
    assert [reader.read(b'"x"') for _ in range(8)] == [None] * 8
    assert reader.read(b"1") is None
