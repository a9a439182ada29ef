"""The bodies of InvokeModel's goldens: streams, and answers that are not streamed."""

from __future__ import annotations

import base64
import json

from bedrock_wire import SIGNATURE, error, event, exception, message


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
