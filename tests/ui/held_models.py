"""What the tests of `loomstream.ui` stream: every kind of event, and models whose answers wait to be let go on."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal

import anyio
from msgspec import Raw as RawJSON

from loomstream import agent, events
from loomstream.errors import LoomstreamError
from loomstream.events import Event
from loomstream.messages import Request, Text, ToolCall, ToolResult, make_request
from loomstream.stream import Stream

RAW = RawJSON(b'{\n  "indented": [1,\r\n2]\n}')

EVERY_EVENT: list[agent.RunEvent] = [
    events.Notice("retry", "the first attempt failed", may_be_billed=True),
    agent.TurnStart(1),
    events.Start("acme", "m-1", response_id="r-1", warnings=("no seed",)),
    events.Raw("delta", "data: {}\n"),
    events.ReasoningStart(0),
    events.ReasoningDelta(0, "Hm.\n"),
    events.ReasoningEnd(0, (events.Opaque("acme", "signature", "c2ln"),)),
    events.TextStart(1),
    events.TextDelta(1, "Grüße, </script>\r\n\u2028 \U0001f642"),
    events.TextEnd(1),
    events.Citation(1, kind="url", url="https://example.com/a?b=1", title="A page"),
    events.Citation(1, kind="document", cited_text="cited"),
    events.Logprobs(1, (events.TokenLogprob("Gr", -0.5),)),
    events.ToolCallStart(2, "call_0", "get_weather"),
    events.ToolCallDelta(2, '{\n"city":'),
    events.ToolCallDelta(2, '"Oslo"}'),
    events.ToolCallEnd(2, "call_0", "get_weather", '{\n"city":"Oslo"}'),
    events.ToolCallStart(3, "call_1", "cut"),
    events.ToolCallEnd(3, "call_1", "cut", '{"a":', executable=False),
    events.ServerToolCall(4, "srv_0", "web_search", '{"q":"x"}', raw=RAW),
    events.ServerToolResult(5, "srv_0", "web_search", RAW),
    events.ServerToolResult(6, "srv_unseen", "web_search", RAW, is_error=True),
    events.File(7, "image/png", b"\x89PNG"),
    events.File(8, "image/png", url="https://example.com/b.png"),
    events.File(9, id="file-1"),
    events.RefusalDelta(10, "I cannot "),
    events.RefusalDelta(10, "do that."),
    events.TextStart(11, choice=1),
    events.TextDelta(11, "the second choice"),
    events.TextEnd(11),
    events.Usage(input_tokens=3, output_tokens=9, reasoning_tokens=2, final=True, raw=RAW),
    events.Unknown("ping", "data: {}\n\n"),
    events.Cost(provider="acme", model="m-1", amount_usd=Decimal("0.00012"), exact=True),
    events.Stop("tool_use", "tool_calls"),
    agent.ToolResultEvent(1, ToolResult("call_0", (Text("4 °C"),), name="get_weather"), "ok", 0.1),
    agent.ToolResultEvent(1, ToolResult("call_1", (Text("cut"),), name="cut", is_error=True), "not_executable"),
    agent.TurnStart(2),
    events.Start("acme", "m-1"),
    events.TextStart(0),
    events.TextDelta(0, "It is "),
    events.Notice("reset", "another provider answers"),
    events.Start("other", "m-2"),
    events.TextStart(0),
    events.TextDelta(0, "4 °C."),
    events.ToolCallStart(1, "call_2", "delete_all"),
    events.ToolCallEnd(1, "call_2", "delete_all", "{}"),
    events.TextEnd(0),
    events.Stop("end_turn", "stop"),
    agent.CallPending(2, ToolCall("call_2", "delete_all", "{}"), "decision"),
    agent.RunStop("paused"),
]
"""Each kind at least once; a whole run of an agent, with a reset in its second turn."""


class HeldModel:
    """A model whose answer goes on when it is told to; counts what is open, and what was asked."""

    provider, model = "held", "held-model"

    def __init__(self) -> None:
        self.open_streams = 0
        self.given = 0
        self.requests: list[Request] = []
        self._items: deque[Event | LoomstreamError | None] = deque()
        self._more = anyio.Event()

    def give(self, *items: Event | LoomstreamError) -> None:
        """Let these come."""
        self._items.extend(items)
        self._wake()

    def end(self) -> None:
        """Let the answer end."""
        self._items.append(None)
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = anyio.Event()

    def stream(self, prompt: str = "Hi") -> Stream:
        return Stream(self._handle, make_request(prompt, {}), cost_of=lambda p, m, _: events.Cost(provider=p, model=m))

    @asynccontextmanager
    async def _handle(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        self.requests.append(request)
        self.open_streams += 1
        try:
            async with aclosing(self._play()) as played:
                yield played
        finally:
            self.open_streams -= 1

    async def _play(self) -> AsyncGenerator[Event]:
        while True:
            while not self._items:
                await self._more.wait()
            item = self._items.popleft()
            if item is None:
                return
            if isinstance(item, LoomstreamError):
                raise item
            self.given += 1
            yield item
