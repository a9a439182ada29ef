"""An independent reading of recorded Responses bytes; see `oracle`."""

from __future__ import annotations

import json
import re
from typing import Any

import oracle
from oracle import Answer, Api, Call, Reading

ENDS = {"response.completed", "response.incomplete", "response.failed"}


def read_stream(body: bytes) -> Reading:
    """Read each item as it stood when it was done; of what never was, the pieces."""
    reading = Reading()
    answer = reading.answer(0)
    pieces: dict[int, dict[str, Any]] = {}
    done: set[int] = set()
    text = body.decode("utf-8", "replace").replace("\r\n", "\n")
    for data in re.findall(r"^data: ?(\{.*)$", text, re.MULTILINE):
        event = json.loads(data)
        kind, index = event["type"], event.get("output_index")
        if kind == "response.output_item.added":
            pieces[index] = {**event["item"], "said": "", "declined": "", "thought": "", "asked": "", "cited": []}
        elif kind == "response.output_item.done":
            done.add(index)
            item(answer, event["item"])
        elif kind == "response.output_text.annotation.added":
            pieces[index]["cited"].append(event["annotation"])
        elif kind.endswith(".delta"):
            grow(pieces[index], kind, event["delta"])
        elif kind in ENDS:
            end(reading, event["response"], done)
            return reading
        elif kind == "error":
            reading.error = oracle.error_message(data.encode())
            return reading
    for index in sorted(pieces.keys() - done):
        unfinished(answer, pieces[index])
    return reading


def grow(item: dict[str, Any], kind: str, piece: str) -> None:
    keys = {"output_text": "said", "refusal": "declined", "reasoning": "thought", "function_call_arguments": "asked"}
    for name, key in keys.items():
        if kind.startswith(f"response.{name}"):
            item[key] += piece


def unfinished(answer: Answer, item: dict[str, Any]) -> None:
    answer.text += item["said"]
    answer.refusal += item["declined"]
    answer.reasoning += item["thought"]
    answer.citations += [annotation.get("url", "") for annotation in item["cited"]]
    if item["type"] == "function_call":
        answer.calls.append(Call(item["call_id"], item["name"], item["asked"]))


def end(reading: Reading, response: dict[str, Any], done: set[int]) -> None:
    answer = reading.answer(0)
    for index, each in enumerate(response["output"]):
        if index not in done:
            item(answer, each)
    reading.complete = True
    answer.stop = (response.get("incomplete_details") or {}).get("reason") or response["status"]
    reading.usage = usage(response["usage"])


def read_whole(body: bytes) -> Reading:
    reading = Reading()
    end(reading, json.loads(body), set())
    return reading


def item(answer: Answer, value: dict[str, Any]) -> None:
    kind = value["type"]
    if kind == "message":
        for part in value["content"]:
            answer.text += part.get("text", "")
            answer.refusal += part.get("refusal", "")
            answer.citations += [annotation.get("url", "") for annotation in part.get("annotations", [])]
        answer.signatures += [value["phase"]] if value.get("phase") else []
    elif kind == "reasoning":
        thoughts = [*value["summary"], *(value.get("content") or [])]
        answer.reasoning += "".join(part["text"] for part in thoughts)
        answer.signatures += [value["encrypted_content"]] if value.get("encrypted_content") else []
        answer.signatures += [""] if value.get("content") else []  # it goes back in the clear
    elif kind == "function_call":
        answer.calls.append(Call(value["call_id"], value["name"], value["arguments"]))
    else:
        server_tool(answer, value)


def server_tool(answer: Answer, value: dict[str, Any]) -> None:
    kind, id_ = value["type"], value["id"]
    name, arguments, result = {
        "web_search_call": ("web_search", value.get("action"), None),
        "file_search_call": ("file_search", {"queries": value.get("queries")}, value.get("results")),
        "code_interpreter_call": (
            "code_interpreter",
            {"code": value.get("code"), "container_id": value.get("container_id")},
            value.get("outputs"),
        ),
        "mcp_list_tools": ("mcp_list_tools", {"server_label": value.get("server_label")}, value.get("tools")),
        "mcp_call": (value.get("name"), value.get("arguments"), value.get("output")),
    }[kind]
    answer.server_calls.append((id_, name, arguments if isinstance(arguments, str) else oracle.canonical(arguments)))
    if result is not None:
        answer.server_results.append((id_, result if isinstance(result, str) else oracle.canonical(result)))


def usage(value: dict[str, Any]) -> dict[str, int]:
    given = value.get("input_tokens_details") or {}
    read, write = given.get("cached_tokens", 0), given.get("cache_write_tokens", 0)
    return {
        **oracle.NO_USAGE,
        "input_tokens": value["input_tokens"] - read - write,
        "output_tokens": value["output_tokens"],
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "reasoning_tokens": (value.get("output_tokens_details") or {}).get("reasoning_tokens", 0),
    }


REASONS = {"completed": {"end_turn", "tool_use", "refusal"}, "max_output_tokens": {"max_tokens"}}

APIS = {"responses": Api("openai_responses", read_stream, read_whole, oracle.sse_ends, REASONS)}
