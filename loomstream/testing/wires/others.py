"""The other sides of Ollama's chat and of Cohere's chat, version 2.

Contract: pure functions, answer to bytes. Source: https://github.com/ollama/ollama/blob/main/docs/api.md,
https://docs.cohere.com/v2/docs/streaming.
"""

from __future__ import annotations

from loomstream.events import Citation, StopReason
from loomstream.testing.wires.answers import (
    JSON,
    Answer,
    Block,
    Sent,
    Wire,
    arguments_of,
    compact,
    given,
    named_event,
    prompt_total,
    reason_of,
    refuse_server_tools,
)

# --- Ollama --------------------------------------------------------------------------------------

_DONE_REASONS: dict[StopReason, str] = {"end_turn": "stop", "tool_use": "stop", "max_tokens": "length"}
_CREATED = "2026-01-01T00:00:00.000000Z"


def _ollama_messages(block: Block) -> list[JSON]:
    match block.kind:
        case "text":
            return [{"role": "assistant", "content": piece} for piece in block.pieces]
        case "reasoning":
            return [{"role": "assistant", "content": "", "thinking": piece} for piece in block.pieces]
        case "tool_call":
            call = {"id": block.id, "function": {"name": block.name, "arguments": arguments_of(block)}}
            return [{"role": "assistant", "content": "", "tool_calls": [call]}]
        case "server_call" | "server_result":
            return refuse_server_tools("ollama_chat")


def _ollama_line(answer: Answer, message: JSON, *, done: bool = False) -> bytes:
    line: JSON = {"model": answer.model, "created_at": _CREATED, "message": message, "done": done}
    if done:
        line |= {
            "done_reason": reason_of(answer, _DONE_REASONS, "ollama_chat"),
            "total_duration": 1,
            "load_duration": 1,
            "prompt_eval_count": prompt_total(answer.usage),
            "prompt_eval_duration": 1,
            "eval_count": answer.usage.output_tokens,
            "eval_duration": 1,
        }
    return compact(line) + b"\n"


def _ollama_frames(answer: Answer) -> list[Sent]:
    messages = [message for block in answer.blocks for message in _ollama_messages(block)]
    sent = [Sent(_ollama_line(answer, message), is_delta=True) for message in messages]
    return [*sent, Sent(_ollama_line(answer, {"role": "assistant", "content": ""}, done=True))]


def _ollama_whole(answer: Answer) -> bytes:
    message: JSON = {"role": "assistant", "content": _joined(answer, "text")}
    if thinking := _joined(answer, "reasoning"):
        message["thinking"] = thinking
    if answer.has_calls:
        message["tool_calls"] = [
            {"id": block.id, "function": {"name": block.name, "arguments": arguments_of(block)}}
            for block in answer.blocks
            if block.kind == "tool_call"
        ]
    return _ollama_line(answer, message, done=True)


def _joined(answer: Answer, kind: str) -> str:
    return "".join(block.text for block in answer.blocks if block.kind == kind)


OLLAMA = Wire(
    "ollama_chat",
    "application/x-ndjson",
    _ollama_frames,
    _ollama_whole,
    lambda _, message: compact({"error": message}),
    lambda message: compact({"error": message}) + b"\n",
    malformed=b"{]\n",
)

# --- Cohere --------------------------------------------------------------------------------------

_FINISH: dict[StopReason, str] = {
    "end_turn": "COMPLETE",
    "max_tokens": "MAX_TOKENS",
    "tool_use": "TOOL_CALL",
    "stop_sequence": "STOP_SEQUENCE",
}


def _cohere_usage(answer: Answer) -> JSON:
    prompt, made = prompt_total(answer.usage), answer.usage.output_tokens
    counts = {"input_tokens": prompt, "output_tokens": made}
    return {"billed_units": counts, "tokens": counts, "cached_tokens": answer.usage.cache_read_tokens}


