"""Requests to Messages: from the neutral `Request` to the wire's JSON.

Contract: pure. What the wire cannot carry is left out and named by `warnings`; unset fields are not sent. Turns
of one role that follow each other are joined, because the wire wants user and assistant to take turns; tool results are
user content; system turns move to the `system` field. Signed thinking goes back to its issuer alone, byte for byte.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import cast

import msgspec

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.anthropic_messages.parts import REDACTED, SIGNATURE
from loomstream.dialects.bodies import arguments_of, encode_body
from loomstream.dialects.fields import JSONObject, as_text, read_object
from loomstream.dialects.honoured import unhonoured
from loomstream.messages import (
    ContentBlock,
    FileBlock,
    Image,
    Message,
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

API_VERSION = "2023-06-01"
"""The only version of the API since it was first published; features come by beta headers."""

MIN_BUDGET_TOKENS = 1024
"""The smallest thinking budget that the API takes."""

_HEADERS = {
    "content-type": "application/json",
    "accept": "text/event-stream, application/json",
}
_EFFORTS = {"minimal": "low"}
# Models before adaptive thinking refuse it and take a budget instead.
# Source: https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking, table of supported models.
_BUDGET_MODELS = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:[-.][015](?!\d)|[-@]\d{8}|$))")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}
_FOREIGN_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_SYSTEM_GAP = "\n\n"
# The fields that a citation may carry in a request; what else an answer's citations hold is refused there.
_CITATIONS: dict[str, tuple[str, ...]] = {
    "char_location": ("document_index", "document_title", "start_char_index", "end_char_index"),
    "page_location": ("document_index", "document_title", "start_page_number", "end_page_number"),
    "content_block_location": ("document_index", "document_title", "start_block_index", "end_block_index"),
    "web_search_result_location": ("encrypted_index", "title", "url"),
    "search_result_location": ("search_result_index", "source", "title", "start_block_index", "end_block_index"),
}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/v1/messages`, or the path that the quirks give.

    Raises `RequestError` where the body cannot be written as JSON.
    """
    direct = msgspec.structs.replace(target, base_url=target.base_url.removesuffix("/v1"))
    writer = _Writer(request, target)
    return WireRequest(
        url=endpoint_url(direct, "/v1/messages", stream=request.stream),
        headers={**_HEADERS, **_version(target), **host_headers(target), **request.extra_headers},
        body=encode_body(writer.body, request.extra_body),
        warnings=tuple(dict.fromkeys((*writer.warnings, *unhonoured(request, HONOURED)))),
    )


def _version(target: Target) -> dict[str, str]:
    return {} if target.quirks.anthropic_version else {"anthropic-version": API_VERSION}


