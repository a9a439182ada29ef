"""What of a conversation a wire has no place for: one table of words for all dialects.

Contract: pure. A dialect says which kinds of blocks a turn of each role can hold, or names by itself; for the others
there is a sentence here. Knows no wire.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from loomstream.dialects import Target
from loomstream.events import Citation
from loomstream.messages import (
    Audio,
    CachePoint,
    ContentBlock,
    Document,
    FileBlock,
    Image,
    Message,
    Reasoning,
    Refusal,
    ServerToolCallBlock,
    ServerToolResultBlock,
    Text,
    ToolCall,
    ToolResult,
)

NAMES: Mapping[type[ContentBlock], str] = {
    Text: "texts",
    Image: "images",
    Audio: "sounds",
    Document: "documents",
    CachePoint: "cache points",
    FileBlock: "files that a model made",
    Reasoning: "reasoning blocks",
    Refusal: "refusals",
    ToolCall: "tool calls",
    ToolResult: "tool results",
    ServerToolCallBlock: "calls of a provider's own tools",
    ServerToolResultBlock: "results of a provider's own tools",
}
"""What kinds of blocks are called in warnings."""

_SPEAKERS = frozenset(("system", "user", "assistant"))

NAMED_ALONE: tuple[type[ContentBlock], ...] = (
    *(Audio, Document, CachePoint, FileBlock, ServerToolCallBlock, ServerToolResultBlock),
)
"""Kinds that the wires of text and images name by themselves, whatever the turn."""


def is_plain(messages: Iterable[Message]) -> bool:
    """Say whether a conversation is texts of system, user and model without sources, which every wire can hold."""
    for message in messages:
        for block in message.content:
            if type(block) is not Text or block.citations or message.role not in _SPEAKERS:
                return False
    return True


def misplaced(messages: Iterable[Message], places: Mapping[str, Collection[type[ContentBlock]]]) -> list[str]:
    """Give a sentence for each block of a kind that `places` does not have for its turn's role.

    A role that `places` does not name can hold anything.
    """
    found = (
        f"{NAMES[type(block)]} in {message.role} turns are not sent: this wire has no place for them"
        for message in messages
        if message.role in places
        for block in message.content
        if type(block) not in places[message.role]
    )
    return list(dict.fromkeys(found))


def lost_signatures(messages: Iterable[Message], target: Target, *kinds: str) -> list[str]:
    """Say whether tool calls carry something that goes back to its issuer alone, and not on this wire.

    `kinds` are those of the target's own opaque values that the wire takes back on a call.
    """
    lost = any(
        opaque.issuer != target.provider or opaque.kind not in kinds
        for message in messages
        for block in message.content
        if type(block) is ToolCall  # isinstance costs several times as much where it says no
        for opaque in block.opaque
    )
    return ["signatures of tool calls that are not of this wire are not sent"] if lost else []


def lost_citations(
    messages: Iterable[Message], is_carried: Callable[[Citation], bool] = lambda _citation: False
) -> list[str]:
    """Say whether texts of the model carry sources that this wire, or its form of them, has no place for."""
    lost = any(
        not is_carried(citation)
        for message in messages
        for block in message.content
        if type(block) is Text
        for citation in block.citations
    )
    return ["citations of earlier turns that are not of this wire are not sent"] if lost else []