def _cohere_call(block: Block, arguments: str) -> JSON:
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _cohere_citation(index: int, citation: Citation) -> JSON:
    """Give a citation of the text with this index: its one source is a document of your own."""
    document = {"id": "doc:0", **given(title=citation.title, url=citation.url)}
    place = given(start=citation.start, end=citation.end)
    source = {"type": "document", "id": "doc:0", "document": document}
    return {**place, "text": citation.cited_text, "sources": [source], "content_index": index, "type": "TEXT_CONTENT"}


def _cohere_cited(index: int, block: Block) -> list[tuple[JSON, bool]]:
    cited: list[JSON] = []
    for number, citation in enumerate(block.citations):
        said: JSON = {"message": {"citations": _cohere_citation(index, citation)}}
        cited.append({"type": "citation-start", "index": number, "delta": said})
        cited.append({"type": "citation-end", "index": number})
    return [(event, False) for event in cited]


def _cohere_content(index: int, block: Block) -> list[tuple[JSON, bool]]:
    kind, field = ("text", "text") if block.kind == "text" else ("thinking", "thinking")

    def content(type_: str, value: JSON) -> JSON:
        return {"type": type_, "index": index, "delta": {"message": {"content": value}}}

    return [
        (content("content-start", {"type": kind, field: ""}), False),
        *((content("content-delta", {field: piece}), True) for piece in block.pieces),
        *_cohere_cited(index, block),
        ({"type": "content-end", "index": index}, False),
    ]


def _cohere_call_events(index: int, block: Block) -> list[tuple[JSON, bool]]:
    def calls(type_: str, value: JSON) -> JSON:
        return {"type": type_, "index": index, "delta": {"message": {"tool_calls": value}}}

    return [
        (calls("tool-call-start", _cohere_call(block, "")), True),
        *((calls("tool-call-delta", {"function": {"arguments": piece}}), True) for piece in block.pieces),
        ({"type": "tool-call-end", "index": index}, False),
    ]


def _cohere_frames(answer: Answer) -> list[Sent]:
    finish = reason_of(answer, _FINISH, "cohere_chat")
    head: JSON = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    events: list[tuple[JSON, bool]] = [({"type": "message-start", "id": answer.id, "delta": {"message": head}}, False)]
    contents = calls = 0
    for block in answer.blocks:
        if block.kind == "tool_call":
            events += _cohere_call_events(calls, block)
            calls += 1
        else:
            events += _cohere_content(contents, block)
            contents += 1
    end = {"finish_reason": finish, "usage": _cohere_usage(answer)}
    events.append(({"type": "message-end", "id": answer.id, "delta": end}, False))
    return [Sent(named_event(event), is_delta) for event, is_delta in events]


def _cohere_whole(answer: Answer) -> bytes:
    blocks = [block for block in answer.blocks if block.kind != "tool_call"]
    content = [
        {"type": "text", "text": block.text} if block.kind == "text" else {"type": "thinking", "thinking": block.text}
        for block in blocks
    ]
    message: JSON = {"role": "assistant", "content": content}
    cited = [_cohere_citation(index, one) for index, block in enumerate(blocks) for one in block.citations]
    if cited:
        message["citations"] = cited
    if answer.has_calls:
        message["tool_calls"] = [
            _cohere_call(block, block.text) for block in answer.blocks if block.kind == "tool_call"
        ]
    finish = reason_of(answer, _FINISH, "cohere_chat")
    return compact({"id": answer.id, "message": message, "finish_reason": finish, "usage": _cohere_usage(answer)})


def _cohere_failure(message: str) -> bytes:
    delta = {"finish_reason": "ERROR", "error": message}
    return named_event({"type": "message-end", "id": "sim_0", "delta": delta})


COHERE = Wire(
    "cohere_chat",
    "text/event-stream; charset=utf-8",
    _cohere_frames,
    _cohere_whole,
    lambda _, message: compact({"message": message}),
    _cohere_failure,
)
