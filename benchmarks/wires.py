"""What the benchmarks' server says on each wire: a beginning, text events, an end, with the side fields of real hosts.

Contract: values, written by hand from the protocols; it must not import loomstream.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

JSON = dict[str, object]


class Wire(NamedTuple):
    """What precedes the text events, some of them to take in turn, what follows them, and how it is announced."""

    opening: bytes
    texts: tuple[bytes, ...]
    closing: bytes
    content_type: str = "text/event-stream; charset=utf-8"

    def text(self, position: int) -> bytes:
        """Give one text event; neighbours differ, as some clients give up where a model repeats itself."""
        return self.texts[position % len(self.texts)]


_WORDS = ("river", "stone", "water", "light", "moss", "rain", "bank", "reed")
_CREATED = 1_760_000_000


def _compact(value: JSON) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _data(value: JSON) -> bytes:
    return b"data: %b\n\n" % _compact(value)


def _named(value: JSON) -> bytes:
    """Give an event whose name is its `type`."""
    return b"event: %b\n%b" % (str(value["type"]).encode(), _data(value))


# --- Chat Completions ----------------------------------------------------------------------------


def _chat(delta: JSON | None, finish: str | None = None, usage: JSON | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _data(
        {
            "id": "chatcmpl-C9dX2mQvT0uWkqYy7sVf1hJb",
            "object": "chat.completion.chunk",
            "created": _CREATED,
            "model": "m",
            "service_tier": "default",
            "system_fingerprint": "fp_1234567890",
            "choices": [] if delta is None else [choice],
            "usage": usage,
        }
    )


CHAT = Wire(
    opening=_chat({"role": "assistant", "content": "", "refusal": None}),
    texts=tuple(_chat({"content": f" {word}"}) for word in _WORDS),
    closing=_chat({}, "stop")
    + _chat(None, usage={"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21})
    + b"data: [DONE]\n\n",
)

# --- Responses -----------------------------------------------------------------------------------

_ITEM = "msg_68a1f0c2d3e4819fb7c6d5e4f3a2b1c0"
_PLACE = {"item_id": _ITEM, "output_index": 0, "content_index": 0}
_PART: JSON = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}


def _item(status: str, content: list[JSON]) -> JSON:
    return {"id": _ITEM, "type": "message", "status": status, "content": content, "role": "assistant"}


def _answer(status: str, output: list[JSON], usage: JSON | None) -> JSON:
    head: JSON = {"id": "resp_68a1f0c1a2b3", "object": "response", "created_at": _CREATED, "model": "m"}
    return {**head, "status": status, "error": None, "output": output, "tools": [], "usage": usage}


def _responses_text(position: int, word: str) -> bytes:
    side: JSON = {"logprobs": [], "obfuscation": "ZkT3w0aPqR"[: position + 2]}
    return _named(
        {"type": "response.output_text.delta", "sequence_number": 4 + position, **_PLACE, "delta": f" {word}", **side}
    )


RESPONSES = Wire(
    opening=b"".join(
        map(
            _named,
            (
                {
                    "type": "response.created",
                    "sequence_number": 0,
                    "response": _answer("in_progress", [], None),
                },
                {
                    "type": "response.output_item.added",
                    "sequence_number": 1,
                    "output_index": 0,
                    "item": _item("in_progress", []),
                },
                {"type": "response.content_part.added", "sequence_number": 2, **_PLACE, "part": _PART},
            ),
        )
    ),
    texts=tuple(_responses_text(position, word) for position, word in enumerate(_WORDS)),
    closing=b"".join(
        map(
            _named,
            (
                {
                    "type": "response.output_item.done",
                    "sequence_number": 15,
                    "output_index": 0,
                    "item": _item("completed", []),
                },
                {
                    "type": "response.completed",
                    "sequence_number": 16,
                    "response": _answer(
                        "completed",
                        [_item("completed", [])],
                        {"input_tokens": 9, "output_tokens": 12, "total_tokens": 21},
                    ),
                },
            ),
        )
    ),
)

# --- Messages ------------------------------------------------------------------------------------

_MESSAGES_OPENING: tuple[JSON, ...] = (
    {
        "type": "message_start",
        "message": {
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
)
_MESSAGES_TEXTS: tuple[JSON, ...] = tuple(
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f" {word}"}} for word in _WORDS
)
_MESSAGES_CLOSING: tuple[JSON, ...] = (
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"input_tokens": 9, "output_tokens": 12},
    },
    {"type": "message_stop"},
)


def _messages(write: Callable[[JSON], bytes], content_type: str = "text/event-stream; charset=utf-8") -> Wire:
    return Wire(
        opening=b"".join(map(write, _MESSAGES_OPENING)),
        texts=tuple(map(write, _MESSAGES_TEXTS)),
        closing=b"".join(map(write, _MESSAGES_CLOSING)),
        content_type=content_type,
    )


# --- Gemini --------------------------------------------------------------------------------------


def _gemini(position: int, text: str, finish: str | None = None) -> bytes:
    """Give a chunk; the host counts what it has said so far in each."""
    candidate: JSON = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {
        "promptTokenCount": 9,
        "candidatesTokenCount": position,
        "totalTokenCount": 9 + position,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
    }
    return _data(
        {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "m",
            "responseId": "cGdHaLbmLqKXz7IP3sWv8A0",
        }
    )


GEMINI = Wire(
    opening=b"",
    texts=tuple(_gemini(position, f" {word}") for position, word in enumerate(_WORDS, 1)),
    closing=_gemini(12, "", "STOP"),
)

# --- Ollama --------------------------------------------------------------------------------------


def _ollama(position: int, text: str, end: JSON | None = None) -> bytes:
    message = {"role": "assistant", "content": text}
    line: JSON = {"model": "m", "created_at": f"2025-10-09T08:53:20.{123 + 17 * position}456789Z", "message": message}
    return _compact({**line, **(end or {"done": False})}) + b"\n"


OLLAMA = Wire(
    opening=b"",
    texts=tuple(_ollama(position, f" {word}") for position, word in enumerate(_WORDS)),
    closing=_ollama(
        len(_WORDS),
        "",
        {
            "done_reason": "stop",
            "done": True,
            "total_duration": 4_883_583_458,
            "load_duration": 1_334_875,
            "prompt_eval_count": 9,
            "prompt_eval_duration": 342_546_000,
            "eval_count": 12,
            "eval_duration": 4_535_599_000,
        },
    ),
    content_type="application/x-ndjson",
)

# --- Cohere --------------------------------------------------------------------------------------


def _cohere_content(kind: str, content: JSON) -> JSON:
    return {"type": kind, "index": 0, "delta": {"message": {"content": content}}}


_COUNTS = {"input_tokens": 9, "output_tokens": 12}
COHERE = Wire(
    opening=_named(
        {
            "type": "message-start",
            "id": "29f14a5a-11de-4cae-9800-25e4747408ea",
            "delta": {
                "message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
            },
        }
    )
    + _named(_cohere_content("content-start", {"type": "text", "text": ""})),
    texts=tuple(_named(_cohere_content("content-delta", {"text": f" {word}"})) for word in _WORDS),
    closing=_named({"type": "content-end", "index": 0})
    + _named(
        {
            "type": "message-end",
            "delta": {"finish_reason": "COMPLETE", "usage": {"billed_units": _COUNTS, "tokens": _COUNTS}},
        }
    ),
)

# --- Bedrock -------------------------------------------------------------------------------------

_AWS = "application/vnd.amazon.eventstream"
_STRING = 7
"""The type of a header's value."""


