"""Requests to Converse: from the neutral `Request` to the wire's JSON.

Contract: pure. What the wire cannot carry is left out and named by `warnings`; unset fields are not sent. Turns of one
role that follow each other are joined; tool results are user content; system turns move to the `system` field. Signed
reasoning goes back to its issuer alone, byte for byte. `extra_body` is laid over the body key by key, and a list in it
replaces the body's own: `guardrailConfig`, `requestMetadata`, `performanceConfig`, `serviceTier`, `outputConfig` and
`additionalModelResponseFieldPaths` go that way, and cache points, as in

    extra_body={"system": [{"text": "…"}, {"cachePoint": {"type": "default"}}]}
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import cast

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.bedrock_converse.parts import LOCATIONS, REDACTED, SIGNATURE
from loomstream.dialects.bodies import arguments_of, encode_body
from loomstream.dialects.fields import JSONObject, read_object
from loomstream.dialects.honoured import unhonoured
from loomstream.errors import Unsupported
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
from loomstream.wire.aws import MEDIA_TYPE

HONOURED: frozenset[str] = frozenset()
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

MIN_BUDGET_TOKENS = 1024
"""The smallest thinking budget that the models take."""

_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}
_LEVELS = {"minimal": "low", "xhigh": "high", "max": "high"}
"""Efforts that the models without a budget do not know."""
_FOREIGN_IN_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_MAX_ID_CHARS = 64
# Source: the enumerations ImageFormat, DocumentFormat and VideoFormat of the API.
_MEDIA: dict[str, tuple[str, str]] = {
    "image/png": ("image", "png"),
    "image/jpeg": ("image", "jpeg"),
    "image/jpg": ("image", "jpeg"),
    "image/gif": ("image", "gif"),
    "image/webp": ("image", "webp"),
    "application/pdf": ("document", "pdf"),
    "text/csv": ("document", "csv"),
    "application/msword": ("document", "doc"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("document", "docx"),
    "application/vnd.ms-excel": ("document", "xls"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ("document", "xlsx"),
    "text/html": ("document", "html"),
    "text/plain": ("document", "txt"),
    "text/markdown": ("document", "md"),
    "video/mp4": ("video", "mp4"),
    "video/quicktime": ("video", "mov"),
    "video/webm": ("video", "webm"),
    "video/x-matroska": ("video", "mkv"),
    "video/mpeg": ("video", "mpeg"),
}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/model/{model}/converse-stream`, or `/converse` without a stream.

    The model is an id, the id of an inference profile or an ARN; it is percent-encoded. Raises `RequestError` where
    the body cannot be written as JSON, `Unsupported` for an image by URL (other than `s3://`) or of an unknown type.
    """
    operation = "converse-stream" if request.stream else "converse"
    accepted = f"{MEDIA_TYPE}, application/json" if request.stream else "application/json"
    writer = _Writer(request, target)
    return WireRequest(
        url=endpoint_url(target, f"/model/{{model}}/{operation}", stream=request.stream),
        headers={
            "content-type": "application/json",
            "accept": accepted,
            **host_headers(target),
            **request.extra_headers,
        },
        body=encode_body(writer.body, request.extra_body),
        warnings=tuple(dict.fromkeys((*writer.warnings, *unhonoured(request, HONOURED)))),
    )


