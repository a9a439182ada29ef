"""Every recorded request of Cohere's chat, said in neutral words and built again: what others sent is what we send.

Compared in one spelling: text alone as a block, a tool's answer as the data of documents. The wire takes both.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlsplit

import msgspec

from loomstream.dialects import Target, cohere_chat
from loomstream.events import Opaque
from loomstream.messages import ContentBlock, Image, Message, Reasoning, Request, Text, Tool, ToolCall, ToolResult
from loomstream.providers import look_up

FIELDS = ("max_tokens", "temperature", "seed")


def request_of(body: dict[str, Any]) -> Request:
    body = dict(body)
    fields = {name: body.pop(name) for name in FIELDS if name in body}
    tools = [tool["function"] for tool in body.pop("tools", [])]
    messages = tuple(message_of(message) for message in body.pop("messages"))
    del body["model"]
    return Request(
        messages=messages,
        tools=tuple(Tool(tool["name"], tool["description"], tool["parameters"]) for tool in tools),
        stream=body.pop("stream", False),
        extra_body=body,
        **fields,
    )


def message_of(message: dict[str, Any]) -> Message:
    if message["role"] == "tool":
        texts = tuple(Text(json.dumps(data) if isinstance(data, dict) else data) for data in results(message))
        return Message("tool", (ToolResult(message["tool_call_id"], texts),))
    plan = message.get("tool_plan")
    blocks: list[ContentBlock] = [Reasoning(plan, (Opaque("cohere", "tool_plan", plan),))] if plan else []
    blocks += [block_of(part) for part in parts(message)]
    for call in message.get("tool_calls") or []:
        blocks.append(ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"]))
    return Message(message["role"], tuple(blocks))


def results(message: dict[str, Any]) -> list[Any]:
    content = message["content"]
    return [content] if isinstance(content, str) else [item["document"]["data"] for item in content]


def parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content") or []
    listed = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [part for part in listed if part.get("text") != ""]


def block_of(part: dict[str, Any]) -> ContentBlock:
    if part["type"] == "thinking":
        return Reasoning(part["thinking"])
    if part["type"] == "text":
        return Text(part["text"])
    url = part["image_url"]["url"]
    head, _, data = url.partition(";base64,")
    return Image(base64.b64decode(data), head.removeprefix("data:")) if data else Image(url=url)


def in_one_spelling(body: dict[str, Any]) -> dict[str, Any]:
    told = {"stream": False, **body, "messages": [spelt(message) for message in body["messages"]]}
    for tool in told.get("tools", []):
        tool["function"].setdefault("description", "")
    return told


def spelt(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        data = [as_object(item) for item in results(message)]
        return {**message, "content": data}
    content = [without_detail(part) for part in parts(message)]
    rest = {key: value for key, value in message.items() if key != "content"}
    return {**rest, "content": content} if content else rest


def as_object(data: object) -> object:
    try:
        return json.loads(data) if isinstance(data, str) else data
    except ValueError:
        return data


def without_detail(part: dict[str, Any]) -> dict[str, Any]:
    """A setting of one image, for which `Image` has no field."""
    return {**part, "image_url": {"url": part["image_url"]["url"]}} if part["type"] == "image_url" else part


def test_a_recorded_request_is_built_again(cohere_exchange: dict[str, Any]) -> None:
    recorded = cohere_exchange["request"]
    target = Target(provider="cohere", model=recorded["body"]["model"], base_url=look_up("cohere").base_url)
    request = request_of(recorded["body"])
    built = cohere_chat.build_request(request, target)
    assert cohere_chat.build_request(request, target).warnings == ()
    assert urlsplit(built.url).path == urlsplit(recorded["url"]).path
    assert in_one_spelling(msgspec.json.decode(built.body)) == in_one_spelling(recorded["body"])
