"""Requests as each API reads them: a reader a dialect, from a body on the wire to turns in one vocabulary.

Written from the APIs' documents, without the library's own code. A reader is strict: a member that the API does not
name in that place, an empty text, arguments in the wrong form or a block in a place where it may not stand raise
`RuleBroken` with the place.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class RuleBroken(AssertionError):
    """A provider would refuse the request, or not understand it."""


class Piece(NamedTuple):
    """A block of a turn: `kind` is text, image, reasoning, call or result.

    `text` is the text, or an image's base64; `opaque` what only the issuer reads, where it stands on the wire.
    """

    kind: str
    text: str = ""
    id: str = ""
    name: str = ""
    arguments: object = None
    opaque: tuple[str, ...] = ()
    cited: int = 0
    failed: bool = False
    images: tuple[str, ...] = ()


class Turn(NamedTuple):
    """A message, or what the API takes for one."""

    role: str
    pieces: list[Piece]


class Read(NamedTuple):
    """A request: its turns and the names of its tools."""

    turns: list[Turn]
    tools: list[str]


def must(condition: object, place: str, rule: str) -> None:
    if not condition:
        msg = f"{place}: {rule}"
        raise RuleBroken(msg)


def only(value: Any, place: str, required: str, optional: str = "") -> dict[str, Any]:  # noqa: ANN401 (JSON)
    """Give the object, which has all the required members and none beyond the optional ones."""
    must(isinstance(value, dict), place, "an object is wanted")
    needed, known = set(required.split()), {*required.split(), *optional.split()}
    must(needed <= value.keys(), place, f"{sorted(needed - value.keys())} is missing")
    must(value.keys() <= known, place, f"{sorted(value.keys() - known)} is unknown here")
    return value


def filled(value: object, place: str) -> str:
    must(isinstance(value, str) and value.strip(), place, "text that is not blank is wanted")
    return str(value)


def items(value: Any, place: str) -> list[tuple[str, Any]]:  # noqa: ANN401 (JSON)
    must(isinstance(value, list) and value, place, "a list that is not empty is wanted")
    return [(f"{place}[{number}]", item) for number, item in enumerate(value)]


def json_object(value: object, place: str) -> object:
    must(isinstance(value, dict), place, "arguments are an object on this wire")
    return value


def json_text(value: object, place: str) -> object:
    must(isinstance(value, str), place, "arguments are a text on this wire")
    return json_object(json.loads(str(value)), place)


def picture(value: object, place: str, media_type: str) -> str:
    """Give an image's base64; its first bytes must be those of the type."""
    data = base64.b64decode(filled(value, place), validate=True)
    magic = {"image/png": b"\x89PNG", "image/gif": b"GIF8"}
    must(data.startswith(magic.get(media_type, b"?")), place, f"these bytes are no {media_type}")
    return str(value)


def data_url(value: object, place: str) -> str:
    match = re.fullmatch(r"data:(image/[a-z]+);base64,(.+)", filled(value, place))
    must(match, place, "a data: URL is wanted")
    assert match is not None
    return picture(match[2], place, match[1])


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# --- Chat Completions ----------------------------------------------------------------------------


def _chat_part(place: str, part: Any) -> Piece:  # noqa: ANN401 (JSON)
    kind = part.get("type")
    if kind == "text":
        return Piece("text", filled(only(part, place, "type text")["text"], place))
    if kind == "thinking":  # Mistral
        inner = only(part, place, "type thinking", "signature")
        words = [filled(only(chunk, at, "type text")["text"], at) for at, chunk in items(inner["thinking"], place)]
        return Piece("reasoning", "".join(words), opaque=(inner["signature"],) if "signature" in inner else ())
    must(kind == "image_url", place, f"a part of type {kind!r} is unknown")
    url = only(only(part, place, "type image_url")["image_url"], place, "url", "detail")["url"]
    return Piece("image", data_url(url, place))


def _chat_content(place: str, content: object, kinds: Iterable[str]) -> list[Piece]:
    if isinstance(content, str):
        return [Piece("text", filled(content, place))]
    pieces = [_chat_part(at, part) for at, part in items(content, place)]
    must({piece.kind for piece in pieces} <= set(kinds), place, f"only {', '.join(kinds)} may stand here")
    return pieces


