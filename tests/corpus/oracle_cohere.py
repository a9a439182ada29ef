"""An independent reading of Cohere's chat, version 2; see `oracle` for the contract.

A plan for tool calls is reasoning, and must be kept byte for byte beside it: it is listed among the signatures.
"""

from __future__ import annotations

import json
from typing import Any

from oracle import NO_USAGE, Answer, Api, Call, Reading, sse_ends


def _stream(body: bytes) -> Reading:
    reading = Reading()
    answer = reading.answer(0)
    plan = ""
    for line in body.decode().splitlines():
        if not line.startswith("data: {"):
            continue
        frame: dict[str, Any] = json.loads(line.removeprefix("data: "))
        kind, delta = frame["type"], frame.get("delta") or {}
        if kind == "message-end":
            _end(reading, answer, delta)
        elif kind == "tool-plan-delta":
            plan += delta["message"]["tool_plan"]
            answer.reasoning += delta["message"]["tool_plan"]
        elif kind in {"content-start", "content-delta"}:
            _content(answer, delta["message"]["content"])
        elif kind == "tool-call-start":
            call = delta["message"]["tool_calls"]
            answer.calls.append(Call(call["id"], call["function"]["name"], call["function"]["arguments"]))
        elif kind == "tool-call-delta":
            answer.calls[frame["index"]].arguments += delta["message"]["tool_calls"]["function"]["arguments"]
        elif kind == "citation-start":
            answer.citations.append(_source(delta["message"]["citations"]))
    answer.signatures += [plan] if plan else []
    return reading


def _whole(body: bytes) -> Reading:
    value = json.loads(body)
    reading = Reading()
    answer = reading.answer(0)
    message = value["message"]
    for content in message.get("content") or []:
        _content(answer, content)
    answer.reasoning += message.get("tool_plan") or ""
    answer.signatures += [message["tool_plan"]] if message.get("tool_plan") else []
    for call in message.get("tool_calls") or []:
        answer.calls.append(Call(call["id"], call["function"]["name"], call["function"]["arguments"]))
    answer.citations += [_source(citation) for citation in message.get("citations") or []]
    _end(reading, answer, value)
    return reading


def _content(answer: Answer, content: dict[str, Any]) -> None:
    answer.text += content.get("text") or ""
    answer.reasoning += content.get("thinking") or ""


def _source(citation: dict[str, Any]) -> str:
    """Give the first source's URL, or the words that are cited where no source has one."""
    held = [source.get("document") or source.get("tool_output") or {} for source in citation["sources"]]
    return next((document["url"] for document in held if document.get("url")), citation["text"])


def _end(reading: Reading, answer: Answer, end: dict[str, Any]) -> None:
    reading.complete = True
    answer.stop = end["finish_reason"]
    tokens, cached = end["usage"]["tokens"], end["usage"].get("cached_tokens") or 0
    reading.usage = {
        **NO_USAGE,
        "input_tokens": tokens["input_tokens"] + tokens.get("image_tokens", 0) - cached,
        "output_tokens": tokens["output_tokens"],
        "cache_read_tokens": cached,
        "reasoning_tokens": tokens.get("reasoning_tokens", 0),
    }


_REASONS = {
    "COMPLETE": {"end_turn"},
    "MAX_TOKENS": {"max_tokens"},
    "TOOL_CALL": {"tool_use"},
}

APIS = {
    "chat.v2": Api(
        "cohere_chat", _stream, _whole, sse_ends, _REASONS, mislabelled=frozenset({"tool_calls"})
    )  # each `message-start` has an empty `tool_calls`
}
