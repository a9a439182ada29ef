"""Every recorded request of Converse and of InvokeModel with Messages, said in neutral words and built again.

What another client has sent, and AWS has answered, is what we send. A key for which `Request` has no field goes through
`extra_body`.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from apis import APIS

from loomstream.dialects import Target
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
from loomstream.providers import dialect_module, look_up, route

INFERENCE = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "stopSequences": "stop_sequences",
}
MESSAGES = {"max_tokens": "max_tokens", "temperature": "temperature"}
FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "pdf": "application/pdf"}


class NoPlace(Exception):
    """A content that `Request` has no block for yet: documents with citations, plain completions."""


# --- from the wire to neutral words ------------------------------------------------------------------------------


def converse_block(part: dict[str, Any]) -> ContentBlock:
    match part:
        case {"text": text}:
            return Text(text)
        case {"toolUse": {"toolUseId": call_id, "name": name, "input": value}}:
            return ToolCall(call_id, name, json.dumps(value))
        case {"toolResult": {"toolUseId": call_id, "content": content}}:
            return ToolResult(call_id, tuple(Text(inner["text"]) for inner in content))
        case {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}:
            return Reasoning(text, (Opaque("bedrock", "signature", signature),))
        case {"image": {"format": form, "source": {"bytes": data}}}:
            return image_of(data, FORMATS[form])
        case _:
            raise NoPlace


def image_of(data: str, media_type: str) -> Image:
    try:
        return Image(base64.b64decode(data, validate=True), media_type)
    except ValueError:
        raise NoPlace from None  # shortened by who recorded it


def converse_request(body: dict[str, Any], *, stream: bool) -> Request:
    tools = body.get("toolConfig", {})
    known = {"messages", "inferenceConfig"}
    if not any("systemTool" in tool for tool in tools.get("tools", [])):
        known.add("toolConfig")
    if all("text" in part for part in body["system"]):
        known.add("system")  # and else it holds a cache point
    specifications = [tool["toolSpec"] for tool in tools.get("tools", [])] if "toolConfig" in known else []
    choice = next(iter(tools.get("toolChoice", {}).items()), None) if specifications else None
    return Request(
        messages=tuple(
            Message(said["role"], tuple(converse_block(part) for part in said["content"])) for said in body["messages"]
        ),
        system="\n\n".join(part["text"] for part in body["system"]) if "system" in known else "",
        tools=tuple(Tool(x["name"], x["description"], x["inputSchema"]["json"]) for x in specifications),
        tool_choice=ToolChoice(choice[0], choice[1].get("name", "")) if choice else None,
        **{INFERENCE[key]: value for key, value in body["inferenceConfig"].items()},
        stream=stream,
        extra_body={key: value for key, value in body.items() if key not in known},
    )


def messages_block(part: dict[str, Any]) -> ContentBlock:
    match part:
        case {"type": "text", "text": text, **rest} if not rest.get("cache_control"):
            return Text(text)
        case {"type": "tool_use", "id": call_id, "name": name, "input": value}:
            return ToolCall(call_id, name, json.dumps(value))
        case {"type": "tool_result", "tool_use_id": call_id, "content": str(text)}:
            return ToolResult(call_id, (Text(text),))
        case {"type": "tool_result", "tool_use_id": call_id, "content": list(content)}:
            return ToolResult(call_id, tuple(Text(inner["text"]) for inner in content))
        case _:
            raise NoPlace


def messages_request(body: dict[str, Any], *, stream: bool) -> Request:
    if "messages" not in body:
        raise NoPlace  # a completion of an older family
    known = {"messages", "anthropic_version", "tools", "system", "tool_choice", *MESSAGES}
    return Request(
        messages=tuple(
            Message(said["role"], tuple(messages_block(part) for part in said["content"])) for said in body["messages"]
        ),
        system="\n\n".join(part["text"] for part in body.get("system", [])),
        tools=tuple(Tool(x["name"], x["description"], x["input_schema"]) for x in body.get("tools", [])),
        tool_choice=ToolChoice(body["tool_choice"]["type"]) if "tool_choice" in body else None,
        **{MESSAGES[key]: value for key, value in body.items() if key in MESSAGES},
        stream=stream,
        extra_body={key: value for key, value in body.items() if key not in known},
    )


WITHOUT_A_PLACE = re.compile(r"bedrock/(?:0(?:08|19|2[0-2]|38|39|4[1-3])|nonstream-0(?:02|04|1[3-8]))-")
"""The recordings that hold what a `Request` cannot say yet."""


# --- what both sides are brought to ------------------------------------------------------------------------------


def canonical(body: dict[str, Any]) -> dict[str, Any]:
    """Drop what is empty and says nothing; a Messages system text may be a string or a list of one."""
    inference = {key: value for key, value in body.get("inferenceConfig", {}).items() if value != []}
    said = {**body, "inferenceConfig": inference} if "inferenceConfig" in body else body
    said = {key: value for key, value in said.items() if value not in ({}, [])}
    if isinstance(said.get("system"), str):
        said["system"] = [{"type": "text", "text": said["system"]}]
    for message in said["messages"]:
        for part in message["content"]:
            if part.get("type") == "tool_result" and isinstance(part["content"], str):
                part["content"] = [{"type": "text", "text": part["content"]}]
    return said


def test_a_recorded_request_is_built_again(bedrock_exchange: dict[str, Any]) -> None:
    dialect = APIS[bedrock_exchange["api"]].dialect
    recorded = bedrock_exchange["request"]
    body = {"system": [], "inferenceConfig": {}, **recorded["body"]} if "converse" in dialect else recorded["body"]
    read = converse_request if "converse" in dialect else messages_request
    if WITHOUT_A_PLACE.match(bedrock_exchange["id"]):
        with pytest.raises(NoPlace):
            read(body, stream=True)
        return
    request = read(body, stream=bool(bedrock_exchange["streaming"]))
    row, model = look_up("bedrock"), str(bedrock_exchange["meta"]["model"])
    address = urlsplit(recorded["url"])
    target = Target(
        provider="bedrock",
        model=model,
        base_url=f"https://{address.netloc}",
        quirks=route(row, model, dialect=dialect).quirks,
    )
    built = dialect_module(dialect).build_request(request, target)
    assert unquote(built.url) == unquote(recorded["url"])
    assert "%3A" in built.url or ":" not in model
    assert canonical(json.loads(built.body)) == canonical(recorded["body"])
