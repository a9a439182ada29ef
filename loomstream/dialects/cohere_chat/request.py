"""Requests to Cohere's chat: from the neutral `Request` to the wire's JSON.

Contract: pure. What the wire cannot carry is left out and named by `warnings`; unset fields are not sent. System turns
are sent as one, at the beginning, where the wire wants them. A plan goes back to its issuer as `tool_plan`, byte for
byte; citations stay behind, the wire does not ask for them. Documents of text stand beside the conversation, where the
model can cite them. `citation_options`, `safety_mode`, `strict_tools` and `priority` come in by `extra_body`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.attachments import data_url, is_text, text_of
from loomstream.dialects.bodies import arguments_of, encode_body
from loomstream.dialects.cohere_chat.parts import TOOL_PLAN
from loomstream.dialects.fields import JSONObject
from loomstream.dialects.function_tools import function_tool
from loomstream.dialects.honoured import BUDGET_FIRST, unhonoured
from loomstream.dialects.left_out import NAMED_ALONE, lost_citations, lost_signatures, misplaced
from loomstream.dialects.schemas import PLACE, output_warnings, schema_of
from loomstream.dialects.system_turns import GAP, moved_system
from loomstream.errors import RequestError
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
    ToolCall,
    ToolChoice,
    ToolResult,
)
from loomstream.wire import WireRequest

HONOURED = frozenset({"logprobs", "output"})
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

ENFORCED = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "pattern", "format"}
)
"""The keywords of JSON Schema that an answer is held to.

Source: https://docs.cohere.com/docs/structured-outputs, "Unsupported schema features".
"""

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
_VERSION = "/v2"
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576}
"""Tokens of thinking for an effort, which the wire does not know; `max` sets no bound."""
_JSON = "application/json"
_CHOICES = {"any": "REQUIRED", "tool": "REQUIRED", "none": "NONE"}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/v2/chat`.

    Raises `RequestError` where the body cannot be written as JSON, and with its place for a document that is no UTF-8
    and an output's schema that is not that of an object.
    """
    path = "/chat" if target.base_url.endswith(_VERSION) else f"{_VERSION}/chat"
    return WireRequest(
        url=endpoint_url(target, path, stream=request.stream),
        headers={**_HEADERS, **host_headers(target), **request.extra_headers},
        body=encode_body(_body(request, target), request.extra_body),
        warnings=(*_warnings(request, target), *unhonoured(request, HONOURED)),
    )


def _body(request: Request, target: Target) -> JSONObject:
    optional: JSONObject = {
        "tools": [function_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "p": request.top_p,
        "k": request.top_k,
        "seed": request.seed,
        "stop_sequences": list(request.stop_sequences) or None,
        "thinking": _thinking(request),
        "documents": _documents(request) or None,
        "response_format": _response_format(request),
        "logprobs": None if request.logprobs is None else True,
    }
    body: JSONObject = {"model": target.model, "messages": _messages(request, target), "stream": request.stream}
    return {**body, **{key: value for key, value in optional.items() if value is not None}}


def _tool_choice(request: Request) -> str | None:
    choice = request.tool_choice or ToolChoice()
    return _CHOICES.get(choice.mode) if request.tools else None


def _response_format(request: Request) -> JSONObject | None:
    if request.output is None or _is_crowded(request):
        return None
    kind = request.output.schema.get("type")
    if kind != "object":
        msg = f"{PLACE}.type is {kind!r}: this wire takes the schema of an object, so put the value into one"
        raise RequestError(msg)
    return {"type": "json_object", "json_schema": schema_of(request.output)}


def _is_crowded(request: Request) -> bool:
    """Say whether there are tools or documents, with which the wire refuses a response format."""
    return bool(request.tools) or any(_is_text(block) for message in request.messages for block in message.content)


def _thinking(request: Request) -> JSONObject | None:
    effort, budget = request.reasoning_effort, request.reasoning_budget_tokens
    if effort is None and budget is None:
        return None
    if (budget is not None and budget <= 0) or (budget is None and effort == "none"):
        return {"type": "disabled"}
    budget = _BUDGETS.get(effort or "") if budget is None else budget
    return {"type": "enabled"} if budget is None else {"type": "enabled", "token_budget": budget}


# --- messages ----------------------------------------------------------------------------------------------------


def _messages(request: Request, target: Target) -> list[JSONObject]:
    texts = [request.system, *(message.text for message in request.messages if message.role == "system")]
    system = GAP.join(text for text in texts if text)
    messages: list[JSONObject] = [{"role": "system", "content": system}] if system else []
    for number, message in enumerate(request.messages):
        if message.role == "assistant":
            messages += _assistant(message, target)
        elif message.role != "system":
            messages += _turn(message, f"messages[{number}]")
    return messages


def _turn(message: Message, place: str) -> list[JSONObject]:
    written: list[JSONObject] = [
        _tool_result(block, f"{place}.content[{position}]")
        for position, block in enumerate(message.content)
        if isinstance(block, ToolResult)
    ]
    parts = [part for block in message.content if (part := _user_part(block)) is not None]
    if any(part["type"] != "text" for part in parts):
        written.append({"role": "user", "content": parts})
    elif parts:
        written.append({"role": "user", "content": _text(message.content)})
    return written


def _user_part(block: ContentBlock) -> JSONObject | None:
    if isinstance(block, Image):
        url = block.url or data_url(block.data, block.media_type)
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "text", "text": block.text} if isinstance(block, Text | Refusal) and block.text else None


