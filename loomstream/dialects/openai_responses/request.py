"""Requests to Responses: from the neutral `Request` to the wire's JSON.

Contract: pure. Stateless: `store` is false, so what a model must have again goes back with its items: reasoning with
its encrypted content byte for byte, a message with its phase, whole items of the provider's own tools. What the wire
cannot carry is left out and named by `warnings`; unset fields are not sent.

Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from msgspec import Raw as RawJSON

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.attachments import data_url, file_name
from loomstream.dialects.bodies import encode_body
from loomstream.dialects.fields import JSONObject, as_list, as_object, as_text, is_null, read_object
from loomstream.dialects.honoured import NO_CACHE_TIME, unhonoured
from loomstream.dialects.left_out import lost_citations, lost_signatures, misplaced
from loomstream.dialects.openai_responses.items import (
    BUILT_IN_CALLS,
    CUSTOM,
    CUSTOM_CALL,
    ENCRYPTED,
    FUNCTION_CALL,
    ITEM,
    OPEN,
    PHASE,
)
from loomstream.dialects.openai_responses.server_tools import image_item, is_server_item
from loomstream.dialects.strict import output_format
from loomstream.events import Citation, Opaque
from loomstream.messages import (
    CachePoint,
    ContentBlock,
    Document,
    FileBlock,
    Image,
    Message,
    Output,
    Reasoning,
    Refusal,
    Request,
    ResultContent,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from loomstream.wire import WireRequest

HONOURED = frozenset(
    ("logprobs", "output", "prompt_cache_key", "metadata", "end_user_id", "service_tier", "cache_prompt")
)
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_FIELDS = {"instructions": "system", "max_output_tokens": "max_tokens"}
"""What a key of the body is called in a request."""
_JOINED = ("include", "input", "tools")
"""Lists of the body that `extra_body` adds to: server tools stand beside yours."""
_ENCRYPTED_REASONING = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_ANNOTATIONS = frozenset({"url_citation", "file_citation", "container_file_citation", "file_path"})
"""Kinds of annotations that an earlier answer may have (API reference, "output text")."""
_PDF = "application/pdf"
_BREAKPOINT = "prompt_cache_breakpoint"


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/responses`, or the path that the quirks give.

    Lists in `extra_body` under `tools`, `include` and `input` are added to the request's own. Raises `RequestError`
    where the body cannot be written as JSON, or strict JSON is demanded of a schema that breaks strict mode's rules.
    """
    writer = _Writer(request, target)
    body = writer.body
    extra = dict(request.extra_body)
    for name in _JOINED:
        if name in extra and name in body:
            extra[name] = [*as_list(body[name]), *as_list(extra[name])]
    return WireRequest(
        url=endpoint_url(target, "/responses", stream=request.stream),
        headers={**_HEADERS, **host_headers(target), **request.extra_headers},
        body=encode_body(body, extra),
        warnings=tuple(dict.fromkeys((*writer.warnings, *unhonoured(request, HONOURED)))),
    )


