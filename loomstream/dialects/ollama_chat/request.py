"""Requests to Ollama's chat: from the neutral `Request` to the wire's JSON.

Contract: pure. What the wire cannot carry is left out and named by `warnings`; unset fields are not sent, so
that the model file's own parameters hold. Names of options (`num_ctx`, `min_p`, …) that stand in `extra_body` by
themselves are put into `options`, the only place where the server reads them. What the model's capabilities do not
name, where they are known (`Quirks.capabilities`), is not asked of it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import msgspec

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.bodies import encode_body, sent_arguments
from loomstream.dialects.fields import JSONObject, as_object
from loomstream.dialects.function_tools import function_tool
from loomstream.dialects.honoured import unhonoured
from loomstream.dialects.left_out import NAMED_ALONE, lost_citations, lost_signatures, misplaced
from loomstream.dialects.schemas import output_warnings, schema_of
from loomstream.errors import RequestError, Unsupported
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
    ToolResult,
)
from loomstream.wire import WireRequest

HONOURED = frozenset({"logprobs", "output", "keep_alive_s", "context_tokens"})
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

ENFORCED = frozenset(
    {
        *("type", "enum", "const", "pattern", "format", "minLength", "maxLength", "items", "prefixItems", "minItems"),
        *("maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf", "oneOf", "allOf"),
        *("properties", "required", "additionalProperties"),
    }
)
"""The keywords of JSON Schema that the server makes a grammar of.

