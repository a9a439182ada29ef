"""The values of an adaptation; see `loomstream.adapt` for the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from loomstream.dialects import Target
from loomstream.events import Event
from loomstream.messages import ContentBlock, Request, ToolCall, ToolResult


class EventStage(Protocol):
    """Events to the events that take their place; one object per answer."""

    def feed(self, event: Event) -> list[Event]:
        """Take an event, give what is known by now."""
        ...

    def flush(self) -> list[Event]:
        """Give what was held back: an error ends the answer, and nothing that was received may be lost."""
        ...


class Adapted(NamedTuple):
    """A rewritten request, what `Start.warnings` is to say of it, and how its answer is read back."""

    request: Request
    stage: EventStage | None = None
    warnings: tuple[str, ...] = ()


Adaptation = Callable[[Request, Target], Adapted | None]

_CALLS: frozenset[type[ContentBlock]] = frozenset((ToolCall, ToolResult))


def has_calls(request: Request) -> bool:
    """Say whether the conversation holds calls of tools, or results of them."""
    for message in request.messages:
        for block in message.content:
            if block.__class__ in _CALLS:  # isinstance costs several times as much where it says no
                return True
    return False