class _Writer:
    """Writes one request; `body` and `warnings` are the outcome."""

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        self._documents = 0
        self.warnings: list[str] = []
        self.body: JSONObject = {"messages": self._messages()}
        optional: JSONObject = {
            "system": self._system(),
            "inferenceConfig": self._inference(),
            "toolConfig": self._tools(),
            "additionalModelRequestFields": self._additional(),
        }
        self.body.update((key, value) for key, value in optional.items() if value)
        for name in ("seed", "parallel_tool_calls"):
            if getattr(request, name) is not None:
                self.warnings.append(f"{name} is not sent: this wire has none")

    # --- settings --------------------------------------------------------------------------------

    def _inference(self) -> JSONObject:
        request = self._request
        settings: JSONObject = {
            "maxTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "stopSequences": list(request.stop_sequences) or None,
        }
        return {key: value for key, value in settings.items() if value is not None}

    def _additional(self) -> JSONObject:
        fields = self._reasoning()
        if self._request.top_k is None:
            return fields
        path = self._target.quirks.top_k_field
        if not path:
            self.warnings.append("top_k is not sent: this model takes none that is known; see extra_body")
            return fields
        value: object = self._request.top_k
        for key in reversed(path.split(".")):
            value = {key: value}
        return {**fields, **cast("JSONObject", value)}

    def _reasoning(self) -> JSONObject:
        request, field = self._request, self._target.quirks.reasoning_field
        effort, budget = request.reasoning_effort, request.reasoning_budget_tokens
        if effort is None and budget is None:
            return {}
        off = budget == 0 or (budget is None and effort == "none")
        written = _REASONING[field](self, off) if field else {}
        if not written and not (off and not field):
            self.warnings.append(
                "reasoning is not set as asked: this model takes no such setting that is known; see extra_body, "
                "additionalModelRequestFields"
            )
        return written

    def thinking(self, off: bool) -> JSONObject:  # noqa: FBT001 (one signature)
        """Write adaptive thinking with an effort, or a budget where one is asked for."""
        if off or self._request.reasoning_budget_tokens is not None:
            return self.thinking_budget(off)
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": self._level("minimal")}}

    def thinking_budget(self, off: bool) -> JSONObject:  # noqa: FBT001 (one signature)
        """Write thinking with a budget: the one that is asked for, or the effort's."""
        if off:
            return {"thinking": {"type": "disabled"}}
        request, limit = self._request, self._request.max_tokens
        asked = request.reasoning_budget_tokens or _BUDGETS.get(request.reasoning_effort or "", 0)
        budget = max(asked, MIN_BUDGET_TOKENS)
        if budget != asked:
            self.warnings.append(f"reasoning_budget_tokens is raised to {budget}, the least on this wire")
        if limit is not None and limit <= MIN_BUDGET_TOKENS:
            return {}
        if limit is not None and budget >= limit:
            budget = limit - 1
            self.warnings.append(f"the reasoning budget is cut to {budget} tokens: it must be below max_tokens")
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}

    def config(self, off: bool) -> JSONObject:  # noqa: FBT001 (one signature)
        """Write an effort among the model's own settings."""
        if off:
            return {"reasoningConfig": {"type": "disabled"}}
        level = self._level(*_LEVELS)
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": level}} if level else {}

    def effort(self, off: bool) -> JSONObject:  # noqa: FBT001 (one signature)
        """Write an effort alone; it cannot be switched off."""
        level = "" if off else self._level(*_LEVELS)
        return {"reasoning_effort": level} if level else {}

    def _level(self, *unknown: str) -> str:
        """Give the effort, in the place of one that the model does not know the nearest."""
        effort = self._request.reasoning_effort
        if effort is None:
            return ""
        sent = _LEVELS[effort] if effort in unknown else effort
        if sent != effort:
            self.warnings.append(f"reasoning_effort {effort!r} is sent as {sent!r}, the nearest that the model takes")
        return sent

    # --- tools -----------------------------------------------------------------------------------

    def _tools(self) -> JSONObject:
        request, choice = self._request, self._request.tool_choice
        if not request.tools:
            if choice is not None and choice.mode != "none":
                self.warnings.append("tool_choice is not sent: the request has no tools")
            return self._tools_of_history()
        if choice is not None and choice.mode == "none":
            if not _has_tool_turns(request):
                return {}  # the wire has no such choice, and a request without tools is the same
            self.warnings.append("tool_choice none is not sent: this wire has none, and earlier turns need the tools")
            choice = None
        config: JSONObject = {"tools": [_tool(tool) for tool in request.tools]}
        return config if choice is None else {**config, "toolChoice": _choice(choice)}

    def _tools_of_history(self) -> JSONObject:
        """Declare what earlier turns called: the wire refuses such turns in a request without tools."""
        if "toolConfig" in self._request.extra_body:
            return {}
        names = _names_of_tools(self._request)
        if names:
            self.warnings.append(
                f"the tools of earlier turns are declared without their parameters ({', '.join(names)}): this wire "
                "wants them in each request, so give them by tools="
            )
        return {"tools": [_tool(Tool(name)) for name in names]} if names else {}

    # --- messages --------------------------------------------------------------------------------

    def _system(self) -> list[object]:
        texts = [self._request.system]
        texts += [message.text for message in self._request.messages if message.role == "system"]
        turns = [message.role for message in self._request.messages]
        if "system" in turns[turns.count("system") :]:
            self.warnings.append("system messages within the conversation are sent at its beginning")
        return [{"text": text} for text in texts if text.strip()]

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
        return [block for content in message.content for block in _WRITERS[type(content)](self, content, message)]

    def _left_out(self, what: str) -> list[object]:
        self.warnings.append(f"{what} not sent")
        return []

    def text(self, block: Text, message: Message) -> list[object]:
        """Write text, with the citations that came over this wire; the wire refuses a block of nothing but space."""
        if not block.text.strip():
            return []
        cited = [citation.raw for citation in block.citations if citation.kind in LOCATIONS]
        if message.role == "assistant" and cited:
            return [{"citationsContent": {"content": [{"text": block.text}], "citations": cited}}]
        return [{"text": block.text}]

    def refusal(self, block: Refusal, message: Message) -> list[object]:
        """Write a refusal as the text that it is."""
        return self.text(Text(block.text), message)

    def reasoning(self, block: Reasoning, message: Message) -> list[object]:  # noqa: ARG002 (one signature)
        """Write reasoning back to the provider that signed it."""
        written: list[object] = []
        for opaque in block.opaque:
            if opaque.issuer != self._target.provider:
                continue
            if opaque.kind == SIGNATURE:
                inner: JSONObject = {"reasoningText": {"text": block.text, "signature": opaque.data}}
                written.append({"reasoningContent": inner})
            elif opaque.kind == REDACTED:
                written.append({"reasoningContent": {"redactedContent": opaque.data}})
        return written or self._left_out("reasoning blocks of earlier turns that this provider did not sign are")

    def tool_call(self, block: ToolCall, message: Message) -> list[object]:  # noqa: ARG002 (one signature)
        """Write a call; arguments that are no JSON object go as a text."""
        arguments = arguments_of(block.arguments) or {"INVALID_JSON": block.arguments}
        return [{"toolUse": {"toolUseId": _wire_id(block.id), "name": block.name, "input": arguments}}]

    def tool_result(self, block: ToolResult, message: Message) -> list[object]:
        """Write a tool's answer; only some models take a status, so success goes without one."""
        content = [written for inner in block.content for written in _WRITERS[type(inner)](self, inner, message)]
        written: JSONObject = {"toolUseId": _wire_id(block.tool_call_id), "content": content}
        if block.is_error:
            written["status"] = "error"
        return [{"toolResult": written}]

    def image(self, block: Image, message: Message) -> list[object]:
        """Write an image, a document or a film; only users show them."""
        if message.role == "assistant":
            return self._left_out("images in assistant turns are")
        kind, form = _MEDIA.get(block.media_type.partition(";")[0].strip().lower(), ("", ""))
        if not kind:
            msg = f"Converse takes no {block.media_type!r}: give one of {', '.join(_MEDIA)}"
            raise Unsupported(msg, provider=self._target.provider, model=self._target.model)
        written: JSONObject = {"format": form, "source": self._source(block)}
        if kind == "document":
            self._documents += 1
            written["name"] = f"document-{self._documents}"
        return [{kind: written}]

    def _source(self, block: Image) -> JSONObject:
        if not block.url:
            return {"bytes": base64.b64encode(block.data).decode()}
        if block.url.startswith("s3://"):
            return {"s3Location": {"uri": block.url}}
        msg = f"Converse fetches nothing but s3:// addresses, not {block.url[:100]!r}: give the image's bytes"
        raise Unsupported(msg, provider=self._target.provider, model=self._target.model)

    def server_block(self, block: ServerToolCallBlock | ServerToolResultBlock, message: Message) -> list[object]:  # noqa: ARG002
        """Write back what the host's own tools did, where it is of this wire."""
        if read_object(block.raw).keys() & {"toolUse", "toolResult"}:
            return [block.raw]
        return self._left_out("calls of another provider's own tools, and their results, are")

    def file(self, block: FileBlock, message: Message) -> list[object]:  # noqa: ARG002 (one signature)
        """Leave out a file that a model made."""
        return self._left_out("files that a model made are")


