"""Requests to generateContent: from the neutral `Request` to the wire's JSON.

Contract: pure. What the wire cannot carry is left out and named by `warnings`; unset fields are not sent. Turns of one
role that follow each other are joined, so that the results of parallel calls are one turn; system turns move to
`systemInstruction`. Thought signatures go back to their issuer alone, byte for byte, on the part that they came on.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import cast

import msgspec

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.bodies import encode_body, members, sent_arguments
from loomstream.dialects.fields import JSONObject, read_object
from loomstream.dialects.gemini.schema import response_schema
from loomstream.dialects.gemini.wire import SERVER_PARTS, SIGNATURE, SIGNED_EMPTY, SIGNED_PART
from loomstream.dialects.honoured import BUDGET_FIRST, unhonoured
from loomstream.dialects.left_out import lost_citations, misplaced
from loomstream.dialects.system_turns import GAP, moved_system
from loomstream.errors import RequestError
from loomstream.events import Opaque
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
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

HONOURED = frozenset({"logprobs", "output", "cached_content", "metadata", "service_tier"})
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

PLACEHOLDER_SIGNATURE = "skip_thought_signature_validator"
"""Stands on the first call of a turn that nobody signed: the API refuses the turn otherwise.

Source: https://ai.google.dev/gemini-api/docs/thought-signatures, which names it for history of other models.
"""

_PATH, _STREAM_PATH = "/models/{model}:generateContent", "/models/{model}:streamGenerateContent?alt=sse"
_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
_MODES = {"auto": "AUTO", "any": "ANY", "none": "NONE", "tool": "ANY"}
# Source: https://ai.google.dev/gemini-api/docs/openai, the table that maps efforts to levels and budgets.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_LEVELS = {"none": "minimal", "xhigh": "high", "max": "high"}
_RANKS = {"minimal": 0, "low": 1, "medium": 2, "high": 3}
_LOW_BUDGET_TOKENS, _MEDIUM_BUDGET_TOKENS = 1024, 8192
# What `Parts` makes where the wire has no id: it means nothing to the server.
_MADE_ID = re.compile(r"made_(?:[a-zA-Z0-9_-]+_)?\d+")


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/models/{model}:streamGenerateContent`, or the path of the quirks.

    Raises `RequestError` where the body cannot be written as JSON, and with its place for a file without a media type
    and an output's schema that is none.
    """
    named = msgspec.structs.replace(target, model=target.model.removeprefix("models/"))
    path = _STREAM_PATH if request.stream else _PATH
    writer = _Writer(request, target)
    return WireRequest(
        url=endpoint_url(named, path, stream=request.stream),
        headers={**_HEADERS, **host_headers(target), **request.extra_headers},
        body=encode_body(writer.body, request.extra_body),
        warnings=tuple(dict.fromkeys((*writer.warnings, *unhonoured(request, HONOURED)))),
    )