class _Writer:
    """Writes one request; `body` and `warnings` are the outcome."""

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        self.warnings: list[str] = []
        self.body: JSONObject = {"model": target.model} if target.quirks.model_in_body else {}
        self.body["messages"] = self._messages()
        optional: JSONObject = {
            "anthropic_version": target.quirks.anthropic_version or None,
            "max_tokens": self._max_tokens(),
            "system": self._system(),
            "stream": (request.stream and target.quirks.stream_in_body) or None,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": self._tool_choice(),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop_sequences": list(request.stop_sequences) or None,
            **self._reasoning(),
        }
        self.body.update((key, value) for key, value in optional.items() if value is not None)
        if request.seed is not None:
            self.warnings.append("seed is not sent: this wire has none")

    # --- settings --------------------------------------------------------------------------------

    def _max_tokens(self) -> int | None:
        """Give the limit; a default one makes room for the thinking budget, which counts against it."""
        default = self._target.quirks.needs_max_tokens
        if self._request.max_tokens is not None or default is None:
            return self._request.max_tokens
        return default + (self._wanted_budget() or 0)

    def _wanted_budget(self) -> int | None:
        request = self._request
        if request.reasoning_budget_tokens is not None:
            return max(request.reasoning_budget_tokens, MIN_BUDGET_TOKENS) if request.reasoning_budget_tokens else 0
        if request.reasoning_effort is not None and _BUDGET_MODELS.search(self._target.model):
            return _BUDGETS.get(request.reasoning_effort, 0)
        return None

    def _reasoning(self) -> JSONObject:
        request = self._request
        budget, effort = self._wanted_budget(), request.reasoning_effort
        if budget == 0 or (budget is None and effort == "none"):
            return {"thinking": {"type": "disabled"}}
        if budget is not None:
            fields = self._budget(budget)
            by_budget_alone = effort is None or request.reasoning_budget_tokens is None
            return fields if by_budget_alone else {**fields, **self._effort()}
        return {"thinking": {"type": "adaptive"}, **self._effort()} if effort is not None else {}

    def _effort(self) -> JSONObject:
        effort = self._request.reasoning_effort
        if effort is None or effort == "none":
            return {}
        sent = _EFFORTS.get(effort, effort)
        if sent != effort:
            self.warnings.append(f"reasoning_effort {effort!r} is sent as {sent!r}, the lowest on this wire")
        return {"output_config": {"effort": sent}}

    def _budget(self, budget: int) -> JSONObject:
        limit = self._request.max_tokens
        asked = self._request.reasoning_budget_tokens
        if asked is not None and asked < budget:
            self.warnings.append(f"reasoning_budget_tokens is raised to {budget}, the least on this wire")
        if limit is not None and limit <= MIN_BUDGET_TOKENS:
            self.warnings.append(f"reasoning is off: max_tokens {limit} leaves no room for {MIN_BUDGET_TOKENS} tokens")
            return {}
        if limit is not None and budget >= limit:
            budget = limit - 1
            self.warnings.append(f"the reasoning budget is cut to {budget} tokens: it must be below max_tokens")
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}

    def _tool_choice(self) -> object:
        request = self._request
        choice = request.tool_choice
        if not request.tools:
            if choice is not None and choice.mode != "none":
                self.warnings.append("tool_choice is not sent: the request has no tools")
            return None
        serial = request.parallel_tool_calls is False
        if choice is None and not serial:
            return None
        written = _choice(choice or ToolChoice())
        if serial and written["type"] != "none":
            written["disable_parallel_tool_use"] = True
        return written

    # --- messages --------------------------------------------------------------------------------

    def _system(self) -> object:
        texts = [self._request.system]
        texts += [message.text for message in self._request.messages if message.role == "system"]
        turns = [message.role for message in self._request.messages]
        if "system" in turns[turns.count("system") :]:
            self.warnings.append("system messages within the conversation are sent at its beginning")
        return _SYSTEM_GAP.join(text for text in texts if text) or None

    def _messages(self) -> list[JSONObject]:
        written: list[JSONObject] = []
        for message in self._request.messages:
            role = "assistant" if message.role == "assistant" else "user"
            blocks = [] if message.role == "system" else self._blocks(message)
            if not blocks:
                continue
            if written and written[-1]["role"] == role:
                cast("list[object]", written[-1]["content"]).extend(blocks)
            else:
                written.append({"role": role, "content": blocks})
        return written

    def _blocks(self, message: Message) -> list[object]:
        written = [_WRITERS[type(block)](self, block, message) for block in message.content]
        return [block for block in written if block is not None]

    def _left_out(self, what: str) -> None:
        self.warnings.append(f"{what} not sent")

    def text(self, block: Text, message: Message) -> object:
        """Write text; the wire refuses a block of nothing but space."""
        if not block.text.strip():
            return None
        written: JSONObject = {"type": "text", "text": block.text}
        cited = [_cited(read_object(citation.raw), citation.kind) for citation in block.citations]
        if message.role == "assistant" and any(cited):
            written["citations"] = [citation for citation in cited if citation]
        return written

    def refusal(self, block: Refusal, message: Message) -> object:
        """Write a refusal as the text that it is."""
        return self.text(Text(block.text), message)

    def reasoning(self, block: Reasoning, message: Message) -> object:  # noqa: ARG002 (one signature)
        """Write thinking back to the provider that signed it."""
        for opaque in block.opaque:
            if opaque.issuer == self._target.provider and opaque.kind == SIGNATURE:
                return {"type": "thinking", "thinking": block.text, "signature": opaque.data}
            if opaque.issuer == self._target.provider and opaque.kind == REDACTED:
                return {"type": "redacted_thinking", "data": opaque.data}
        self._left_out("reasoning blocks of earlier turns that this provider did not sign are")
        return None

    def tool_call(self, block: ToolCall, message: Message) -> object:  # noqa: ARG002 (one signature)
        """Write a call; arguments that are no JSON object go as a text, which the API's own guide proposes."""
        arguments = arguments_of(block.arguments) or {"INVALID_JSON": block.arguments}
        return {"type": "tool_use", "id": _wire_id(block.id), "name": block.name, "input": arguments}

    def tool_result(self, block: ToolResult, message: Message) -> object:
        """Write a tool's answer."""
        written: JSONObject = {"type": "tool_result", "tool_use_id": _wire_id(block.tool_call_id)}
        content = [_WRITERS[type(inner)](self, inner, message) for inner in block.content]
        if any(content):
            written["content"] = [inner for inner in content if inner is not None]
        if block.is_error:
            written["is_error"] = True
        return written

    def image(self, block: Image, message: Message) -> object:
        """Write an image, or a PDF as a document; only users show them."""
        if message.role == "assistant":
            self._left_out("images in assistant turns are")
            return None
        kind = "document" if block.media_type == "application/pdf" else "image"
        if block.url:
            return {"type": kind, "source": {"type": "url", "url": block.url}}
        data = base64.b64encode(block.data).decode()
        return {"type": kind, "source": {"type": "base64", "media_type": block.media_type, "data": data}}

    def server_block(self, block: ServerToolCallBlock | ServerToolResultBlock, message: Message) -> object:  # noqa: ARG002
        """Write back what the provider's own tools did, where it is of this wire."""
        kind = as_text(read_object(block.raw).get("type"))
        if kind.endswith(("_tool_use", "_tool_result")):
            return block.raw
        self._left_out("calls of another provider's own tools, and their results, are")
        return None

    def file(self, block: FileBlock, message: Message) -> object:  # noqa: ARG002 (one signature)
        """Leave out a file that a model made."""
        self._left_out("files that a model made are")
        return None