class _Writer:
    """Writes one request; `body` and `warnings` are the outcome."""

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        self.warnings: list[str] = []
        self._call_kinds = {
            block.id: _call_kind(block, target)
            for message in request.messages
            for block in message.content
            if isinstance(block, ToolCall)
        }
        self._items: list[object] = []
        self._turn = _Turn(self._items)
        for message in request.messages:
            self._message(message)
        self.warnings += misplaced(request.messages, _WRITERS)
        self.warnings += lost_signatures(request.messages, target, CUSTOM, ITEM)
        self.warnings += lost_citations(request.messages, _is_ours)
        self.body: JSONObject = {"model": target.model, "input": self._items, "store": False}
        if request.stream:
            self.body["stream"] = True
        self.body.update(self._options())
        self._warn_of_settings()

    # --- settings --------------------------------------------------------------------------------

    def _options(self) -> JSONObject:
        asked = {key: value for key, value in self._asked().items() if value is not None}
        refused, unknown = self._refused(), self._target.quirks.unknown
        for key in asked:
            if key in refused or key in unknown:
                who = "model" if key in refused else "host"
                self.warnings.append(f"{_FIELDS.get(key, key)} is not sent: this {who} does not take it")
        sent = {key: value for key, value in asked.items() if key not in refused and key not in unknown}
        include = [_ENCRYPTED_REASONING] * self._target.quirks.encrypted_reasoning
        options: JSONObject = {}
        for key, value in sent.items():
            match key:
                case "reasoning_effort":
                    options["reasoning"] = {"effort": value}
                case "logprobs":
                    include.append(_LOGPROBS)
                    options.update({"top_logprobs": value} if value else {})
                case "output":
                    options["text"] = {"format": {"type": "json_schema", **output_format(cast("Output", value))}}
                case "end_user_id":
                    options[self._target.quirks.end_user_key] = value
                case _:
                    options[key] = value
        return {**options, "include": include} if include else options

    def _asked(self) -> JSONObject:
        request = self._request
        limit = request.max_tokens if request.max_tokens is not None else self._target.quirks.needs_max_tokens
        return {
            "instructions": request.system or None,
            "max_output_tokens": limit,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "reasoning_effort": request.reasoning_effort,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request.tool_choice) if request.tool_choice else None,
            "parallel_tool_calls": request.parallel_tool_calls,
            "logprobs": request.logprobs,
            "output": request.output,
            "prompt_cache_key": request.prompt_cache_key or None,
            "end_user_id": request.end_user_id or None,
            "service_tier": request.service_tier or None,
            "metadata": dict(request.metadata) or None,
        }

    def _refused(self) -> set[str]:
        quirks = self._target.quirks
        reasons = self._request.reasoning_effort not in (None, "none")
        refused = {*quirks.refused, *(quirks.refused_with_effort if reasons else ())}
        return refused if quirks.top_k else {*refused, "top_k"}

    def _warn_of_settings(self) -> None:
        request = self._request
        if request.seed is not None:
            self.warnings.append("seed is not sent: this wire has none")
        if request.stop_sequences:
            self.warnings.append("stop_sequences are not sent: this wire has none")
        if request.reasoning_budget_tokens is not None:
            self.warnings.append("reasoning_budget_tokens is not sent: use reasoning_effort with this provider")
        if request.cache_prompt and not self._has_breakpoints:
            self.warnings.append("cache_prompt is not sent: this host caches by itself, or not at all")
        if request.cache_prompt == "1h" and self._has_breakpoints:
            self.warnings.append(NO_CACHE_TIME)

    @property
    def _has_breakpoints(self) -> bool:
        return self._target.quirks.cache_points == _BREAKPOINT

    # --- messages --------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        writers = _WRITERS[message.role]
        self._turn = _Turn(self._items)
        for block in message.content:
            if type(block) in writers:
                writers[type(block)](self, block)
        if self._turn.thoughts:
            self._left_out_reasoning()
        role = "system" if self._target.quirks.system_role == "system" else "developer"
        self._turn.close(role if message.role == "system" else "assistant" if message.role == "assistant" else "user")

    def _left_out_reasoning(self) -> None:
        self._turn.thoughts = []
        self.warnings.append("reasoning blocks of earlier turns that this provider did not issue are not sent")

    def text(self, block: Text) -> None:
        """Write a user's or the system's text."""
        self._turn.parts.append({"type": "input_text", "text": block.text})

    def said(self, block: Text) -> None:
        """Write what the model said, with the citations that came over this wire."""
        part: JSONObject = {"type": "output_text", "text": block.text}
        if cited := [citation.raw for citation in block.citations if _is_ours(citation)]:
            part["annotations"] = cited
        self._part(part)

    def refusal(self, block: Refusal) -> None:
        """Write what the model refused."""
        self._part({"type": "refusal", "refusal": block.text})

    def _part(self, part: JSONObject) -> None:
        if self._turn.thoughts:
            self._left_out_reasoning()
        self._turn.parts.append(part)

    def image(self, block: Image) -> None:
        """Write an image, or a PDF as a file."""
        self._turn.parts.append(_image(block))

    def document(self, block: Document) -> None:
        """Write a document, by its bytes or its address."""
        self._turn.parts.append(self._document(block))

    def _document(self, block: Document) -> JSONObject:
        if block.citations:
            self.warnings.append("citations of documents are not asked for: this wire has no word for that")
        if block.url and block.name:
            self.warnings.append("the names of documents that go by their address are not sent")
        return _file(block)

    def _result_part(self, block: ResultContent) -> JSONObject:
        if isinstance(block, Text):
            return {"type": "input_text", "text": block.text}
        return _image(block) if isinstance(block, Image) else self._document(block)

    def cache_point(self, block: CachePoint) -> None:
        """Mark what stands before it in its turn, where the host has a mark and the part can hold one."""
        if not self._has_breakpoints:
            self.warnings.append("cache points are not sent: this host caches by itself, or not at all")
            return
        part = self._turn.parts[-1] if self._turn.parts else self._last_result()
        if part is None or not as_text(part.get("type")).startswith("input_"):
            self.warnings.append("cache points behind nothing, or behind what the model said, are not sent")
            return
        part[_BREAKPOINT] = {"mode": "explicit"}
        if block.ttl == "1h":
            self.warnings.append(NO_CACHE_TIME)

    def _last_result(self) -> JSONObject | None:
        """Give the last part of the function's result that was written last in this turn."""
        item = self._turn.result
        if item is None:
            return None
        if isinstance(item["output"], str):
            item["output"] = [{"type": "input_text", "text": item["output"]}]
        return as_object(as_list(item["output"])[-1])

    def tool_call(self, block: ToolCall) -> None:
        """Write a call: a custom tool's with its text, a built-in tool's as the item that it came in."""
        kind = _call_kind(block, self._target)
        whole = _issued(block.opaque, ITEM, self._target)
        if whole is not None:
            self._item(RawJSON(whole.data.encode()))
        else:
            key = "input" if kind == CUSTOM_CALL else "arguments"
            self._item({"type": kind, "call_id": block.id, "name": block.name, key: block.arguments})

    def _item(self, item: object) -> None:
        if self._turn.thoughts:
            self._left_out_reasoning()
        self._turn.close("assistant")
        self._items.append(item)

    def tool_result(self, block: ToolResult) -> None:
        """Write a tool's answer."""
        kind = self._call_kinds.get(block.tool_call_id, FUNCTION_CALL)
        if block.is_error and kind not in _RESULT_STATES:
            self.warnings.append("tool results are sent without their error flag")
        written: JSONObject = {"type": f"{kind}_output", "call_id": block.tool_call_id, **self._output(kind, block)}
        self._items.append(written)
        self._turn.result = written if kind in (FUNCTION_CALL, CUSTOM_CALL) else None

    def _output(self, kind: str, block: ToolResult) -> JSONObject:
        texts = [inner.text for inner in block.content if isinstance(inner, Text)]
        images = [_image(inner) for inner in block.content if isinstance(inner, Image)]
        text = "".join(texts)
        match kind:
            case "computer_call" if images:
                self._warn_of_rest(kind, block, 1)
                return {"output": {"type": "computer_screenshot", "image_url": images[0].get("image_url")}}
            case "shell_call":
                self._warn_of_rest(kind, block, len(texts))
                outcome = {"type": "exit", "exit_code": int(block.is_error)}
                return {"output": [{"stdout": text, "stderr": "", "outcome": outcome}]}
            case "apply_patch_call":
                self._warn_of_rest(kind, block, len(texts))
                return {"status": "failed" if block.is_error else "completed", "output": text}
            case _ if len(texts) == len(block.content):
                return {"output": text}
            case _:
                return {"output": [self._result_part(inner) for inner in block.content if inner != Text("")]}

    def _warn_of_rest(self, kind: str, block: ToolResult, sent: int) -> None:
        if sent < len(block.content):
            what = "one image" if kind == "computer_call" else "text"
            self.warnings.append(f"the result of {kind!r} is {what}: what else it holds is not sent")

    def reasoning(self, block: Reasoning) -> None:
        """Write reasoning back to its issuer; the blocks before the one that names its item are of that item too."""
        target = self._target
        encrypted, clear = _issued(block.opaque, ENCRYPTED, target), _issued(block.opaque, OPEN, target)
        phase, item = _issued(block.opaque, PHASE, target), _issued(block.opaque, ITEM, target)
        thoughts = [*self._turn.thoughts, *([block.text] if block.text else [])]
        if phase is not None:
            self._turn.close("assistant", phase.data)
        elif item is not None:
            self._item(RawJSON(item.data.encode()))
        elif encrypted is None and clear is None:
            self._turn.thoughts = thoughts
            if block.opaque:
                self._left_out_reasoning()
        else:
            self._turn.thoughts = []
            self._item(_reasoning_item(thoughts, encrypted, clear))

    def server_block(self, block: ServerToolCallBlock | ServerToolResultBlock) -> None:
        """Write back what the provider's own tools did; a result that came within its call's item goes with that."""
        kind = as_text(read_object(block.raw).get("type"))
        if is_server_item(kind):
            self._item(block.raw)
        elif isinstance(block, ServerToolCallBlock) or not is_null(block.raw):
            self.warnings.append("calls of another provider's own tools, and their results, are not sent")

    def file(self, block: FileBlock) -> None:
        """Write back an image that the provider's own tool made."""
        item = image_item(block.raw, block.data)
        if item is None:
            self.warnings.append("files that a model made are not sent: this wire has no place for them")
        else:
            self._item(item)


