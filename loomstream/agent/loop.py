"""The loop: ask the model, run what it calls, ask again.

Contract: `drive` runs in a task of its own, with a task group for the tools inside, and gives everything to a
bounded channel; what it raises comes out of `drive` alone, never in an ExceptionGroup. However it ends, by its own end,
an error or `cancel`, no stream and no tool is left, and `messages` is a conversation that can be sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, Unpack, cast

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from loomstream.agent.approval import Approval
from loomstream.agent.calls import Calls
from loomstream.agent.channel import Channel
from loomstream.agent.events import EndReason, RunEvent, RunStop, TurnStart
from loomstream.agent.limits import Reached, RunLimits, Tally, add_usage, reached, spent
from loomstream.agent.state import Decision, RunState
from loomstream.agent.toolbox import Toolbox
from loomstream.errors import LoomstreamError, MiddlewareError
from loomstream.events import Cost, Event, EventBase, Notice, ToolCallEnd, ToolCallStart, Usage
from loomstream.messages import Message, Prompt, RequestOptions, Response, ToolChoice
from loomstream.stream import Stream
from loomstream.tools.schema import words_of

CAPACITY = 64
"""How many events stand ready for a reader that is slower than the model."""


class StreamingModel(Protocol):
    """What a run asks: a `loomstream.Model`, a scripted or replayed one, or anything that streams as they do."""

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give the stream of an answer to a conversation."""
        ...


_FOLLOWED: frozenset[type[EventBase]] = frozenset((ToolCallStart, ToolCallEnd, Notice, Usage, Cost))
"""The events that the loop itself looks at."""

_WHY: dict[EndReason, str] = {
    "tokens": "the run's limit of tokens was reached",
    "cost": "the run's limit of money was reached",
    "time": "the run's time limit was reached",
    "failed": "the run failed",
    "cancelled": "the run was cancelled",
}
"""What the model is told of calls that the end of a run has cut off."""