_WRITERS: dict[type[ContentBlock], Callable[..., object]] = {
    Text: _Writer.text,
    Refusal: _Writer.refusal,
    Reasoning: _Writer.reasoning,
    ToolCall: _Writer.tool_call,
    ToolResult: _Writer.tool_result,
    Image: _Writer.image,
    ServerToolCallBlock: _Writer.server_block,
    ServerToolResultBlock: _Writer.server_block,
    FileBlock: _Writer.file,
}


def _wire_id(call_id: str) -> str:
    """Give an id that the wire takes: ids of other providers may hold `:` or `.`."""
    return _FOREIGN_IN_ID.sub("_", call_id)


def _cited(fields: JSONObject, kind: str) -> JSONObject:
    names: Iterable[str] = _CITATIONS.get(kind, ())
    present = {name: fields[name] for name in names if name in fields}
    return {"type": kind, "cited_text": as_text(fields.get("cited_text")), **present} if present else {}


def _tool(tool: Tool) -> JSONObject:
    written: JSONObject = {"name": tool.name, "input_schema": dict(tool.parameters)}
    return {**written, "description": tool.description} if tool.description else written


def _choice(choice: ToolChoice) -> JSONObject:
    return {"type": "tool", "name": choice.name} if choice.mode == "tool" else {"type": choice.mode}