class _Turn:
    """The message that is being gathered of one turn's blocks, and the reasoning whose item is not known yet."""

    def __init__(self, items: list[object]) -> None:
        self._items = items
        self.parts: list[JSONObject] = []
        self.thoughts: list[str] = []
        self.result: JSONObject | None = None
        """The function's result that was written last."""

    def close(self, role: str, phase: str = "") -> None:
        """Put the message among the items, where there is one."""
        if not self.parts:
            return
        texts = [
            part["text"] for part in self.parts if part.keys() == {"type", "text"} and part["type"] == "input_text"
        ]
        content: object = "".join(map(as_text, texts)) if len(texts) == len(self.parts) else self.parts
        message: JSONObject = {"type": "message", "role": role, "content": content}
        self._items.append({**message, "phase": phase} if phase else message)
        self.parts = []


def _image(block: Image) -> JSONObject:
    if block.media_type == _PDF:
        return _file(Document(block.data, _PDF, block.url))
    url = block.url or data_url(block.data, block.media_type)
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _file(block: Document) -> JSONObject:
    if block.url:
        return {"type": "input_file", "file_url": block.url}
    data = data_url(block.data, block.media_type)
    return {"type": "input_file", "filename": file_name(block), "file_data": data}


def _is_ours(citation: Citation) -> bool:
    """Say whether a citation came over this wire: its annotations are flat, those of Chat Completions are not."""
    fields = read_object(citation.raw)
    return citation.kind in _ANNOTATIONS and citation.kind == fields.get("type") and citation.kind not in fields