def _chat_call(place: str, call: Any) -> Piece:  # noqa: ANN401 (JSON)
    only(call, place, "id type function")
    must(call["type"] == "function", place, "type is function")
    function = only(call["function"], place, "name arguments")
    return Piece("call", id=call["id"], name=function["name"], arguments=json_text(function["arguments"], place))


def _chat_assistant(place: str, message: Any, *, details: bool, thinks: bool) -> list[Piece]:  # noqa: ANN401 (JSON)
    only(message, place, "role content", "tool_calls" + " reasoning_details" * details)
    calls = (
        [_chat_call(at, call) for at, call in items(message["tool_calls"], place)] if "tool_calls" in message else []
    )
    if message["content"] is None:
        must(calls, place, "a turn without content has tool calls")
        content: list[Piece] = []
    else:
        content = _chat_content(place, message["content"], ("text", "reasoning") if thinks else ("text",))
    held = items(message["reasoning_details"], place) if "reasoning_details" in message else []
    reasoned = [Piece("reasoning", detail.get("text", ""), opaque=(compact(detail),)) for _, detail in held]
    return [*reasoned, *content, *calls]


def _chat(body: Any, *, details: bool = False, thinks: bool = False) -> Read:  # noqa: ANN401 (JSON)
    only(body, "body", "model messages", "stream stream_options tools")
    turns: list[Turn] = []
    for place, message in items(body["messages"], "messages"):
        role = message.get("role")
        if role == "assistant":
            pieces = _chat_assistant(place, message, details=details, thinks=thinks)
        elif role == "tool":
            only(message, place, "role tool_call_id content")
            words = "".join(piece.text for piece in _chat_content(place, message["content"], ("text",)))
            pieces = [Piece("result", words, message["tool_call_id"])]
        else:
            must(role == "user", place, f"the role {role!r} is unknown")
            pieces = _chat_content(place, only(message, place, "role content")["content"], ("text", "image"))
        turns.append(Turn(role, pieces))
    return Read(turns, _function_tools(body))


def _function_tools(body: Any) -> list[str]:  # noqa: ANN401 (JSON)
    names: list[str] = []
    for place, tool in items(body["tools"], "tools"):
        only(tool, place, "type function")
        names.append(only(tool["function"], place, "name parameters", "description")["name"])
    return names


def openrouter(body: object) -> Read:
    return _chat(body, details=True)


def mistral(body: object) -> Read:
    return _chat(body, thinks=True)


# --- Responses -----------------------------------------------------------------------------------


def _response_parts(place: str, content: object, word: str) -> list[Piece]:
    if isinstance(content, str):
        return [Piece("text", filled(content, place))]
    pieces: list[Piece] = []
    for at, part in items(content, place):
        if part.get("type") == "input_image":
            must(word == "input_text", at, "only users show images")
            pieces.append(Piece("image", data_url(only(part, at, "type image_url", "detail")["image_url"], at)))
            continue
        only(part, at, "type text", "annotations" * (word == "output_text"))
        must(part["type"] == word, at, f"type is {word}")
        pieces.append(Piece("text", filled(part["text"], at), cited=len(part.get("annotations", ()))))
    return pieces


def _response_message(place: str, item: Any) -> tuple[str, list[Piece]]:  # noqa: ANN401 (JSON)
    only(item, place, "type role content", "phase")
    must(item["role"] in {"user", "assistant"}, place, "the role is the user's or the assistant's")
    word = "output_text" if item["role"] == "assistant" else "input_text"
    pieces = _response_parts(place, item["content"], word)
    if "phase" in item:
        must(item["role"] == "assistant", place, "only the assistant has phases")
        must(item["phase"] in {"commentary", "final_answer"}, place, "the phase is unknown")
        pieces[-1] = pieces[-1]._replace(opaque=(item["phase"],))
    return item["role"], pieces


def _response_reasoning(place: str, item: Any) -> tuple[str, list[Piece]]:  # noqa: ANN401 (JSON)
    only(item, place, "type id summary encrypted_content")
    summary = [only(part, place, "type text") for part in item["summary"]]
    must(all(part["type"] == "summary_text" for part in summary), place, "a summary is of summary_text")
    words = "".join(filled(part["text"], place) for part in summary)
    return "assistant", [Piece("reasoning", words, item["id"], opaque=(item["encrypted_content"],))]


def _response_call(place: str, item: Any) -> tuple[str, list[Piece]]:  # noqa: ANN401 (JSON)
    only(item, place, "type call_id name arguments")
    arguments = json_text(item["arguments"], place)
    return "assistant", [Piece("call", id=item["call_id"], name=item["name"], arguments=arguments)]


