"""An independent reading of Amazon Bedrock: Converse, and InvokeModel of every family recorded; see `oracle`.

Messages are taken apart by their lengths alone; who recorded them checked the checksums.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from oracle import MESSAGES, NO_USAGE, REASONS, Answer, Api, Call, Reading, canonical


def _messages(body: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Give (end, headers, payload) of each whole message; recorded headers are all strings."""
    found: list[tuple[int, dict[str, str], bytes]] = []
    start = 0
    while start + 12 <= len(body):
        total = int.from_bytes(body[start : start + 4], "big")
        if start + total > len(body):
            break
        head_end = start + 12 + int.from_bytes(body[start + 4 : start + 8], "big")
        headers: dict[str, str] = {}
        at = start + 12
        while at < head_end:
            name_end = at + 1 + body[at]
            value_start = name_end + 3
            value_end = value_start + int.from_bytes(body[name_end + 1 : value_start], "big")
            headers[body[at + 1 : name_end].decode()] = body[value_start:value_end].decode()
            at = value_end
        found.append((start + total, headers, body[head_end : start + total - 4]))
        start += total
    return found


def aws_ends(body: bytes) -> list[int]:
    """Give the positions behind each message."""
    return [end for end, _, _ in _messages(body)]


# --- Converse ----------------------------------------------------------------------------------------------------


def _converse_stream(body: bytes) -> Reading:
    reading = Reading()
    answer = reading.answer(0)
    blocks: dict[int, dict[str, Any]] = {}
    for _, headers, payload in _messages(body):
        value = json.loads(payload)
        name = headers[":event-type"]
        if name.startswith("contentBlock"):
            block = blocks.setdefault(value["contentBlockIndex"], {"cited": [], "results": [], "input": ""})
            block.update(value.get("start") or {})
            _delta(block, value.get("delta") or {})
        elif name == "messageStop":
            answer.stop, reading.complete = value["stopReason"], True
        elif name == "metadata":
            reading.usage = _usage(value["usage"])
    for _, block in sorted(blocks.items()):
        _streamed_block(answer, block)
    return reading


def _delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if "text" in delta:
        block["text"] = block.get("text", "") + delta["text"]
    if "citation" in delta:
        block["cited"].append(delta["citation"])
    block["input"] += delta.get("toolUse", {}).get("input", "")
    block["results"] += delta.get("toolResult", [])
    for key, piece in delta.get("reasoningContent", {}).items():
        reasoning = block.setdefault("reasoning", {"text": "", "signature": "", "redactedContent": ""})
        reasoning[key] += piece


def _streamed_block(answer: Answer, block: dict[str, Any]) -> None:
    if "reasoning" in block:
        _reasoning(answer, **block["reasoning"])
    elif "toolUse" in block:
        _call(answer, block["toolUse"], Call(arguments=block["input"]))
    elif "toolResult" in block:
        _result(answer, {**block["toolResult"], "content": block["results"]})
    else:
        _text(answer, block.get("text", ""), block["cited"])


def _converse_whole(body: bytes) -> Reading:
    value = json.loads(body)
    reading = Reading(complete=True, usage=_usage(value["usage"]))
    answer = reading.answer(0)
    answer.stop = value["stopReason"]
    for block in value["output"]["message"]["content"]:
        if "reasoningContent" in block:
            inner = block["reasoningContent"]
            _reasoning(answer, redactedContent=inner.get("redactedContent", ""), **inner.get("reasoningText", {}))
        elif "toolUse" in block:
            _call(answer, block["toolUse"], Call(arguments=canonical(block["toolUse"]["input"]), whole=True))
        elif "toolResult" in block:
            _result(answer, block["toolResult"])
        elif "citationsContent" in block:
            inner = block["citationsContent"]
            _text(answer, "".join(piece["text"] for piece in inner["content"]), inner["citations"])
        else:
            _text(answer, block["text"], [])
    return reading


