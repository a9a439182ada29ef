"""Messages in the JSON form of OpenTelemetry's GenAI conventions: what `gen_ai.input.messages` and its like hold.

Contract: pure. The bytes of images, sounds, documents and files are never part of it, only what they are.
Source: the conventions' message schemas, parts `text`, `reasoning`, `tool_call`, `tool_call_response`, `blob`, `uri`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw as RawJSON

from loomstream.messages import (
    Audio,
    ContentBlock,
    Document,
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    Request,
    Response,
    ServerToolCallBlock,
    Text,
    ToolCall,
    ToolResult,
)
from loomstream.wire.json import is_object

Part = Mapping[str, object]
_UNTYPED_MEDIA = "application/octet-stream"


def input_messages(request: Request) -> str:
    """Give the conversation that is sent, as a JSON list."""
    return _json([_message(message) for message in request.messages])


def system_instructions(request: Request) -> str:
    """Give the system prompt as a JSON list of parts; an empty text where there is none."""
    return _json([{"type": "text", "content": request.system}]) if request.system else ""


def output_messages(response: Response) -> str:
    """Give what has come of the answer, each choice a message, as a JSON list."""
    reason = response.stop.reason if response.stop else ""
    return _json([{**_message(choice.message), "finish_reason": reason} for choice in response.choices])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _message(message: Message) -> dict[str, object]:
    return {"role": message.role, "parts": _parts(message.content)}


def _parts(blocks: Iterable[ContentBlock]) -> list[Part]:
    return [_part(block) for block in blocks]


def _part(block: ContentBlock) -> Part:
    make = _PARTS.get(type(block))
    return {"type": type(block).__struct_config__.tag} if make is None else make(block)


def _text(block: Text | Refusal) -> Part:
    return {"type": "text", "content": block.text}


def _reasoning(block: Reasoning) -> Part:
    return {"type": "reasoning", "content": block.text}


def _call(block: ToolCall | ServerToolCallBlock) -> Part:
    arguments = RawJSON(block.arguments.encode()) if is_object(block.arguments) else block.arguments
    return {"type": "tool_call", "id": block.id, "name": block.name, "arguments": arguments}


def _result(block: ToolResult) -> Part:
    return {"type": "tool_call_response", "id": block.tool_call_id, "response": _parts(block.content)}


def _medium(block: Image | Audio | Document | FileBlock) -> Part:
    """Say what it is and where it is, or how large."""
    media_type = block.media_type or _UNTYPED_MEDIA
    said = {"modality": media_type.partition("/")[0], "mime_type": media_type}
    return (
        {"type": "uri", **said, "uri": block.url} if block.url else {"type": "blob", **said, "bytes": len(block.data)}
    )


_PARTS: dict[type[object], Callable[[Any], Part]] = {
    Text: _text,
    Refusal: _text,
    Reasoning: _reasoning,
    ToolCall: _call,
    ServerToolCallBlock: _call,
    ToolResult: _result,
    Image: _medium,
    Audio: _medium,
    Document: _medium,
    FileBlock: _medium,
}
