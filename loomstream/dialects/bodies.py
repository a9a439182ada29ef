"""JSON text that a dialect passes on: request bodies, and whole tool arguments.

Contract: pure. Numbers keep the digits that they came with. Knows no wire.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects.fields import JSONObject
from loomstream.errors import RequestError
from loomstream.wire.json import is_object

# possessive: a repeated choice would keep a way back for each character
_STRING_OR_SPACE = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|[ \t\r\n]++', re.DOTALL)
_members: msgspec.json.Decoder[dict[str, RawJSON]] = msgspec.json.Decoder(dict[str, RawJSON])
_elements: msgspec.json.Decoder[list[RawJSON]] = msgspec.json.Decoder(list[RawJSON])


def compact(raw: RawJSON) -> str:
    """Give the text of a JSON value without the spaces between its tokens."""
    return _STRING_OR_SPACE.sub(lambda match: match[1] or "", bytes(raw).decode())


def frozen(raw: RawJSON) -> RawJSON:
    """Give the value compact and as a copy, which holds no frame in memory."""
    return RawJSON(compact(raw).encode())


def members(raw: RawJSON) -> dict[str, RawJSON]:
    """Give the members of an object, each as it came but compact; nothing where it is no object."""
    try:
        return _members.decode(compact(raw))
    except (msgspec.DecodeError, ValueError):
        return {}


def elements(raw: RawJSON) -> list[RawJSON]:
    """Give the elements of an array, each as it came but compact; nothing where it is no array."""
    try:
        return _elements.decode(compact(raw))
    except (msgspec.DecodeError, ValueError):
        return []


def arguments_of(text: str) -> RawJSON | None:
    """Give a tool call's arguments as JSON to be put into a body, or None where they are no JSON object."""
    if not text.strip():
        return RawJSON(b"{}")
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a lone surrogate, of which `encode_body` says that JSON cannot write it
        return None
    return RawJSON(data) if is_object(text) else None


def sent_arguments(text: str) -> object:
    """Give a tool call's arguments for a wire that takes an object; text that is none goes in one, as it came.

    Source of the key: https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming.
    """
    return arguments_of(text) or {"INVALID_JSON": text}


def merge(body: Mapping[str, object], extra: Mapping[str, object]) -> JSONObject:
    """Give the body with the extra keys; objects under one key are merged, anything else is replaced."""
    merged = dict(body)
    for key, value in extra.items():
        present = merged.get(key)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(cast("Mapping[str, object]", present), cast("Mapping[str, object]", value))
        else:
            merged[key] = value
    return merged


def encode_body(body: Mapping[str, object], extra: Mapping[str, object]) -> bytes:
    """Give a request's body as JSON, the extra keys last.

    Raises `RequestError` where a value is no JSON: an object of some class, or text with a lone surrogate.
    """
    try:
        return msgspec.json.encode(merge(body, extra))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        msg = f"the request cannot be written as JSON ({error}): use plain values in tools and extra_body"
        raise RequestError(msg) from error
