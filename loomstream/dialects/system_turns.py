"""The words of the system, for wires that have one place for them, before the conversation.

Contract: pure. Turns of the system keep their order; what else than text they hold is named with its place. Knows no
wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loomstream.messages import CachePoint, Message, Request, Text

GAP = "\n\n"
"""What stands between two texts that become one."""


def system_pieces(request: Request) -> tuple[list[str | CachePoint], list[str]]:
    """Give the texts, in as many pieces as the cache points among them make, and what is to be said of the rest."""
    pieces: list[str | CachePoint] = [request.system] if request.system.strip() else []
    warnings: list[str] = []
    for number, message in enumerate(request.messages):
        if message.role == "system":
            pieces += _pieces_of(number, message, warnings)
    return pieces, warnings + moved_system(request.messages)


def moved_system(messages: Iterable[Message]) -> list[str]:
    """Say whether a system turn stands within the conversation, which the wire does not have there."""
    turns = [message.role for message in messages]
    within = "system" in turns[turns.count("system") :]
    return ["system messages within the conversation are sent at its beginning"] if within else []


def _pieces_of(number: int, message: Message, warnings: list[str]) -> Iterator[str | CachePoint]:
    text = ""
    for position, block in enumerate(message.content):
        if isinstance(block, Text):
            text += block.text
            continue
        if text.strip():
            yield text
        text = ""
        if isinstance(block, CachePoint):
            yield block
        else:
            place = f"messages[{number}].content[{position}]"
            warnings.append(f"{place}: the {type(block).__name__} in a system turn, which is text alone, is not sent")
    if text.strip():
        yield text
