"""One typed event stream for every LLM provider.

    import loomstream as ls

    async with ls.connect("openai:gpt-4o") as model, model.stream("Why is the sky blue?") as stream:
        async for event in stream:
            match event:
                case ls.TextDelta(text=text):
                    print(text, end="")

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from loomstream.lazy import lazy

TYPE_CHECKING = False  # as type checkers know it; `typing` would take most of the time that this module takes

if TYPE_CHECKING:
    from loomstream import agent as agent
    from loomstream import errors as errors
    from loomstream import events as events
    from loomstream import files as files
    from loomstream import handler as handler
    from loomstream import messages as messages
    from loomstream import middleware as middleware
    from loomstream import providers as providers
    from loomstream import testing as testing
    from loomstream import tools as tools
    from loomstream.accumulate import Accumulator
    from loomstream.errors import LoomstreamError, ProviderError, StreamTruncated
    from loomstream.events import (
        Citation,
        Cost,
        Event,
        File,
        Logprobs,
        Notice,
        Raw,
        ReasoningDelta,
        ReasoningEnd,
        ReasoningStart,
        RefusalDelta,
        ServerToolCall,
        ServerToolResult,
        Start,
        Stop,
        TextDelta,
        TextEnd,
        TextStart,
        ToolCallDelta,
        ToolCallEnd,
        ToolCallStart,
        Unknown,
        Usage,
    )
    from loomstream.messages import Message, Response, Timeouts, Tool, assistant, system, tool_result, user
    from loomstream.model import Model, connect
    from loomstream.pump import decode
    from loomstream.stream import Stream
    from loomstream.tools import tool

_HOMES = {
    "accumulate": ("Accumulator",),
    "pump": ("decode",),
    "errors": ("LoomstreamError", "ProviderError", "StreamTruncated"),
    "events": (
        "Citation", "Cost", "Event", "File", "Logprobs", "Notice", "Raw", "ReasoningDelta", "ReasoningEnd",
        "ReasoningStart", "RefusalDelta", "ServerToolCall", "ServerToolResult", "Start", "Stop", "TextDelta", "TextEnd",
        "TextStart", "ToolCallDelta", "ToolCallEnd", "ToolCallStart", "Unknown", "Usage",
    ),
    "messages": ("Message", "Response", "Timeouts", "Tool", "assistant", "system", "tool_result", "user"),
    "model": ("Model", "connect"),
    "stream": ("Stream",),
    "tools": ("tool",),
}  # fmt: skip

__all__ = (
    "Accumulator", "Citation", "Cost", "Event", "File", "Logprobs", "LoomstreamError", "Message", "Model", "Notice",
    "ProviderError", "Raw", "ReasoningDelta", "ReasoningEnd", "ReasoningStart", "RefusalDelta", "Response",
    "ServerToolCall", "ServerToolResult", "Start", "Stop", "Stream", "StreamTruncated", "TextDelta", "TextEnd",
    "TextStart", "Timeouts", "Tool", "ToolCallDelta", "ToolCallEnd", "ToolCallStart", "Unknown", "Usage", "assistant",
    "connect", "decode", "system", "tool", "tool_result", "user",
)  # fmt: skip


_MODULES = frozenset(
    {"agent", "errors", "events", "files", "handler", "messages", "middleware", "providers", "testing", "tools"}
)
"""Submodules that can be reached as attributes of the package."""


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})


if not TYPE_CHECKING:  # a checker would take any misspelt name for an object
    __getattr__ = lazy(globals(), _HOMES, _MODULES)
