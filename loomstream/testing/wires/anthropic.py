"""The other side of Messages.

Contract: pure functions, answer to bytes. `events_of` is shared with InvokeModel, which carries the same events.
Source: https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

from loomstream.events import Citation, StopReason, Usage
from loomstream.testing.wires.answers import (
    JSON,
    Answer,
    Block,
    Sent,
    Wire,
    arguments_of,
    compact,
    named_event,
    reason_of,
    refuses,
)

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_REASONS: dict[StopReason, str] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "tool_use": "tool_use",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "pause": "pause_turn",
    "context_window": "model_context_window_exceeded",
}


def error(status: int, message: str) -> bytes:
    """Give an error's body."""
    kind = _KINDS.get(status, "invalid_request_error" if refuses(status) else "api_error")
    return compact({"type": "error", "error": {"type": kind, "message": message}})


def _usage(usage: Usage) -> JSON:
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
    }


def _message(answer: Answer, content: list[JSON], reason: str | None, usage: Usage) -> JSON:
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": _usage(usage),
    }


def _empty(block: Block) -> JSON:
    match block.kind:
        case "text":
            return {"type": "text", "text": ""}
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "tool_call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
        case "server_call":
            return {"type": "server_tool_use", "id": block.id, "name": block.name, "input": {}}
        case "server_result":
            return _full(block)


def _full(block: Block) -> JSON:
    match block.kind:
        case "text":
            cited = [_citation(one) for one in block.citations]
            return {"type": "text", "text": block.text, **({"citations": cited} if cited else {})}
        case "reasoning":
            return {"type": "thinking", "thinking": block.text, "signature": block.signature}
        case "tool_call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": arguments_of(block)}
        case "server_call":
            return {"type": "server_tool_use", "id": block.id, "name": block.name, "input": arguments_of(block)}
        case "server_result":
            result: JSON = {"type": f"{block.name}_tool_result", "tool_use_id": block.id, "content": block.content}
            return {**result, "is_error": True} if block.is_error else result


def _citation(citation: Citation) -> JSON:
    cited: JSON = {"cited_text": citation.cited_text}
    if citation.url:
        return {
            "type": "web_search_result_location",
            **cited,
            "url": citation.url,
            "title": citation.title,
            "encrypted_index": "simulated",
        }
    start, end = citation.start or 0, citation.end or 0
    place: JSON = {"document_index": 0, "document_title": citation.title}
    return {"type": "char_location", **cited, **place, "start_char_index": start, "end_char_index": end}


_DELTAS = {
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "tool_call": ("input_json_delta", "partial_json"),
    "server_call": ("input_json_delta", "partial_json"),
}


def _delta(kind: str, piece: str) -> JSON:
    name, field = _DELTAS[kind]
    return {"type": name, field: piece}


def _block_events(index: int, block: Block) -> list[tuple[JSON, bool]]:
    deltas = [_delta(block.kind, piece) for piece in block.pieces]
    for citation in block.citations:
        deltas.append({"type": "citations_delta", "citation": _citation(citation)})  # noqa: PERF401 (its type)
    if block.signature:
        deltas.append({"type": "signature_delta", "signature": block.signature})
    return [
        ({"type": "content_block_start", "index": index, "content_block": _empty(block)}, False),
        *(({"type": "content_block_delta", "index": index, "delta": delta}, True) for delta in deltas),
        ({"type": "content_block_stop", "index": index}, False),
    ]


def events_of(answer: Answer) -> list[tuple[JSON, bool]]:
    """Give the events of a stream, and of each whether it adds content."""
    reason = reason_of(answer, _REASONS, "anthropic_messages")
    begun = Usage(
        input_tokens=answer.usage.input_tokens,
        cache_read_tokens=answer.usage.cache_read_tokens,
        cache_write_tokens=answer.usage.cache_write_tokens,
    )
    events: list[tuple[JSON, bool]] = [({"type": "message_start", "message": _message(answer, [], None, begun)}, False)]
    for index, block in enumerate(answer.blocks):
        events += _block_events(index, block)
    end: JSON = {"stop_reason": reason, "stop_sequence": None}
    events.append(({"type": "message_delta", "delta": end, "usage": _usage(answer.usage)}, False))
    return [*events, ({"type": "message_stop"}, False)]


def whole(answer: Answer) -> bytes:
    """Give the body of an answer that is not streamed."""
    reason = reason_of(answer, _REASONS, "anthropic_messages")
    return compact(_message(answer, [_full(block) for block in answer.blocks], reason, answer.usage))


MESSAGES = Wire(
    "anthropic_messages",
    "text/event-stream; charset=utf-8",
    lambda answer: [Sent(named_event(event), is_delta) for event, is_delta in events_of(answer)],
    whole,
    error,
    lambda message: b"event: error\ndata: " + error(529, message) + b"\n\n",
)