class Loop:
    """One run. `tally` and `messages` are current at any moment."""

    def __init__(
        self,
        model: StreamingModel,
        *,
        messages: tuple[Message, ...],
        toolbox: Toolbox,
        approval: Approval,
        limits: RunLimits,
        parallel: int,
        options: RequestOptions,
    ) -> None:
        self._model = model
        self._history = messages
        self._toolbox = toolbox
        self._limits = limits
        self._options = options
        self.channel: Channel[RunEvent] = Channel(CAPACITY)
        self._calls = Calls(
            toolbox, approval, parallel=parallel, limit=limits.calls, push=self.channel.push, fail=self._fail
        )
        self._closed = Tally()
        self._stream: Stream | None = None
        self._last: Stream | None = None
        self._usage: Usage | None = None
        """The last one of the answer that is under way."""
        self._void_usage: Usage | None = None
        """That of the answers which became void in this turn: they were billed."""
        self._resumed: Message | None = None
        self._decisions: Mapping[str, Decision] = {}
        self._group: TaskGroup | None = None
        self._scope: anyio.CancelScope | None = None
        self._began_s = math.nan
        self._stop: RunStop | None = None
        self._failure: BaseException | None = None
        self.ended: EndReason | None = None

    def resume(self, state: RunState, decisions: Mapping[str, Decision]) -> None:
        """Take up a paused run in the place of the messages."""
        *before, self._resumed = state.messages
        self._history = tuple(before)
        self._closed = state.tally
        self._decisions = decisions
        self._calls.made = state.tally.calls
        self._calls.restore(state.tally.turns, state.calls)

    # --- what has come ---------------------------------------------------------------------------

    @property
    def tally(self) -> Tally:
        """What was used so far."""
        tally = replace(self._closed, calls=self._calls.made)
        if self._stream is None:
            return tally
        return tally.plus(add_usage(self._void_usage, self._usage), self._stream.cost)

    @property
    def response(self) -> Response:
        """The last answer, as far as it has come."""
        if self._last is not None:
            return self._last.response
        return Response() if self._resumed is None else Response(message=self._resumed)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation, in which every call has a result."""
        answer = self._answer()
        return (*self._history, answer, *self._calls.answers()) if answer.content else self._history

    @property
    def state(self) -> RunState:
        """The run as it paused."""
        return RunState(messages=(*self._history, self._answer()), calls=self._calls.paused(), tally=self.tally)

    def _answer(self) -> Message:
        """Give the answer whose turn is not over."""
        if self._resumed is not None:
            return self._resumed
        return Message("assistant", ()) if self._stream is None else self._stream.response.message

    # --- driving ---------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop the model and the tools."""
        if self._scope is not None:
            self._scope.cancel()

    def prepare(self) -> None:
        """Make what `cancel` needs; within the event loop, before `drive` is started."""
        self._scope = anyio.CancelScope()

    async def drive(self) -> None:
        """Take turns until the run ends. Raises what made it fail."""
        self._began_s = anyio.current_time()
        scope = self._scope or anyio.CancelScope()
        limit_s = self._limits.time_s
        try:
            with scope, anyio.move_on_after(None if limit_s is None else limit_s - self._closed.time_s) as clock:
                await self._work()
            if self._stop is None and clock.cancelled_caught:
                self._stop = RunStop("time", f"the run took longer than {limit_s:g} s")
        finally:
            self._finish()
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            self._calls.attach(group)
            try:
                ended = await self._turns()
                self._stop = RunStop(ended.reason, ended.detail)
            except Exception as error:  # noqa: BLE001 (raised by `drive`, outside the group)
                self._fail(_typed(error))
            group.cancel_scope.cancel()

    def _fail(self, error: BaseException) -> None:
        """End the run with an error; the first one counts."""
        if self._failure is None:
            self._failure = error
        if self._group is not None:
            self._group.cancel_scope.cancel()

    def _finish(self) -> None:
        stop = self._stop or RunStop("cancelled")
        self.ended = "failed" if self._failure is not None else stop.reason
        if self.ended in _WHY:
            self._calls.settle_rest(_WHY[self.ended])
        spent_s = anyio.current_time() - self._began_s
        self._closed = replace(self._closed, time_s=self._closed.time_s + spent_s)
        if self._failure is None:
            self.channel.push(stop)
        self.channel.close()

    # --- turns -----------------------------------------------------------------------------------

    async def _turns(self) -> Reached:
        ended = await self._resume() if self._resumed is not None else None
        while ended is None:
            ended = reached(self._limits, self.tally) or await self._turn()
        return ended

    async def _resume(self) -> Reached | None:
        self._calls.decide(self._decisions)
        return await self._end_turn()

    async def _turn(self) -> Reached | None:
        options = self._turn_options()
        turn = self._closed.turns + 1
        self._closed = replace(self._closed, turns=turn)
        self._calls.begin(turn)
        self.channel.push(TurnStart(turn))
        async with self._model.stream(self._history, **options) as stream:
            self._stream = self._last = stream
            self._usage = self._void_usage = None
            ended = await self._read(stream)
        return ended or await self._end_turn()

    async def _read(self, stream: Stream) -> Reached | None:
        """Pass the events on and start calls as they close; stop where a limit is reached before the answer's end."""
        channel = self.channel
        async for event in stream:
            channel.push(event)
            if event.__class__ in _FOLLOWED:
                ended = self._follow(event)
                if ended is not None:
                    return ended
            if channel.is_full:
                await channel.room()
        return None

    def _follow(self, event: Event) -> Reached | None:
        match event:
            case ToolCallStart():
                self._calls.open(event)
            case ToolCallEnd():
                self._calls.close(event)
            case Notice(kind="reset"):
                self._calls.void()
                self._void_usage, self._usage = add_usage(self._void_usage, self._usage), None
            case Usage(final=final):
                self._usage = event
                return None if final else spent(self._limits, self.tally)
            case Cost(exact=False):
                return spent(self._limits, self.tally)
            case _:
                pass
        return None

    async def _end_turn(self) -> Reached | None:
        """Wait for the results; give why the run ends with this turn, or None where the model is to be asked again."""
        await self._calls.settled()
        if self._calls.pending:
            return Reached("paused", "")
        goes_on = self._calls.present or _is_unfinished(self._stream)
        self._history = self.messages
        self._closed = self.tally
        self._stream = self._resumed = None
        self._calls.begin(self._closed.turns)
        return None if goes_on else Reached("done", "")

    def _turn_options(self) -> RequestOptions:
        """Give the options; a choice that forces a call holds for the first turn only, else no run would end."""
        options = self._options
        if self._toolbox.tools:
            options = cast("RequestOptions", {**options, "tools": self._toolbox.tools})
        if self._closed.turns and _forces_a_call(options.get("tool_choice")):
            options = cast("RequestOptions", {**options, "tool_choice": "auto"})
        return options


def _is_unfinished(stream: Stream | None) -> bool:
    """Say whether the provider has paused an answer that it wants to go on with."""
    stop = None if stream is None else stream.response.stop
    return stop is not None and stop.reason == "pause"


def _forces_a_call(choice: ToolChoice | str | None) -> bool:
    mode = choice.mode if isinstance(choice, ToolChoice) else choice
    return mode not in (None, "auto", "none")


def _typed(error: Exception) -> LoomstreamError:
    if isinstance(error, LoomstreamError):
        return error
    typed = MiddlewareError(f"the model raised {type(error).__name__}: {words_of(error)}")
    typed.__cause__ = error
    return typed
