"""Requests to Chat Completions: from the neutral `Request` to the wire's JSON.

Contract: pure. What the host cannot honour is left out and named by `warnings`. Unset fields are not sent.
"""

from __future__ import annotations

from collections.abc import Callable

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.bodies import encode_body
from loomstream.dialects.fields import JSONObject
from loomstream.dialects.honoured import unhonoured
from loomstream.dialects.openai_chat.turns import WRITERS, goes_back, messages_of
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    FileBlock,
    Image,
    Reasoning,
    Refusal,
    Request,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from loomstream.wire import WireRequest

HONOURED: frozenset[str] = frozenset()
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/chat/completions`.

    Raises `RequestError` where the body cannot be written as JSON.
    """
    return WireRequest(
        url=endpoint_url(target, "/chat/completions", stream=request.stream),
        headers={**_HEADERS, **host_headers(target), **request.extra_headers},
        body=encode_body(_body(request, target), request.extra_body),
        warnings=(*_warnings(request, target), *unhonoured(request, HONOURED)),
    )


def _body(request: Request, target: Target) -> JSONObject:
    body: JSONObject = {"model": target.model, "messages": messages_of(request, target)}
    if request.stream:
        body["stream"] = True
        if target.quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
    refused = _refused(request, target)
    options = _options(request, target)
    for key in refused:
        options.pop(key, None)
    body.update(options)
    return body


def _options(request: Request, target: Target) -> JSONObject:
    """Give what the request asks for, by the body's keys; whether the model takes it is another question."""
    quirks = target.quirks
    options: JSONObject = {
        quirks.max_tokens_key: request.max_tokens if request.max_tokens is not None else quirks.needs_max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k if quirks.top_k else None,
        "stop": list(request.stop_sequences) or None,
        quirks.seed_key: request.seed,
        "reasoning_effort": request.reasoning_effort,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice, target) if request.tool_choice else None,
        "parallel_tool_calls": request.parallel_tool_calls,
    }
    return {key: value for key, value in options.items() if value is not None}


def _refused(request: Request, target: Target) -> tuple[str, ...]:
    quirks = target.quirks
    reasons = request.reasoning_effort not in (None, "none")
    return quirks.refused + quirks.refused_with_effort if reasons else quirks.refused


def _tool(tool: Tool) -> JSONObject:
    function: JSONObject = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice, target: Target) -> object:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return target.quirks.any_tool_word if choice.mode == "any" else choice.mode


# --- warnings ----------------------------------------------------------------------------------------------------

_NAMES: dict[type[ContentBlock], str] = {
    Text: "texts",
    Image: "images",
    Audio: "sounds",
    Document: "documents",
    CachePoint: "cache points",
    FileBlock: "files that a model made",
    Reasoning: "reasoning blocks",
    Refusal: "refusals",
    ToolCall: "tool calls",
    ToolResult: "tool results",
    ServerToolCallBlock: "calls of a provider's own tools",
    ServerToolResultBlock: "results of a provider's own tools",
}


def _warnings(request: Request, target: Target) -> tuple[str, ...]:
    """Say what of the request Chat Completions, or this host, cannot honour."""
    refused = _refused(request, target)
    left_out = [
        f"{_NAMES[type(block)]} in {message.role} turns are not sent: this wire has no place for them"
        for message in request.messages
        for block in message.content
        if type(block) not in WRITERS[message.role]
    ]
    blocks = [block for message in request.messages for block in message.content]
    asked = _options(request, target) if refused else ()
    said = [f"{key} is not sent: this model does not take it" for key in asked if key in refused]
    said += [text for applies, text in _SETTINGS if applies(request, target)]
    said += [text for applies, text in _BLOCKS if any(applies(block, target) for block in blocks)]
    return tuple(dict.fromkeys(said + left_out))


def _has_system(request: Request) -> bool:
    return bool(request.system) or any(message.role == "system" for message in request.messages)


_SETTINGS: tuple[tuple[Callable[[Request, Target], bool], str], ...] = (
    (
        lambda request, target: request.top_k is not None and not target.quirks.top_k,
        "top_k is not sent: this host does not take it",
    ),
    (
        lambda request, _: request.reasoning_budget_tokens is not None,
        "reasoning_budget_tokens is not sent: use reasoning_effort with this provider",
    ),
    (
        lambda request, target: target.quirks.system_role == "user" and _has_system(request),
        "system turns are sent as the user's: this model takes none",
    ),
)
_BLOCKS: tuple[tuple[Callable[[ContentBlock, Target], bool], str], ...] = (
    (
        lambda block, target: isinstance(block, Reasoning) and not goes_back(block, target),
        "reasoning blocks of earlier turns are not sent: they cannot be sent back on this wire",
    ),
    (
        lambda block, _: isinstance(block, ToolResult) and block.is_error,
        "tool results are sent without their error flag",
    ),
    (
        lambda block, _: isinstance(block, ToolResult) and any(isinstance(inner, Image) for inner in block.content),
        "images in tool results are not sent: this provider takes text there",
    ),
)