_WRITERS: dict[type[ContentBlock], Callable[..., list[object]]] = {
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
_REASONING: dict[str, Callable[[_Writer, bool], JSONObject]] = {
    "thinking": _Writer.thinking,
    "thinking_budget": _Writer.thinking_budget,
    "reasoningConfig": _Writer.config,
    "reasoning_effort": _Writer.effort,
}


def _wire_id(call_id: str) -> str:
    """Give an id that the wire takes: ids of other providers may be longer, or hold other characters."""
    return _FOREIGN_IN_ID.sub("_", call_id)[-_MAX_ID_CHARS:]


def _has_tool_turns(request: Request) -> bool:
    blocks = [block for message in request.messages for block in message.content]
    return any(isinstance(block, ToolCall | ToolResult) for block in blocks)


def _names_of_tools(request: Request) -> tuple[str, ...]:
    """Give the names of the tools that earlier turns called or answered, each once."""
    blocks = [block for message in request.messages for block in message.content]
    names = [block.name for block in blocks if isinstance(block, ToolCall | ToolResult) and block.name]
    return tuple(dict.fromkeys(names))


def _tool(tool: Tool) -> JSONObject:
    specification: JSONObject = {"name": tool.name, "inputSchema": {"json": dict(tool.parameters)}}
    if tool.description:
        specification["description"] = tool.description
    return {"toolSpec": specification}


def _choice(choice: ToolChoice) -> JSONObject:
    return {"tool": {"name": choice.name}} if choice.mode == "tool" else {choice.mode: {}}