def _issued(opaques: tuple[Opaque, ...], kind: str, target: Target) -> Opaque | None:
    """Give the opaque value of a kind that the target itself has issued."""
    return next((opaque for opaque in opaques if opaque.kind == kind and opaque.issuer == target.provider), None)


def _call_kind(block: ToolCall, target: Target) -> str:
    if _issued(block.opaque, CUSTOM, target) is not None:
        return CUSTOM_CALL
    whole = _issued(block.opaque, ITEM, target)
    kind = as_text(read_object(RawJSON(whole.data.encode())).get("type")) if whole is not None else ""
    return kind if kind in BUILT_IN_CALLS else FUNCTION_CALL


def _reasoning_item(thoughts: list[str], encrypted: Opaque | None, clear: Opaque | None) -> JSONObject:
    item: JSONObject = {"type": "reasoning"}
    if id := (encrypted or cast("Opaque", clear)).id:  # noqa: A001 (the field's name)
        item["id"] = id
    item["summary"] = [] if clear is not None else [{"type": "summary_text", "text": text} for text in thoughts]
    if clear is not None:
        item["content"] = [{"type": "reasoning_text", "text": text} for text in thoughts]
    if encrypted is not None:
        item["encrypted_content"] = encrypted.data
    return item


def _tool(tool: Tool) -> JSONObject:
    """Write a tool; without `strict` this wire makes every optional parameter a required one."""
    written: JSONObject = {"type": "function", "name": tool.name, "parameters": dict(tool.parameters), "strict": False}
    return {**written, "description": tool.description} if tool.description else written


def _tool_choice(choice: ToolChoice) -> object:
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else _CHOICES[choice.mode]


_RESULT_STATES = frozenset(("shell_call", "apply_patch_call"))
"""Calls whose result says whether it is an error."""
_USER: dict[type[ContentBlock], Callable[..., None]] = {
    Text: _Writer.text,
    Image: _Writer.image,
    Document: _Writer.document,
    CachePoint: _Writer.cache_point,
    ToolResult: _Writer.tool_result,
}
_ASSISTANT: dict[type[ContentBlock], Callable[..., None]] = {
    Text: _Writer.said,
    Refusal: _Writer.refusal,
    Reasoning: _Writer.reasoning,
    ToolCall: _Writer.tool_call,
    ServerToolCallBlock: _Writer.server_block,
    ServerToolResultBlock: _Writer.server_block,
    FileBlock: _Writer.file,
    CachePoint: _Writer.cache_point,
}
_WRITERS: dict[str, dict[type[ContentBlock], Callable[..., None]]] = {
    "system": {Text: _Writer.text, CachePoint: _Writer.cache_point},
    "user": _USER,
    "assistant": _ASSISTANT,
    "tool": _USER,
}
