"""Tools that the provider runs itself: from an output item that tells of one to events.

Contract: pure; never raises. The wire has the call and its result in one item, which goes back whole with the call; or
in two, of which each goes back. An item of a kind that is not known, but is named like a call or an output, is read by
that name.

Source: https://platform.openai.com/docs/api-reference/responses/object, field `output`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects.bodies import frozen, members
from loomstream.dialects.fields import as_object, as_text, is_null, read_object, read_text
from loomstream.events import NULL, File, ServerToolCall, ServerToolResult
from loomstream.wire.json import is_object

Claim = Callable[[], int]
"""Gives the next free index."""

CALL, OUTPUT = "_call", "_output"
IMAGE = "image_generation_call"
MCP_CALL = "mcp_call"
MCP_TOOLS = "mcp_list_tools"
APPROVAL = "mcp_approval_request"
SERVER_ITEMS = frozenset((MCP_TOOLS, APPROVAL, "program"))
"""Items of this kind that are not named like a call."""


class _Shape(NamedTuple):
    """Which members of an item are the call's arguments, and which its result."""

    arguments: tuple[str, ...]
    results: tuple[str, ...]


_SHAPES = {
    "web_search_call": _Shape(("action",), ()),
    "file_search_call": _Shape(("queries",), ("results",)),
    "code_interpreter_call": _Shape(("code", "container_id"), ("outputs",)),
    MCP_CALL: _Shape(("arguments",), ("error", "output")),
    MCP_TOOLS: _Shape(("server_label",), ("error", "tools")),
    APPROVAL: _Shape(("arguments",), ()),
    "custom_tool_call": _Shape(("input",), ()),
}
_NO_ARGUMENTS = frozenset(("id", "call_id", "type", "status", "name", "output", "result", "results", "error"))
_NAMED = frozenset((MCP_CALL, "custom_tool_call", "function_call"))
"""Items whose `name` is the tool's; of any other the type is."""
_FORMATS = {"jpg": "image/jpeg"}


def is_server_item(kind: str) -> bool:
    """Say whether an item tells of a tool that the provider runs, unless it is known as one that you run."""
    return kind.endswith((CALL, OUTPUT)) or kind in SERVER_ITEMS


def server_events(kind: str, raw: RawJSON, claim: Claim) -> list[ServerToolCall | ServerToolResult | File]:
    """Give the events of a whole item."""
    fields = members(raw)
    if kind == IMAGE:
        return [_image(fields, claim())]
    if kind.endswith(OUTPUT):
        return [_output(kind, fields, raw, claim())]
    id = _text(fields, "call_id") or _text(fields, "id")  # noqa: A001 (the field's name)
    name = _text(fields, "name") if kind in _NAMED else ""
    name = name or kind.removesuffix(CALL)
    events: list[ServerToolCall | ServerToolResult | File] = [
        ServerToolCall(claim(), id, name, _arguments(kind, fields), raw=frozen(raw))
    ]
    shape = _SHAPES.get(kind)
    result = next((fields[key] for key in shape.results if not is_null(fields.get(key, NULL))), None) if shape else None
    if result is not None:
        events.append(ServerToolResult(claim(), id, name, frozen(result), _failed(fields)))
    return events


def _text(fields: dict[str, RawJSON], name: str) -> str:
    return read_text(fields.get(name, NULL))


def _failed(fields: dict[str, RawJSON]) -> bool:
    return _text(fields, "status") == "failed" or not is_null(fields.get("error", NULL))


def _arguments(kind: str, fields: dict[str, RawJSON]) -> str:
    """Give the call's arguments: a text that is JSON already, one object, or an object of several members."""
    shape = _SHAPES.get(kind)
    names = shape.arguments if shape else [name for name in fields if name not in _NO_ARGUMENTS]
    present = {name: fields[name] for name in names if name in fields and not is_null(fields[name])}
    if len(present) == 1:
        (alone,) = present.values()
        if bytes(alone).startswith(b"{"):
            return bytes(alone).decode()
        if is_object(text := read_text(alone)):
            return text
        if not text and bytes(alone).startswith(b'"'):
            return "{}"
    return msgspec.json.encode(present).decode()


def _output(kind: str, fields: dict[str, RawJSON], raw: RawJSON, index: int) -> ServerToolResult:
    content = next((fields[name] for name in ("output", "result", "tools") if name in fields), NULL)
    name = kind.removesuffix(OUTPUT).removesuffix(CALL)
    return ServerToolResult(index, _text(fields, "call_id"), name, frozen(content), _failed(fields), raw=frozen(raw))


def _image(fields: dict[str, RawJSON], index: int) -> File:
    """Give an image; what is kept of its item leaves out the bytes, which the event has."""
    try:
        data = base64.b64decode(_text(fields, "result"), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    written = _text(fields, "output_format") or "png"
    kept = fields if not data else {name: value for name, value in fields.items() if name != "result"}
    media_type = _FORMATS.get(written, f"image/{written}")
    return File(index, media_type, data, id=_text(fields, "id"), raw=RawJSON(msgspec.json.encode(kept)))


def image_item(raw: RawJSON, data: bytes) -> RawJSON | None:
    """Give the item that an image came in, to go back with its bytes; None where it came in none."""
    fields = members(raw)
    if _text(fields, "type") != IMAGE:
        return None
    if not data:
        return raw
    encoded = msgspec.json.encode(base64.b64encode(data).decode())
    return RawJSON(msgspec.json.encode({**fields, "result": RawJSON(encoded)}))


def runs_here(kind: str, raw: RawJSON) -> bool:
    """Say whether a built-in tool's call is for you to run: a shell without a container is yours."""
    if kind != "shell_call":
        return True
    environment = as_object(read_object(raw).get("environment"))
    return as_text(environment.get("type")) in ("", "local")
