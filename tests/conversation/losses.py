"""What of a conversation does not arrive, by what the wire holds; and which warning tells it.

Contract: independent of the library's code. `found` compares the conversation with what a reader saw; `told` says
which losses a warning stands for.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence

from readers import Piece, Read, compact
from sites import TOOLS

from loomstream.events import Opaque
from loomstream.messages import Image, Message, Reasoning, Text, ToolCall, ToolResult

REASONING, SIGNATURES, PHASES = "reasoning", "signatures of reasoning and text", "phases of messages"
CALL_SIGNATURES, PLACEHOLDER = "signatures of calls", "signatures of calls (a placeholder stands there)"
CITATIONS, ERROR_FLAGS, RESULT_IMAGES = "citations", "error flags", "images in tool results"
TEXTS, IMAGES, CALLS, RESULTS = "texts", "images", "tool calls", "tool results"
"""Never lost: no way of telling it stands below."""

_TOLD: tuple[tuple[str, frozenset[str]], ...] = (
    (r"placeholder for the signature", frozenset({PLACEHOLDER})),
    (r"signatures of tool calls", frozenset({CALL_SIGNATURES})),
    (r"reasoning blocks of earlier turns", frozenset({REASONING, SIGNATURES, PHASES})),
    (r"signatures and encrypted reasoning", frozenset({REASONING, SIGNATURES, PHASES, CALL_SIGNATURES})),
    (r"citations of earlier turns", frozenset({CITATIONS})),
    (r"error flag", frozenset({ERROR_FLAGS})),
    (r"images in tool results", frozenset({RESULT_IMAGES})),
)
_PLACEHOLDER = "skip_thought_signature_validator"


def told(warning: str) -> frozenset[str]:
    """Give the losses that a warning tells; none for one that is unknown."""
    return next((losses for pattern, losses in _TOLD if re.search(pattern, warning)), frozenset())


def found(messages: Sequence[Message], read: Read) -> list[str]:
    """Give the losses, in the order in which a table has them."""
    return list(dict.fromkeys(_losses(messages, read)))


def _losses(messages: Sequence[Message], read: Read) -> Iterator[str]:
    users = _blocks(messages, "user")
    answers = _blocks(messages, "assistant")
    results = [block for block in _blocks(messages, "tool") if isinstance(block, ToolResult)]
    said = [piece for turn in read.turns if turn.role == "assistant" for piece in turn.pieces]
    heard = [piece for turn in read.turns if turn.role != "assistant" for piece in turn.pieces]
    yield from _reasoning_losses(answers, said)
    if any(opaque == _PLACEHOLDER for piece in said for opaque in piece.opaque):
        yield PLACEHOLDER
    if sum(len(block.citations) for block in answers if isinstance(block, Text)) != sum(piece.cited for piece in said):
        yield CITATIONS
    yield from _result_losses(results, heard)
    yield from _plain_losses(users, answers, said, heard, read)


def _blocks(messages: Iterable[Message], role: str) -> list[object]:
    return [block for message in messages if message.role == role for block in message.content]


def _reasoning_losses(answers: list[object], said: list[Piece]) -> Iterator[str]:
    words = [block.text for block in answers if isinstance(block, Reasoning) and block.text]
    if words != [piece.text for piece in said if piece.kind == "reasoning" and piece.text]:
        yield REASONING
    held = {opaque for piece in said for opaque in piece.opaque}
    for block in answers:
        if isinstance(block, Reasoning) and not _values(block.opaque) <= held:
            kinds = {opaque.kind for opaque in block.opaque}
            yield PHASES if kinds == {"phase"} else REASONING if kinds == {"tool_plan"} else SIGNATURES
        if isinstance(block, ToolCall) and not _values(block.opaque) <= held:
            yield CALL_SIGNATURES


def _values(opaque: Iterable[Opaque]) -> set[str]:
    values: set[str] = set()
    for item in opaque:
        values |= {compact(detail) for detail in json.loads(item.data)} if item.kind == "details" else {item.data}
    return values


def _result_losses(results: list[ToolResult], heard: list[Piece]) -> Iterator[str]:
    seen = [piece for piece in heard if piece.kind == "result"]
    if [result.is_error for result in results] != [piece.failed for piece in seen]:
        yield ERROR_FLAGS
    if [_pictures(result.content) for result in results] != [list(piece.images) for piece in seen]:
        yield RESULT_IMAGES
    if ["".join(part.text for part in result.content if isinstance(part, Text)) for result in results] != [
        piece.text for piece in seen
    ]:
        yield RESULTS


def _pictures(blocks: Iterable[object]) -> list[str]:
    return [base64.b64encode(block.data).decode() for block in blocks if isinstance(block, Image)]


def _plain_losses(
    users: list[object], answers: list[object], said: list[Piece], heard: list[Piece], read: Read
) -> Iterator[str]:
    for blocks, pieces in ((users, heard), (answers, said)):
        words = [block.text for block in blocks if isinstance(block, Text)]
        if words != [piece.text for piece in pieces if piece.kind == "text" and piece.text]:
            yield TEXTS
    if _pictures(users) != [piece.text for piece in heard if piece.kind == "image"]:
        yield IMAGES
    names = dict(zip(read.tools, (tool.name for tool in TOOLS), strict=True))
    calls = [(block.name, json.loads(block.arguments)) for block in answers if isinstance(block, ToolCall)]
    if calls != [(names[piece.name], piece.arguments) for piece in said if piece.kind == "call"]:
        yield CALLS
