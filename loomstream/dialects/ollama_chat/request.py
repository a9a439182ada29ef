"""Requests to Ollama's chat: from the neutral `Request` to the wire's JSON.

Contract: pure. What the wire cannot carry is left out and named by `warnings`; unset fields are not sent, so
that the model file's own parameters hold.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from loomstream.dialects import Target
from loomstream.dialects.bodies import arguments_of, encode_body
from loomstream.dialects.fields import JSONObject
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
    ToolResult,
)
from loomstream.wire import WireRequest

_HEADERS = {"content-type": "application/json", "accept": "application/x-ndjson, application/json"}
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_MODELS_WITH_LEVELS = "gpt-oss"
"""The server refuses a level for any model but those of the harmony format (`think value … is not supported`)."""


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/api/chat`.

    Raises `RequestError` where the body cannot be written as JSON.
    """
    return WireRequest(
        url=f"{target.base_url.removesuffix('/api')}/api/chat",
        headers={**_HEADERS, **request.extra_headers},
        body=encode_body(_body(request, target), request.extra_body),
    )


def _body(request: Request, target: Target) -> JSONObject:
    silent = request.tool_choice is not None and request.tool_choice.mode == "none"
    optional: JSONObject = {
        "think": _think(request, target),
        "tools": None if silent else [_tool(tool) for tool in request.tools] or None,
        "options": _options(request) or None,
    }
    body: JSONObject = {"model": target.model, "messages": _messages(request), "stream": request.stream}
    return {**body, **{key: value for key, value in optional.items() if value is not None}}


def _options(request: Request) -> JSONObject:
    options: JSONObject = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "stop": list(request.stop_sequences) or None,
    }
    return {key: value for key, value in options.items() if value is not None}


def _think(request: Request, target: Target) -> bool | str | None:
    effort = request.reasoning_effort
    if effort is None:
        return None if request.reasoning_budget_tokens is None else request.reasoning_budget_tokens > 0
    if effort == "none":
        return False
    return _LEVELS[effort] if _MODELS_WITH_LEVELS in target.model else True


def _tool(tool: Tool) -> JSONObject:
    function: JSONObject = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


# --- messages ----------------------------------------------------------------------------------------------------


def _messages(request: Request) -> list[JSONObject]:
    messages: list[JSONObject] = [{"role": "system", "content": request.system}] if request.system else []
    for message in request.messages:
        messages += _assistant(message) if message.role == "assistant" else _turn(message)
    return messages


def _turn(message: Message) -> list[JSONObject]:
    written = [_tool_result(block) for block in message.content if isinstance(block, ToolResult)]
    plain = _plain(message.content)
    if plain["content"] or "images" in plain:
        role = "user" if message.role == "tool" else message.role
        written.append({"role": role, **plain})
    return written


def _plain(content: Iterable[ContentBlock]) -> JSONObject:
    blocks = list(content)
    text = "".join(block.text for block in blocks if isinstance(block, Text | Refusal))
    images = [base64.b64encode(block.data).decode() for block in blocks if isinstance(block, Image) and not block.url]
    return {"content": text, "images": images} if images else {"content": text}


def _assistant(message: Message) -> list[JSONObject]:
    written: JSONObject = {"role": "assistant", **_plain(message.content)}
    thinking = "".join(block.text for block in message.content if isinstance(block, Reasoning) and not block.opaque)
    if thinking:
        written["thinking"] = thinking
    calls = [_call(block) for block in message.content if isinstance(block, ToolCall)]
    if calls:
        written["tool_calls"] = calls
    return [written]


def _call(block: ToolCall) -> JSONObject:
    arguments = arguments_of(block.arguments) or {"INVALID_JSON": block.arguments}
    return {"id": block.id, "function": {"name": block.name, "arguments": arguments}}


def _tool_result(block: ToolResult) -> JSONObject:
    written: JSONObject = {"role": "tool", "tool_call_id": block.tool_call_id, **_plain(block.content)}
    if block.name:
        written["tool_name"] = block.name
    return written


# --- warnings ----------------------------------------------------------------------------------------------------


def warnings(request: Request, target: Target) -> tuple[str, ...]:
    """Say what of the request Ollama's chat cannot honour."""
    blocks = [block for message in request.messages for block in message.content]
    blocks += [inner for block in blocks if isinstance(block, ToolResult) for inner in block.content]
    settings = [text for applies, text in _SETTINGS if applies(request, target)]
    return (*settings, *(text for applies, text in _BLOCKS if any(applies(block) for block in blocks)))


def _forces_a_tool(request: Request, target: Target) -> bool:  # noqa: ARG001 (one signature)
    return request.tool_choice is not None and request.tool_choice.mode in {"any", "tool"}


def _loses_a_level(request: Request, target: Target) -> bool:
    return request.reasoning_effort not in {None, "none"} and _MODELS_WITH_LEVELS not in target.model


_SETTINGS: tuple[tuple[Callable[[Request, Target], bool], str], ...] = (
    (_forces_a_tool, "tool_choice is not sent: this wire cannot force a tool"),
    (_loses_a_level, "reasoning_effort is sent as on or off: this model takes no level"),
    (
        lambda request, _: request.reasoning_budget_tokens is not None,
        "reasoning_budget_tokens is sent as on or off: this wire has no budget",
    ),
    (
        lambda request, _: request.parallel_tool_calls is not None,
        "parallel_tool_calls is not sent: this wire has no such setting",
    ),
)
_BLOCKS: tuple[tuple[Callable[[ContentBlock], bool], str], ...] = (
    (
        lambda block: isinstance(block, Image) and bool(block.url),
        "images by URL are not sent: this wire takes their bytes",
    ),
    (
        lambda block: isinstance(block, Reasoning) and bool(block.opaque),
        "reasoning blocks of earlier turns that another provider signed are not sent",
    ),
    (
        lambda block: isinstance(block, ToolResult) and block.is_error,
        "tool results are sent without their error flag",
    ),
    (
        lambda block: not isinstance(block, Text | Refusal | Image | Reasoning | ToolCall | ToolResult),
        "files that a model made, and calls of a provider's own tools, are not sent",
    ),
)
