"""More readers, see `readers`: Gemini, Ollama, Cohere; and the table of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from readers import (
    Piece,
    Read,
    Turn,
    _function_tools,
    anthropic,
    converse,
    data_url,
    filled,
    invoke,
    items,
    json_object,
    json_text,
    mistral,
    must,
    only,
    openrouter,
    picture,
    responses,
)

# --- Gemini --------------------------------------------------------------------------------------


def _blob(place: str, part: Any) -> str:  # noqa: ANN401 (JSON)
    blob = only(only(part, place, "inlineData")["inlineData"], place, "mimeType data", "displayName")
    return picture(blob["data"], place, blob["mimeType"])


def _answer(place: str, part: Any) -> Piece:  # noqa: ANN401 (JSON)
    answer = only(only(part, place, "functionResponse")["functionResponse"], place, "name response", "id parts")
    (key,) = only(answer["response"], place, "", "output error")
    images = tuple(_blob(at, blob) for at, blob in items(answer["parts"], place)) if "parts" in answer else ()
    return Piece(
        "result", answer["response"][key], answer.get("id", ""), answer["name"], None, (), 0, key == "error", images
    )


def _asked(place: str, part: Any) -> Piece:  # noqa: ANN401 (JSON)
    call = only(part["functionCall"], place, "name args", "id")
    return Piece("call", id=call.get("id", ""), name=call["name"], arguments=json_object(call["args"], place))


def _gemini_part(place: str, part: Any, role: str) -> Piece:  # noqa: ANN401 (JSON)
    if role == "user":
        if "functionResponse" in part:
            return _answer(place, part)
        if "inlineData" in part:
            return Piece("image", _blob(place, part))
        return Piece("text", filled(only(part, place, "text")["text"], place))
    signed = (filled(part["thoughtSignature"], place),) if "thoughtSignature" in part else ()
    if "functionCall" in part:
        only(part, place, "functionCall", "thoughtSignature")
        return _asked(place, part)._replace(opaque=signed)
    only(part, place, "text", "thought thoughtSignature")
    must(part["text"] or signed, place, "an empty text carries a signature")
    return Piece("reasoning" if part.get("thought") else "text", part["text"], opaque=signed)


def gemini(body: Any) -> Read:  # noqa: ANN401 (JSON)
    """Read a body. Calls without an id are told apart by their place, and their results by name and order."""
    only(body, "body", "contents tools", "generationConfig")
    turns: list[Turn] = []
    for place, content in items(body["contents"], "contents"):
        role = only(content, place, "role parts")["role"]
        must(role in {"user", "model"}, place, f"the role {role!r} is unknown")
        pieces = [_gemini_part(at, part, role) for at, part in items(content["parts"], place)]
        if role == "model":
            first = next((piece for piece in pieces if piece.kind == "call"), None)
            must(first is None or first.opaque, place, "the turn's first call has a signature")
        else:
            pieces = _with_ids(place, pieces, turns[-1].pieces if turns else [])
        turns.append(Turn("assistant" if role == "model" else role, _numbered(len(turns), pieces)))
    (tools,) = body["tools"]
    declared = items(only(tools, "tools", "functionDeclarations")["functionDeclarations"], "tools")
    return Read(
        turns, [only(tool, at, "name", "description parameters parametersJsonSchema")["name"] for at, tool in declared]
    )


def _numbered(turn: int, pieces: list[Piece]) -> list[Piece]:
    return [
        piece._replace(id=piece.id or f"place_{turn}_{number}") if piece.kind == "call" else piece
        for number, piece in enumerate(pieces)
    ]


def _with_ids(place: str, pieces: list[Piece], asked: list[Piece]) -> list[Piece]:
    """Give the results the ids of their calls; each names its function."""
    calls = [piece for piece in asked if piece.kind == "call"]
    results = [piece for piece in pieces if piece.kind == "result"]
    must(len(calls) == len(results), place, "as many results as calls are wanted")
    for call, result in zip(calls, results, strict=True):
        must(call.name == result.name, place, "results stand in the order of their calls, by name")
        must(result.id in ("", call.id), place, "the result's id is the call's")
    ids = iter(calls)
    return [piece._replace(id=next(ids).id) if piece.kind == "result" else piece for piece in pieces]


# --- Ollama --------------------------------------------------------------------------------------


def _ollama_call(place: str, call: Any) -> Piece:  # noqa: ANN401 (JSON)
    function = only(only(call, place, "function", "id")["function"], place, "name arguments", "index")
    arguments = json_object(function["arguments"], place)
    return Piece("call", id=call.get("id", ""), name=function["name"], arguments=arguments)


_OLLAMA = {"user": "images", "assistant": "thinking tool_calls", "tool": "images tool_name tool_call_id"}


def ollama(body: Any) -> Read:  # noqa: ANN401 (JSON)
    only(body, "body", "model messages tools", "stream think")
    turns: list[Turn] = []
    for place, message in items(body["messages"], "messages"):
        role = message.get("role")
        must(role in _OLLAMA, place, f"the role {role!r} is unknown")
        only(message, place, "role content", _OLLAMA[role])
        images = tuple(_bare(at, image) for at, image in items(message["images"], place)) if "images" in message else ()
        if role == "tool":
            pieces = [Piece("result", message["content"], message["tool_call_id"], message["tool_name"], images=images)]
        else:
            calls = items(message["tool_calls"], place) if "tool_calls" in message else []
            pieces = [Piece("reasoning", filled(message["thinking"], place))] if "thinking" in message else []
            pieces += [Piece("text", filled(message["content"], place))] if message["content"] else []
            pieces += [Piece("image", image) for image in images]
            pieces += [_ollama_call(at, call) for at, call in calls]
            must(pieces, place, "an empty message says nothing")
        turns.append(Turn(role, pieces))
    return Read(turns, _function_tools(body))


def _bare(place: str, image: object) -> str:
    must(not str(image).startswith("data:"), place, "images are base64 alone on this wire")
    return picture(image, place, "image/gif" if str(image).startswith("R0lG") else "image/png")


# --- Cohere --------------------------------------------------------------------------------------


def _cohere_content(place: str, content: object, kinds: str) -> list[Piece]:
    if isinstance(content, str):
        return [Piece("text", filled(content, place))]
    pieces: list[Piece] = []
    for at, part in items(content, place):
        kind = part.get("type")
        must(kind in kinds.split(), at, f"a part of type {kind!r} may not stand here")
        only(part, at, f"type {kind}")
        if kind == "image_url":
            pieces.append(Piece("image", data_url(only(part["image_url"], at, "url", "detail")["url"], at)))
        else:
            pieces.append(Piece("reasoning" if kind == "thinking" else "text", filled(part[kind], at)))
    return pieces


def _cohere_assistant(place: str, message: Any) -> list[Piece]:  # noqa: ANN401 (JSON)
    only(message, place, "role", "content tool_plan tool_calls")
    pieces: list[Piece] = []
    if "tool_plan" in message:
        must("tool_calls" in message, place, "a plan stands beside calls")
        pieces.append(Piece("reasoning", message["tool_plan"], opaque=(filled(message["tool_plan"], place),)))
    pieces += _cohere_content(place, message["content"], "text thinking") if "content" in message else []
    for at, call in items(message["tool_calls"], place) if "tool_calls" in message else []:
        function = only(only(call, at, "id type function")["function"], at, "name arguments")
        arguments = json_text(function["arguments"], at)
        pieces.append(Piece("call", id=call["id"], name=function["name"], arguments=arguments))
    must(pieces, place, "an empty message says nothing")
    return pieces


def cohere(body: Any) -> Read:  # noqa: ANN401 (JSON)
    only(body, "body", "model messages tools", "stream")
    turns: list[Turn] = []
    for place, message in items(body["messages"], "messages"):
        role = message.get("role")
        must(role in {"user", "assistant", "tool"}, place, f"the role {role!r} is unknown")
        if role == "assistant":
            pieces = _cohere_assistant(place, message)
        elif role == "tool":
            only(message, place, "role tool_call_id content")
            pieces = [Piece("result", filled(message["content"], place), message["tool_call_id"])]
        else:
            pieces = _cohere_content(place, only(message, place, "role content")["content"], "text image_url")
        turns.append(Turn(role, pieces))
    return Read(turns, _function_tools(body))


READERS: dict[str, Callable[[Any], Read]] = {
    "openai_chat": openrouter,
    "openai_chat (Mistral)": mistral,
    "openai_responses": responses,
    "anthropic_messages": anthropic,
    "gemini": gemini,
    "bedrock_converse": converse,
    "bedrock_invoke": invoke,
    "ollama_chat": ollama,
    "cohere_chat": cohere,
}
"""By the names of `sites.SITES`."""
