"""The bodies of Converse's goldens: streams, and answers that are not streamed."""

from __future__ import annotations

import base64

from bedrock_wire import JSON, SIGNATURE, error, event, exception, message


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
