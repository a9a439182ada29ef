"""The rule of a conversation with tools: every call has its result, every result its call.

Contract: pure. A run checks the conversation that it is given, and keeps the rule for what it adds.
"""

from __future__ import annotations

from collections.abc import Sequence

from loomstream.errors import RequestError
from loomstream.messages import Message, ToolCall, ToolResult


def check_history(messages: Sequence[Message]) -> None:
    """Raise `RequestError`, with the place, for a call without a result and for a result without a call.

    The results of an assistant's calls stand before the next assistant's message.
    """
    waiting: dict[str, str] = {}
    known: set[str] = set()
    for position, message in enumerate(messages):
        if message.role == "assistant":
            _check_answered(waiting)
            waiting = {
                block.id: f"messages[{position}].content[{index}]"
                for index, block in enumerate(message.content)
                if isinstance(block, ToolCall)
            }
            known = set(waiting)
        for index, block in enumerate(message.content):
            if isinstance(block, ToolResult):
                _check_called(f"messages[{position}].content[{index}]", block, known)
                waiting.pop(block.tool_call_id, None)
    _check_answered(waiting)


def _check_answered(waiting: dict[str, str]) -> None:
    for call_id, place in waiting.items():
        msg = f"{place}: the call {call_id!r} has no result: add loomstream.tool_result(call, '…')"
        raise RequestError(msg)


def _check_called(place: str, result: ToolResult, known: set[str]) -> None:
    if result.tool_call_id not in known:
        msg = f"{place}: a result for {result.tool_call_id!r}, which the assistant's message before it does not call"
        raise RequestError(msg)
