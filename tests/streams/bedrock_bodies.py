"""Write the bodies of the Bedrock goldens from a form that can be read: `python tests/streams/bedrock_bodies.py`.

AWS event-stream messages are binary, so their text stands here. moto encodes them. Run `regold.py` afterwards for the
cases that changed, and read what it wrote.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moto.core.eventstream import EventStreamEncoder

HERE = Path(__file__).parent
EVENT_STREAM = "application/vnd.amazon.eventstream"
JSON = "application/json"
PADDING = "abcdefghijklmnopqrstuvwxyz"

encoder = EventStreamEncoder()


def message(headers: Mapping[str, Any], payload: bytes) -> bytes:
    return encoder.encode_message(headers, payload)


def event(name: str, payload: object) -> bytes:
    """Encode an event; a payload of bytes goes as it is, an object as JSON with the padding that AWS adds."""
    if isinstance(payload, dict):
        payload = {**payload, "p": PADDING[: len(name)]}
    data = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    return message({":event-type": name, ":content-type": JSON, ":message-type": "event"}, data)


def exception(name: str, payload: object) -> bytes:
    head = {":exception-type": name, ":content-type": JSON, ":message-type": "exception"}
    return message(head, json.dumps(payload).encode())


def error(code: str, text: str) -> bytes:
    return message({":message-type": "error", ":error-code": code, ":error-message": text}, b"")


# --- Converse ----------------------------------------------------------------------------------------------------


def start(index: int, **block: object) -> bytes:
    return event("contentBlockStart", {"contentBlockIndex": index, "start": block})


def delta(index: int | None, **change: object) -> bytes:
    return event(
        "contentBlockDelta", {"delta": change} if index is None else {"contentBlockIndex": index, "delta": change}
    )


def text(index: int | None, *pieces: str) -> bytes:
    return b"".join(delta(index, text=piece) for piece in pieces)


def thought(index: int, **change: object) -> bytes:
    return delta(index, reasoningContent=change)


def stop(index: int) -> bytes:
    return event("contentBlockStop", {"contentBlockIndex": index})


def tool(index: int, call_id: str, name: str, *pieces: str, **more: object) -> bytes:
    opened = start(index, toolUse={"toolUseId": call_id, "name": name, **more})
    return opened + b"".join(delta(index, toolUse={"input": piece}) for piece in pieces) + stop(index)


def ended(reason: str, **more: object) -> bytes:
    return event("messageStop", {"stopReason": reason, **more})


def usage(sent: int = 12, got: int = 5, **more: object) -> dict[str, object]:
    return {"inputTokens": sent, "outputTokens": got, "totalTokens": sent + got, **more}


def metadata(counts: object = None, **more: object) -> bytes:
    return event("metadata", {"usage": usage() if counts is None else counts, "metrics": {"latencyMs": 321}, **more})


BEGIN = event("messageStart", {"role": "assistant"})
END = ended("end_turn") + metadata()
HELLO = BEGIN + text(0, "Good", " morning") + stop(0) + END
SEARCH = {"web": {"url": "https://example.org/a", "domain": "example.org"}}
LEAVE = {
    "title": "policy",
    "sourceContent": [{"text": "Twenty "}, {"text": "days."}],
    "location": {"documentChar": {"documentIndex": 0, "start": 3, "end": 16}},
}
SIGNATURE = "EqQBCgIYAhIkMWEw+/ab=="
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()

CONVERSE: dict[str, bytes | tuple[bytes, str]] = {
    "text": HELLO,
    "answer-empty": BEGIN + END,
    "body-empty": (b"", "StreamTruncated"),
    "empty-deltas": BEGIN + text(0, "") + stop(0) + thought(1, text="") + stop(1) + text(2, "Hi", "") + stop(2) + END,
    "empty-start": BEGIN + start(0) + text(0, "after an empty start") + stop(0) + END,
    "start-null": BEGIN
    + event("contentBlockStart", {"contentBlockIndex": 0, "start": None})
    + text(0, "Hi")
    + stop(0)
    + END,
    "start-unknown": BEGIN + start(0, hologram={"size": 3}) + delta(0, hologram={"more": 1}) + stop(0) + END,
    "start-unknown-then-text": BEGIN + start(0, hologram={}) + text(0, "kept as it came") + stop(0) + END,
    "opened-twice": (BEGIN + start(0, toolUse={"toolUseId": "t", "name": "f"}) * 2, "BadFrame"),
    "delta-after-stop": (BEGIN + text(0, "a") + stop(0) + text(0, "b") + END, "BadFrame"),
    "index-used-again": BEGIN + tool(0, "t1", "f", "{}") + tool(0, "t2", "g", "{}") + ended("tool_use") + metadata(),
    "index-missing": BEGIN
    + text(None, "no ", "index")
    + event("contentBlockStop", {})
    + event("contentBlockStart", {"start": {"toolUse": {"toolUseId": "t1", "name": "f"}}})
    + delta(None, toolUse={"input": '{"a":1}'})
    + event("contentBlockStop", {})
    + ended("tool_use")
    + metadata(),
    "indexes-odd": BEGIN + text(7, "seven") + stop(7) + text(3, "three") + stop(3) + stop(99) + END,
    "never-stopped": BEGIN + text(0, "open") + thought(1, text="also open") + END,
    "kind-changes": BEGIN
    + thought(0, text="hm", signature=SIGNATURE)
    + text(0, "so: ")
    + text(0, "yes")
    + stop(0)
    + END,
    "kind-conflict": (BEGIN + tool(0, "t1", "f")[:-72] + text(0, "x") + END, "ChecksumMismatch"),
    "text-for-a-call": (
        BEGIN + start(0, toolUse={"toolUseId": "t1", "name": "f"}) + text(0, "x") + END,
        "BadFrame",
    ),
    "delta-missing": BEGIN + event("contentBlockDelta", {"contentBlockIndex": 0}) + text(0, "Hi") + END,
    "delta-null": BEGIN + event("contentBlockDelta", {"contentBlockIndex": 0, "delta": None}) + text(0, "Hi") + END,
    "delta-unknown": BEGIN + text(0, "Hi") + delta(0, smell="of tea") + stop(0) + END,
    "delta-mistyped": (BEGIN + text(0, "Hi") + delta(0, text=5) + END, "BadFrame"),
    "no-message-start": text(0, "Hi") + stop(0) + END,
    "no-message-start-call": tool(0, "t1", "f", "{}") + ended("tool_use") + metadata(),
    "metadata-alone": (metadata(), "StreamTruncated"),
    "message-start-late": text(0, "Hi") + BEGIN + text(0, " you") + stop(0) + END,
    "message-start-twice": (BEGIN + text(0, "Hi") + BEGIN + END, "BadFrame"),
    "after-message-stop": (BEGIN + text(0, "Hi") + ended("end_turn") + text(1, "late"), "BadFrame"),
    "start-after-message-stop": (BEGIN + ended("end_turn") + start(0, toolUse={"name": "f"}), "BadFrame"),
    "stop-after-message-stop": BEGIN + text(0, "Hi") + ended("end_turn") + stop(0) + metadata(),
    "stop-first": stop(0) + text(1, "Hi") + END,
    "message-stop-twice": (BEGIN + ended("end_turn") * 2, "BadFrame"),
    "after-the-end": HELLO + HELLO,
    "metadata-missing": BEGIN + text(0, "Hi") + stop(0) + ended("end_turn"),
    "metadata-cut": BEGIN + text(0, "Hi") + stop(0) + ended("end_turn") + metadata()[:-3],
    "metadata-first": BEGIN + text(0, "Hi") + stop(0) + metadata() + ended("end_turn"),
    "metadata-twice-first": BEGIN + text(0, "Hi") + stop(0) + metadata() + metadata() + ended("end_turn"),
    "metadata-without-usage": BEGIN + text(0, "Hi") + stop(0) + ended("end_turn") + event("metadata", {"metrics": {}}),
    "stop-missing": (BEGIN + text(0, "Hi") + stop(0), "StreamTruncated"),
    "stop-reason-missing": BEGIN + text(0, "Hi") + event("messageStop", {}) + metadata(),
    "frame-unknown": BEGIN + event("heartbeat", {"n": 1}) + text(0, "Hi") + END,
    "frame-nameless": BEGIN + message({":content-type": JSON}, b"{}") + text(0, "Hi") + END,
    "frame-unknown-no-json": BEGIN + event("heartbeat", b"\xff\x00") + text(0, "Hi") + END,
    "initial-response": event("initial-response", {}) + HELLO,
    "garbage-payload": (BEGIN + text(0, "Hi") + event("contentBlockDelta", b"{nope"), "BadFrame"),
    "garbage-metadata": BEGIN + text(0, "Hi") + ended("end_turn") + event("metadata", b"[]"),
    "garbage-message-stop": (BEGIN + text(0, "Hi") + event("messageStop", b"[]"), "BadFrame"),
    "not-utf-8": BEGIN
    + event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"caf\xe9"}}')
    + stop(0)
    + END,
    "surrogates-cut": BEGIN
    + event("contentBlockDelta", rb'{"contentBlockIndex":0,"delta":{"text":"\ud83d"}}')
    + event("contentBlockDelta", rb'{"contentBlockIndex":0,"delta":{"text":"\ude00!"}}')
    + stop(0)
    + END,
    "unicode": BEGIN + text(0, "你好 ", "👩\u200d👩\u200d👧 ", "e\u0301") + stop(0) + END,
    "too-deep": (
        BEGIN
        + event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"image":' + b"[" * 200 + b"]" * 200 + b"}}"),
        "LimitExceeded",
    ),
    "crc-wrong": (HELLO[:-1] + b"\x00", "ChecksumMismatch"),
    "prelude-wrong": (BEGIN + text(0, "Hi") + b"\x00" * 16, "ChecksumMismatch"),
    # reasoning
    "reasoning": BEGIN
    + thought(0, text="Let me ")
    + thought(0, text="see.")
    + thought(0, signature=SIGNATURE)
    + stop(0)
    + text(1, "42")
    + stop(1)
    + END,
    "reasoning-signature-alone": BEGIN + thought(0, signature=SIGNATURE) + stop(0) + text(1, "42") + stop(1) + END,
    "reasoning-signature-in-pieces": BEGIN
    + thought(0, text="hm", signature="abc")
    + thought(0, signature="def==")
    + stop(0)
    + END,
    "reasoning-redacted": BEGIN
    + thought(0, redactedContent="QUJD")
    + stop(0)
    + thought(1, redactedContent="REVG+/8=")
    + stop(1)
    + text(2, "42")
    + stop(2)
    + END,
    "reasoning-redacted-in-pieces": BEGIN
    + thought(0, redactedContent="QQ==")
    + thought(0, redactedContent="QkM=")
    + stop(0)
    + thought(1, redactedContent="%")
    + thought(1, redactedContent="QkM=")
    + stop(1)
    + END,
    "reasoning-unsigned": BEGIN
    + text(0, "")
    + stop(0)
    + thought(1, text="hm")
    + stop(1)
    + text(2, "Hi")
    + stop(2)
    + END,
    "reasoning-null": BEGIN + delta(0, reasoningContent=None, text="Hi") + stop(0) + END,
    # tools
    "tool": BEGIN
    + text(0, "I look.")
    + stop(0)
    + tool(1, "tooluse_1", "weather", '{"city":', '"Paris"', "}")
    + ended("tool_use")
    + metadata(),
    "tools-parallel": BEGIN
    + tool(0, "tooluse_1", "weather", '{"city":"Rome"}')
    + tool(1, "tooluse_2", "weather", '{"city":"Oslo"}')
    + ended("tool_use")
    + metadata(),
    "tools-interleaved": BEGIN
    + start(0, toolUse={"toolUseId": "tooluse_1", "name": "f"})
    + start(1, toolUse={"toolUseId": "tooluse_2", "name": "g", "type": "tool_use"})
    + delta(1, toolUse={"input": '{"b":'})
    + delta(0, toolUse={"input": '{"a":1'})
    + delta(1, toolUse={"input": "2}"})
    + delta(0, toolUse={"input": "}"})
    + stop(1)
    + stop(0)
    + ended("tool_use")
    + metadata(),
    "tool-no-arguments": BEGIN
    + tool(0, "tooluse_1", "ping")
    + tool(1, "tooluse_2", "ping", "")
    + tool(2, "tooluse_3", "ping", "{}")
    + ended("tool_use")
    + metadata(),
    "tool-cut-by-length": BEGIN
    + start(0, toolUse={"toolUseId": "tooluse_1", "name": "f"})
    + delta(0, toolUse={"input": '{"a":[1,'})
    + ended("max_tokens")
    + metadata(),
    "tool-cut-before-arguments": BEGIN
    + start(0, toolUse={"toolUseId": "tooluse_1", "name": "f"})
    + ended("max_tokens")
    + metadata(),
    "tool-no-json": BEGIN + tool(0, "tooluse_1", "f", "not json") + ended("malformed_tool_use") + metadata(),
    "tool-no-id": BEGIN
    + start(0, toolUse={"name": "f"})
    + delta(0, toolUse={"input": "{}"})
    + stop(0)
    + ended("tool_use")
    + metadata(),
    "tool-mistyped-id": BEGIN + tool(0, 7, "f", "{}") + ended("tool_use") + metadata(),
    "tool-late-start": BEGIN + delta(0, toolUse={"input": "{}"}) + stop(0) + ended("tool_use") + metadata(),
    "tool-null-input": BEGIN
    + start(0, toolUse={"toolUseId": "tooluse_1", "name": "f"})
    + delta(0, toolUse={"input": None})
    + stop(0)
    + ended("tool_use")
    + metadata(),
    "server-tool": BEGIN
    + tool(0, "tooluse_1", "nova_grounding", '{"query":', '"news"}', type="server_tool_use")
    + start(1, toolResult={"toolUseId": "tooluse_1", "type": "nova_grounding_result", "status": "success"})
    + delta(1, toolResult=[{"text": "[HIDDEN]"}])
    + delta(1, toolResult=[{"json": {"hits": 3.0}}])
    + stop(1)
    + text(2, "There is news.")
    + stop(2)
    + delta(3, citation={"location": SEARCH})
    + stop(3)
    + END,
    "server-tool-error": BEGIN
    + tool(0, "tooluse_1", "nova_code_interpreter", type="server_tool_use")
    + start(1, toolResult={"toolUseId": "tooluse_1", "status": "error"})
    + delta(1, toolResult="no list")
    + stop(1)
    + tool(2, "tooluse_2", "nova_code_interpreter", '{"cut":', type="server_tool_use")
    + delta(3, toolResult=[{"text": "nobody's"}])
    + END,
    "server-tool-result-of-other": BEGIN
    + start(0, toolResult={"toolUseId": "elsewhere", "type": "nova_grounding_result"})
    + stop(0)
    + END,
    # images
    "image": BEGIN
    + start(0, image={"format": "png"})
    + delta(0, image={"source": {"bytes": PIXEL}})
    + stop(0)
    + delta(1, image={"source": {"bytes": "QUJD"}})
    + delta(1, image={"source": {"bytes": "REU="}})
    + stop(1)
    + start(2, image={"format": "webp"})
    + delta(2, image={"source": {"s3Location": {"uri": "s3://bucket/key"}}})
    + stop(2)
    + END,
    "image-failed": BEGIN
    + start(0, image={"format": "png"})
    + delta(0, image={"error": {"message": "blocked"}})
    + stop(0)
    + END,
    "image-no-base64": (
        BEGIN + start(0, image={"format": "png"}) + delta(0, image={"source": {"bytes": "%%"}}) + stop(0),
        "BadFrame",
    ),
    # citations
    "citations": BEGIN
    + text(0, "Twenty days")
    + delta(0, citation=LEAVE)
    + text(0, ".")
    + stop(0)
    + delta(1, citation={"location": {"documentPage": {"documentIndex": 0, "start": 1, "end": 2}}, "title": "pdf"})
    + text(1, "See page 1.")
    + stop(1)
    + END,
    "citation-mistyped": BEGIN + text(0, "Hi") + delta(0, citation=5) + delta(0, citation={"location": []}) + END,
    # stop reasons
    **{
        f"stop-{reason.replace('_', '-')}": BEGIN + text(0, "Hi") + stop(0) + ended(reason) + metadata()
        for reason in (
            "max_tokens",
            "stop_sequence",
            "guardrail_intervened",
            "content_filtered",
            "malformed_model_output",
            "model_context_window_exceeded",
            "pause_turn",
            "refusal",
            "from_the_future",
        )
    },
    "guardrail-trace": BEGIN
    + text(0, "Blocked.")
    + stop(0)
    + ended("guardrail_intervened")
    + metadata(usage(0, 0), trace={"guardrail": {"actionReason": "Guardrail blocked."}}),
    "additional-fields": BEGIN
    + text(0, "Hi")
    + stop(0)
    + ended("stop_sequence", additionalModelResponseFields={"stop_sequence": "END"})
    + metadata(),
    # usage
    "usage-cache": BEGIN
    + text(0, "Hi")
    + stop(0)
    + ended("end_turn")
    + metadata(
        usage(
            cacheReadInputTokens=100,
            cacheReadInputTokenCount=100,
            cacheWriteInputTokens=60,
            cacheWriteInputTokenCount=60,
            cacheDetails=[{"ttl": "1h", "inputTokens": 40}, {"ttl": "5m", "inputTokens": 20}],
            serverToolUsage={},
        )
    ),
    "usage-cache-other-name": BEGIN
    + text(0, "Hi")
    + ended("end_turn")
    + metadata(usage(cacheReadInputTokenCount=9, cacheWriteInputTokenCount=8)),
    "usage-mistyped": BEGIN
    + text(0, "Hi")
    + ended("end_turn")
    + metadata({"inputTokens": 12.0, "outputTokens": "5", "cacheReadInputTokens": -3, "cacheDetails": "none"}),
    "usage-no-object": BEGIN + text(0, "Hi") + ended("end_turn") + metadata([1]),
    # errors
    **{
        f"exception-{name}": (BEGIN + text(0, "Hi") + exception(f"{name}Exception", {"message": words}), kind)
        for name, words, kind in (
            ("throttling", "Too many tokens, please wait before trying again.", "RateLimited"),
            ("validation", "Input is too long for requested model.", "ContextTooLong"),
            ("modelStreamError", "The system encountered an unexpected error.", "ServerFault"),
            ("internalServer", "Try again.", "ServerFault"),
            ("serviceUnavailable", "Bedrock is unable to process your request.", "Overloaded"),
            ("modelTimeout", "The model took too long.", "ServerFault"),
            ("fromTheFuture", "Something else.", "ServerFault"),
        )
    },
    "exception-original": (
        BEGIN
        + exception(
            "modelStreamErrorException",
            {"message": "The model failed.", "originalStatusCode": 429, "originalMessage": "slow down"},
        ),
        "RateLimited",
    ),
    "exception-at-once": (exception("throttlingException", {"message": "Too many requests"}), "RateLimited"),
    "exception-empty": (BEGIN + message({":message-type": "exception"}, b""), "ServerFault"),
    "exception-instead-of-metadata": (
        BEGIN + text(0, "Hi") + ended("end_turn") + exception("internalServerException", {"message": "x"}),
        "ServerFault",
    ),
    "error-message": (BEGIN + text(0, "Hi") + error("InternalFailure", "An error occurred."), "ServerFault"),
}
WHOLE: dict[str, tuple[dict[str, object], str]] = {
    "whole-everything": (
        {
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [
                        {"reasoningContent": {"reasoningText": {"text": "Let me see.", "signature": SIGNATURE}}},
                        {"reasoningContent": {"redactedContent": "QUJD"}},
                        {"text": "I look."},
                        {"text": ""},
                        {
                            "citationsContent": {
                                "content": [{"text": "Twenty "}, {"text": "days"}],
                                "citations": [LEAVE],
                            }
                        },
                        {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"result": 7.0, "s": "a b"}}},
                        {"toolUse": {"toolUseId": "t2", "name": "ping", "input": {}}},
                        {"toolUse": {"toolUseId": "t3", "name": "run", "input": {"x": 1}, "type": "server_tool_use"}},
                        {
                            "toolResult": {
                                "toolUseId": "t3",
                                "content": [{"json": {"out": "1"}}],
                                "status": "success",
                                "type": "run_result",
                            }
                        },
                        {"image": {"format": "jpeg", "source": {"bytes": PIXEL}}},
                        {"audio": {"format": "mp3"}},
                    ],
                }
            },
            "stopReason": "tool_use",
            "usage": usage(cacheReadInputTokens=3),
            "metrics": {"latencyMs": 5},
            "trace": {"guardrail": {}},
        },
        "",
    ),
    "whole-empty": ({"output": {"message": {"content": []}}, "stopReason": "end_turn"}, ""),
    "whole-no-stop-reason": ({"output": {"message": {"content": [{"text": "Hi"}]}}}, "StreamTruncated"),
    "whole-no-output": ({"usage": usage()}, "BadFrame"),
    "whole-no-message": ({"output": {}, "stopReason": "end_turn"}, "BadFrame"),
    "whole-error": ({"message": "Unable to process your request."}, "ServerFault"),
    "whole-mistyped": ({"output": {"message": {"content": "Hi"}}, "stopReason": "end_turn"}, "BadFrame"),
    "whole-block-mistyped": ({"output": {"message": {"content": [{"text": 5}]}}, "stopReason": "x"}, "BadFrame"),
}

# --- InvokeModel -------------------------------------------------------------------------------------------------


def chunk(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return event("chunk", {"bytes": base64.b64encode(data).decode()})


METRICS = {
    "amazon-bedrock-invocationMetrics": {
        "inputTokenCount": 12,
        "outputTokenCount": 5,
        "invocationLatency": 50,
        "firstByteLatency": 20,
        "cacheReadInputTokenCount": 3,
        "cacheWriteInputTokenCount": 2,
    }
}
HEAD = {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
MESSAGE = chunk({"type": "message_start", "message": {**HEAD, "usage": {"input_tokens": 12, "output_tokens": 1}}})
SAYS = (
    chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    + chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Olá"}})
    + chunk({"type": "content_block_stop", "index": 0})
)
STOPS = chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}})
LAST = chunk({"type": "message_stop", **METRICS})

INVOKE: dict[str, bytes | tuple[bytes, str]] = {
    "messages": MESSAGE + SAYS + STOPS + LAST,
    "messages-no-metrics": MESSAGE + SAYS + STOPS + chunk({"type": "message_stop"}),
    "messages-usage-of-metrics": chunk({"type": "message_start", "message": HEAD})
    + SAYS
    + chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    + LAST,
    "messages-tool": MESSAGE
    + chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f"}})
    + chunk(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}}
    )
    + chunk({"type": "content_block_stop", "index": 0})
    + chunk({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}})
    + LAST,
    "messages-thinking": MESSAGE
    + chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}})
    + chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}})
    + chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": SIGNATURE}})
    + chunk({"type": "content_block_stop", "index": 0})
    + STOPS
    + LAST,
    "messages-guardrail": MESSAGE
    + SAYS
    + STOPS
    + chunk(
        {
            "type": "message_stop",
            "amazon-bedrock-guardrailAction": "INTERVENED",
            "amazon-bedrock-trace": {"guardrail": {"x": 1}},
            **METRICS,
        }
    ),
    "messages-guardrail-quiet": MESSAGE
    + SAYS
    + chunk({"type": "ping", "amazon-bedrock-guardrailAction": "NONE"})
    + STOPS
    + chunk({"type": "message_stop", "amazon-bedrock-guardrailAction": "NONE"}),
    "messages-error": (
        MESSAGE + SAYS + chunk({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        "Overloaded",
    ),
    "truncated": (MESSAGE + SAYS, "StreamTruncated"),
    "body-empty": (b"", "StreamTruncated"),
    "frame-unknown": event("heartbeat", {}) + MESSAGE + message({}, b"x") + SAYS + STOPS + LAST,
    "after-the-end": (MESSAGE + SAYS + STOPS + LAST) * 2,
    "chunk-bare": MESSAGE + SAYS + STOPS + event("chunk", {"type": "message_stop", "bytes": None}),
    "chunk-without-bytes": (MESSAGE + event("chunk", {}), "BadFrame"),
    "chunk-no-base64": (MESSAGE + event("chunk", {"bytes": "%"}), "BadFrame"),
    "chunk-mistyped": (MESSAGE + event("chunk", {"bytes": 5}), "BadFrame"),
    "chunk-no-json": (chunk(b"<html>"), "BadFrame"),
    "exception": (MESSAGE + SAYS + exception("modelTimeoutException", {"message": "Timed out."}), "ServerFault"),
    "exception-throttling": (
        exception("throttlingException", {"message": "Too many tokens per day, please wait."}),
        "QuotaExhausted",
    ),
    "error-message": (MESSAGE + error("ThrottlingException", "Slow down."), "RateLimited"),
    "family-unknown": (chunk({"contentBlockDelta": {"delta": {"text": "Hi"}}}), "UnexpectedContent"),
    # plain completions
    "titan": chunk({"outputText": "Hel", "index": 0, "completionReason": None})
    + chunk(
        {
            "outputText": "lo",
            "index": 0,
            "totalOutputTextTokenCount": 5,
            "completionReason": "FINISH",
            "inputTextTokenCount": 12,
            **METRICS,
        }
    ),
    "titan-no-metrics": chunk(
        {
            "outputText": "Hello",
            "totalOutputTextTokenCount": 5,
            "completionReason": "LENGTH",
            "inputTextTokenCount": 12,
        }
    ),
    "claude-text": chunk({"completion": " Hi", "stop_reason": None})
    + chunk({"completion": "", "stop_reason": "stop_sequence", "stop": "\n\nHuman:", **METRICS}),
    "llama": chunk({"generation": "Hi", "prompt_token_count": 12, "generation_token_count": 1, "stop_reason": None})
    + chunk({"generation": "", "prompt_token_count": None, "generation_token_count": 2, "stop_reason": "stop"}),
    "command-several": chunk({"index": 0, "is_finished": False, "text": "One"})
    + chunk({"index": 1, "is_finished": False, "text": "Eins"})
    + chunk({"index": 0, "is_finished": False, "text": "."})
    + chunk({"is_finished": True, "finish_reason": "COMPLETE", **METRICS}),
    "mistral-text": chunk({"outputs": [{"text": "Hi", "stop_reason": None}]})
    + chunk({"outputs": [{"text": "!", "stop_reason": "length"}], **METRICS}),
    "completion-empty": chunk({"completion": "", "stop_reason": "from_the_future", **METRICS}),
    "completion-no-reason": chunk({"completion": "Hi", **METRICS}),
    "completion-truncated": (chunk({"completion": "Hi", "stop_reason": None}), "StreamTruncated"),
    "completion-broken": (chunk({"completion": "Hi", "stop_reason": None}) + chunk(b"["), "BadFrame"),
    "completion-surrogates": chunk(rb'{"completion":"\ud83d"}')
    + chunk(rb'{"completion":"\ude00","stop_reason":"stop_sequence"}'),
    "completion-after-the-end": chunk({"completion": "Hi", "stop_reason": "stop_sequence", **METRICS})
    + chunk({"completion": "more"}),
}
INVOKE_WHOLE: dict[str, tuple[object, str]] = {
    "whole-messages": (
        {
            **HEAD,
            "content": [{"type": "text", "text": "Hi"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 12, "output_tokens": 5},
        },
        "",
    ),
    "whole-messages-guardrail": (
        {
            **HEAD,
            "content": [{"type": "text", "text": "Blocked."}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 12, "output_tokens": 5},
            "amazon-bedrock-guardrailAction": "INTERVENED",
        },
        "",
    ),
    "whole-titan": (
        {
            "inputTextTokenCount": 12,
            "results": [{"tokenCount": 5, "outputText": "Hi", "completionReason": "CONTENT_FILTERED"}],
        },
        "",
    ),
    "whole-claude-text": ({"completion": " Hi", "stop_reason": "stop_sequence", "stop": "\n\nHuman:"}, ""),
    "whole-command-several": (
        {
            "generations": [
                {"finish_reason": "COMPLETE", "text": "One"},
                {"finish_reason": "COMPLETE", "text": "Eins"},
            ]
        },
        "",
    ),
    "whole-llama": (
        {"generation": "Hi \ud83d", "prompt_token_count": 12, "generation_token_count": 5, "stop_reason": "length"},
        "",
    ),
    "whole-no-reason": ({"completion": "Hi"}, "BadFrame"),
    "whole-error": ({"message": "Unable to process your request."}, "ServerFault"),
    "whole-embedding": ({"embedding": [0.5]}, "UnexpectedContent"),
    "whole-array": ([], "StreamTruncated"),
}


def write(dialect: str, name: str, body: bytes, error_name: str, content_type: str) -> None:
    folder = HERE / dialect
    folder.mkdir(exist_ok=True)
    lines = ['provider = "bedrock"', f'dialect = "{dialect}"', f'content_type = "{content_type}"']
    lines += [f'error = "{error_name}"'] if error_name else []
    (folder / f"{name}.bin").write_bytes(body)
    (folder / f"{name}.meta.toml").write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    for dialect, streams in (("bedrock_converse", CONVERSE), ("bedrock_invoke", INVOKE)):
        for name, case in streams.items():
            body, error_name = case if isinstance(case, tuple) else (case, "")
            write(dialect, name, body, error_name, EVENT_STREAM)
    for dialect, answers in (("bedrock_converse", WHOLE), ("bedrock_invoke", INVOKE_WHOLE)):
        for name, (value, error_name) in answers.items():
            write(dialect, name, json.dumps(value).encode(), error_name, JSON)


if __name__ == "__main__":
    main()
