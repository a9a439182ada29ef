"""How the page asks: a plain stream, or the run of an agent whose calls of tools wait for the user's word.

Contract: both are sources of a broadcast, and tell in the page's terms what came of them: blocks, figures, and the
messages to be sent with the next question. Nothing here knows of conversations, keys or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

import anyio
from msgspec import Struct

from loomstream import agent
from loomstream.agent.toolbox import GivenTools
from loomstream.errors import UsageError
from loomstream.events import Cost, ReasoningDelta, RefusalDelta, Stop, TextDelta, ToolCallStart, Usage
from loomstream.messages import Message, Reasoning, RequestOptions, Response, Text, ToolCall, ToolResult
from loomstream.stream import Stream
from loomstream.ui.broadcast import Source

_FIRST = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallStart)
_DENIED = "the user said no"


class Block(Struct, frozen=True, kw_only=True):
    """A content block as the page shows it; `call` is the id of the call that it is, or is the result of."""

    kind: str
    text: str = ""
    name: str = ""
    call: str = ""
    is_error: bool = False


class Asked(Source, Protocol):
    """An answer on its way, and what came of it. The figures hold once it is over; times are in seconds."""

    @property
    def blocks(self) -> list[Block]:
        """What is to be shown."""
        ...

    @property
    def history(self) -> list[Message]:
        """What is to be sent with the next question; empty where nothing was said."""
        ...

    @property
    def stop(self) -> Stop | None:
        """Why the last answer ended."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The tokens of all of it."""
        ...

    @property
    def cost(self) -> Cost | None:
        """The cost of all of it."""
        ...

    @property
    def first_text_s(self) -> float | None:
        """When the first came that the model said: text, reasoning, or a call of a tool."""
        ...

    @property
    def total_s(self) -> float | None:
        """How long it took."""
        ...


class PlainAnswer:
    """A stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stream.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> agent.RunEvent:
        return await anext(self._stream)

    @property
    def response(self) -> Response:
        """What has been delivered so far."""
        return self._stream.response

    @property
    def blocks(self) -> list[Block]:
        """See `Asked`."""
        return blocks_of([self.response.message])

    @property
    def history(self) -> list[Message]:
        """See `Asked`: calls without a result are left out, no model takes them."""
        kept = tuple(block for block in self.response.message.content if isinstance(block, Text | Reasoning))
        return [Message("assistant", kept)] if any(isinstance(block, Text) for block in kept) else []

    @property
    def stop(self) -> Stop | None:
        """See `Asked`."""
        return self.response.stop

    @property
    def usage(self) -> Usage | None:
        """See `Asked`."""
        return self.response.usage

    @property
    def cost(self) -> Cost | None:
        """See `Asked`."""
        return self.response.cost

    @property
    def first_text_s(self) -> float | None:
        """See `Asked`."""
        timing = self._stream.timing
        return timing.first_text_s if timing.first_text_s is not None else timing.first_event_s

    @property
    def total_s(self) -> float | None:
        """See `Asked`."""
        return self._stream.timing.total_s


class Desk:
    """The calls of one run that wait for the user. `asks` are the tools whose calls do; it may shrink meanwhile."""

    def __init__(self, asks: set[str]) -> None:
        self._asks = asks
        self._waiting: dict[str, tuple[anyio.Event, list[agent.Decision]]] = {}

    async def approve(self, call: ToolCall) -> agent.Decision:
        """Wait for the user's word on a call."""
        if call.name not in self._asks:
            return agent.Allow()
        told, said = self._waiting[call.id] = (anyio.Event(), [])
        try:
            await told.wait()
        finally:
            self._waiting.pop(call.id, None)
        return said[0]

    def decide(self, call_id: str, *, allow: bool) -> None:
        """Say whether a call may run. Raises `UsageError` where none of that id waits."""
        if call_id not in self._waiting:
            msg = "no such call waits for you: it was decided on, or stopped"
            raise UsageError(msg)
        told, said = self._waiting.pop(call_id)
        said.append(agent.Allow() if allow else agent.Deny(_DENIED))
        told.set()


class ToolAnswer:
    """The run of an agent. `clock` is the event loop's."""

    def __init__(
        self,
        model: agent.StreamingModel,
        messages: list[Message],
        tools: GivenTools,
        options: RequestOptions,
        desk: Desk,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._run = agent.run(model, messages, tools, approve=desk.approve, **options)
        self._before = len(messages)
        self._clock = clock
        self._began_s = clock()
        self._first_s: float | None = None
        self._ended_s: float | None = None

    async def __aenter__(self) -> Self:
        self._began_s = self._clock()
        await self._run.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended_s = self._clock()
        await self._run.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> agent.RunEvent:
        event = await anext(self._run)
        if self._first_s is None and isinstance(event, _FIRST):
            self._first_s = self._clock()
        return event

    @property
    def response(self) -> Response:
        """What the last turn has said so far."""
        return self._run.response

    @property
    def blocks(self) -> list[Block]:
        """See `Asked`: of all turns, the results of the calls among them."""
        return blocks_of(self.history)

    @property
    def history(self) -> list[Message]:
        """See `Asked`: every call has its result."""
        return list(self._run.messages[self._before :])

    @property
    def stop(self) -> Stop | None:
        """See `Asked`."""
        return self.response.stop

    @property
    def usage(self) -> Usage | None:
        """See `Asked`."""
        return self._run.usage

    @property
    def cost(self) -> Cost | None:
        """See `Asked`."""
        return self._run.cost

    @property
    def first_text_s(self) -> float | None:
        """See `Asked`."""
        return None if self._first_s is None else self._first_s - self._began_s

    @property
    def total_s(self) -> float | None:
        """See `Asked`."""
        return None if self._ended_s is None else self._ended_s - self._began_s


def blocks_of(messages: Iterable[Message]) -> list[Block]:
    """Give the content of some messages as the page shows it."""
    return [_block(block) for message in messages for block in message.content]


def _block(block: object) -> Block:
    tag = getattr(block, "__struct_config__").tag  # noqa: B009 (the blocks are structs of many types)
    is_result = isinstance(block, ToolResult)
    return Block(
        kind=tag if isinstance(tag, str) else "",
        text="".join(part.text for part in block.content if isinstance(part, Text)) if is_result else _text_of(block),
        name=getattr(block, "name", ""),
        call=block.tool_call_id if is_result else block.id if isinstance(block, ToolCall) else "",
        is_error=is_result and block.is_error,
    )


def _text_of(block: object) -> str:
    for field in ("text", "arguments", "content", "url", "id"):
        value = getattr(block, field, None)
        if value:
            return value if isinstance(value, str) else bytes(value).decode("utf-8", "replace")
    return ""
