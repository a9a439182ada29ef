"""The other side of Chat Completions and of Responses.

Contract: pure functions, answer to bytes; they know nothing of how those are sent.
Source: https://platform.openai.com/docs/api-reference/chat/streaming, .../responses-streaming.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from loomstream.errors import UsageError
from loomstream.events import StopReason, Usage
from loomstream.testing.wires.answers import (
    JSON,
    Answer,
    Block,
    Sent,
    Wire,
    compact,
    data_event,
    named_event,
    object_of,
    prompt_total,
    reason_of,
    refuses,
    web_citation,
)

_CREATED = 1_760_000_000
_SSE = "text/event-stream; charset=utf-8"
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_FINISH: dict[StopReason, str] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
}


def _error(status: int, message: str) -> bytes:
    kind = _KINDS.get(status, "invalid_request_error" if refuses(status) else "server_error")
    return compact({"error": {"message": message, "type": kind, "param": None, "code": None}})


# --- Chat Completions ----------------------------------------------------------------------------


def _chunk(answer: Answer, delta: JSON, finish: str | None = None) -> bytes:
    return data_event({**_chunk_head(answer), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _chunk_head(answer: Answer) -> JSON:
    return {"id": answer.id, "object": "chat.completion.chunk", "created": _CREATED, "model": answer.model}


def _chat_usage(usage: Usage) -> JSON:
    prompt = prompt_total(usage)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _call(block: Block, arguments: str) -> JSON:
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _chat_frames(answer: Answer) -> list[Sent]:
    finish = reason_of(answer, _FINISH, "openai_chat")
    sent = [Sent(_chunk(answer, {"role": "assistant", "content": ""}))]
    calls = 0
    for block in answer.blocks:
        if block.kind == "tool_call":
            sent.append(Sent(_chunk(answer, {"tool_calls": [{"index": calls, **_call(block, "")}]}), is_delta=True))
            piece_of = calls
            sent += [
                Sent(_chunk(answer, {"tool_calls": [{"index": piece_of, "function": {"arguments": piece}}]}), True)  # noqa: FBT003 (is_delta)
                for piece in block.pieces
            ]
            calls += 1
        else:
            name = "content" if block.kind == "text" else "reasoning_content"
            sent += [Sent(_chunk(answer, {name: piece}), is_delta=True) for piece in block.pieces]
            if block.citations:
                sent.append(Sent(_chunk(answer, {"annotations": _annotations(block)})))
    usage: JSON = {**_chunk_head(answer), "choices": [], "usage": _chat_usage(answer.usage)}
    return [*sent, Sent(_chunk(answer, {}, finish)), Sent(data_event(usage)), Sent(b"data: [DONE]\n\n")]


def _annotations(block: Block) -> list[JSON]:
    return [{"type": "url_citation", "url_citation": web_citation(one, "openai_chat")} for one in block.citations]


def _chat_whole(answer: Answer) -> bytes:
    message: JSON = {"role": "assistant", "content": _joined(answer, "text") or None}
    if reasoning := _joined(answer, "reasoning"):
        message["reasoning_content"] = reasoning
    if annotations := [annotation for block in answer.blocks for annotation in _annotations(block)]:
        message["annotations"] = annotations
    if answer.has_calls:
        message["tool_calls"] = [_call(block, block.text) for block in answer.blocks if block.kind == "tool_call"]
    choice = {"index": 0, "message": message, "finish_reason": reason_of(answer, _FINISH, "openai_chat")}
    head = {**_chunk_head(answer), "object": "chat.completion"}
    return compact({**head, "choices": [choice], "usage": _chat_usage(answer.usage)})


def _joined(answer: Answer, kind: str) -> str:
    return "".join(block.text for block in answer.blocks if block.kind == kind)


def _whole_calls(answer: Answer) -> list[Sent]:
    blocks = (replace(block, pieces=()) if block.kind == "tool_call" else block for block in answer.blocks)
    sent = _chat_frames(replace(answer, blocks=tuple(blocks)))
    calls = [
        {"index": number, **_call(block, block.text)}
        for number, block in enumerate(block for block in answer.blocks if block.kind == "tool_call")
    ]
    end = len(sent) - 3
    told = [Sent(_chunk(answer, {"tool_calls": calls}), is_delta=True)] if calls else []
    return [*sent[: end - len(calls)], *told, *sent[end:]]


CHAT = Wire(
    "openai_chat",
    _SSE,
    _chat_frames,
    _chat_whole,
    _error,
    lambda message: b"data: " + _error(500, message) + b"\n\n",
)
CHAT_WHOLE_CALLS = replace(CHAT, frames=_whole_calls)
"""Mistral's way: all calls in one frame, each whole. Its own client refuses a call in pieces."""