def _response_result(place: str, item: Any) -> tuple[str, list[Piece]]:  # noqa: ANN401 (JSON)
    only(item, place, "type call_id output")
    parts = _response_parts(place, item["output"], "input_text")
    words = "".join(piece.text for piece in parts if piece.kind == "text")
    images = tuple(piece.text for piece in parts if piece.kind == "image")
    return "tool", [Piece("result", words, item["call_id"], images=images)]


_RESPONSE_ITEMS = {
    "message": _response_message,
    "reasoning": _response_reasoning,
    "function_call": _response_call,
    "function_call_output": _response_result,
}


def responses(body: Any) -> Read:  # noqa: ANN401 (JSON)
    only(body, "body", "model input store tools", "stream include instructions")
    must(body["store"] is False, "store", "nothing is kept that nobody asked for")
    must("reasoning.encrypted_content" in body.get("include", ()), "include", "reasoning is to be had back")
    turns: list[Turn] = []
    listed = items(body["input"], "input")
    for number, (place, item) in enumerate(listed):
        must(item.get("type") in _RESPONSE_ITEMS, place, "the item's type is unknown")
        role, pieces = _RESPONSE_ITEMS[item["type"]](place, item)
        if item["type"] == "reasoning":
            after = listed[number + 1][1] if number + 1 < len(listed) else {}
            follows = after.get("type") == "function_call" or after.get("role") == "assistant"
            must(follows, place, "reasoning is followed by what it led to")
        if turns and turns[-1].role == role:
            turns[-1].pieces.extend(pieces)
        else:
            turns.append(Turn(role, pieces))
    for place, tool in items(body["tools"], "tools"):
        only(tool, place, "type name parameters strict", "description")
    return Read(turns, [tool["name"] for tool in body["tools"]])


# --- Messages ------------------------------------------------------------------------------------

_LOCATION = "type cited_text document_index document_title start_char_index end_char_index"


def _claude_image(place: str, block: Any) -> str:  # noqa: ANN401 (JSON)
    source = only(only(block, place, "type source")["source"], place, "type media_type data")
    must(source["type"] == "base64", place, "bytes go as base64")
    return picture(source["data"], place, source["media_type"])


def _claude_result(place: str, block: Any) -> Piece:  # noqa: ANN401 (JSON)
    only(block, place, "type tool_use_id", "content is_error")
    words, images = "", []
    for at, part in items(block["content"], place) if "content" in block else []:
        if part.get("type") == "image":
            images.append(_claude_image(at, part))
        else:
            words += filled(only(part, at, "type text")["text"], at)
    return Piece("result", words, block["tool_use_id"], failed=block.get("is_error", False), images=tuple(images))


def _claude_text(place: str, block: Any) -> Piece:  # noqa: ANN401 (JSON)
    only(block, place, "type text", "citations")
    cited = items(block["citations"], place) if "citations" in block else []
    for at, citation in cited:
        only(citation, at, _LOCATION)
    return Piece("text", filled(block["text"], place), cited=len(cited))


def _claude_thinking(place: str, block: Any) -> Piece:  # noqa: ANN401 (JSON)
    only(block, place, "type thinking signature")
    return Piece("reasoning", block["thinking"], opaque=(filled(block["signature"], place),))


def _claude_call(place: str, block: Any) -> Piece:  # noqa: ANN401 (JSON)
    only(block, place, "type id name input")
    return Piece("call", id=block["id"], name=block["name"], arguments=json_object(block["input"], place))


_CLAUDE: dict[str, dict[str, Callable[[str, Any], Piece]]] = {
    "user": {
        "text": _claude_text,
        "image": lambda place, block: Piece("image", _claude_image(place, block)),
        "tool_result": _claude_result,
    },
    "assistant": {
        "text": _claude_text,
        "thinking": _claude_thinking,
        "redacted_thinking": lambda place, block: Piece(
            "reasoning", opaque=(filled(only(block, place, "type data")["data"], place),)
        ),
        "tool_use": _claude_call,
    },
}


