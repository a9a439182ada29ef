"""Ids of tool calls for a host that takes ids of one form alone.

Contract: pure. Within one request a call and its result keep the same id, two ids never become one, and an id of the
host's own form is sent as it is. The same request gives the same ids each time, so a prompt cache still fits.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Mapping

from loomstream.messages import Message, ToolCall, ToolResult

_ALPHABET = string.ascii_letters + string.digits


def native_ids(messages: Iterable[Message], chars: int | None) -> Mapping[str, str]:
    """Give what is sent for each id of the conversation that is not `chars` letters and digits; None: all fit."""
    if chars is None:
        return {}
    ids = dict.fromkeys(_ids(messages))
    taken = {id for id in ids if _fits(id, chars)}  # noqa: A001 (the field's name)
    replaced: dict[str, str] = {}
    for id in ids:  # noqa: A001 (the field's name)
        if id not in taken:
            replaced[id] = _made(id, chars, {*taken, *replaced.values()})
    return replaced


def _ids(messages: Iterable[Message]) -> Iterable[str]:
    for message in messages:
        for block in message.content:
            if isinstance(block, ToolCall):
                yield block.id
            elif isinstance(block, ToolResult):
                yield block.tool_call_id


def _fits(id: str, chars: int) -> bool:  # noqa: A002 (the field's name)
    return len(id) == chars and id.isascii() and id.isalnum()


def _made(id: str, chars: int, taken: set[str]) -> str:  # noqa: A002 (the field's name)
    attempt = 0
    while (made := _digest(f"{attempt}:{id}", chars)) in taken:
        attempt += 1
    return made


def _digest(text: str, chars: int) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    digits: list[str] = []
    for _ in range(chars):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
