"""Every recorded request of Chat Completions, said in neutral words and built again for the same host.

What another client has sent, and the host has answered, is what we send: the same address, keys and messages. A key for
which `Request` has no field goes through `extra_body`.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
from test_corpus import provider_of

from loomstream.dialects import Target, openai_chat
from loomstream.events import Opaque
from loomstream.messages import (
    ContentBlock,
    Image,
    Message,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from loomstream.providers import look_up, route

SETTINGS: dict[str, dict[str, str]] = {"snowflake": {"account": "example-workspace"}}
"""What the recorded addresses of hosts with an account in them were made of."""

ELSEWHERE = (
    "services.ai.azure.com/models/",  # another service of the same vendor
    "azure.com//openai/",  # a doubled slash, which we do not send
    "router.huggingface.co/nebius/",  # the router's older addresses, one for each backend
    "router.huggingface.co/novita/",
    "router.huggingface.co/together/",
    "//api.deepseek.com/chat/",  # the same without /v1
    "api.z.ai/api/coding/",  # another plan
    "//api.openai.com/v1/chat/completions",  # labelled as another host's by who recorded it
    "#stream",
    "<",
)
"""Recorded addresses that are not those of the row; the bodies are compared all the same."""

FIELDS = {
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "random_seed": "seed",
    "parallel_tool_calls": "parallel_tool_calls",
    "reasoning_effort": "reasoning_effort",
    "stream": "stream",
}
NOT_COMPARED = {"stream_options", "reasoning", "reasoning_content"}
"""Asked for or sent back by us by the host's row; what it does there has its own tests."""


class NoPlace(Exception):
    """A content that `Request` has no block for yet (documents, audio, a prefix to go on from)."""


# --- from the wire to neutral words --------------------------------------------------------------


UNBUILT = {
    "azure/nonstream-004-chat-completions-chat-vision-models-azure-grok-4-1-fast-non-reasoning-can",
    "mistral/001-chat-completions-streaming-agent-reads-an-attached-pdf",
    "mistral/002-chat-completions-streaming-agent-sends-audio",
    "mistral/nonstream-002-chat-completions-blocking-document-and-image-in-one-message",
    "mistral/nonstream-004-chat-completions-chat-audio-models-mistral-voxtral-small-latest-can-under",
    "ollama/nonstream-010-chat-completions-chat-string-tool-results-ollama-qwen3-preserves-strings-1",
    "ollama/nonstream-011-chat-completions-chat-vision-models-ollama-granite3-2-vision-can-understa-1",
    "openai/009-chat-completions-openai-gpt-5-stream",
    "openai/nonstream-007-chat-completions-model-sees-multiple-images-openai-chat-1",
    "openrouter/011-chat-completions-openrouter-web-search-annotations-stream",
}
"""Requests with what a `Request` has no block for (documents, audio, a prefix, server tools)."""


def blocks_in(content: object) -> list[ContentBlock]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)] if content else []
    assert isinstance(content, list)
    return [block_of(part) for part in content]


def block_of(part: dict[str, Any]) -> ContentBlock:
    match part:
        case {"type": "text", "text": text}:
            return Text(text)
        case {"type": "image_url", "image_url": {"url": url} | str(url)}:
            if not url.startswith("data:"):
                return Image(url=url)
            head, data = url.split(",", 1)
            return image_of(head, data)
        case _:
            raise NoPlace


def image_of(head: str, data: str) -> Image:
    try:
        return Image(base64.b64decode(data, validate=True), head.removeprefix("data:").removesuffix(";base64"))
    except ValueError:
        raise NoPlace from None  # shortened by who recorded it


def message_of(said: dict[str, Any], provider: str) -> Message:
    if said.get("prefix"):
        raise NoPlace
    blocks = blocks_in(said.get("content"))
    match said["role"]:
        case "system" | "developer":
            return Message("system", tuple(blocks))
        case "tool":
            texts = tuple(block for block in blocks if isinstance(block, Text))
            return Message("tool", (ToolResult(said["tool_call_id"], texts),))
        case "assistant":
            details = said.get("reasoning_details")
            opaque = (Opaque(provider, "details", json.dumps(details)),) if details else ()
            reasoning = said.get("reasoning_content") or said.get("reasoning") or ""
            calls = [
                ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in said.get("tool_calls") or []
            ]
            before = [Reasoning(reasoning, opaque)] if reasoning or opaque else []
            return Message("assistant", (*before, *blocks, *calls))
        case _:
            return Message("user", tuple(blocks))


def tool_of(tool: dict[str, Any]) -> Tool:
    if "function" not in tool:
        raise NoPlace
    function = tool["function"]
    return Tool(function["name"], function.get("description", ""), function.get("parameters") or {})