# --- Responses -----------------------------------------------------------------------------------

_INCOMPLETE: dict[StopReason, str] = {
    "end_turn": "",
    "tool_use": "",
    "max_tokens": "max_output_tokens",
    "content_filter": "content_filter",
}


def _text_part(text: str) -> JSON:
    nothing: list[JSON] = []
    return {"type": "output_text", "text": text, "annotations": nothing, "logprobs": nothing}


def _flat_annotations(block: Block) -> list[JSON]:
    return [{"type": "url_citation", **web_citation(one, "openai_responses")} for one in block.citations]


class _ServerTool(NamedTuple):
    """Where the item of a provider's own tool has its arguments (empty: member by member) and its result."""

    arguments: str = ""
    result: str = ""


_SERVER_TOOLS = {
    "code_interpreter": _ServerTool(result="outputs"),
    "file_search": _ServerTool(result="results"),
    "web_search": _ServerTool(arguments="action"),
}


def _with_results(answer: Answer) -> Answer:
    """Give the answer with each result in the block of its call: the wire has one item for both."""
    out: list[Block] = []
    for block in answer.blocks:
        if block.kind != "server_result":
            out.append(block)
        elif out and out[-1].kind == "server_call" and out[-1].id == block.id and _server_tool(out[-1]).result:
            out[-1] = replace(out[-1], content=block.content, is_error=block.is_error)
        else:
            msg = f"openai_responses has no place for this result: it goes with its call, of some tools: {block!r}"
            raise UsageError(msg)
    return replace(answer, blocks=tuple(out))


def _server_tool(block: Block) -> _ServerTool:
    if block.name not in _SERVER_TOOLS:
        msg = f"the simulator cannot write {block.name!r} on openai_responses, only {', '.join(_SERVER_TOOLS)}"
        raise UsageError(msg)
    return _SERVER_TOOLS[block.name]


def _server_item(block: Block, *, done: bool) -> JSON:
    tool = _server_tool(block)
    status = ("failed" if block.is_error else "completed") if done else "in_progress"
    head: JSON = {"id": block.id, "type": f"{block.name}_call", "status": status}
    if not done:
        return head
    arguments = object_of(block)
    told: JSON = {tool.arguments: arguments} if tool.arguments else arguments
    return {**head, **told, **({tool.result: block.content} if tool.result else {})}


def _item(position: int, block: Block, *, done: bool) -> JSON:
    status = "completed" if done else "in_progress"
    text = block.text if done else ""
    match block.kind:
        case "text":
            part = [_text_part(text) | {"annotations": _flat_annotations(block)}] if done else []
            return {"id": f"msg_{position}", "type": "message", "status": status, "role": "assistant", "content": part}
        case "reasoning":
            summary = [{"type": "summary_text", "text": text}] if done else []
            return {"id": f"rs_{position}", "type": "reasoning", "summary": summary}
        case "tool_call":
            head = {"id": f"fc_{position}", "type": "function_call", "status": status, "call_id": block.id}
            return {**head, "name": block.name, "arguments": text}
        case "server_call" | "server_result":  # a result is in its call's block by now
            return _server_item(block, done=done)


