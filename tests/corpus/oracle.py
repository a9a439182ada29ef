"""An independent reading of recorded bytes: what a decoder must find in them.

Contract: `read` takes a whole body and gives a `Reading`. It is deliberately naive (normalise newlines, split at blank
lines, `json.loads`, join strings), holds no limits and no state machine, and shares no code with loomstream:
that is what makes it an oracle. It must not know loomstream's events, providers or quirks: where hosts
differ it decides by the figures in the bytes themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

STOPS_AT_A_LIMIT = {"length", "max_tokens", "model_length", "MAX_TOKENS", "max_output_tokens"}
"""Raw stop reasons that say the answer was cut by a limit on tokens."""


@dataclass
class Call:
    """A tool call: `arguments` is the text as it came, or canonical JSON where the wire has a whole object."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    whole: bool = False
    executable: bool = True


@dataclass
class Answer:
    """What one choice holds."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[Call] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    citations: list[str] = field(default_factory=list)
    """One entry a citation: its URL, or the cited text where it has none."""
    server_calls: list[tuple[str, str, str]] = field(default_factory=list)
    """(id, name, the arguments' JSON text)."""
    server_results: list[tuple[str, str]] = field(default_factory=list)
    """(id of the call, canonical JSON of the content)."""
    blocks: list[tuple[str, str]] = field(default_factory=list)
    """(kind, text) in order, empty texts left out; only where the wire itself has blocks."""
    stop: str = ""


@dataclass
class Reading:
    """What a body holds."""

    answers: dict[int, Answer] = field(default_factory=dict)
    usage: dict[str, int] | None = None
    complete: bool = False
    error: str | None = None
    kept: list[str] = field(default_factory=list)
    """Texts of blocks without a kind of their own: they must show up somewhere among the events."""

    def answer(self, index: int) -> Answer:
        """Give the answer of a choice, an empty one at first."""
        return self.answers.setdefault(index, Answer())


Reader = Callable[[bytes], Reading]
"""Reads a body of status 200."""


class Api(NamedTuple):
    """One of the corpus's apis: its dialect, its readers, and where a stream may be cut between two frames.

    `reasons` maps the provider's own stop reason to what it may be called. `mislabelled` are labels of the corpus that
    say nothing here: they come from patterns, which also find what is empty.
    """

    dialect: str
    stream: Reader
    whole: Reader
    ends: Callable[[bytes], list[int]]
    reasons: Mapping[str, set[str]]
    mislabelled: frozenset[str] = frozenset()


def read(api: Api, body: bytes, *, streaming: bool) -> Reading:
    """Read a body of status 200."""
    reading = (api.stream if streaming else api.whole)(body)
    for answer in reading.answers.values():
        _finish_answer(answer)
    return reading


def error_message(body: bytes) -> str:
    """Give the provider's own words out of an error body."""
    try:
        value = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip()
    return _error_text(value)


def canonical(value: object) -> str:
    """Give a JSON value in one spelling."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def merge_details(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the pieces of `reasoning_details`: neighbours of one type and index are one item, their texts end to end.

    Applied to both sides, so that it does not matter whether a decoder keeps the pieces or the joined items.
    """
    merged: list[dict[str, Any]] = []
    for item in details:
        last = merged[-1] if merged else {}
        if _same_item(last, item):
            for key in ("text", "summary", "data", "signature"):
                last[key] += item.get(key) or ""
            continue
        merged.append(
            {
                "type": item.get("type"),
                "index": item.get("index"),
                **{key: item.get(key) or "" for key in ("text", "summary", "data", "signature")},
            }
        )
    return merged


def _same_item(last: dict[str, Any], item: dict[str, Any]) -> bool:
    same = (last.get("type"), last.get("index")) == (item.get("type"), item.get("index"))
    return same and item.get("type") != "reasoning.encrypted"


def sse_ends(body: bytes) -> list[int]:
    """Give the positions behind each frame of an event stream, in bytes."""
    return [match.end() for match in re.finditer(rb"\r\n\r\n|\n\n|\r\r", body)]


def line_ends(body: bytes) -> list[int]:
    """Give the positions behind each line, in bytes."""
    return [match.end() for match in re.finditer(rb"\n", body)]


# --- framing --------------------------------------------------------------------------------------


def _sse(body: bytes) -> list[tuple[str, str]]:
    text = body.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    frames: list[tuple[str, str]] = []
    for block in re.split(r"\n\n+", text):
        lines = block.split("\n")
        data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
        name = [line[6:].strip() for line in lines if line.startswith("event:")]
        if data:
            frames.append((name[-1] if name else "", "\n".join(data)))
    return frames


def _chunks(body: bytes) -> list[tuple[str, dict[str, Any] | None]]:
    """Give event names and JSON objects; `[DONE]` is None."""
    return [(name, None if data.strip() == "[DONE]" else json.loads(data)) for name, data in _sse(body)]


# --- Anthropic messages ---------------------------------------------------------------------------


def _messages_stream(body: bytes) -> Reading:
    reading = Reading()
    answer = reading.answer(0)
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    for _, event in _chunks(body):
        kind = event["type"] if event else ""
        if kind == "message_start":
            _overwrite(usage, event["message"].get("usage"))
        elif kind == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "json": "", "pieces": []}
        elif kind == "content_block_delta":
            _message_delta(blocks[event["index"]], event["delta"])
        elif kind == "content_block_stop":
            blocks[event["index"]]["closed"] = True
        elif kind == "message_delta":
            answer.stop = event["delta"].get("stop_reason") or answer.stop
            _overwrite(usage, event.get("usage"))
        elif kind == "message_stop":
            reading.complete = True
        elif kind == "error":
            reading.error = _error_text(event)
    for _, block in sorted(blocks.items()):
        _message_block(reading, answer, block)
    reading.usage = _messages_usage(usage)
    return reading


