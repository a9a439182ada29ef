"""What the wires of three providers look like from a client's side, for one prompt and one answer."""

from __future__ import annotations

import json
from typing import NamedTuple

import loomstream as ls

KEY = "sk-canary-0123456789"
TOOL = ls.Tool("get_weather", "Tells the weather", {"type": "object", "properties": {"city": {"type": "string"}}})
SSE = {"content-type": "text/event-stream; charset=utf-8"}
NDJSON = {"content-type": "application/x-ndjson"}
USER = {"role": "user", "content": "Hi"}


class Wire(NamedTuple):
    """What a provider's wire looks like from outside, for the prompt "Hi" and the answer "Hello, you"."""

    spec: str
    url: str
    auth: dict[str, str]
    bare: dict[str, object]
    """The body where nothing but the prompt is given."""
    whole: dict[str, object]
    """The same with stream=False."""
    stream_headers: dict[str, str]
    stream: bytes
    answer: dict[str, object]


def sse(*frames: object, names: bool = False) -> bytes:
    lines = []
    for frame in frames:
        name = f"event: {frame['type']}\n" if names and isinstance(frame, dict) else ""
        data = frame if isinstance(frame, str) else json.dumps(frame)
        lines.append(f"{name}data: {data}\n\n")
    return "".join(lines).encode()


def chunk(delta: dict[str, object], finish: str | None = None) -> dict[str, object]:
    return {
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


OPENAI = Wire(
    spec="openai:gpt-4o",
    url="https://api.openai.com/v1/chat/completions",
    auth={"authorization": f"Bearer {KEY}"},
    bare={"model": "gpt-4o", "messages": [USER], "stream": True, "stream_options": {"include_usage": True}},
    whole={"model": "gpt-4o", "messages": [USER]},
    stream_headers=SSE,
    stream=sse(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hello, "}),
        chunk({"content": "you"}),
        chunk({}, "stop"),
        {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}},
        "[DONE]",
    ),
    answer={
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello, you"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3},
    },
)
ANTHROPIC = Wire(
    spec="anthropic:claude-sonnet-4-5-20250929",
    url="https://api.anthropic.com/v1/messages",
    auth={"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    bare={
        "model": "claude-sonnet-4-5-20250929",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "max_tokens": 4096,
        "stream": True,
    },
    whole={
        "model": "claude-sonnet-4-5-20250929",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "max_tokens": 4096,
    },
    stream_headers=SSE,
    stream=sse(
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "model": "claude-sonnet-4-5-20250929",
                "content": [],
                "usage": {"input_tokens": 9, "output_tokens": 1},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello, "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "you"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
        names=True,
    ),
    answer={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "Hello, you"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 3},
    },
)
OLLAMA = Wire(
    spec="ollama:qwen3",
    url="http://localhost:11434/api/chat",
    auth={},
    bare={"model": "qwen3", "messages": [USER], "stream": True},
    whole={"model": "qwen3", "messages": [USER], "stream": False},
    stream_headers=NDJSON,
    stream=b"".join(
        json.dumps(line).encode() + b"\n"
        for line in (
            {"model": "qwen3", "message": {"role": "assistant", "content": "Hello, "}, "done": False},
            {"model": "qwen3", "message": {"role": "assistant", "content": "you"}, "done": False},
            {
                "model": "qwen3",
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 9,
                "eval_count": 3,
            },
        )
    ),
    answer={
        "model": "qwen3",
        "message": {"role": "assistant", "content": "Hello, you"},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 9,
        "eval_count": 3,
    },
)
WIRES = {"openai": OPENAI, "anthropic": ANTHROPIC, "ollama": OLLAMA}
