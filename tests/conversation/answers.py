"""What each provider answers in the conversation: three turns each, written by hand from the APIs' documents.

The first turn thinks, says something and calls two tools at once; the second one calls again; the third one answers.
The names of the tools are those of the wire: `get_weather_2` is what `get weather` becomes beside `get_weather`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

from moto.core.eventstream import EventStreamEncoder

PLAN = "Two cities, two calls."
LOOK = "I look at both."
ONCE = "One more."
"""Said where ids are made of a block's place, so that the second turn makes an id of the first one's anew."""
AGAIN = "Bergen once more, by its airport."
KNOWN = "Now both are known."
ANSWER = "Oslo has 4 °C, Bergen 7 °C."
SOURCE = {"url": "https://met.example/oslo", "title": "Oslo now"}
OSLO, BERGEN, AIRPORT = {"city": "Oslo"}, {"city": "Bergen"}, {"city": "Bergen", "station": "Flesland"}
FIRST, SECOND = "get_weather_2", "get_weather"

_encoder = EventStreamEncoder()


def text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _data(*frames: object) -> bytes:
    return "".join(f"data: {text(frame)}\n\n" for frame in frames).encode()


def _named(*frames: dict[str, object]) -> bytes:
    return "".join(f"event: {frame['type']}\ndata: {text(frame)}\n\n" for frame in frames).encode()


def _lines(*lines: object) -> bytes:
    return "".join(f"{text(line)}\n" for line in lines).encode()


def _aws(events: Iterable[tuple[str, object]]) -> bytes:
    head = {":content-type": "application/json", ":message-type": "event"}
    return b"".join(
        _encoder.encode_message({":event-type": name, **head}, text(payload).encode()) for name, payload in events
    )


# --- Chat Completions ----------------------------------------------------------------------------


def _chat(reason: str, *deltas: dict[str, object]) -> bytes:
    head = {"id": "gen-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    frames = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    return _data(*frames, end) + b"data: [DONE]\n\n"


def _chat_call(index: int, call_id: str, name: str, arguments: object) -> dict[str, object]:
    function = {"name": name, "arguments": text(arguments)}
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}


def _detail(words: str, signature: str) -> tuple[dict[str, object], dict[str, object]]:
    kind = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    told = {"reasoning": words, "reasoning_details": [{**kind, "text": words}]}
    return told, {"reasoning_details": [{**kind, "signature": signature}]}


OPENROUTER = (
    _chat(
        "tool_calls",
        *_detail(PLAN, "or-signature-1+/=="),
        {"content": LOOK},
        _chat_call(0, "toolu_vrtx_01AbCd", FIRST, OSLO),
        _chat_call(1, "toolu_vrtx_01EfGh", SECOND, BERGEN),
    ),
    _chat("tool_calls", *_detail(AGAIN, "or-signature-2+/=="), _chat_call(0, "toolu_vrtx_01IjKl", SECOND, AIRPORT)),
    _chat(
        "stop",
        *_detail(KNOWN, "or-signature-3+/=="),
        {"content": ANSWER},
        {"annotations": [{"type": "url_citation", "url_citation": {**SOURCE, "start_index": 0, "end_index": 13}}]},
    ),
)


def _thinking(words: str) -> dict[str, object]:
    return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": words}]}]}


MISTRAL = (
    _chat(
        "tool_calls",
        _thinking(PLAN),
        {"content": LOOK},
        _chat_call(0, "D681PevKs", FIRST, OSLO),
        _chat_call(1, "8nbQx2WzL", SECOND, BERGEN),
    ),
    _chat("tool_calls", _thinking(AGAIN), _chat_call(0, "yR5tGv0Am", SECOND, AIRPORT)),
    _chat("stop", _thinking(KNOWN), {"content": ANSWER}),
)

# --- Responses -----------------------------------------------------------------------------------


def _response(*items: dict[str, object]) -> bytes:
    head: dict[str, object] = {"id": "resp_1", "object": "response", "model": "gpt-5.1"}
    done = [
        {"type": "response.output_item.done", "output_index": index, "item": item} for index, item in enumerate(items)
    ]
    end = {**head, "status": "completed", "output": list(items)}
    return _named(
        {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}},
        *done,
        {"type": "response.completed", "response": end},
    )


def _reasoned(number: int, *summary: str) -> dict[str, object]:
    item: dict[str, object] = {"id": f"rs_0{number}", "type": "reasoning"}
    item["summary"] = [{"type": "summary_text", "text": words} for words in summary]
    return {**item, "encrypted_content": f"gAAAA-encrypted-{number}_=="}


def _said(phase: str, words: str, *annotations: object) -> dict[str, object]:
    part = {"type": "output_text", "text": words, "annotations": list(annotations)}
    head = {"id": f"msg_{phase}", "type": "message", "role": "assistant", "status": "completed", "phase": phase}
    return {**head, "content": [part]}


def _function(number: int, name: str, arguments: object) -> dict[str, object]:
    head = {"id": f"fc_{number}", "type": "function_call", "status": "completed", "call_id": f"call_Resp{number}"}
    return {**head, "name": name, "arguments": text(arguments)}


RESPONSES = (
    _response(_reasoned(1, PLAN), _said("commentary", LOOK), _function(1, FIRST, OSLO), _function(2, SECOND, BERGEN)),
    _response(_reasoned(2), _function(3, SECOND, AIRPORT)),
    _response(
        _reasoned(3, KNOWN),
        _said("final_answer", ANSWER, {"type": "url_citation", **SOURCE, "start_index": 0, "end_index": 13}),
    ),
)

# --- Messages ------------------------------------------------------------------------------------


def _message(reason: str, *blocks: dict[str, object]) -> list[dict[str, object]]:
    head = {"id": "msg_01", "type": "message", "role": "assistant", "content": [], "model": "claude", "usage": {}}
    frames: list[dict[str, object]] = [{"type": "message_start", "message": head}]
    for index, block in enumerate(blocks):
        opened, deltas = _OPENED[str(block["type"])](block)
        frames.append({"type": "content_block_start", "index": index, "content_block": opened})
        frames += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        frames.append({"type": "content_block_stop", "index": index})
    end = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5}}
    return [*frames, end, {"type": "message_stop"}]


def _open_thinking(block: dict[str, object]) -> tuple[object, list[object]]:
    pieces = [{"type": f"{name}_delta", name: block[name]} for name in ("thinking", "signature")]
    return {"type": "thinking", "thinking": "", "signature": ""}, list(pieces)


def _open_text(block: dict[str, object]) -> tuple[object, list[object]]:
    cited = [{"type": "citations_delta", "citation": block["cited"]}] if "cited" in block else []
    return {"type": "text", "text": ""}, [*cited, {"type": "text_delta", "text": block["text"]}]


def _open_call(block: dict[str, object]) -> tuple[object, list[object]]:
    pieces: list[object] = [{"type": "input_json_delta", "partial_json": text(block["input"])}]
    return {**block, "input": {}}, pieces


_OPENED = {
    "thinking": _open_thinking,
    "redacted_thinking": lambda block: (block, []),
    "text": _open_text,
    "tool_use": _open_call,
}


def _thought(words: str, signature: str) -> dict[str, object]:
    return {"type": "thinking", "thinking": words, "signature": signature}


def _use(call_id: str, name: str, arguments: object) -> dict[str, object]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


_CHAR_LOCATION = {
    "type": "char_location",
    "cited_text": "Oslo 4",
    "document_index": 0,
    "document_title": "stations.txt",
    "start_char_index": 3,
    "end_char_index": 9,
    "file_id": None,
}


def _claude(mark: str, ids: str) -> tuple[list[dict[str, object]], ...]:
    return (
        _message(
            "tool_use",
            _thought(PLAN, f"{mark}-signature-1+/=="),
            {"type": "text", "text": LOOK},
            _use(f"{ids}01A", FIRST, OSLO),
            _use(f"{ids}01B", SECOND, BERGEN),
        ),
        _message(
            "tool_use",
            {"type": "redacted_thinking", "data": f"{mark}-redacted-2+/=="},
            _use(f"{ids}01C", SECOND, AIRPORT),
        ),
        _message(
            "end_turn",
            _thought(KNOWN, f"{mark}-signature-3+/=="),
            {"type": "text", "text": ANSWER, "cited": _CHAR_LOCATION},
        ),
    )


ANTHROPIC = tuple(_named(*frames) for frames in _claude("claude", "toolu_"))
INVOKE = tuple(
    _aws(("chunk", {"bytes": base64.b64encode(text(frame).encode()).decode()}) for frame in frames)
    for frames in _claude("invoke", "toolu_bdrk_")
)

# --- Converse ------------------------------------------------------------------------------------


def _converse(reason: str, *blocks: list[tuple[str, dict[str, object]]]) -> bytes:
    events: list[tuple[str, object]] = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(blocks):
        events += [(name, {"contentBlockIndex": index, **payload}) for name, payload in block]
        events.append(("contentBlockStop", {"contentBlockIndex": index}))
    usage = {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14}
    return _aws([*events, ("messageStop", {"stopReason": reason}), ("metadata", {"usage": usage})])


def _change(**delta: object) -> tuple[str, dict[str, object]]:
    return "contentBlockDelta", {"delta": delta}


def _wrote(words: str) -> list[tuple[str, dict[str, object]]]:
    return [_change(text=words)]


def _reason(words: str, signature: str) -> list[tuple[str, dict[str, object]]]:
    return [_change(reasoningContent={"text": words}), _change(reasoningContent={"signature": signature})]


def _tool(call_id: str, name: str, arguments: object) -> list[tuple[str, dict[str, object]]]:
    opened = {"start": {"toolUse": {"toolUseId": call_id, "name": name}}}
    return [("contentBlockStart", opened), _change(toolUse={"input": text(arguments)})]


_STATION = {
    "title": "stations.txt",
    "sourceContent": [{"text": "Oslo 4"}],
    "location": {"documentChar": {"documentIndex": 0, "start": 3, "end": 9}},
}
CONVERSE = (
    _converse(
        "tool_use",
        _reason(PLAN, "converse-signature-1+/=="),
        _wrote(LOOK),
        _tool("tooluse_0-Aa_1", FIRST, OSLO),
        _tool("tooluse_0-Aa_2", SECOND, BERGEN),
    ),
    _converse(
        "tool_use",
        [_change(reasoningContent={"redactedContent": base64.b64encode(b"converse-redacted-2").decode()})],
        _tool("tooluse_0-Aa_3", SECOND, AIRPORT),
    ),
    _converse("end_turn", _reason(KNOWN, "converse-signature-3+/=="), [*_wrote(ANSWER), _change(citation=_STATION)]),
)

# --- Gemini: no ids, and no responseId to make them of -------------------------------------------


def _candidate(*parts: object, **more: object) -> bytes:
    whole = {"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP", "index": 0, **more}
    return _data({"candidates": [whole], "modelVersion": "gemini-3-pro-preview"})


def _asks(name: str, arguments: object, **more: object) -> dict[str, object]:
    return {"functionCall": {"name": name, "args": arguments}, **more}


GEMINI = (
    _candidate(
        {"text": PLAN, "thought": True},
        {"text": LOOK},
        _asks(FIRST, OSLO, thoughtSignature="gemini+signature/1=="),
        _asks(SECOND, BERGEN),
    ),
    _candidate(
        {"text": AGAIN, "thought": True},
        {"text": ONCE},
        _asks(SECOND, AIRPORT, thoughtSignature="gemini+signature/2=="),
    ),
    _candidate(
        {"text": KNOWN, "thought": True},
        {"text": ANSWER, "thoughtSignature": "gemini+signature/3=="},
        groundingMetadata={
            "groundingChunks": [{"web": {"uri": SOURCE["url"], "title": SOURCE["title"]}}],
            "groundingSupports": [{"segment": {"endIndex": 13, "text": "Oslo has 4 °C"}, "groundingChunkIndices": [0]}],
        },
    ),
)

# --- Ollama: no ids ------------------------------------------------------------------------------


def _ollama(*messages: dict[str, object]) -> bytes:
    lines = [{"model": "qwen3", "message": {"role": "assistant", "content": "", **message}} for message in messages]
    whole = [{**line, "done": False} for line in lines]
    return _lines(*whole, {**_lines_end, "done": True, "done_reason": "stop"})


_lines_end = {"model": "qwen3", "message": {"role": "assistant", "content": ""}}


def _function_of(name: str, arguments: object) -> dict[str, object]:
    return {"function": {"name": name, "arguments": arguments}}


OLLAMA = (
    _ollama(
        {"thinking": PLAN},
        {"content": LOOK},
        {"tool_calls": [_function_of(FIRST, OSLO), _function_of(SECOND, BERGEN)]},
    ),
    _ollama({"thinking": AGAIN}, {"content": ONCE}, {"tool_calls": [_function_of(SECOND, AIRPORT)]}),
    _ollama({"thinking": KNOWN}, {"content": ANSWER}),
)

# --- Cohere --------------------------------------------------------------------------------------


def _cohere(reason: str, *frames: dict[str, object]) -> bytes:
    start = {"type": "message-start", "id": "9f2c", "delta": {"message": {"role": "assistant", "content": []}}}
    return _named(start, *frames, {"type": "message-end", "delta": {"finish_reason": reason, "usage": {}}})


def _plan(words: str) -> dict[str, object]:
    return {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": words}}}


def _cohere_call(index: int, call_id: str, name: str, arguments: object) -> list[dict[str, object]]:
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": text(arguments)}}
    opened = {"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": call}}}
    return [opened, {"type": "tool-call-end", "index": index}]


def _content(index: int, kind: str, words: str) -> list[dict[str, object]]:
    def delta(content: dict[str, object]) -> dict[str, object]:
        return {"index": index, "delta": {"message": {"content": content}}}

    opened = {"type": "content-start", **delta({"type": kind, kind: ""})}
    return [opened, {"type": "content-delta", **delta({kind: words})}, {"type": "content-end", "index": index}]


_QUOTE = {
    "start": 0,
    "end": 13,
    "text": "Oslo has 4 °C",
    "sources": [{"type": "tool", "id": "get_weather_2_a1:0", "tool_output": {"content": "4 °C, rain"}}],
    "type": "TEXT_CONTENT",
    "content_index": 1,
}
COHERE = (
    _cohere(
        "TOOL_CALL",
        _plan(PLAN),
        *_cohere_call(0, "get_weather_2_a1b2c3d4", FIRST, OSLO),
        *_cohere_call(1, "get_weather_e5f6a7b8", SECOND, BERGEN),
    ),
    _cohere("TOOL_CALL", _plan(AGAIN), *_cohere_call(0, "get_weather_c9d0e1f2", SECOND, AIRPORT)),
    _cohere(
        "COMPLETE",
        *_content(0, "thinking", KNOWN),
        *_content(1, "text", ANSWER),
        {"type": "citation-start", "index": 0, "delta": {"message": {"citations": _QUOTE}}},
        {"type": "citation-end", "index": 0},
    ),
)
