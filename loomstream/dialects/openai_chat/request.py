"""Requests to Chat Completions: from the neutral `Request` to the wire's JSON.

Contract: pure. What the host cannot honour is left out and named by `warnings`. Unset fields are not sent. A block that
the table of its turn's role does not name has no place on the wire.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from loomstream.dialects import Target
from loomstream.dialects.bodies import encode_body
from loomstream.dialects.fields import JSONObject, as_list
from loomstream.events import Opaque
from loomstream.messages import (
    ContentBlock,
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
from loomstream.wire.json import loads

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/chat/completions`.

    Raises `RequestError` where the body cannot be written as JSON.
    """
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


# --- messages ----------------------------------------------------------------------------------------------------


def _messages(request: Request, target: Target) -> list[JSONObject]:
    role = target.quirks.system_role
    messages: list[JSONObject] = [{"role": role, "content": request.system}] if request.system else []
    for message in request.messages:
        turn = _Turn(target)
        writers = _WRITERS[message.role]
        for block in message.content:
            if type(block) in writers:
                writers[type(block)](turn, block)
        messages += _ENDINGS[message.role](turn)
    return messages


class _Turn:
    """Gathers the blocks of one turn; its role says which messages they become."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._texts: list[str] = []
        self._parts: list[JSONObject] = []
        self._has_image = False
        self._results: list[JSONObject] = []
        self._refusals: list[str] = []
        self._calls: list[JSONObject] = []
        self._details: list[object] = []

    # --- blocks ----------------------------------------------------------------------------------

    def text(self, block: Text) -> None:
        """Take text."""
        self._texts.append(block.text)
        self._parts.append({"type": "text", "text": block.text})

    def image(self, block: Image) -> None:
        """Take an image by its URL, or by its bytes."""
        self._has_image = True
        url = block.url or f"data:{block.media_type};base64,{base64.b64encode(block.data).decode()}"
        self._parts.append({"type": "image_url", "image_url": {"url": url}})

    def tool_result(self, block: ToolResult) -> None:
        """Take a tool's answer, which is text on this wire."""
        text = "".join(inner.text for inner in block.content if isinstance(inner, Text))
        self._results.append({"role": "tool", "tool_call_id": block.tool_call_id, "content": text})

    def refusal(self, block: Refusal) -> None:
        """Take a refusal."""
        self._refusals.append(block.text)

    def tool_call(self, block: ToolCall) -> None:
        """Take a call."""
        function: JSONObject = {"name": block.name, "arguments": block.arguments}
        self._calls.append({"id": block.id, "type": "function", "function": function})

    def reasoning(self, block: Reasoning) -> None:
        """Take the reasoning details that the target itself has issued."""
        for opaque in block.opaque:
            if _goes_back(opaque, self._target):
                self._details += as_list(loads(opaque.data.encode("utf-8", "replace")))

    # --- messages --------------------------------------------------------------------------------

    def as_system(self) -> list[JSONObject]:
        """Give a system turn."""
        return [{"role": self._target.quirks.system_role, "content": "".join(self._texts)}]

    def as_user(self) -> list[JSONObject]:
        """Give the results, each as a message of its own, and what the user says beside them."""
        if not self._parts:
            return self._results
        content: object = self._parts if self._has_image else "".join(self._texts)
        return [*self._results, {"role": "user", "content": content}]

    def as_assistant(self) -> list[JSONObject]:
        """Give an assistant turn."""
        written: JSONObject = {"role": "assistant", "content": "".join(self._texts) or None}
        optional: JSONObject = {
            "tool_calls": self._calls,
            "refusal": "".join(self._refusals),
            "reasoning_details": self._details,
        }
        return [{**written, **{key: value for key, value in optional.items() if value}}]


def _goes_back(opaque: Opaque, target: Target) -> bool:
    """Say whether this may be sent: reasoning details go back to their issuer alone."""
    return opaque.issuer == target.provider and opaque.kind == "details"


_USER: Mapping[type[ContentBlock], Callable[..., None]] = {
    Text: _Turn.text,
    Image: _Turn.image,
    ToolResult: _Turn.tool_result,
}
_ASSISTANT: Mapping[type[ContentBlock], Callable[..., None]] = {
    Text: _Turn.text,
    Refusal: _Turn.refusal,
    Reasoning: _Turn.reasoning,
    ToolCall: _Turn.tool_call,
}
_WRITERS: dict[str, Mapping[type[ContentBlock], Callable[..., None]]] = {
    "system": {Text: _Turn.text},
    "user": _USER,
    "assistant": _ASSISTANT,
    "tool": _USER,
}
_ENDINGS: dict[str, Callable[[_Turn], list[JSONObject]]] = {
    "system": _Turn.as_system,
    "user": _Turn.as_user,
    "assistant": _Turn.as_assistant,
    "tool": _Turn.as_user,
}
_NAMES: dict[type[ContentBlock], str] = {
    Text: "texts",
    Image: "images",
    FileBlock: "files that a model made",
    Reasoning: "reasoning blocks",
    Refusal: "refusals",
    ToolCall: "tool calls",
    ToolResult: "tool results",
    ServerToolCallBlock: "calls of a provider's own tools",
    ServerToolResultBlock: "results of a provider's own tools",
}

# --- warnings ----------------------------------------------------------------------------------------------------


def warnings(request: Request, target: Target) -> tuple[str, ...]:
    """Say what of the request Chat Completions, or this host, cannot honour."""
    left_out = [
        f"{_NAMES[type(block)]} in {message.role} turns are not sent: this wire has no place for them"
        for message in request.messages
        for block in message.content
        if type(block) not in _WRITERS[message.role]
    ]
    blocks = [block for message in request.messages for block in message.content]
    said = [text for applies, text in _SETTINGS if applies(request, target)]
    said += [text for applies, text in _BLOCKS if any(applies(block, target) for block in blocks)]
    return tuple(dict.fromkeys(said + left_out))


_SETTINGS: tuple[tuple[Callable[[Request, Target], bool], str], ...] = (
    (
        lambda request, target: request.top_k is not None and not target.quirks.top_k,
        "top_k is not sent: this host does not take it",
    ),
    (
        lambda request, _: request.reasoning_budget_tokens is not None,
        "reasoning_budget_tokens is not sent: use reasoning_effort with this provider",
    ),
)
_BLOCKS: tuple[tuple[Callable[[ContentBlock, Target], bool], str], ...] = (
    (
        lambda block, target: (
            isinstance(block, Reasoning) and not any(_goes_back(opaque, target) for opaque in block.opaque)
        ),
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