class _Writer:
    """Writes one request; `body` and `warnings` are the outcome."""

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        self.warnings: list[str] = []
        self._names = _names_of_calls(request)
        self._parts: list[JSONObject] = []
        """The turn that is written."""
        self._place = ""
        """Where the block that is written stands in the request."""
        self._signable: JSONObject | None = None
        """The part that a signature behind it belongs to."""
        self.body: JSONObject = {"contents": self._contents()}
        optional: JSONObject = {
            "systemInstruction": self._system(),
            "tools": [{"functionDeclarations": [_tool(tool) for tool in request.tools]}] if request.tools else None,
            "toolConfig": self._tool_config(),
            "generationConfig": self._generation_config() or None,
            "cachedContent": request.cached_content or None,
            "labels": dict(request.metadata) or None,
            "serviceTier": request.service_tier or None,
        }
        self.body.update((key, value) for key, value in optional.items() if value is not None)

    # --- settings --------------------------------------------------------------------------------

    def _generation_config(self) -> JSONObject:
        request = self._request
        fields: JSONObject = {
            "maxOutputTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "topK": request.top_k,
            "stopSequences": list(request.stop_sequences) or None,
            "seed": request.seed,
            "thinkingConfig": self._thinking(),
            "responseLogprobs": None if request.logprobs is None else True,
            "logprobs": request.logprobs or None,
            **self._output(),
        }
        return {key: value for key, value in fields.items() if value is not None}

    def _output(self) -> JSONObject:
        output = self._request.output
        if output is None:
            return {}
        schema, warnings = response_schema(output)
        self.warnings += warnings
        return {"responseMimeType": "application/json", "responseJsonSchema": schema}

    def _thinking(self) -> JSONObject | None:
        effort, budget = self._request.reasoning_effort, self._request.reasoning_budget_tokens
        if effort is None and budget is None:
            return None
        steered_by = self._target.quirks.thinking_by
        if steered_by == "none":
            self.warnings.append("reasoning settings are not sent: this model takes none")
            return None
        if steered_by == "budget":
            if effort is not None and budget is not None:
                self.warnings.append(BUDGET_FIRST)
            tokens = self._budget(_BUDGETS[effort or "none"] if budget is None else budget)
            return {"thinkingBudget": tokens, **_thoughts(tokens != 0)}
        return {"thinkingLevel": self._level(), **_thoughts(budget != 0 if effort is None else effort != "none")}

    def _budget(self, tokens: int) -> int:
        quirks = self._target.quirks
        least = quirks.least_thinking_budget
        if tokens < least and (tokens or quirks.always_thinks):
            self.warnings.append(f"the reasoning budget is raised to {least} tokens, the least that this model takes")
            return least
        return tokens

    def _level(self) -> str:
        """Give the level for an effort, or for a budget, which this generation of models refuses."""
        effort, budget = self._request.reasoning_effort, self._request.reasoning_budget_tokens
        asked = effort or _effort_of(budget or 0)
        level = _nearest(_LEVELS.get(asked, asked), self._target.quirks.thinking_levels)
        if effort is None:
            self.warnings.append(f"reasoning_budget_tokens is sent as thinkingLevel {level!r}: this model takes levels")
        elif level != effort:
            self.warnings.append(f"reasoning_effort {effort!r} is sent as {level!r}, the nearest on this wire")
        if effort is not None and budget is not None:
            self.warnings.append("reasoning_budget_tokens is not sent: this model takes levels")
        return level

    def _tool_config(self) -> JSONObject | None:
        request = self._request
        choice = request.tool_choice
        if request.tools and request.parallel_tool_calls is False:
            self.warnings.append("parallel_tool_calls is not sent: this wire has no such setting")
        if choice is None:
            return None
        if not request.tools:
            if choice.mode != "none":
                self.warnings.append("tool_choice is not sent: the request has no tools")
            return None
        return {"functionCallingConfig": _calling(choice)}

    def _system(self) -> JSONObject | None:
        texts = [self._request.system]
        texts += [message.text for message in self._request.messages if message.role == "system"]
        self.warnings += moved_system(self._request.messages)
        self.warnings += misplaced(self._request.messages, {"system": (Text,)})
        self.warnings += lost_citations(self._request.messages)
        text = GAP.join(text for text in texts if text)
        return {"parts": [{"text": text}]} if text else None

    # --- messages --------------------------------------------------------------------------------

    def _contents(self) -> list[JSONObject]:
        written: list[JSONObject] = []
        for number, message in enumerate(self._request.messages):
            role = "model" if message.role == "assistant" else "user"
            parts = [] if message.role == "system" else self._written(number, message)
            if not parts:
                continue
            if written and written[-1]["role"] == role:
                cast("list[JSONObject]", written[-1]["parts"]).extend(parts)
            else:
                written.append({"role": role, "parts": parts})
        if self._target.quirks.thinking_by == "level":
            for content in written:
                self._sign_calls(cast("list[JSONObject]", content["parts"]))
        return written

    def _sign_calls(self, parts: list[JSONObject]) -> None:
        """Sign the turn's first call where nobody did: that is the part whose signature the API looks for."""
        first = next((part for part in parts if "functionCall" in part), None)
        if first is not None and "thoughtSignature" not in first:
            first["thoughtSignature"] = PLACEHOLDER_SIGNATURE
            self.warnings.append("tool calls that this provider did not sign go with a placeholder for the signature")

    def _written(self, number: int, message: Message) -> list[JSONObject]:
        self._parts, self._signable = [], None
        for position, block in enumerate(message.content):
            self._place = f"messages[{number}].content[{position}]"
            before = len(self._parts)
            _WRITERS[type(block)](self, block)
            if not isinstance(block, Reasoning | CachePoint):
                self._signable = self._parts[-1] if len(self._parts) > before else None
        return self._parts

    def _left_out(self, what: str) -> None:
        self.warnings.append(f"{what} not sent")

    def _signature(self, opaque: tuple[Opaque, ...], *kinds: str) -> Opaque | None:
        """Give the signature that this provider made; name one of another provider."""
        for item in opaque:
            if item.issuer == self._target.provider and item.kind in kinds:
                return item
        if opaque:
            self._left_out("signatures and encrypted reasoning of another provider are")
        return None

    def text(self, block: Text | Refusal) -> None:
        """Write text; an empty part says nothing."""
        if block.text:
            self._parts.append({"text": block.text})

    def reasoning(self, block: Reasoning) -> None:
        """Write a thought, or put a signature that came behind a part back on that part.

        Most thoughts come unsigned; they go back as they came. What another provider signed is left out.
        """
        signature = self._signature(block.opaque, SIGNATURE, SIGNED_PART, SIGNED_EMPTY)
        if signature is None:
            if block.text and not block.opaque:
                self._parts.append({"text": block.text, "thought": True})
        elif signature.kind == SIGNED_EMPTY:
            self._parts.append({"text": "", "thoughtSignature": signature.data})
        elif signature.kind == SIGNATURE:
            self._parts.append({"text": block.text, "thought": True, "thoughtSignature": signature.data})
        elif self._signable is not None:
            self._signable["thoughtSignature"] = signature.data
        else:
            self._left_out("signatures whose part is not there are")

    def tool_call(self, block: ToolCall) -> None:
        """Write a call; arguments that are no JSON object go as a text."""
        arguments = sent_arguments(block.arguments)
        call: JSONObject = {"name": block.name, "args": arguments, **_id_field(block.id)}
        signature = self._signature(block.opaque, SIGNATURE)
        signed: JSONObject = {} if signature is None else {"thoughtSignature": signature.data}
        self._parts.append({"functionCall": call, **signed})

    def tool_result(self, block: ToolResult) -> None:
        """Write a tool's answer and its files, whose addresses the Gemini API does not take within it."""
        text = "\n".join(inner.text for inner in block.content if isinstance(inner, Text))
        name = block.name or self._names.get(block.tool_call_id, block.tool_call_id)
        answer: JSONObject = {"name": name, "response": {"error" if block.is_error else "output": text}}
        answer.update(_id_field(block.tool_call_id))
        self._parts.append({"functionResponse": answer})
        place = self._place
        for position, inner in enumerate(block.content):
            if not isinstance(inner, Text):
                self._place = f"{place}.content[{position}]"
                self._result_file(inner, answer)

    def _result_file(self, block: Image | Document, answer: JSONObject) -> None:
        """Write a file of a tool's answer: within it by its bytes, where the model takes them there, else behind it."""
        written = self._file(block)
        if isinstance(block, Document):
            self._warn_of(block)
        if "inlineData" in written and self._target.quirks.thinking_by == "level":
            cast("list[JSONObject]", answer.setdefault("parts", [])).append(written)
        else:
            self._parts.append(written)

    def media(self, block: Image | Audio) -> None:
        """Write an image or sound, or a file of any other media type."""
        self._parts.append(self._file(block))

    def document(self, block: Document) -> None:
        """Write a document; the wire has no place for what it is called."""
        self._parts.append(self._file(block))
        self._warn_of(block)

    def _warn_of(self, block: Document) -> None:
        if block.name:
            self._left_out("the names of documents are")
        if block.citations:
            self.warnings.append("citations of documents are not asked for: this wire has none")

    def cache_point(self, block: CachePoint) -> None:  # noqa: ARG002 (one signature)
        """Leave a mark out: the provider caches by itself, or what `cached_content` names."""
        self._left_out("cache points are")

    def file(self, block: FileBlock) -> None:
        """Write back a file that the model made; an image that was but a thought stays out."""
        if read_object(block.raw).get("thought") is True:
            self._left_out("images that were but thoughts are")
        elif block.data or block.url:
            self._parts.append(self._file(block))
        else:
            self._left_out("files that another provider holds are")

    def _file(self, block: Image | Audio | Document | FileBlock) -> JSONObject:
        kind: JSONObject = {"mimeType": block.media_type} if block.media_type else {}
        if block.url:
            return {"fileData": {**kind, "fileUri": block.url}}
        if not block.media_type:
            msg = f"{self._place} has no media_type: this wire must be told what bytes are"
            raise RequestError(msg)
        return {"inlineData": {**kind, "data": base64.b64encode(block.data).decode()}}

    def server_block(self, block: ServerToolCallBlock | ServerToolResultBlock) -> None:
        """Write back what the provider's own tools did, where it is of this wire; its signature comes behind it."""
        fields = members(block.raw)
        fields.pop("thoughtSignature", None)
        if any(name in fields for name in SERVER_PARTS):
            self._parts.append(dict(fields))
        else:
            self._left_out("calls of another provider's own tools, and their results, are")