Source: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md, whose converter the server has.
"""

_HEADERS = {"content-type": "application/json", "accept": "application/x-ndjson, application/json"}
_LEVELS = {"minimal": "low", "xhigh": "high", "max": "high"}
"""Efforts that have no name on this wire, and the nearest that may have one."""
_LOAD_OPTIONS = frozenset({"num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread"})
"""The options that a model is loaded with."""
_OPTIONS = frozenset(
    {
        *("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "num_keep", "num_predict"),
        *("seed", "temperature", "top_k", "top_p", "min_p", "typical_p", "stop"),
        *("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty"),
    }
)
"""The options of https://docs.ollama.com/modelfile and of the server's own `Options`."""


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/api/chat`.

    Raises `Unsupported` for tools where the model's capabilities are known and do not name them, `RequestError` where
    the body cannot be written as JSON, for a `keep_alive_s` that is not finite and an output's schema that is none.
    """
    root = msgspec.structs.replace(target, base_url=root_url(target))
    return WireRequest(
        url=endpoint_url(root, "/api/chat", stream=request.stream),
        headers={**_HEADERS, **host_headers(target), **request.extra_headers},
        body=encode_body(_body(request, target), _with_options(request.extra_body)),
        warnings=(*_warnings(request, target), *unhonoured(request, HONOURED)),
    )


def root_url(target: Target) -> str:
    """Give the server's own address."""
    return target.base_url.removesuffix("/api")


def _with_options(extra: Mapping[str, object]) -> Mapping[str, object]:
    """Put the options among the extra keys into `options`; what stands there already wins."""
    loose = {name: value for name, value in extra.items() if name in _OPTIONS}
    placed = extra.get("options", {})
    if not loose or not isinstance(placed, Mapping):
        return extra
    rest = {name: value for name, value in extra.items() if name not in _OPTIONS}
    return {**rest, "options": {**loose, **cast("Mapping[str, object]", placed)}}


def _body(request: Request, target: Target) -> JSONObject:
    optional: JSONObject = {
        "think": _think(request, target),
        "tools": _tools(request, target) or None,
        "options": _options(request) or None,
        "format": None if request.output is None else schema_of(request.output),
        "keep_alive": keep_alive(request.keep_alive_s),
        "logprobs": None if request.logprobs is None else True,
        "top_logprobs": request.logprobs or None,
    }
    body: JSONObject = {"model": target.model, "messages": _messages(request), "stream": request.stream}
    return {**body, **{key: value for key, value in optional.items() if value is not None}}


def keep_alive(seconds: float | None) -> int | str | None:
    """Give how long the model stays loaded as the server reads it: whole seconds, or a text with a unit.

    A number with a fraction would be cut, and half a second unload the model at once. Raises `RequestError` where the
    time is not finite.
    """
    if seconds is None:
        return None
    if not math.isfinite(seconds):
        msg = f"keep_alive_s is {seconds}: give seconds, or -1 for ever"
        raise RequestError(msg)
    return int(seconds) if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"


def load_options(request: Request) -> JSONObject:
    """Give the options by which the server tells one loaded model from another."""
    options = {"num_ctx": request.context_tokens, **as_object(_with_options(request.extra_body).get("options"))}
    return {name: value for name, value in options.items() if name in _LOAD_OPTIONS and value is not None}


def _options(request: Request) -> JSONObject:
    options: JSONObject = {
        "num_ctx": request.context_tokens,
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "stop": list(request.stop_sequences) or None,
    }
    return {key: value for key, value in options.items() if value is not None}


def _lacks(target: Target, capability: str) -> bool:
    known = target.quirks.capabilities
    return bool(known) and capability not in known


def _tools(request: Request, target: Target) -> list[JSONObject]:
    silent = request.tool_choice is not None and request.tool_choice.mode == "none"
    tools = [] if silent else [function_tool(tool) for tool in request.tools]
    if tools and _lacks(target, "tools"):
        msg = (
            f"{target.provider}: {target.model} cannot call tools; its capabilities are "
            f"{', '.join(target.quirks.capabilities)}: leave tool_mode at 'auto', or take a model that has tools there"
        )
        raise Unsupported(msg, provider=target.provider, model=target.model)
    return tools


def _wants_thinking(request: Request) -> bool | None:
    """Say whether the model shall think; None where the request does not say."""
    if request.reasoning_effort is not None:
        return request.reasoning_effort != "none"
    return None if request.reasoning_budget_tokens is None else request.reasoning_budget_tokens > 0


def _think(request: Request, target: Target) -> bool | str | None:
    wanted, levels = _wants_thinking(request), target.quirks.think_levels
    if wanted is None or _lacks(target, "thinking"):
        return None
    effort = request.reasoning_effort or ""
    level = next((name for name in (effort, _LEVELS.get(effort, "")) if name in levels), "")
    return level if wanted and level else wanted


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
    arguments = sent_arguments(block.arguments)
    return {"id": block.id, "function": {"name": block.name, "arguments": arguments}}


def _tool_result(block: ToolResult) -> JSONObject:
    written: JSONObject = {"role": "tool", "tool_call_id": block.tool_call_id, **_plain(block.content)}
    if block.name:
        written["tool_name"] = block.name
    return written


# --- warnings ----------------------------------------------------------------------------------------------------


def _warnings(request: Request, target: Target) -> tuple[str, ...]:
    """Say what of the request Ollama's chat cannot honour."""
    blocks = [block for message in request.messages for block in message.content]
    blocks += [inner for block in blocks if isinstance(block, ToolResult) for inner in block.content]
    settings = [text for applies, text in _SETTINGS if applies(request, target)]
    if request.output is not None:
        settings += output_warnings(request.output, request.output.schema, ENFORCED)
    settings += [text for applies, text in _BLOCKS if any(applies(block) for block in blocks)]
    settings += misplaced(request.messages, _PLACES) + lost_signatures(request.messages, target)
    return (*settings, *lost_citations(request.messages))


def _forces_a_tool(request: Request, target: Target) -> bool:  # noqa: ARG001 (one signature)
    return request.tool_choice is not None and request.tool_choice.mode in {"any", "tool"}


def _cannot_think(request: Request, target: Target) -> bool:
    return _wants_thinking(request) is True and _lacks(target, "thinking")


def _loses_a_level(request: Request, target: Target) -> bool:
    effort = request.reasoning_effort
    return effort not in {None, "none"} and not _lacks(target, "thinking") and _think(request, target) is True


def _loses_a_budget(request: Request, target: Target) -> bool:
    return request.reasoning_budget_tokens is not None and not _lacks(target, "thinking")


_SETTINGS: tuple[tuple[Callable[[Request, Target], bool], str], ...] = (
    (_forces_a_tool, "tool_choice is not sent: this wire cannot force a tool"),
    (_cannot_think, "reasoning is not asked for: the model's capabilities do not name thinking"),
    (_loses_a_level, "reasoning_effort is sent as on or off: this model takes no level"),
    (_loses_a_budget, "reasoning_budget_tokens is sent as on or off: this wire has no budget"),
    (
        lambda request, _: request.parallel_tool_calls is not None,
        "parallel_tool_calls is not sent: this wire has no such setting",
    ),
)
_SAID: tuple[type[ContentBlock], ...] = (Text, Refusal, Image, *NAMED_ALONE)
_PLACES: Mapping[str, tuple[type[ContentBlock], ...]] = {
    **dict.fromkeys(("system", "user", "tool"), (*_SAID, ToolResult)),
    "assistant": (*_SAID, Reasoning, ToolCall),
}
"""What a turn of a role can hold, or `_BLOCKS` names."""
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
    (lambda block: isinstance(block, Audio), "audio is not sent: this wire takes none"),
    (lambda block: isinstance(block, Document), "documents are not sent: this wire takes text and images"),
    (lambda block: isinstance(block, CachePoint), "cache points are not sent: this server caches by itself"),
    (
        lambda block: isinstance(block, FileBlock | ServerToolCallBlock | ServerToolResultBlock),
        "files that a model made, and calls of a provider's own tools, are not sent",
    ),
)
