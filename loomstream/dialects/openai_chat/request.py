"""Requests to Chat Completions: from the neutral `Request` to the wire's JSON.

Contract: pure. What the host cannot honour is left out and named by `warnings`. Unset fields are not sent.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from loomstream.dialects import Target
from loomstream.dialects.bodies import encode_body
from loomstream.dialects.fields import JSONObject, as_list
from loomstream.messages import (
    ContentBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from loomstream.wire import WireRequest
from loomstream.wire.json import loads

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/chat/completions`."""
    return WireRequest(
        url=f"{target.base_url}/chat/completions",
        headers={**_HEADERS, **request.extra_headers},
        body=encode_body(_body(request, target), request.extra_body),
    )


def _body(request: Request, target: Target) -> JSONObject:
    quirks = target.quirks
    body: JSONObject = {"model": target.model, "messages": _messages(request, target)}
    if request.stream:
        body["stream"] = True
        if quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
    optional: JSONObject = {
        quirks.max_tokens_key: request.max_tokens if request.max_tokens is not None else quirks.needs_max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k if quirks.top_k else None,
        "stop": list(request.stop_sequences) or None,
        quirks.seed_key: request.seed,
        "reasoning_effort": request.reasoning_effort,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice) if request.tool_choice else None,
        "parallel_tool_calls": request.parallel_tool_calls,
    }
    body.update((key, value) for key, value in optional.items() if value is not None)
    return body


def _tool(tool: Tool) -> JSONObject:
    function: JSONObject = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> object:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return _CHOICES[choice.mode]


def _messages(request: Request, target: Target) -> list[JSONObject]:
    role = target.quirks.system_role
    messages: list[JSONObject] = [{"role": role, "content": request.system}] if request.system else []
    for message in request.messages:
        messages += _WRITERS[message.role](message, target)
    return messages


def _system(message: Message, target: Target) -> list[JSONObject]:
    return [{"role": target.quirks.system_role, "content": message.text}]


def _user(message: Message, target: Target) -> list[JSONObject]:  # noqa: ARG001 (one signature for all writers)
    results = _tool_messages(message.content)
    blocks = [block for block in message.content if isinstance(block, Text | Image)]
    if not blocks:
        return results
    if all(isinstance(block, Text) for block in blocks):
        content: object = message.text
    else:
        content = [_part(block) for block in blocks]
    return [*results, {"role": "user", "content": content}]


def _part(block: Text | Image) -> JSONObject:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    url = block.url or f"data:{block.media_type};base64,{base64.b64encode(block.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _assistant(message: Message, target: Target) -> list[JSONObject]:
    written: JSONObject = {"role": "assistant", "content": message.text or None}
    calls = [_call(block) for block in message.content if isinstance(block, ToolCall)]
    if calls:
        written["tool_calls"] = calls
    refusal = "".join(block.text for block in message.content if isinstance(block, Refusal))
    if refusal:
        written["refusal"] = refusal
    details = _details(message.content, target)
    if details:
        written["reasoning_details"] = details
    return [written]


def _call(block: ToolCall) -> JSONObject:
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.arguments}}


def _details(content: Iterable[ContentBlock], target: Target) -> list[object]:
    """Reasoning details go back to their issuer alone."""
    return [
        item
        for block in content
        if isinstance(block, Reasoning)
        for opaque in block.opaque
        if opaque.issuer == target.provider and opaque.kind == "details"
        for item in as_list(loads(opaque.data.encode("utf-8", "replace")))
    ]


def _tool_turn(message: Message, target: Target) -> list[JSONObject]:  # noqa: ARG001 (one signature for all writers)
    return _tool_messages(message.content)


def _tool_messages(content: Iterable[ContentBlock]) -> list[JSONObject]:
    return [
        {
            "role": "tool",
            "tool_call_id": block.tool_call_id,
            "content": "".join(inner.text for inner in block.content if isinstance(inner, Text)),
        }
        for block in content
        if isinstance(block, ToolResult)
    ]


_WRITERS: dict[str, Callable[[Message, Target], list[JSONObject]]] = {
    "system": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool_turn,
}


def warnings(request: Request, target: Target) -> tuple[str, ...]:
    """Say what of the request Chat Completions, or this host, cannot honour."""
    blocks = [block for message in request.messages for block in message.content]
    results = [block for block in blocks if isinstance(block, ToolResult)]
    foreign = [
        block
        for block in blocks
        if isinstance(block, Reasoning)
        and not any(opaque.issuer == target.provider and opaque.kind == "details" for opaque in block.opaque)
    ]
    checks = (
        (request.top_k is not None and not target.quirks.top_k, "top_k is not sent: this host does not take it"),
        (
            request.reasoning_budget_tokens is not None,
            "reasoning_budget_tokens is not sent: use reasoning_effort with this provider",
        ),
        (bool(foreign), "reasoning blocks of earlier turns are not sent: this provider did not issue them"),
        (any(block.is_error for block in results), "tool results are sent without their error flag"),
        (
            any(isinstance(inner, Image) for block in results for inner in block.content),
            "images in tool results are not sent: this provider takes text there",
        ),
    )
    return tuple(text for applies, text in checks if applies)