_WRITERS: dict[type[ContentBlock], Callable[..., None]] = {
    Text: _Writer.text,
    Refusal: _Writer.text,
    Reasoning: _Writer.reasoning,
    ToolCall: _Writer.tool_call,
    ToolResult: _Writer.tool_result,
    Image: _Writer.media,
    Audio: _Writer.media,
    Document: _Writer.document,
    CachePoint: _Writer.cache_point,
    FileBlock: _Writer.file,
    ServerToolCallBlock: _Writer.server_block,
    ServerToolResultBlock: _Writer.server_block,
}


def _names_of_calls(request: Request) -> dict[str, str]:
    """Give the names of the calls in the history: a result names its function."""
    blocks = [block for message in request.messages for block in message.content]
    return {block.id: block.name for block in blocks if isinstance(block, ToolCall)}


def _id_field(call_id: str) -> JSONObject:
    return {} if not call_id or _MADE_ID.fullmatch(call_id) else {"id": call_id}


def _effort_of(budget: int) -> str:
    if budget == 0:
        return "none"
    if budget <= _LOW_BUDGET_TOKENS:
        return "low"
    return "medium" if budget <= _MEDIUM_BUDGET_TOKENS else "high"


def _nearest(level: str, levels: tuple[str, ...]) -> str:
    """Give the nearest of the model's levels, of two that are as near the higher one."""
    return min(levels, key=lambda other: (abs(_RANKS[other] - _RANKS[level]), -_RANKS[other]))


def _thoughts(asked: bool) -> JSONObject:  # noqa: FBT001 (the only argument)
    return {"includeThoughts": True} if asked else {}


def _tool(tool: Tool) -> JSONObject:
    written: JSONObject = {"name": tool.name, "parametersJsonSchema": dict(tool.parameters)}
    return {**written, "description": tool.description} if tool.description else written


def _calling(choice: ToolChoice) -> JSONObject:
    written: JSONObject = {"mode": _MODES[choice.mode]}
    return {**written, "allowedFunctionNames": [choice.name]} if choice.mode == "tool" else written
