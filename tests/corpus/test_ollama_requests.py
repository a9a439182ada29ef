"""Every recorded request of Ollama's chat, said in neutral words and built again: what others sent is what we send.

The ids of calls are left out of the comparison, for older clients send none; and empty lists of calls.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from loomstream.dialects import Target, ollama_chat
from loomstream.messages import ContentBlock, Message, Reasoning, Request, Text, Tool, ToolCall, ToolResult
from loomstream.providers import look_up, route

OPTIONS = {"num_predict": "max_tokens", "temperature": "temperature"}
IDS = {"id", "type", "tool_call_id"}


def request_of(body: dict[str, Any]) -> Request:
    tools = [tool["function"] for tool in body.get("tools") or []]
    return Request(
        messages=tuple(message_of(message) for message in body["messages"]),
        tools=tuple(Tool(tool["name"], tool["description"], tool["parameters"]) for tool in tools),
        stream=body["stream"],
        reasoning_effort="high" if body["think"] else "none",
        **{OPTIONS[name]: value for name, value in body["options"].items()},
    )


def message_of(message: dict[str, Any]) -> Message:
    text = (Text(message["content"]),) if message["content"] else ()
    if message["role"] == "tool":
        return Message("tool", (ToolResult("call_0", text, name=message["tool_name"]),))
    blocks: list[ContentBlock] = [Reasoning(message["thinking"])] if message.get("thinking") else []
    blocks += text
    for call in message.get("tool_calls") or []:
        blocks.append(ToolCall("call_0", call["function"]["name"], json.dumps(call["function"]["arguments"])))
    return Message(message["role"], tuple(blocks))


def without_ids(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    if isinstance(value, dict):
        return {key: without_ids(inner) for key, inner in value.items() if key not in IDS and inner != []}
    return [without_ids(inner) for inner in value] if isinstance(value, list) else value


def in_one_spelling(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "messages": without_ids(body["messages"]), "options": body.get("options", {})}


def test_a_recorded_request_is_built_again(ollama_exchange: dict[str, Any]) -> None:
    recorded = ollama_exchange["request"]
    row, model = look_up("ollama"), recorded["body"]["model"]
    target = Target(provider="ollama", model=model, base_url=row.base_url, quirks=route(row, model).quirks)
    built = ollama_chat.build_request(request_of(recorded["body"]), target)
    assert built.url == recorded["url"]
    assert in_one_spelling(msgspec.json.decode(built.body)) == in_one_spelling(recorded["body"])
