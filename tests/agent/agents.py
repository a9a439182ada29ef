"""What the tests of the agent share: answers with calls, tools that note what happens to them, the rules of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import anyio

import loomstream as ls
from loomstream import agent
from loomstream.agent import CallPending, RunEvent, RunStop, ToolResultEvent, TurnStart
from loomstream.errors import LoomstreamError
from loomstream.events import Event
from loomstream.messages import Message, ToolCall, ToolResult
from loomstream.testing import Pause, check_order
from loomstream.testing.scripted import ScriptedModel

Item = Event | Pause | LoomstreamError
OWN = (TurnStart, ToolResultEvent, CallPending, RunStop)


def answer(*parts: tuple[str, str] | Pause | Item, usage: ls.Usage | None = None, stop: str = "tool_use") -> list[Item]:
    """Give an answer that makes calls, `(name, arguments)` each, with ids `call_0`, `call_1`, …"""
    items: list[Item] = [ls.Start("scripted", "scripted-model")]
    index = 0
    for part in parts:
        if isinstance(part, tuple):
            items += call_events(index, *part)
            index += 1
        else:
            items.append(part)
    return [*items, usage or ls.Usage(input_tokens=10, output_tokens=5, final=True), ls.Stop(stop)]


def call_events(index: int, name: str, arguments: str, *, executable: bool = True) -> list[Item]:
    call_id = f"call_{index}"
    deltas = [ls.ToolCallDelta(index, arguments)] if arguments else []
    return [
        ls.ToolCallStart(index, call_id, name),
        *deltas,
        ls.ToolCallEnd(index, call_id, name, arguments or "{}", executable=executable),
    ]


class Bench:
    """Tools that note when they begin and end, on the virtual clock."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []
        self.ended: list[tuple[str, float]] = []
        self.running = 0
        self.most = 0

    @contextmanager
    def noted(self, name: str) -> Iterator[None]:
        self.began.append((name, round(anyio.current_time(), 3)))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield
        finally:
            self.running -= 1
            self.ended.append((name, round(anyio.current_time(), 3)))

    @ls.tool
    async def wait(self, seconds: float, name: str = "") -> str:
        """Wait for some seconds."""
        with self.noted(name or f"wait {seconds:g}"):
            await anyio.sleep(seconds)
        return f"waited {seconds:g}"

    @ls.tool
    async def fail(self, seconds: float = 0) -> str:
        """Fail after some seconds."""
        with self.noted("fail"):
            await anyio.sleep(seconds)
            msg = "no such place"
            raise LookupError(msg)


def wait(seconds: float, name: str = "") -> tuple[str, str]:
    return ("wait", f'{{"seconds": {seconds:g}, "name": "{name or f"wait {seconds:g}"}"}}')


async def read(run: agent.Run) -> list[RunEvent]:
    async with run:
        return [event async for event in run]


def results(events: Iterable[RunEvent]) -> list[tuple[str, str, str]]:
    """Give the id, the outcome and the text of each result, in the order in which they came."""
    return [(event.id, event.outcome, event.text) for event in events if isinstance(event, ToolResultEvent)]


def names(events: Iterable[RunEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def check_run(events: Sequence[RunEvent], *, complete: bool = True) -> None:
    """Hold the events of a run that ended without an error to the order that is promised."""
    turns: list[list[RunEvent]] = []
    for position, event in enumerate(events):
        assert agent.decode(agent.encode(event)) == event
        assert isinstance(event, RunStop) == (position == len(events) - 1)
        if isinstance(event, TurnStart):
            turns.append([])
        elif turns:
            turns[-1].append(event)
    for turn in turns[: None if complete else -1]:
        check_order([event for event in turn if not isinstance(event, OWN)])
        _check_told(turn)


def _check_told(turn: list[RunEvent]) -> None:
    """Each call is told of once, behind its end; a reset voids what was before it."""
    waiting: list[str] = []
    for event in turn:
        match event:
            case ls.Notice(kind="reset"):
                waiting = []
            case ls.ToolCallEnd(id=call_id):
                waiting.append(call_id)
            case ToolResultEvent():
                waiting.remove(event.id)
            case CallPending(call=call):
                waiting.remove(call.id)
            case _:
                pass
    assert not waiting


def check_messages(messages: Sequence[Message]) -> None:
    """Hold a conversation to the rule of every provider: behind an assistant's calls come their results, in order."""
    position = 0
    while position < len(messages):
        message = messages[position]
        assert message.content
        position += 1
        assert message.role in {"user", "assistant"}, f"messages[{position}] answers no call"
        calls = [block for block in message.content if isinstance(block, ToolCall)]
        for call in calls:
            (result,) = messages[position].content
            assert messages[position].role == "tool"
            assert isinstance(result, ToolResult)
            assert (result.tool_call_id, result.name) == (call.id, call.name)
            assert result.content
            position += 1


def check_nothing_left(model: ScriptedModel, bench: Bench) -> None:
    assert model.open_streams == 0
    assert bench.running == 0