def choice_of(choice: object) -> ToolChoice:
    match choice:
        case {"function": {"name": name}}:
            return ToolChoice("tool", name)
        case "required" | "any":
            return ToolChoice("any")
        case "none":
            return ToolChoice("none")
        case _:
            return ToolChoice("auto")


def request_of(body: dict[str, Any], provider: str) -> Request:
    known = {FIELDS[key]: value for key, value in body.items() if key in FIELDS}
    said = {*FIELDS, *NOT_COMPARED, "model", "messages", "tools", "tool_choice", "stop"}
    return Request(
        messages=tuple(message_of(message, provider) for message in body["messages"]),
        tools=tuple(tool_of(tool) for tool in body.get("tools", [])),
        tool_choice=choice_of(body["tool_choice"]) if "tool_choice" in body else None,
        extra_body={key: value for key, value in body.items() if key not in said},
        **{"stream": False, **known},
    )


# --- one spelling for what means the same ----------------------------------------------------------


def plain(body: dict[str, Any]) -> dict[str, Any]:
    written = {key: value for key, value in body.items() if key not in NOT_COMPARED and value is not False}
    for key, field in FIELDS.items():
        if key in written:
            written[field] = written.pop(key)
    messages = [plain_message(message) for message in body["messages"]]
    written["messages"] = [message for message in messages if message != {"role": "assistant", "content": ""}]
    if not body.get("tools"):
        written.pop("tools", None)
    else:
        written["tools"] = [msgspec.to_builtins(tool_of(tool)) for tool in body["tools"]]
    if "tool_choice" in body:
        written["tool_choice"] = msgspec.to_builtins(choice_of(body["tool_choice"]))
    return written


def plain_message(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        content = "".join(part["text"] for part in content)
    role = "system" if message["role"] == "developer" else message["role"]
    if isinstance(content, list):
        content = [plain_part(part) for part in content]
    ignored = NOT_COMPARED | {"name"}
    rest = {key: value for key, value in message.items() if value not in (None, False) and key not in ignored}
    if "tool_calls" in rest:
        rest["tool_calls"] = [{"type": "function", **call} for call in rest["tool_calls"]]
        for call in rest["tool_calls"]:
            call.pop("index", None)
    return {**rest, "role": role, "content": content or ""}


def plain_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "image_url":
        return {"type": part["type"], "text": part["text"]}
    image = part["image_url"]
    return {"type": "image_url", "image_url": {"url": image if isinstance(image, str) else image["url"]}}


# --- the comparison --------------------------------------------------------------------------------


def settings_in(url: str, provider: str) -> dict[str, str]:
    if "api-version=" in url:
        return {"api_version": url.split("api-version=")[1]}
    return {"api_version": "v1"} if "/openai/v1/" in url else SETTINGS.get(provider, {})


def built(exchange: dict[str, Any], recorded: dict[str, Any]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    row = look_up(provider_of(exchange))
    body, url = recorded["body"], recorded["url"]
    model = url.split("/deployments/")[1].split("/")[0] if "/deployments/" in url else body["model"]
    settings = {setting.name: setting.default for setting in row.settings} | settings_in(url, row.name)
    spoken = route(row, model, dialect="openai_chat", settings=settings)
    base_url = (spoken.base_url or url.split("/openai/")[0]).format_map(settings)
    target = Target(provider=row.name, model=model, base_url=base_url, quirks=spoken.quirks, settings=settings)
    request = request_of(body, row.name)
    wire_request = openai_chat.build_request(request, target)
    return wire_request.url, json.loads(wire_request.body), openai_chat.build_request(request, target).warnings


def test_a_recorded_request_is_built_again(chat_exchange: dict[str, Any]) -> None:
    # who recorded them put this in the place of some ids, which had another length
    recorded = json.loads(json.dumps(chat_exchange["request"]).replace('"call_REDACTED_', '"REDACTED'))
    try:
        url, body, warnings = built(chat_exchange, recorded)
    except NoPlace:
        assert chat_exchange["id"] in UNBUILT
        return
    if look_up(provider_of(chat_exchange)).base_url and not any(part in recorded["url"] for part in ELSEWHERE):
        assert url == recorded["url"]
    if chat_exchange["status"] >= 400:
        return  # what was refused need not be sent again
    said = recorded["body"] | ({"model": body["model"]} if "/deployments/" in url else {})
    assert plain(body) == plain(said)
    assert all("reasoning blocks of earlier turns" in warning for warning in warnings)
    assert not warnings or look_up(provider_of(chat_exchange)).key_environment == (
        "LOOM_LLM_OPENAI_COMPATIBLE_API_KEY",
    )