def _claude(body: Any) -> Read:  # noqa: ANN401 (JSON)
    must(isinstance(body["max_tokens"], int), "max_tokens", "this wire demands a number")
    turns: list[Turn] = []
    for place, message in items(body["messages"], "messages"):
        role = only(message, place, "role content")["role"]
        must(role in _CLAUDE, place, f"the role {role!r} is unknown")
        pieces: list[Piece] = []
        for at, block in items(message["content"], place):
            must(block.get("type") in _CLAUDE[role], at, f"a block of type {block.get('type')!r} may not stand here")
            pieces.append(_CLAUDE[role][block["type"]](at, block))
        kinds = [piece.kind for piece in pieces]
        must("result" not in kinds[kinds.count("result") :], place, "results come first in their turn")
        turns.append(Turn(role, pieces))
    for place, tool in items(body["tools"], "tools"):
        only(tool, place, "name input_schema", "description")
    return Read(turns, [tool["name"] for tool in body["tools"]])


def anthropic(body: Any) -> Read:  # noqa: ANN401 (JSON)
    return _claude(only(body, "body", "model max_tokens messages tools", "stream"))


def invoke(body: Any) -> Read:  # noqa: ANN401 (JSON)
    only(body, "body", "anthropic_version max_tokens messages tools")
    must(body["anthropic_version"] == "bedrock-2023-05-31", "anthropic_version", "the only version there is")
    return _claude(body)


# --- Converse ------------------------------------------------------------------------------------


def _converse_image(place: str, image: Any) -> str:  # noqa: ANN401 (JSON)
    only(image, place, "format source")
    return picture(only(image["source"], place, "bytes")["bytes"], place, f"image/{image['format']}")


def _converse_result(place: str, result: Any) -> Piece:  # noqa: ANN401 (JSON)
    only(result, place, "toolUseId content", "status")
    must(result.get("status", "error") == "error", place, "only some models take a status: success has none")
    words, images = "", []
    for at, part in items(result["content"], place):
        if "image" in part:
            images.append(_converse_image(at, only(part, at, "image")["image"]))
        else:
            words += filled(only(part, at, "text")["text"], at)
    return Piece("result", words, result["toolUseId"], failed="status" in result, images=tuple(images))


def _converse_reasoning(place: str, block: Any) -> Piece:  # noqa: ANN401 (JSON)
    if "redactedContent" in block:
        return Piece("reasoning", opaque=(only(block, place, "redactedContent")["redactedContent"],))
    inner = only(only(block, place, "reasoningText")["reasoningText"], place, "text signature")
    return Piece("reasoning", inner["text"], opaque=(filled(inner["signature"], place),))


def _converse_cited(place: str, block: Any) -> Piece:  # noqa: ANN401 (JSON)
    only(block, place, "content citations")
    words = "".join(filled(only(part, at, "text")["text"], at) for at, part in items(block["content"], place))
    cited = items(block["citations"], place)
    for at, citation in cited:
        only(citation, at, "location", "title sourceContent source")
    return Piece("text", words, cited=len(cited))


def _converse_call(place: str, call: Any) -> Piece:  # noqa: ANN401 (JSON)
    only(call, place, "toolUseId name input")
    return Piece("call", id=call["toolUseId"], name=call["name"], arguments=json_object(call["input"], place))


_CONVERSE: dict[str, dict[str, Callable[[str, Any], Piece]]] = {
    "user": {
        "text": lambda place, words: Piece("text", filled(words, place)),
        "image": lambda place, image: Piece("image", _converse_image(place, image)),
        "toolResult": _converse_result,
    },
    "assistant": {
        "text": lambda place, words: Piece("text", filled(words, place)),
        "reasoningContent": _converse_reasoning,
        "citationsContent": _converse_cited,
        "toolUse": _converse_call,
    },
}


def converse(body: Any) -> Read:  # noqa: ANN401 (JSON)
    only(body, "body", "messages toolConfig", "inferenceConfig")
    turns: list[Turn] = []
    for place, message in items(body["messages"], "messages"):
        role = only(message, place, "role content")["role"]
        must(role in _CONVERSE, place, f"the role {role!r} is unknown")
        pieces: list[Piece] = []
        for at, block in items(message["content"], place):
            (kind,) = only(block, at, "", " ".join(_CONVERSE[role]))
            pieces.append(_CONVERSE[role][kind](at, block[kind]))
        turns.append(Turn(role, pieces))
    specs = [only(tool, place, "toolSpec")["toolSpec"] for place, tool in items(body["toolConfig"]["tools"], "tools")]
    return Read(turns, [only(spec, "toolSpec", "name inputSchema", "description")["name"] for spec in specs])
