"""Requests to Chat Completions: from the neutral `Request` to the wire's JSON.

Contract: pure. What the host cannot honour is left out and named by `warnings`. Unset fields are not sent.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from loomstream.dialects import Target, endpoint_url, host_headers
from loomstream.dialects.bodies import encode_body
from loomstream.dialects.fields import JSONObject
from loomstream.dialects.function_tools import function_tool
from loomstream.dialects.honoured import NO_CACHE_TIME, unhonoured
from loomstream.dialects.left_out import is_plain, lost_citations, lost_signatures, misplaced
from loomstream.dialects.openai_chat.turns import WRITERS, goes_back, messages_of
from loomstream.dialects.strict import output_format
from loomstream.messages import ContentBlock, Reasoning, Request, ToolChoice, ToolResult
from loomstream.wire import WireRequest

HONOURED = frozenset(
    {
        *("logprobs", "output", "prompt_cache_key", "metadata", "end_user_id", "service_tier", "prediction"),
        *("cache_prompt", "routing"),
    }
)
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/chat/completions`.

    Raises `RequestError` where the body cannot be written as JSON, or strict JSON is demanded of a schema that breaks
    strict mode's rules.
    """
    messages, said = messages_of(request, target)
    options, left_out = _options(request, target)
    body: JSONObject = {"model": _model(request, target), "messages": messages}
    if request.stream:
        body["stream"] = True
        if target.quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
    return WireRequest(
        url=endpoint_url(target, "/chat/completions", stream=request.stream),
        headers={**_HEADERS, **host_headers(target), **request.extra_headers},
        body=encode_body({**body, **options}, request.extra_body),
        warnings=tuple(dict.fromkeys((*left_out, *_warnings(request, target), *said, *unhonoured(request, HONOURED)))),
    )


def _model(request: Request, target: Target) -> str:
    return f"{target.model}:{request.routing}" if _is_routed(request, target) else target.model


def _is_routed(request: Request, target: Target) -> bool:
    return bool(request.routing) and target.quirks.routing_suffix and ":" not in target.model


def _options(request: Request, target: Target) -> tuple[JSONObject, list[str]]:
    """Give what the request asks for and the host takes, by the body's keys, and what is to be said of the rest."""
    quirks = target.quirks
    if quirks.needs_max_tokens is None and _optional(request) == _NOTHING_OPTIONAL:
        return {}, []
    asked = {key: value for key, value in _asked(request, target).items() if value is not None}
    if not asked:
        return {}, []
    reasons = request.reasoning_effort not in (None, "none")
    refused = quirks.refused + quirks.refused_with_effort if reasons else quirks.refused
    fields = {"stop": "stop_sequences", quirks.max_tokens_key: "max_tokens", quirks.seed_key: "seed"}
    said = [f"{fields.get(key, key)} is not sent: this model does not take it" for key in asked if key in refused]
    said += [
        f"{fields.get(key, key)} is not sent: this host does not take it" for key in asked if key in quirks.unknown
    ]
    options: JSONObject = {}
    for key, value in asked.items():
        if key not in refused and key not in quirks.unknown:
            options.update(_WRITTEN[key](request, target) if key in _WRITTEN else {key: value})
    return options, said


def _asked(request: Request, target: Target) -> JSONObject:
    """Give all that the request asks for; whether the host and the model take it is another question."""
    quirks = target.quirks
    return {
        quirks.max_tokens_key: request.max_tokens if request.max_tokens is not None else quirks.needs_max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k if quirks.top_k else None,
        "stop": list(request.stop_sequences) or None,
        quirks.seed_key: request.seed,
        "reasoning_effort": request.reasoning_effort,
        "tools": [function_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice, target) if request.tool_choice else None,
        "parallel_tool_calls": request.parallel_tool_calls,
        "logprobs": request.logprobs,
        "output": request.output,
        "prediction": {"type": "content", "content": request.prediction} if request.prediction else None,
        "prompt_cache_key": request.prompt_cache_key or None,
        "cache_prompt": request.cache_prompt if quirks.cache_points == "cache_control" else None,
        "end_user_id": request.end_user_id or None,
        "service_tier": request.service_tier or None,
        "metadata": dict(request.metadata) if _keeps_metadata(request, target) else None,
    }