def _is_text(block: ContentBlock) -> bool:
    """Say whether a block is a document that the wire can carry: text at hand."""
    return isinstance(block, Document) and bool(block.data) and is_text(block.media_type)


def _documents(request: Request) -> list[JSONObject]:
    return [
        _own_document(block, f"messages[{number}].content[{position}]")
        for number, message in enumerate(request.messages)
        for position, block in enumerate(message.content)
        if isinstance(block, Document) and _is_text(block)
    ]


def _own_document(block: Document, place: str) -> JSONObject:
    """Write a document of text; one of a JSON object is passed on as that object."""
    text = text_of(block, place)
    named: JSONObject = {"title": block.name} if block.name else {}
    data = arguments_of(text) if block.media_type.startswith(_JSON) and text.strip() else None
    return {"data": data if data is not None and not named else {**named, "text": text}}


def _text(content: Iterable[ContentBlock]) -> str:
    return "".join(block.text for block in content if isinstance(block, Text | Refusal))


def _tool_result(block: ToolResult, place: str) -> JSONObject:
    """Write a tool's answer: one text as it is, several texts and documents each as one that can be cited alone."""
    found = [
        _of_text(inner.text) if isinstance(inner, Text) else _own_document(inner, f"{place}.content[{position}]")
        for position, inner in enumerate(block.content)
        if isinstance(inner, Text) or (isinstance(inner, Document) and _is_text(inner))
    ]
    texts = [inner.text for inner in block.content if isinstance(inner, Text)]
    alone = len(found) == len(texts) <= 1
    content = "".join(texts) if alone else [{"type": "document", "document": document} for document in found]
    return {"role": "tool", "tool_call_id": block.tool_call_id, "content": content}


def _of_text(text: str) -> JSONObject:
    data = arguments_of(text) if text.strip() else None
    return {"data": data or {"text": text}}


def _assistant(message: Message, target: Target) -> list[JSONObject]:
    """Write the model's turn; one that holds nothing that the wire takes is left out."""
    written: JSONObject = {"role": "assistant"}
    calls = [_call(block) for block in message.content if isinstance(block, ToolCall)]
    plan = "".join(_plan(block, target) for block in message.content)
    if calls and plan:
        written["tool_plan"] = plan
    content = _assistant_content(message)
    if content:
        written["content"] = content
    if calls:
        written["tool_calls"] = calls
    return [written] if calls or content else []


def _plan(block: ContentBlock, target: Target) -> str:
    opaque = block.opaque if isinstance(block, Reasoning) else ()
    return "".join(item.data for item in opaque if (item.issuer, item.kind) == (target.provider, TOOL_PLAN))


def _assistant_content(message: Message) -> object:
    """Give the text alone, or blocks where there is thinking among them."""
    if not any(_is_thinking(block) for block in message.content):
        return _text(message.content)
    parts: list[JSONObject] = []
    for block in message.content:
        if isinstance(block, Reasoning) and _is_thinking(block):
            parts.append({"type": "thinking", "thinking": block.text})
        elif isinstance(block, Text | Refusal) and block.text:
            parts.append({"type": "text", "text": block.text})
    return parts


def _is_thinking(block: ContentBlock) -> bool:
    """Say whether a block is thinking that nobody signed: this wire's own has no signature."""
    return isinstance(block, Reasoning) and bool(block.text) and not block.opaque