def _response(answer: Answer, status: str) -> JSON:
    reason = reason_of(answer, _INCOMPLETE, "openai_responses")
    done = status != "in_progress"
    usage = answer.usage
    prompt = prompt_total(usage)
    counts: JSON = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": prompt + usage.output_tokens,
    }
    return {
        "id": answer.id,
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if reason and done else None,
        "model": answer.model,
        "output": [_item(number, block, done=True) for number, block in enumerate(answer.blocks)] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": counts if done else None,
    }


_DELTAS = {
    "text": "response.output_text.delta",
    "reasoning": "response.reasoning_summary_text.delta",
    "tool_call": "response.function_call_arguments.delta",
}
_PARTS: dict[str, tuple[str, JSON]] = {
    "text": ("response.content_part", _text_part("")),
    "reasoning": ("response.reasoning_summary_part", {"type": "summary_text", "text": ""}),
}


def _cited(block: Block) -> JSON:
    return {"annotations": _flat_annotations(block)} if block.citations else {}


def _block_events(position: int, block: Block) -> list[tuple[JSON, bool]]:
    begun, ended = (_item(position, block, done=done) for done in (False, True))
    place: JSON = {"item_id": begun["id"], "output_index": position}
    steps = _server_steps(place, block) if block.kind == "server_call" else _content_steps(place, block)
    return [
        ({"type": "response.output_item.added", "output_index": position, "item": begun}, False),
        *((event, event["type"] == _DELTAS.get(block.kind)) for event in steps),
        ({"type": "response.output_item.done", "output_index": position, "item": ended}, False),
    ]


def _server_steps(place: JSON, block: Block) -> list[JSON]:
    return [{"type": f"response.{block.name}_call.{step}", **place} for step in ("in_progress", "completed")]


def _content_steps(place: JSON, block: Block) -> list[JSON]:
    if block.kind != "tool_call":
        place["content_index" if block.kind == "text" else "summary_index"] = 0
    side: JSON = {"logprobs": []} if block.kind == "text" else {}
    name = _DELTAS[block.kind]
    whole: JSON = {"arguments": block.text, "name": block.name} if block.kind == "tool_call" else {"text": block.text}
    events: list[JSON] = []
    part_name, part = _PARTS.get(block.kind, ("", {}))
    if part_name:
        events.append({"type": f"{part_name}.added", **place, "part": part})
    events += [{"type": name, **place, "delta": piece, **side} for piece in block.pieces]
    events += [
        {"type": "response.output_text.annotation.added", **place, "annotation_index": number, "annotation": annotation}
        for number, annotation in enumerate(_flat_annotations(block))
    ]
    events.append({"type": name.removesuffix("delta") + "done", **place, **whole, **side})
    if part_name:
        events.append({"type": f"{part_name}.done", **place, "part": {**part, "text": block.text, **_cited(block)}})
    return events


def _responses_frames(answer: Answer) -> list[Sent]:
    answer = _with_results(answer)
    status = _status(answer)
    events: list[tuple[JSON, bool]] = [
        ({"type": "response.created", "response": _response(answer, "in_progress")}, False),
        ({"type": "response.in_progress", "response": _response(answer, "in_progress")}, False),
    ]
    for position, block in enumerate(answer.blocks):
        events += _block_events(position, block)
    events.append(({"type": f"response.{status}", "response": _response(answer, status)}, False))
    return [
        Sent(named_event({**event, "sequence_number": number}), is_delta)
        for number, (event, is_delta) in enumerate(events)
    ]


def _status(answer: Answer) -> str:
    return "incomplete" if reason_of(answer, _INCOMPLETE, "openai_responses") else "completed"


def _responses_failure(message: str) -> bytes:
    return named_event(
        {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}
    )


RESPONSES = Wire(
    "openai_responses",
    _SSE,
    _responses_frames,
    lambda answer: compact(_response(_with_results(answer), _status(answer))),
    _error,
    _responses_failure,
)
