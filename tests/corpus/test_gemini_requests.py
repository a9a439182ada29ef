"""Every recorded request of generateContent, said in neutral words and built again for the same host.

What another client has sent, and the host has answered, is what we send: the same address, keys, turns and signatures.
A key for which `Request` has no field goes through `extra_body`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from oracle import canonical
from test_corpus import provider_of

from loomstream.dialects import Target, gemini
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

SETTINGS = {
    "maxOutputTokens": "max_tokens",
    "temperature": "temperature",
}
BUDGETS = {"thinkingBudget": "reasoning_budget_tokens", "thinkingLevel": "reasoning_effort"}
PLAIN_TOOLS = {"functionDeclarations"}


class NoPlace(Exception):
    """What a recorder has shortened."""


UNBUILT = {
    "gemini/014-streamGenerateContent-gemini-2-5-pro-stream",
    "gemini/nonstream-008-generateContent-multimodal-tool-return-matrix-direct-url-document-google-2",
    "vertex/nonstream-008-generateContent-chat-multimodal-tool-attachments-vertexai-gemini-2-5-fla-2",
    "vertex/nonstream-009-generateContent-chat-pdf-models-vertexai-gemini-2-5-flash-handles-multip-2",
    "vertex/nonstream-010-generateContent-chat-pdf-models-vertexai-gemini-2-5-flash-understands-pd-2",
    "vertex/nonstream-014-generateContent-model-sees-multiple-images-google-vertex-1",
}
"""Requests whose files were shortened by who recorded them."""


def camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


SCHEMAS = {"parameters", "parametersJsonSchema", "args", "response", "responseSchema", "responseJsonSchema"}


def tidy(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Give the wire's own spelling of names, without nulls; what a user's schema or data holds stays."""
    if isinstance(value, list):
        return [tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {camel(key): item for key, item in value.items() if item is not None}
    kept = {key: item if key in SCHEMAS else tidy(item) for key, item in named.items()}
    return {key: item for key, item in kept.items() if not (key == "thought" and item is False)}


# --- from the wire to neutral words --------------------------------------------------------------


def message_of(content: dict[str, Any], provider: str) -> Message:
    blocks = [block for part in content["parts"] for block in blocks_of(part, provider)]
    return Message("assistant" if content["role"] == "model" else "user", tuple(blocks))


def blocks_of(part: dict[str, Any], provider: str) -> Iterator[ContentBlock]:
    signature = part.get("thoughtSignature", "")
    match part:
        case {"functionCall": call}:
            opaque = (Opaque(provider, "thought_signature", signature),) if signature else ()
            yield ToolCall(call.get("id", ""), call["name"], json.dumps(call["args"]), opaque)
        case {"functionResponse": answer}:
            files = [image_of(inner) for inner in answer.get("parts", [])]
            said = Text(canonical(answer["response"]))
            yield ToolResult(answer.get("id", ""), (said, *files), name=answer["name"])
        case {"thought": True, "text": text}:
            yield Reasoning(text)
        case {"text": text}:
            yield Text(text)
        case _:
            yield image_of(part)


def image_of(part: dict[str, Any]) -> Image:
    match part:
        case {"inlineData": {"data": data, "mimeType": media_type}} if "<" not in data:
            return Image(base64.b64decode(data), media_type)
        case {"fileData": {"fileUri": url, "mimeType": media_type}}:
            return Image(media_type=media_type, url=url)
        case _:
            raise NoPlace


def tool_of(declared: dict[str, Any]) -> Tool:
    schema = declared.get("parametersJsonSchema") or declared.get("parameters") or {}
    return Tool(declared["name"], declared.get("description", ""), schema)


def request_of(body: dict[str, Any], provider: str, *, stream: bool) -> Request:
    config = dict(body.get("generationConfig", {}))
    fields: dict[str, Any] = {SETTINGS[key]: config.pop(key) for key in SETTINGS if key in config}
    thinking = config.get("thinkingConfig", {})
    for key in BUDGETS.keys() & thinking.keys():
        fields[BUDGETS[key]] = thinking[key].lower() if key == "thinkingLevel" else thinking[key]
        del config["thinkingConfig"]
    tools = body.get("tools", [])
    own = [tool for tool in tools if tool.keys() == PLAIN_TOOLS]
    tool_config = dict(body.get("toolConfig", {}))
    calling = tool_config.pop("functionCallingConfig", None) if own else None
    extra = {key: body[key] for key in ("safetySettings", "cachedContent") if key in body}
    extra |= {"tools": tools} if own != tools else {}
    extra |= {"generationConfig": config} if config else {}
    extra |= {"toolConfig": tool_config} if tool_config else {}
    return Request(
        system="".join(part["text"] for part in body.get("systemInstruction", {}).get("parts", [])),
        messages=tuple(message_of(content, provider) for content in body["contents"]),
        tools=tuple(tool_of(declared) for tool in own for declared in tool["functionDeclarations"]),
        tool_choice=ToolChoice(calling["mode"].lower()) if calling else None,
        extra_body=extra,
        stream=stream,
        **fields,
    )


# --- one spelling for what means the same ----------------------------------------------------------


def plain(body: dict[str, Any]) -> dict[str, Any]:
    written = {**body, "contents": []}
    for content in body["contents"]:
        parts = [plain_part(part) for part in content["parts"]]
        if written["contents"] and written["contents"][-1]["role"] == content["role"]:
            written["contents"][-1]["parts"] += parts
        else:
            written["contents"].append({"role": content["role"], "parts": parts})
    system = body.get("systemInstruction", {}).get("parts", [])
    written["systemInstruction"] = "".join(part["text"] for part in system)
    if not written["systemInstruction"]:
        del written["systemInstruction"]
    if "tools" in body:
        written["tools"] = [plain_tools(tool) for tool in body["tools"]]
    thinking = dict(body.get("generationConfig", {}).get("thinkingConfig", {}))
    if thinking:
        thinking["includeThoughts"] = thinking.get("includeThoughts", False)
        if "thinkingLevel" in thinking:
            thinking["thinkingLevel"] = thinking["thinkingLevel"].lower()
        written["generationConfig"] = {**body["generationConfig"], "thinkingConfig": thinking}
    return {key: value for key, value in written.items() if value not in ({}, [])}


def plain_part(part: dict[str, Any]) -> dict[str, Any]:
    if "functionResponse" not in part:
        return part
    response = part["functionResponse"]["response"]
    said = response["output"] if response.keys() == {"output"} else canonical(response)
    return {**part, "functionResponse": {**part["functionResponse"], "response": said}}


def plain_tools(tool: dict[str, Any]) -> dict[str, Any]:
    declared = [tool_of(one) for one in tool.get("functionDeclarations", [])]
    named = [(one.name, one.description, one.parameters) for one in declared]
    return {**tool, **({"functionDeclarations": named} if named else {})}


# --- the comparison --------------------------------------------------------------------------------


def address_of(url: str) -> str:
    """Give a recorded address as we would send it: no key in it, the stable version, a location."""
    url = re.sub(r"[?&]key=REDACTED", "", url).replace("/v1beta1/", "/v1/")
    return url.replace("<GOOGLE_CLOUD_LOCATION>", "global")


def test_a_recorded_request_is_built_again(gemini_exchange: dict[str, Any]) -> None:
    recorded = gemini_exchange["request"]
    body, url = tidy(recorded["body"]), address_of(recorded["url"])
    row = look_up(provider_of(gemini_exchange))
    model = url.partition("/models/")[2].partition(":")[0]
    located = re.search("/locations/([a-z0-9-]+)/", url)
    settings = {"project": "REDACTED-PROJECT", "location": located[1] if located else ""}
    spoken = route(row, model, settings=settings)
    target = Target(
        provider=row.name,
        model=model,
        base_url=spoken.base_url.format_map(settings),
        quirks=spoken.quirks,
        settings=settings,
    )
    try:
        request = request_of(body, row.name, stream=gemini_exchange["streaming"])
    except NoPlace:
        assert gemini_exchange["id"] in UNBUILT
        return
    wire_request = gemini.build_request(request, target)
    assert wire_request.url == url + ("?alt=sse" if "json-array" in gemini_exchange["api"] else "")
    assert plain(json.loads(wire_request.body)) == plain(body)
    assert gemini.build_request(request, target).warnings == ()