def _call(block: ToolCall) -> JSONObject:
    """Write a call; the wire has arguments as text."""
    function: JSONObject = {"name": block.name, "arguments": block.arguments if block.arguments.strip() else "{}"}
    return {"id": block.id, "type": "function", "function": function}


# --- warnings ----------------------------------------------------------------------------------------------------


def _warnings(request: Request, target: Target) -> tuple[str, ...]:
    """Say what of the request Cohere's chat cannot honour."""
    settings = [text for applies, text in _SETTINGS if applies(request)]
    blocks = [(message, block) for message in request.messages for block in message.content]
    if request.output is not None and not _is_crowded(request):
        settings += output_warnings(request.output, request.output.schema, ENFORCED)
    held = [text for applies, text in _BLOCKS if any(applies(message, block, target) for message, block in blocks)]
    held += misplaced(request.messages, _PLACES) + lost_signatures(request.messages, target)
    return (*settings, *moved_system(request.messages), *held, *lost_citations(request.messages))


def _mode(request: Request) -> str:
    return request.tool_choice.mode if request.tool_choice is not None else ""


_SETTINGS: tuple[tuple[Callable[[Request], bool], str], ...] = (
    (
        lambda request: _mode(request) == "tool" and bool(request.tools),
        "tool_choice is sent as 'any': this wire cannot name the tool",
    ),
    (
        lambda request: _mode(request) in {"any", "tool"} and not request.tools,
        "tool_choice is not sent: the request has no tools",
    ),
    (
        lambda request: request.parallel_tool_calls is not None,
        "parallel_tool_calls is not sent: this wire has no such setting",
    ),
    (
        lambda request: request.output is not None and _is_crowded(request),
        "output is not sent: this wire takes it with neither tools nor documents",
    ),
    (
        lambda request: bool(request.logprobs),
        "logprobs are asked for without alternatives: this wire gives those of the chosen tokens",
    ),
    (
        lambda request: request.reasoning_effort is not None and request.reasoning_budget_tokens is not None,
        BUDGET_FIRST,
    ),
)


def _is_foreign(block: ContentBlock, target: Target) -> bool:
    return isinstance(block, Reasoning) and bool(block.opaque) and not _plan(block, target)


def _is_idle_plan(message: Message, block: ContentBlock, target: Target) -> bool:
    return bool(_plan(block, target)) and not any(isinstance(other, ToolCall) for other in message.content)


def _with_results(block: ContentBlock) -> tuple[ContentBlock, ...]:
    return block.content if isinstance(block, ToolResult) else (block,)


_SAID: tuple[type[ContentBlock], ...] = (Text, *NAMED_ALONE)
_PLACES: Mapping[str, tuple[type[ContentBlock], ...]] = {
    "system": _SAID,
    **dict.fromkeys(("user", "tool"), (*_SAID, Refusal, Image, ToolResult)),
    "assistant": (*_SAID, Refusal, Reasoning, ToolCall),
}
"""What a turn of a role can hold, or `_BLOCKS` names."""
_BLOCKS: tuple[tuple[Callable[[Message, ContentBlock, Target], bool], str], ...] = (
    (
        lambda _, block, __: isinstance(block, ToolResult) and any(isinstance(inner, Image) for inner in block.content),
        "images in tool results are not sent: this wire takes text there",
    ),
    (
        lambda _, block, __: isinstance(block, ToolResult) and block.is_error,
        "tool results are sent without their error flag",
    ),
    (
        lambda _, block, target: _is_foreign(block, target),
        "reasoning blocks of earlier turns that another provider signed are not sent",
    ),
    (_is_idle_plan, "plans of earlier turns without their tool calls are not sent"),
    (lambda _, block, __: isinstance(block, Audio), "audio is not sent: this wire takes none"),
    (
        lambda _, block, __: any(isinstance(inner, Document) and not _is_text(inner) for inner in _with_results(block)),
        "documents that are no text at hand are not sent: this wire takes the bytes of text or JSON",
    ),
    (lambda _, block, __: isinstance(block, CachePoint), "cache points are not sent: this wire has none"),
    (
        lambda _, block, __: isinstance(block, FileBlock | ServerToolCallBlock | ServerToolResultBlock),
        "files that a model made, and calls of a provider's own tools, are not sent",
    ),
)
