"""The tools of a run by name, and one call of one of them.

Contract: whatever a tool does, a call has an outcome and content for the model. Only a cancellation that comes from
outside passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import anyio
import anyio.lowlevel

from loomstream.agent.events import Content, Outcome
from loomstream.errors import InvalidArguments, RequestError
from loomstream.messages import AsTool, Message, RequestOptions, Text, Tool, ToolResult, check_options, to_messages
from loomstream.tools import FunctionTool, with_tools
from loomstream.tools.function import mended, told

GivenTool = Tool | AsTool | Callable[..., object]
"""A function, what `loomstream.tool` made of one, or a `Tool` whose calls come back to the caller."""
GivenTools = Sequence[GivenTool]
AnyFunctionTool = FunctionTool[..., object]
TimeLimit = float | Mapping[str, float] | None
"""Seconds for each call, or for those of each tool by its name."""


class Toolbox:
    """Tools by name. Raises `RequestError` for what is no tool, two of one name, and a time limit for none of them."""

    def __init__(self, tools: GivenTools, time_limit_s: TimeLimit = None) -> None:
        options: RequestOptions = with_tools({"tools": tools})
        check_options(cast("Mapping[str, object]", options))
        self.tools: tuple[Tool | AsTool, ...] = tuple(cast("Sequence[Tool | AsTool]", options.get("tools", ())))
        self._by_name = {_name(item): item for item in self.tools}
        self._limits_s = time_limit_s
        _check_time_limit(time_limit_s, self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called."""
        return tuple(self._by_name)

    def function(self, name: str) -> AnyFunctionTool | None:
        """Give the tool that can be run, None where it has no function."""
        found = self._by_name.get(name)
        return cast("AnyFunctionTool", found) if isinstance(found, FunctionTool) else None

    def time_limit_s(self, name: str) -> float | None:
        """Give the limit for a call, in seconds."""
        limits_s = self._limits_s
        return limits_s.get(name) if isinstance(limits_s, Mapping) else limits_s


def _name(item: Tool | AsTool) -> str:
    return item.name if isinstance(item, Tool) else item.__loomstream_tool__.name


def _check_time_limit(limit_s: TimeLimit, names: Mapping[str, object]) -> None:
    by_name = cast("Mapping[str, object]", limit_s if isinstance(limit_s, Mapping) else {"": limit_s})
    for name, number in by_name.items():
        place = f"tool_time_s[{name!r}]" if isinstance(limit_s, Mapping) else "tool_time_s"
        if isinstance(limit_s, Mapping) and name not in names:
            msg = f"{place}: there is no tool of this name; there are {', '.join(names) or 'none'}"
            raise RequestError(msg)
        if number is not None and not (isinstance(number, int | float) and number > 0):
            msg = f"{place} is {number!r}: give seconds above 0"
            raise RequestError(msg)


def read(tool: AnyFunctionTool, arguments: str) -> dict[str, object] | InvalidArguments:
    """Give a call's arguments by name, or why they cannot be given."""
    try:
        return tool.decode(arguments)
    except InvalidArguments as error:
        return error


async def execute(
    tool: AnyFunctionTool, values: Mapping[str, object], limit_s: float | None
) -> tuple[Outcome, Content]:
    """Run the tool; a cancellation from outside passes."""
    try:
        with anyio.move_on_after(limit_s):
            return "ok", checked(await tool.content(values))
        return "timed_out", text(f"{tool.name} took longer than {limit_s or 0:g} s and was stopped")
    except anyio.get_cancelled_exc_class():
        if anyio.get_current_task().has_pending_cancellation():
            raise
        return _cancelled(tool.name)
    except Exception as error:  # noqa: BLE001 (a tool may raise anything; the model is told)
        return "failed", text(told(_only(error)))
    except BaseExceptionGroup as group:
        return await _group_outcome(tool.name, group)


def _cancelled(name: str) -> tuple[Outcome, Content]:
    return "cancelled", text(f"{name} cancelled itself before it had a result")


async def _group_outcome(name: str, group: BaseExceptionGroup[BaseException]) -> tuple[Outcome, Content]:
    """Give the outcome of a group that holds more than errors: trio's nurseries put cancellations into one.

    Where there is nothing else, it is a cancellation again. What is neither comes out, bare where it is alone.
    """
    _, left = group.split(anyio.get_cancelled_exc_class())
    if left is None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        return _cancelled(name)
    failed = _only(left)
    if not isinstance(failed, Exception):
        raise failed
    return "failed", text(told(failed))


def text(words: str) -> Content:
    """Give words as content."""
    return (Text(mended(words)),)


def _only(error: BaseException) -> BaseException:
    """Give the one error that a group holds, as a tool's own task group makes one; a group of several as it is."""
    while isinstance(error, BaseExceptionGroup):
        errors = cast("BaseExceptionGroup[BaseException]", error).exceptions
        if len(errors) != 1:
            break
        (error,) = errors
    return cast("BaseException", error)


def checked(content: Content) -> Content:
    """Give the content. Raises `RequestError` for what no request can hold, such as an image that is none."""
    try:
        to_messages(Message("tool", (ToolResult("result", content),)))
    except RequestError as error:
        msg = str(error).replace("messages[0].content[0].content", "the result")
        raise RequestError(msg) from None
    return content
