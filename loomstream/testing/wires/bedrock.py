"""The other side of Bedrock: Converse, and InvokeModel with Messages in it, as AWS event-stream messages.

Contract: pure functions, answer to bytes; the checksums are right, as each AWS SDK checks them.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html, and
https://smithy.io/2.0/aws/amazon-eventstream.html for the frames.
"""

from __future__ import annotations

import base64
import struct
from zlib import crc32

from loomstream.errors import UsageError
from loomstream.events import Citation, StopReason, Usage
from loomstream.testing.wires import anthropic
from loomstream.testing.wires.answers import (
    JSON,
    Answer,
    Block,
    Sent,
    Wire,
    arguments_of,
    compact,
    contents_of,
    given,
    prompt_total,
    reason_of,
)

_STRING = 7
_OVERHEAD_BYTES = 16
_AWS = "application/vnd.amazon.eventstream"
_MALFORMED = b"\x00\x00\x00\x10\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00"
"""A message whose checksum is not that of its lengths."""
_REASONS: dict[StopReason, str] = {
    "end_turn": "end_turn",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "content_filter": "content_filtered",
}


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """Give one message of an AWS event stream: lengths, their CRC-32, headers, payload, the CRC-32 of all."""
    head = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    prelude = struct.pack(">II", _OVERHEAD_BYTES + len(head) + len(payload), len(head))
    body = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return body + struct.pack(">I", crc32(body))


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack(">B", len(name)) + name + struct.pack(">BH", _STRING, len(value)) + value


def _event(name: str, payload: JSON) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, compact(payload))


def _failure(text: str) -> bytes:
    headers = {
        ":exception-type": "modelStreamErrorException",
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return message(headers, compact({"message": text, "originalStatusCode": 500}))


def _error(status: int, text: str) -> bytes:
    return compact({"message": f"{text} (status {status})"})


# --- Converse ------------------------------------------------------------------------------------


def _usage(usage: Usage) -> JSON:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": prompt_total(usage) + usage.output_tokens,
        "cacheReadInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }


def _citation(citation: Citation) -> JSON:
    """Give a citation of a page, or of a place in a document. Else `UsageError`."""
    place = given(start=citation.start, end=citation.end)
    if citation.url and place:
        msg = f"bedrock_converse cites an address, or a place (start, end) in a document: {citation!r}"
        raise UsageError(msg)
    location: JSON = {"web": {"url": citation.url}} if citation.url else {"documentChar": {"documentIndex": 0, **place}}
    source = [{"text": citation.cited_text}] if citation.cited_text else []
    return {**given(title=citation.title), "location": location, "sourceContent": source}


def _deltas(block: Block) -> list[JSON]:
    match block.kind:
        case "text":
            texts: list[JSON] = [{"text": piece} for piece in block.pieces]
            return [*texts, *({"citation": _citation(one)} for one in block.citations)]
        case "reasoning":
            deltas: list[JSON] = [{"reasoningContent": {"text": piece}} for piece in block.pieces]
            return [*deltas, {"reasoningContent": {"signature": block.signature}}] if block.signature else deltas
        case "tool_call":
            return [{"toolUse": {"input": piece}} for piece in block.pieces]
        case "server_call":
            return [{"toolUse": {"input": block.text}}]
        case "server_result":
            return [{"toolResult": contents_of(block)}]


def _start(block: Block) -> JSON:
    """Give what announces a block; nothing where its first delta does."""
    match block.kind:
        case "text" | "reasoning":
            return {}
        case "tool_call":
            return {"toolUse": {"toolUseId": block.id, "name": block.name}}
        case "server_call":
            return {"toolUse": _server_call(block)}
        case "server_result":
            return {"toolResult": _server_result(block)}


def _server_call(block: Block) -> JSON:
    return {"toolUseId": block.id, "name": block.name, "type": "server_tool_use"}


def _server_result(block: Block) -> JSON:
    status = "error" if block.is_error else "success"
    return {"toolUseId": block.id, "type": f"{block.name}_result", "status": status}


def _converse_frames(answer: Answer) -> list[Sent]:
    reason = reason_of(answer, _REASONS, "bedrock_converse")
    sent = [Sent(_event("messageStart", {"role": "assistant"}))]
    for index, block in enumerate(answer.blocks):
        if start := _start(block):
            sent.append(Sent(_event("contentBlockStart", {"contentBlockIndex": index, "start": start})))
        sent += [
            Sent(_event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}), is_delta=True)
            for delta in _deltas(block)
        ]
        sent.append(Sent(_event("contentBlockStop", {"contentBlockIndex": index})))
    sent.append(Sent(_event("messageStop", {"stopReason": reason})))
    return [*sent, Sent(_event("metadata", {"usage": _usage(answer.usage), "metrics": {"latencyMs": 1}}))]


def _full(block: Block) -> JSON:
    match block.kind:
        case "text" if block.citations:
            cited = [_citation(one) for one in block.citations]
            return {"citationsContent": {"content": [{"text": block.text}], "citations": cited}}
        case "text":
            return {"text": block.text}
        case "reasoning":
            text: JSON = {"text": block.text}
            return {
                "reasoningContent": {
                    "reasoningText": text | ({"signature": block.signature} if block.signature else {})
                }
            }
        case "tool_call":
            return {"toolUse": {"toolUseId": block.id, "name": block.name, "input": arguments_of(block)}}
        case "server_call":
            return {"toolUse": {**_server_call(block), "input": arguments_of(block)}}
        case "server_result":
            return {"toolResult": {**_server_result(block), "content": contents_of(block)}}


def _converse_whole(answer: Answer) -> bytes:
    content = {"role": "assistant", "content": [_full(block) for block in answer.blocks]}
    return compact(
        {
            "output": {"message": content},
            "stopReason": reason_of(answer, _REASONS, "bedrock_converse"),
            "usage": _usage(answer.usage),
            "metrics": {"latencyMs": 1},
        }
    )


CONVERSE = Wire("bedrock_converse", _AWS, _converse_frames, _converse_whole, _error, _failure, _MALFORMED)

# --- InvokeModel ---------------------------------------------------------------------------------


def _invoke_frames(answer: Answer) -> list[Sent]:
    return [
        Sent(_event("chunk", {"bytes": base64.b64encode(compact(event)).decode()}), is_delta)
        for event, is_delta in anthropic.events_of(answer)
    ]


INVOKE = Wire("bedrock_invoke", _AWS, _invoke_frames, anthropic.whole, _error, _failure, _MALFORMED)