def _message_delta(block: dict[str, Any], delta: dict[str, Any]) -> None:
    kind = delta["type"]
    if kind == "input_json_delta":
        block["json"] += delta["partial_json"]
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
    else:
        key = {
            "text_delta": "text",
            "thinking_delta": "thinking",
            "signature_delta": "signature",
            "compaction_delta": "content",
        }[kind]
        block[key] = (block.get(key) or "") + delta[key]


def _messages_whole(body: bytes) -> Reading:
    message = json.loads(body)
    reading = Reading(complete=True)
    answer = reading.answer(0)
    for block in message["content"]:
        _message_block(reading, answer, block)
    answer.stop = message["stop_reason"]
    reading.usage = _messages_usage(message["usage"])
    return reading


def _message_block(reading: Reading, answer: Answer, block: dict[str, Any]) -> None:
    kind = block["type"]
    if kind == "text":
        answer.text += block["text"]
        answer.blocks.append(("text", block["text"]))
        answer.citations += [item.get("url") or item["cited_text"] for item in block.get("citations") or []]
    elif kind == "thinking":
        answer.reasoning += block["thinking"]
        answer.blocks.append(("reasoning", block["thinking"]))
        answer.signatures.append(block["signature"])
    elif kind == "redacted_thinking":
        answer.signatures.append(block["data"])
    elif kind == "tool_use":
        whole = "json" not in block or (not block["json"] and bool(block["input"]))
        arguments = canonical(block["input"]) if whole else block["json"]
        answer.calls.append(Call(block["id"], block["name"], arguments, whole))
        answer.blocks.append(("tool_call", block["name"]))
    elif kind in {"server_tool_use", "mcp_tool_use"}:
        arguments = block.get("json") or canonical(block["input"])
        answer.server_calls.append((block["id"], block["name"], arguments))
        answer.blocks.append(("server_tool_call", block["name"]))
    elif kind.endswith("_tool_result"):
        answer.server_results.append((block["tool_use_id"], canonical(block["content"])))
        answer.blocks.append(("server_tool_result", block["tool_use_id"]))
    else:
        reading.kept.append(kind)
        reading.kept += [block["content"]] if block.get("content") else []