_optional: Callable[[Request], tuple[object, ...]] = attrgetter(
    *("max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "seed", "reasoning_effort", "tools"),
    *("tool_choice", "parallel_tool_calls", "logprobs", "output", "prediction", "prompt_cache_key", "cache_prompt"),
    *("end_user_id", "service_tier", "metadata"),
)
"""All that `_asked` looks at; most requests ask for none of it, and one look at all of them costs least."""
_NOTHING_OPTIONAL = _optional(Request(messages=()))


def _keeps_metadata(request: Request, target: Target) -> bool:
    stored = not target.quirks.metadata_needs_store or request.extra_body.get("store") is True
    return bool(request.metadata) and stored


def _logprobs(request: Request, target: Target) -> JSONObject:
    count = request.logprobs or 0
    if target.quirks.logprobs_by == "count":
        return {"logprobs": max(1, count)}
    return {"logprobs": True, "top_logprobs": count} if count else {"logprobs": True}


def _output(request: Request, target: Target) -> JSONObject:
    if request.output is None or not target.quirks.json_schema:
        return {"response_format": {"type": "json_object"}}
    return {"response_format": {"type": "json_schema", "json_schema": output_format(request.output)}}


_WRITTEN: dict[str, Callable[[Request, Target], JSONObject]] = {
    "logprobs": _logprobs,
    "output": _output,
    "cache_prompt": lambda request, _: {"cache_control": {"type": "ephemeral", "ttl": request.cache_prompt}},
    "end_user_id": lambda request, target: {target.quirks.end_user_key: request.end_user_id},
}
"""Options whose keys in the body are others than their names."""


def _tool_choice(choice: ToolChoice, target: Target) -> object:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return target.quirks.any_tool_word if choice.mode == "any" else choice.mode


# --- warnings ----------------------------------------------------------------------------------------------------


def _warnings(request: Request, target: Target) -> list[str]:
    """Say what else of the request Chat Completions, or this host, cannot honour."""
    asked = _settings(request) != _UNSET
    said = [text for applies, text in _SETTINGS if applies(request, target)] if asked else []
    if target.quirks.system_role == "user" and _has_system(request):
        said.append("system turns are sent as the user's: this model takes none")
    return said if is_plain(request.messages) else said + _of_blocks(request, target)


def _of_blocks(request: Request, target: Target) -> list[str]:
    """Say what blocks of the conversation it has no place for."""
    left_out = misplaced(request.messages, WRITERS) + lost_signatures(request.messages, target)
    left_out += lost_citations(request.messages)
    blocks = [block for message in request.messages for block in message.content]
    kinds = set(map(type, blocks))
    said = [
        text for kind, applies, text in _BLOCKS if kind in kinds and any(applies(block, target) for block in blocks)
    ]
    return said + left_out


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
        lambda request, target: bool(request.routing) and not target.quirks.routing_suffix,
        "routing is not sent: this host does not take it",
    ),
    (
        lambda request, target: target.quirks.routing_suffix and bool(request.routing) and ":" in target.model,
        "routing is not sent: the model's name already says which host it is",
    ),
    (
        lambda request, target: bool(request.metadata) and not _keeps_metadata(request, target),
        "metadata is not sent: this host keeps it with stored answers alone: give extra_body={'store': True} too",
    ),
    (
        lambda request, target: request.output is not None and not target.quirks.json_schema,
        "the answer is asked to be JSON, not to fit output.schema: this host knows no schemas",
    ),
    (
        lambda request, target: request.cache_prompt is not None and not target.quirks.cache_points,
        "cache_prompt is not sent: this host caches by itself, or not at all",
    ),
    (
        lambda request, target: (
            request.cache_prompt == "1h" and target.quirks.cache_points == "prompt_cache_breakpoint"
        ),
        NO_CACHE_TIME,
    ),
)
_settings: Callable[[Request], tuple[object, ...]] = attrgetter(
    *("top_k", "reasoning_budget_tokens", "routing", "metadata", "output", "cache_prompt")
)
"""What these sentences are about; where none of it is asked for, none of them applies."""
_UNSET = _settings(Request(messages=()))

_BLOCKS: tuple[tuple[type[ContentBlock], Callable[[ContentBlock, Target], bool], str], ...] = (
    (
        Reasoning,
        lambda block, target: isinstance(block, Reasoning) and not goes_back(block, target),
        "reasoning blocks of earlier turns are not sent: they cannot be sent back on this wire",
    ),
    (
        ToolResult,
        lambda block, _: isinstance(block, ToolResult) and block.is_error,
        "tool results are sent without their error flag",
    ),
)
