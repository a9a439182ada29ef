"""An independent reading of generateContent: server-sent events, one JSON array, whole answers.

The contract is that of `oracle`: naive, and no code shared with loomstream.
"""

from __future__ import annotations

import json
import re
from typing import Any

from oracle import NO_USAGE, Answer, Api, Call, Reading, canonical, sse_ends

REASONS = {
    "STOP": {"end_turn", "tool_use"},
    "MAX_TOKENS": {"max_tokens"},
    "SAFETY": {"content_filter"},
    "": {"other"},
}


def _sse(body: bytes) -> Reading:
    text = body.decode("utf-8", "replace")
    return _read([json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")])


def _array(body: bytes) -> Reading:
    """Read the elements of an array that may have been cut between two of them."""
    text = body.decode("utf-8", "replace").strip().removeprefix("[").removesuffix("]").strip().strip(",")
    return _read(json.loads(f"[{text}]"))


def _whole(body: bytes) -> Reading:
    value = json.loads(body)
    return _read(value if isinstance(value, list) else [value])


def array_ends(body: bytes) -> list[int]:
    """Give the positions behind each element of an array that is printed with a brace of its own line."""
    return [match.end() for match in re.finditer(rb"^}", body, re.MULTILINE)]


def _read(chunks: list[dict[str, Any]]) -> Reading:
    reading = Reading()
    sources: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        if "error" in chunk:
            reading.error = chunk["error"]["message"]
        if "totalTokenCount" in chunk.get("usageMetadata", {}):  # some hold the type of the traffic alone
            reading.usage = _usage(chunk["usageMetadata"])
        if "blockReason" in chunk.get("promptFeedback", {}):
            reading.answer(0).stop = chunk["promptFeedback"]["blockReason"]
        for candidate in chunk.get("candidates", []):
            index = candidate.get("index", 0)
            answer = reading.answer(index)
            for part in candidate.get("content", {}).get("parts", []):
                _part(answer, part)
            sources.setdefault(index, {}).update(_sources(candidate))
            answer.stop = candidate.get("finishReason") or answer.stop
    for index, found in sources.items():
        reading.answer(index).citations += found.values()
    for answer in reading.answers.values():
        if ("server_tool_result", "") in answer.blocks:  # its id is made by who reads it
            answer.blocks = []
    reading.complete = bool(reading.answers) and all(answer.stop for answer in reading.answers.values())
    return reading


def _part(answer: Answer, part: dict[str, Any]) -> None:
    text = part.get("text", "")
    if part.get("thought"):
        answer.reasoning += text
        _block(answer, "reasoning", text)
    elif "text" in part:
        answer.text += text
        _block(answer, "text", text, whole="thoughtSignature" in part)
    elif "functionCall" in part:
        call = part["functionCall"]
        answer.calls.append(Call(call.get("id", ""), call["name"], canonical(call.get("args", {})), whole=True))
        _block(answer, "tool_call", call["name"])
    else:
        _server_part(answer, part)
    if part.get("thoughtSignature"):
        answer.signatures.append(part["thoughtSignature"])
        answer.blocks.append(("sign", ""))  # nothing grows over a signature


def _block(answer: Answer, kind: str, text: str, *, whole: bool = False) -> None:
    if kind in {"text", "reasoning"} and answer.blocks and answer.blocks[-1][0] == kind and not whole:
        answer.blocks[-1] = (kind, answer.blocks[-1][1] + text)
    elif text:
        answer.blocks.append((kind, text))


def _server_part(answer: Answer, part: dict[str, Any]) -> None:
    if "executableCode" in part:
        code = {key: value for key, value in part["executableCode"].items() if key != "id"}
        answer.server_calls.append((part["executableCode"].get("id", ""), "code_execution", canonical(code)))
        answer.blocks.append(("server_tool_call", "code_execution"))
    elif "codeExecutionResult" in part:
        answer.server_results.append(("", canonical(part["codeExecutionResult"])))
        answer.blocks.append(("server_tool_result", ""))
    elif "toolCall" in part:
        call = part["toolCall"]
        answer.server_calls.append((call["id"], call["toolType"], canonical(call.get("args", {}))))
        answer.blocks.append(("server_tool_call", call["toolType"]))
    elif "toolResponse" in part:
        answer.server_results.append((part["toolResponse"]["id"], canonical(part["toolResponse"].get("response", {}))))
        answer.blocks.append(("server_tool_result", part["toolResponse"]["id"]))
    else:
        raise AssertionError(part)


def _sources(candidate: dict[str, Any]) -> dict[str, str]:
    """Give each source once: what tells it apart, to its URL or the text that it stands for."""
    grounding = candidate.get("groundingMetadata", {})
    found: dict[str, str] = {}
    for support in grounding.get("groundingSupports", []):
        for position in support["groundingChunkIndices"]:
            chunk = grounding["groundingChunks"][position]
            (source,) = chunk.values()
            found[canonical([chunk, support["segment"]])] = source.get("uri") or support["segment"]["text"]
    rest = {key: value for key, value in grounding.items() if not key.startswith("grounding") and value}
    if rest:
        found[canonical(rest)] = ""
    for citation in candidate.get("citationMetadata", {}).get("citations", []):
        if citation:
            found[canonical(citation)] = citation["uri"]
    return found


def _usage(usage: dict[str, int]) -> dict[str, int]:
    thoughts, cached = usage.get("thoughtsTokenCount", 0), usage.get("cachedContentTokenCount", 0)
    prompt, tools = usage.get("promptTokenCount", 0), usage.get("toolUsePromptTokenCount", 0)
    output = usage["candidatesTokenCount"] + thoughts if "candidatesTokenCount" in usage else None
    return {
        **NO_USAGE,
        "input_tokens": prompt - cached + tools,
        "cache_read_tokens": cached,
        "output_tokens": usage["totalTokenCount"] - prompt - tools if output is None else output,
        "reasoning_tokens": thoughts,
    }


_GEMINI = Api("gemini", _sse, _whole, sse_ends, REASONS)

APIS = {
    "generateContent": _GEMINI,
    "streamGenerateContent": _GEMINI,
    "streamGenerateContent.json-array": Api("gemini", _array, _whole, array_ends, REASONS),
}
"""The corpus's name of an api to how it is read."""
