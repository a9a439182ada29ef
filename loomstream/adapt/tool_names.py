"""Tool names as a host takes them: others are rewritten for the request, and read back in the answer.

Contract: see `loomstream.adapt`. The map is made anew for each request, of the names in it alone: two names never
become one, a name that fits is sent as it is, and the same request gives the same names each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import msgspec

from loomstream.adapt.plan import Adapted, has_calls
from loomstream.dialects import Target
from loomstream.events import Event, ToolCallEnd, ToolCallStart
from loomstream.messages import ContentBlock, Message, Request, Tool, ToolCall, ToolResult


def tool_names(request: Request, target: Target) -> Adapted | None:
    """Give the request with names that the host takes, and the stage that gives the user's own back."""
    if not (request.tools or has_calls(request)):
        return None
    names = dict.fromkeys(_names(request))
    renamed = _renamed(names, target.quirks.tool_name_chars, target.quirks.tool_name_max)
    return Adapted(_rewritten(request, renamed), _Back(renamed)) if renamed else None


def _names(request: Request) -> Iterator[str]:
    for tool in request.tools:
        yield tool.name
    for message in request.messages:
        for block in message.content:
            if isinstance(block, ToolCall | ToolResult) and block.name:
                yield block.name


@cache
def _rules(chars: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Give what a name that fits matches, and what in another one does not."""
    return re.compile(f"[A-Za-z_][{chars}]*"), re.compile(f"[^{chars}]")


def _renamed(names: Iterable[str], chars: str, longest: int) -> dict[str, str]:
    """Give what is sent in the place of each name that does not fit."""
    whole, wrong = _rules(chars)
    misfits = [name for name in names if len(name) > longest or not whole.fullmatch(name)]
    if not misfits:
        return {}
    taken = set(names) - set(misfits)
    renamed: dict[str, str] = {}
    for name in misfits:
        plain = wrong.sub("_", name)
        plain = plain if whole.match(plain) else f"_{plain}"
        renamed[name] = _free(plain, taken, longest)
        taken.add(renamed[name])
    return renamed


def _free(name: str, taken: set[str], longest: int) -> str:
    found, number = name[:longest], 2
    while found in taken:
        ending = f"_{number}"
        found = name[: longest - len(ending)] + ending
        number += 1
    return found


def _rewritten(request: Request, renamed: Mapping[str, str]) -> Request:
    choice = request.tool_choice
    if choice is not None and choice.name in renamed:
        choice = msgspec.structs.replace(choice, name=renamed[choice.name])
    return msgspec.structs.replace(
        request,
        tools=tuple(_tool(tool, renamed) for tool in request.tools),
        messages=tuple(_message(message, renamed) for message in request.messages),
        tool_choice=choice,
    )


def _tool(tool: Tool, renamed: Mapping[str, str]) -> Tool:
    return msgspec.structs.replace(tool, name=renamed[tool.name]) if tool.name in renamed else tool


def _message(message: Message, renamed: Mapping[str, str]) -> Message:
    return Message(message.role, tuple(_block(block, renamed) for block in message.content))


def _block(block: ContentBlock, renamed: Mapping[str, str]) -> ContentBlock:
    if isinstance(block, ToolCall | ToolResult) and block.name in renamed:
        return msgspec.structs.replace(block, name=renamed[block.name])
    return block


class _Back:
    """Gives calls the names that the user knows."""

    def __init__(self, renamed: Mapping[str, str]) -> None:
        self._own = {sent: name for name, sent in renamed.items()}

    def feed(self, event: Event) -> list[Event]:
        if isinstance(event, ToolCallStart | ToolCallEnd) and event.name in self._own:
            return [msgspec.structs.replace(event, name=self._own[event.name])]
        return [event]

    def flush(self) -> list[Event]:
        return []