def _text(answer: Answer, text: str, cited: list[dict[str, Any]]) -> None:
    answer.text += text
    answer.blocks.append(("text", text))
    for citation in cited:
        quoted = "".join(piece["text"] for piece in citation.get("sourceContent", []))
        answer.citations.append(citation["location"].get("web", {}).get("url") or quoted)


def _reasoning(answer: Answer, text: str = "", signature: str = "", redactedContent: str = "") -> None:  # noqa: N803 (the wire's name)
    answer.reasoning += text
    answer.blocks.append(("reasoning", text))
    answer.signatures += [opaque for opaque in (signature, redactedContent) if opaque]


def _call(answer: Answer, tool: dict[str, Any], call: Call) -> None:
    call.id, call.name = tool["toolUseId"], tool["name"]
    if tool.get("type") == "server_tool_use":
        answer.server_calls.append((call.id, call.name, call.arguments))
        answer.blocks.append(("server_tool_call", call.name))
    else:
        answer.calls.append(call)
        answer.blocks.append(("tool_call", call.name))


def _result(answer: Answer, result: dict[str, Any]) -> None:
    answer.server_results.append((result["toolUseId"], canonical(result["content"])))
    answer.blocks.append(("server_tool_result", result["toolUseId"]))


def _usage(usage: dict[str, Any]) -> dict[str, int]:
    return {
        **NO_USAGE,
        "input_tokens": usage["inputTokens"],
        "output_tokens": usage["outputTokens"],
        "cache_read_tokens": usage.get("cacheReadInputTokens", 0),
        "cache_write_tokens": usage.get("cacheWriteInputTokens", 0),
    }


# --- InvokeModel -------------------------------------------------------------------------------------------------


def _invoke_stream(body: bytes) -> Reading:
    chunks = [base64.b64decode(json.loads(payload)["bytes"]) for _, _, payload in _messages(body)]
    values = [json.loads(chunk) for chunk in chunks]
    if not values or "type" in values[0]:
        return MESSAGES.stream(b"".join(b"data: " + chunk + b"\n\n" for chunk in chunks))
    reading = Reading()
    for value in values:
        _completion(reading, value, value.get("index", 0))
        counts = value.get("amazon-bedrock-invocationMetrics")
        if counts:
            reading.complete = True
            reading.usage = _counts(counts["inputTokenCount"], counts["outputTokenCount"])
        elif "prompt_token_count" in value and reading.usage is None:
            reading.usage = _counts(value["prompt_token_count"], value["generation_token_count"])
    return reading


def _invoke_whole(body: bytes) -> Reading:
    value = json.loads(body)
    if value.get("type") == "message":
        return MESSAGES.whole(body)
    reading = Reading(complete=True)
    for position, item in enumerate(value.get("generations", [value])):
        _completion(reading, item, position)
    if "prompt_token_count" in value:
        reading.usage = _counts(value["prompt_token_count"], value["generation_token_count"])
    return reading


def _completion(reading: Reading, value: dict[str, Any], choice: int) -> None:
    answer = reading.answer(choice)
    for key in ("outputText", "completion", "generation", "text"):
        answer.text += value.get(key) or ""
    for key in ("completionReason", "stop_reason", "finish_reason"):
        answer.stop = value.get(key) or answer.stop


def _counts(sent: int, got: int) -> dict[str, int]:
    return {**NO_USAGE, "input_tokens": sent, "output_tokens": got}


_REASONS = {
    **REASONS,
    "guardrail_intervened": {"content_filter"},
    "LENGTH": {"max_tokens"},
    "MAX_TOKENS": {"max_tokens"},
}
_CONVERSE = Api("bedrock_converse", _converse_stream, _converse_whole, aws_ends, _REASONS)
_INVOKE = Api("bedrock_invoke", _invoke_stream, _invoke_whole, aws_ends, _REASONS)

APIS = {
    "converse": _CONVERSE,
    "converse-stream": _CONVERSE._replace(mislabelled=frozenset({"tool_calls"})),  # the model's own tools count there
    "invoke": _INVOKE._replace(mislabelled=frozenset({"usage"})),  # not looked for under its names in Llama's answers
    "invoke-with-response-stream": _INVOKE,
}