def _messages_usage(usage: dict[str, Any]) -> dict[str, int] | None:
    if not usage:
        return None
    return {
        "input_tokens": usage.get("input_tokens") or 0,
        "output_tokens": usage.get("output_tokens") or 0,
        "cache_read_tokens": usage.get("cache_read_input_tokens") or 0,
        "cache_write_tokens": usage.get("cache_creation_input_tokens") or 0,
        "cache_write_1h_tokens": (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0,
        "reasoning_tokens": (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0,
    }


def _overwrite(usage: dict[str, Any], later: dict[str, Any] | None) -> None:
    usage.update({key: value for key, value in (later or {}).items() if value is not None})


# --- Ollama chat ----------------------------------------------------------------------------------


def _ollama(body: bytes) -> Reading:
    reading = Reading()
    answer = reading.answer(0)
    for line in body.decode("utf-8", "replace").splitlines():
        if line.strip():
            _ollama_line(reading, answer, json.loads(line))
    return reading


def _ollama_line(reading: Reading, answer: Answer, line: dict[str, Any]) -> None:
    if "error" in line:
        reading.error = _error_text(line)
        return
    message = line.get("message") or {}
    answer.text += message.get("content") or ""
    answer.reasoning += message.get("thinking") or ""
    for call in message.get("tool_calls") or []:
        function = call["function"]
        answer.calls.append(Call(call.get("id") or "", function["name"], canonical(function["arguments"]), whole=True))
    if line["done"]:
        reading.complete = True
        answer.stop = line["done_reason"]
        reading.usage = {**NO_USAGE, "input_tokens": line["prompt_eval_count"], "output_tokens": line["eval_count"]}


# --- OpenAI chat completions ----------------------------------------------------------------------


def _chat_stream(body: bytes) -> Reading:
    reading = Reading()
    finished: dict[int, str] = {}
    calls: dict[int, dict[int, Call]] = {}
    sources: list[str] = []
    done = False
    for _, chunk in _chunks(body):
        if chunk is None:
            done = True
            continue
        if "error" in chunk:
            reading.error = _error_text(chunk)
        reading.usage = _chat_usage(chunk) or reading.usage
        sources = chunk.get("citations") or sources
        for choice in chunk.get("choices") or []:
            index = choice["index"]
            delta = choice.get("delta") or {}
            _chat_content(reading.answer(index), delta)
            _chat_calls(calls.setdefault(index, {}), delta.get("tool_calls") or [])
            if choice.get("finish_reason"):
                finished[index] = choice["finish_reason"]
    for index, answer in reading.answers.items():
        answer.calls = [call for _, call in sorted(calls[index].items())]
        answer.stop = finished.get(index, "")
    if sources:
        reading.answer(0).citations += sources
    reading.complete = done or (bool(finished) and finished.keys() == reading.answers.keys())
    return reading


def _chat_whole(body: bytes) -> Reading:
    value = json.loads(body)
    reading = Reading(complete=True, usage=_chat_usage(value))
    for choice in value["choices"]:
        answer = reading.answer(choice["index"])
        message = choice["message"]
        _chat_content(answer, message)
        for call in message.get("tool_calls") or []:
            function = call["function"]
            answer.calls.append(Call(call.get("id") or "", function["name"], function["arguments"] or ""))
        answer.stop = choice["finish_reason"]
    if value.get("citations"):
        reading.answer(0).citations += value["citations"]
    return reading


def _chat_content(answer: Answer, delta: dict[str, Any]) -> None:
    content = delta.get("content")
    if isinstance(content, str):
        answer.text += content
    for part in content if isinstance(content, list) else []:
        if part["type"] == "thinking":
            answer.reasoning += "".join(piece["text"] for piece in part["thinking"])
        else:
            answer.text += part["text"]
    details = delta.get("reasoning_details") or []
    said = delta.get("reasoning_content") or delta.get("reasoning") or ""
    answer.reasoning += said or "".join(item.get("text") or item.get("summary") or "" for item in details)
    answer.details += details
    answer.refusal += delta.get("refusal") or ""
    answer.citations += [item["url_citation"]["url"] for item in delta.get("annotations") or []]
    google = (delta.get("extra_content") or {}).get("google") or {}
    signature = google.get("thought_signature") or delta.get("thought_signature")
    answer.signatures += [signature] if signature else []
    for tool in delta.get("executed_tools") or []:
        _executed_tool(answer, tool)


def _executed_tool(answer: Answer, tool: dict[str, Any]) -> None:
    """Groq's compound models tell of a tool when it starts, and again, whole, with its `output`."""
    call = (str(tool["index"]), tool["type"], tool["arguments"])
    if call not in answer.server_calls:
        answer.server_calls.append(call)
    if tool.get("output"):
        answer.server_results.append((call[0], tool["output"]))


def _chat_calls(calls: dict[int, Call], deltas: list[dict[str, Any]]) -> None:
    for delta in deltas:
        call = calls.setdefault(delta["index"], Call())
        function = delta.get("function") or {}
        call.id = call.id or delta.get("id") or ""
        call.name = call.name or function.get("name") or ""
        call.arguments += function.get("arguments") or ""


def _chat_usage(chunk: dict[str, Any]) -> dict[str, int] | None:
    usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")
    if not usage:
        return None
    prompt_details = usage.get("prompt_tokens_details") or {}
    output_details = usage.get("completion_tokens_details") or {}
    prompt, output = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    reasoning = output_details.get("reasoning_tokens") or usage.get("reasoning_tokens") or 0
    read_tokens = _first(
        prompt_details.get("cached_tokens"),
        usage.get("cached_tokens"),
        usage.get("num_cached_tokens"),
        usage.get("prompt_cache_hit_tokens"),
        usage.get("cache_read_input_tokens"),
    )
    write_tokens = _first(prompt_details.get("cache_write_tokens"), usage.get("cache_creation_input_tokens"))
    # Some hosts count a part beside the sums; the total says that there is such a part, its size says which.
    beside = max(0, (usage.get("total_tokens") or 0) - prompt - output)
    if beside and beside == (prompt_details.get("audio_tokens") or 0):
        prompt += beside
    else:
        output += beside
    return {
        "input_tokens": max(0, prompt - read_tokens - write_tokens),
        "output_tokens": max(output, reasoning),
        "cache_read_tokens": read_tokens,
        "cache_write_tokens": write_tokens,
        "cache_write_1h_tokens": (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0,
        "reasoning_tokens": reasoning,
    }


def _first(*values: int | None) -> int:
    return next((value for value in values if value), 0)


# --- shared ---------------------------------------------------------------------------------------


def _error_text(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    if isinstance(value, dict):
        for key in ("error", "message", "detail"):
            if value.get(key):
                return _error_text(value[key])
    return value if isinstance(value, str) else canonical(value)


def _finish_answer(answer: Answer) -> None:
    """Say which calls may be run, and put every text into the form that an event can hold."""
    for call in answer.calls:
        cut = not call.arguments.strip() and answer.stop in STOPS_AT_A_LIMIT
        call.arguments = call.arguments if call.arguments.strip() else "{}"
        call.executable = not cut and _is_object(call.arguments)
    answer.text = _whole_characters(answer.text)
    answer.reasoning = _whole_characters(answer.reasoning)
    answer.refusal = _whole_characters(answer.refusal)
    answer.blocks = [(kind, text) for kind, text in answer.blocks if text]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _whole_characters(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_read_tokens": 0,
    "cache_write_tokens": 0,
    "cache_write_1h_tokens": 0,
    "reasoning_tokens": 0,
}


REASONS = {
    "stop": {"end_turn", "tool_use", "refusal"},
    "end_turn": {"end_turn"},
    "length": {"max_tokens"},
    "max_tokens": {"max_tokens"},
    "tool_calls": {"tool_use"},
    "tool_use": {"tool_use"},
    "stop_sequence": {"stop_sequence"},
    "pause_turn": {"pause"},
    "refusal": {"refusal"},
    "": {"other"},
}
"""The provider's own reason to what it may be called. `stop` is also sent with tool calls and with refusals."""

MESSAGES = Api("anthropic_messages", _messages_stream, _messages_whole, sse_ends, REASONS)

APIS = {
    "messages": MESSAGES,
    "anthropic-rawPredict": MESSAGES,
    "chat": Api("ollama_chat", _ollama, _ollama, line_ends, REASONS),
    "chat.completions": Api("openai_chat", _chat_stream, _chat_whole, sse_ends, REASONS),
}
"""The corpus's name of an api to how it is read."""
