"""The other side of generateContent: chunks as SSE, or as one JSON array that is streamed.

Contract: pure functions, answer to bytes. Source: https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from loomstream.errors import UsageError
from loomstream.events import Citation, StopReason, Usage
from loomstream.testing.wires.answers import (
    JSON,
    Answer,
    Block,
    Sent,
    Wire,
    arguments_of,
    compact,
    content_of,
    data_event,
    given,
    object_of,
    prompt_total,
    reason_of,
    refuses,
)

_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
_REASONS: dict[StopReason, str] = {
    "end_turn": "STOP",
    "tool_use": "STOP",
    "max_tokens": "MAX_TOKENS",
    "content_filter": "SAFETY",
}
_CODE = "code_execution"
_CODE_OK = frozenset((None, "OUTCOME_OK"))


def _error(status: int, message: str) -> bytes:
    word = _STATUSES.get(status, "INVALID_ARGUMENT" if refuses(status) else "INTERNAL")
    return compact({"error": {"code": status, "message": message, "status": word}})


def _usage(usage: Usage) -> JSON:
    prompt = prompt_total(usage)
    return {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": usage.cache_read_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
        "totalTokenCount": prompt + usage.output_tokens,
    }


def _parts(block: Block) -> list[JSON]:
    match block.kind:
        case "text":
            return [{"text": piece} for piece in block.pieces]
        case "reasoning":
            return [{"text": piece, "thought": True} for piece in block.pieces]
        case "tool_call":
            call: JSON = {"name": block.name, "args": arguments_of(block)}
            return [{"functionCall": {"id": block.id, **call} if block.id else call}]
        case "server_call" if block.name == _CODE:
            return [{"executableCode": {**object_of(block), **given(id=block.id)}}]
        case "server_call":
            return [{"toolCall": {**given(id=block.id), "toolType": block.name, "args": arguments_of(block)}}]
        case "server_result":
            return [_server_result(block)]


def _server_result(block: Block) -> JSON:
    """Give what a tool of the provider's gave. The wire says of code alone that it failed, by an `outcome`."""
    fields = content_of(block)
    if block.name == _CODE and block.is_error == (fields.get("outcome") not in _CODE_OK):
        return {"codeExecutionResult": {**fields, **given(id=block.id)}}
    if block.name == _CODE or block.is_error:
        msg = f"gemini says that code failed by its outcome, and that of no other tool: {block!r}"
        raise UsageError(msg)
    return {"toolResponse": {**given(id=block.id), "toolType": block.name, "response": fields}}


def _grounding(answer: Answer) -> JSON:
    """Give the metadata that names the sources of the last text: the wire has them for a whole candidate."""
    texts = [block for block in answer.blocks if block.kind == "text"]
    if any(block.citations for block in texts[:-1]):
        msg = "gemini cites sources of the last text alone: there is no place for those of an earlier one"
        raise UsageError(msg)
    cited = texts[-1].citations if texts else ()
    if not cited:
        return {}
    supports = [
        {"segment": _segment(citation), "groundingChunkIndices": [number]} for number, citation in enumerate(cited)
    ]
    return {"groundingChunks": list(map(_source, cited)), "groundingSupports": supports}


def _source(citation: Citation) -> JSON:
    kind = "web" if citation.url else "retrievedContext"
    return {kind: given(uri=citation.url, title=citation.title)}


def _segment(citation: Citation) -> JSON:
    return given(startIndex=citation.start, endIndex=citation.end, text=citation.cited_text)


def _chunk(answer: Answer, parts: list[JSON], finish: str = "") -> JSON:
    candidate: JSON = {"content": {"role": "model", "parts": parts}, "index": 0}
    chunk: JSON = {"candidates": [candidate], "modelVersion": answer.model, "responseId": answer.id}
    if finish:
        candidate["finishReason"] = finish
        if grounding := _grounding(answer):
            candidate["groundingMetadata"] = grounding
        chunk["usageMetadata"] = _usage(answer.usage)
    return chunk


def _chunks(answer: Answer) -> list[JSON]:
    finish = reason_of(answer, _REASONS, "gemini")
    parts = [part for block in answer.blocks for part in _parts(block)]
    return [*(_chunk(answer, [part]) for part in parts), _chunk(answer, [{"text": ""}], finish)]


def _sse(answer: Answer) -> list[Sent]:
    chunks = _chunks(answer)
    return [Sent(data_event(chunk), number < len(chunks)) for number, chunk in enumerate(chunks, 1)]


def _array(answer: Answer) -> list[Sent]:
    chunks = _chunks(answer)
    sent = [Sent((b",\r\n" if number else b"[") + compact(chunk), True) for number, chunk in enumerate(chunks)]  # noqa: FBT003 (is_delta)
    return [*sent, Sent(b"]")]


def _whole(answer: Answer) -> bytes:
    parts = [part for block in answer.blocks for part in _parts(block)]
    return compact(_chunk(answer, parts, reason_of(answer, _REASONS, "gemini")))


GEMINI = Wire(
    "gemini",
    "text/event-stream; charset=utf-8",
    _sse,
    _whole,
    _error,
    lambda message: b"data: " + _error(503, message) + b"\n\n",
)
GEMINI_ARRAY = Wire(
    "gemini",
    "application/json; charset=utf-8",
    _array,
    _whole,
    _error,
    lambda message: b",\r\n" + _error(503, message) + b"]",
    malformed=b",{",
)