def _header(name: str, value: str) -> bytes:
    head = struct.pack(">B", len(name)) + name.encode()
    return head + struct.pack(">BH", _STRING, len(value)) + value.encode()


def _aws(kind: str, payload: JSON) -> bytes:
    """Give one message of an AWS event stream."""
    named = ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event"))
    headers = b"".join(_header(name, value) for name, value in named)
    body = _compact(payload)
    lengths = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    checked = lengths + struct.pack(">I", crc32(lengths)) + headers + body
    return checked + struct.pack(">I", crc32(checked))


_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
"""The service pads each message to another length, so that an onlooker does not learn the lengths of words."""


def _converse_text(position: int, word: str) -> bytes:
    delta: JSON = {"contentBlockIndex": 0, "delta": {"text": f" {word}"}}
    return _aws("contentBlockDelta", {**delta, "p": _PADDING[: 4 * position + 5]})


CONVERSE = Wire(
    opening=_aws("messageStart", {"p": _PADDING, "role": "assistant"}),
    texts=tuple(_converse_text(position, word) for position, word in enumerate(_WORDS)),
    closing=_aws("contentBlockStop", {"contentBlockIndex": 0, "p": _PADDING})
    + _aws("messageStop", {"p": _PADDING, "stopReason": "end_turn"})
    + _aws(
        "metadata",
        {
            "metrics": {"latencyMs": 431},
            "p": _PADDING,
            "usage": {"inputTokens": 9, "outputTokens": 12, "totalTokens": 21},
        },
    ),
    content_type=_AWS,
)


def _invoke(event: JSON) -> bytes:
    return _aws("chunk", {"bytes": base64.b64encode(_compact(event)).decode(), "p": _PADDING[:20]})


WIRES: dict[str, Wire] = {
    "openai_chat": CHAT,
    "openai_responses": RESPONSES,
    "anthropic_messages": _messages(_named),
    "gemini": GEMINI,
    "bedrock_converse": CONVERSE,
    "bedrock_invoke": _messages(_invoke, _AWS),
    "ollama_chat": OLLAMA,
    "cohere_chat": COHERE,
}
"""By dialect."""
