"""How many tokens a text is, where nobody has counted yet: what limits reserve by.

Contract: pure, and a rule of thumb: four characters to the token, a flat figure for what is no text. The provider's
usage takes its place as soon as it comes.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from loomstream.events import (
    EventBase,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from loomstream.messages import ContentBlock, Reasoning, Refusal, Request, Text, ToolCall, ToolResult

CHARS_PER_TOKEN = 4
MEDIA_TOKENS = 1_000
"""What an image, a document, a sound or a file counts for."""

TEXT_OF: dict[type[EventBase], str] = {
    TextDelta: "text",
    ReasoningDelta: "text",
    RefusalDelta: "text",
    ToolCallDelta: "arguments",
}
"""The events that bring text, and the field that holds it."""


def prompt_tokens(request: Request) -> int:
    """Give about how many tokens a request's messages, system text and tools are."""
    chars = len(request.system) + sum(_chars(message.content) for message in request.messages)
    chars += sum(len(tool.name) + len(tool.description) + _json_chars(tool.parameters) for tool in request.tools)
    return -(-chars // CHARS_PER_TOKEN)


def all_tokens(usage: Usage) -> int:
    """Give all tokens of a usage, cached ones included."""
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens + usage.output_tokens


def counted_tokens(usage: Usage) -> int:
    """Give the tokens that count against a provider's limit: without those that it read from its cache."""
    return usage.input_tokens + usage.cache_write_tokens + usage.output_tokens


def _chars(blocks: Iterable[ContentBlock]) -> int:
    return sum(_block_chars(block) for block in blocks)


def _block_chars(block: ContentBlock) -> int:
    match block:
        case Text() | Reasoning() | Refusal():
            return len(block.text)
        case ToolCall():
            return len(block.name) + len(block.arguments)
        case ToolResult():
            return _chars(block.content)
        case _:
            return MEDIA_TOKENS * CHARS_PER_TOKEN


def _json_chars(value: object) -> int:
    return len(msgspec.json.encode(value))
