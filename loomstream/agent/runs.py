"""A run as its user holds it: an async iterator of events, and what they come to.

Contract: making and entering a run does no I/O; the loop starts with the first `__anext__`, in a task of its own.
Leaving the run, by any road and from any task, cancels that task and waits until it has closed the stream and stopped
the tools. Nothing is open in the user's task between two events, so nothing raises into it, and runs may be left in any
order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextvars import ContextVar
from enum import Enum
from types import TracebackType
from typing import Self, Unpack, cast

import anyio

from loomstream.agent.approval import Approval, Approve
from loomstream.agent.events import EndReason, RunEvent
from loomstream.agent.history import check_history
from loomstream.agent.limits import RunLimits
from loomstream.agent.loop import Loop, StreamingModel
from loomstream.agent.state import Decision, RunState, check_decisions, check_state
from loomstream.agent.toolbox import GivenTools, TimeLimit, Toolbox
from loomstream.errors import RequestError, StreamCancelled, UsageError
from loomstream.events import Cost, Usage
from loomstream.kind_names import kind_of
from loomstream.messages import Message, Prompt, RequestOptions, Response, check_options, to_messages
from loomstream.transport.background import Background


class _State(Enum):
    NEW = "not yet entered"
    OPEN = "open"
    ENDED = "read to its end"
    FAILED = "failed"
    CANCELLED = "closed by Run.aclose()"
    CLOSED = "closed"


_inside: ContextVar[tuple[Loop, ...]] = ContextVar("inside", default=())
"""The runs whose tools or approvals the running task belongs to."""


class Run:
    """One run of an agent. Use it as `async with agent.run(…) as run: async for event in run: …`.

    Iterating raises only `LoomstreamError`s (and your own task's cancellation). One run has one reader; a read that is
    cancelled by a time limit of yours loses nothing, and can be repeated. What the properties say is current at any
    moment, also after an error or a break; the loop may be up to 64 events ahead of the reader.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._state = _State.NEW
        self._reading = False
        self._background: Background[None] | None = None
        self._entered_in: tuple[Loop, ...] = ()

    async def __aenter__(self) -> Self:
        if self._state is not _State.NEW:
            msg = f"this run is {self._state.value}: a run is used once; begin another with run.messages"
            raise UsageError(msg)
        self._state = _State.OPEN
        self._entered_in = _inside.get()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(_State.CLOSED)

    async def aclose(self) -> None:
        """Stop the model and the tools, and wait until nothing is left; safe to call again, and from another task.

        Whoever reads the run gets `StreamCancelled`. A function that runs in a worker thread is not waited for; one
        that shields itself from cancellation is. A tool of the run may call it too: it is not waited for then. A tool
        of another run that is cancelled meanwhile waits no longer.
        """
        await self._leave(_State.CANCELLED)

    async def _leave(self, state: _State) -> None:
        if self._state in (_State.NEW, _State.OPEN):
            self._state = state
        if self._background is not None:
            self._loop.cancel()
            inside = _inside.get()
            if self._loop not in inside:
                # A tool waits without a shield for a run that is not its own: tools of two runs may close each other's.
                with anyio.CancelScope(shield=not inside or inside == self._entered_in):
                    await self._background.wait(math.inf)

    async def _drive(self) -> None:
        _inside.set((*_inside.get(), self._loop))
        await self._loop.drive()

    # --- iterating -------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunEvent:
        if self._state is not _State.OPEN or self._reading:
            return self._refuse()
        if self._background is None:
            self._loop.prepare()
            self._background = Background(self._drive)
        self._reading = True
        try:
            event = await self._loop.channel.get()
        finally:
            self._reading = False
        if event is None or self._state is not _State.OPEN:
            return await self._end(self._background)
        return event

    async def _end(self, background: Background[None]) -> RunEvent:
        await background.wait(math.inf)
        if self._state is not _State.OPEN:
            return self._refuse()
        self._state = _State.FAILED
        background.result()
        self._state = _State.ENDED
        raise StopAsyncIteration

    def _refuse(self) -> RunEvent:
        match self._state:
            case _State.ENDED:
                raise StopAsyncIteration
            case _State.OPEN:
                msg = "this run is being read already: one run has one reader"
            case _State.NEW:
                msg = "enter the run before reading it: async with agent.run(…) as run"
            case _State.FAILED:
                msg = "this run has failed; its error was raised before, and the conversation is in run.messages"
            case _State.CANCELLED:
                msg = "the run was closed by Run.aclose(); the conversation is in run.messages"
                raise StreamCancelled(msg)
            case _State.CLOSED:
                msg = "this run is closed; the conversation is in run.messages"
        raise UsageError(msg)

    async def collect(self) -> Response:
        """Read to the end, give the last answer; `ended` says whether it is the final one. Raises as iterating does."""
        async for _ in self:
            pass
        return self.response

    # --- what has come ---------------------------------------------------------------------------

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, ready to be sent: each call has its result, where need be an error that says why."""
        return self._loop.messages

    @property
    def response(self) -> Response:
        """The last answer of the model, as far as it has come."""
        return self._loop.response

    @property
    def usage(self) -> Usage | None:
        """The tokens of all turns, None before any were told."""
        return self._loop.tally.usage

    @property
    def cost(self) -> Cost:
        """The cost of all turns; `amount_usd` is None where that of one of them is not known."""
        return self._loop.tally.cost

    @property
    def turns(self) -> int:
        """How often the model was asked, before a pause included."""
        return self._loop.tally.turns

    @property
    def calls(self) -> int:
        """How many calls the model made, those that were not run included."""
        return self._loop.tally.calls

    @property
    def ended(self) -> EndReason | None:
        """Why the run ended, None while it goes on."""
        return self._loop.ended

    @property
    def state(self) -> RunState:
        """A paused run as a value for `resume`. Raises `UsageError` where the run is not paused."""
        if self._loop.ended != "paused":
            msg = f"only a paused run has a state; this one is {self._loop.ended or 'not over'}"
            raise UsageError(msg)
        return self._loop.state


def run(
    model: StreamingModel,
    messages: Prompt,
    given_tools: GivenTools = (),
    /,
    *,
    approve: Approve | None = None,
    limits: RunLimits | None = None,
    parallel: int = 8,
    tool_time_s: TimeLimit = None,
    **options: Unpack[RequestOptions],
) -> Run:
    """Give a run: the model is asked, its calls are run, and it is asked again until it answers without a call.

    `messages` is a user's text, a `Message`, or a conversation. The tools, which may also be given as `tools=`, are
    functions, what `loomstream.tool` made of them, or `Tool`s without a function: calls of those pause the run, for you
    to give the result.

    `approve` is asked before a call runs: a function of the `ToolCall`, which may be asynchronous, gives a bool,
    `Allow()`, `Deny("why")`, `Answer("result")` or `Pause()`; a set of names pauses the run at calls of those tools.
    `limits` are those of the whole run. `parallel` is how many tools run at once (default 8), `tool_time_s` how many
    seconds a call may take: one number, or a mapping from the names of tools (default: no limit).

    The options are those of `Model.stream`, for every turn; a `tool_choice` that forces a call holds for the first one.

    Raises `RequestError` for a conversation, a tool or a limit that cannot be used (two tools of one name, a call
    without a result), `UsageError` for an unknown option or an `approve` that cannot be asked. While it is read, the
    run raises what streams raise, `MiddlewareError` for an `approve` that raised, and `BudgetExceeded` for a limit on
    tokens or money that cannot be kept.
    """
    conversation = to_messages(messages)
    check_history(conversation)
    return Run(
        _loop(model, conversation, _one_of(given_tools, options), approve, limits, parallel, tool_time_s, options)
    )


def resume(  # noqa: PLR0913 (as `run`)
    model: StreamingModel,
    state: RunState,
    given_tools: GivenTools = (),
    decisions: Mapping[str, Decision] | None = None,
    /,
    *,
    approve: Approve | None = None,
    limits: RunLimits | None = None,
    parallel: int = 8,
    tool_time_s: TimeLimit = None,
    **options: Unpack[RequestOptions],
) -> Run:
    """Give a run that goes on where a paused one stopped.

    `decisions` says by the id of each pending call what is done with it: `Allow()`, `Deny("why")` or
    `Answer("result")`. Those without a decision wait on: the others are run, and the run pauses again. The limits count
    what was used before the pause, but not the time of the pause itself. All else is as for `run`, and given again.

    Raises what `run` raises, and `RequestError` for a state that no run left and for a decision that fits no call.
    """
    check_state(state)
    chosen: Mapping[str, Decision] = {} if decisions is None else decisions
    check_decisions(state, chosen)
    loop = _loop(model, (), _one_of(given_tools, options), approve, limits, parallel, tool_time_s, options)
    loop.resume(state, dict(chosen))
    return Run(loop)


def _one_of(tools: GivenTools, options: RequestOptions) -> GivenTools:
    """Give the tools, which may also have been given by name."""
    named = options.get("tools", ())
    if tools and named:
        msg = "tools were given twice: by position and by name"
        raise UsageError(msg)
    return tools or named


def _loop(  # noqa: PLR0913, PLR0917 (what `run` and `resume` share)
    model: StreamingModel,
    conversation: tuple[Message, ...],
    tools: GivenTools,
    approve: Approve | None,
    limits: RunLimits | None,
    parallel: int,
    tool_time_s: TimeLimit,
    options: RequestOptions,
) -> Loop:
    check_options({name: value for name, value in options.items() if name != "tools"})
    if not (isinstance(parallel, int) and parallel > 0):  # pyright: ignore[reportUnnecessaryIsInstance] (no types)
        msg = f"parallel is {parallel!r}: give a whole number above 0"
        raise RequestError(msg)
    if not isinstance(limits, RunLimits | None):  # pyright: ignore[reportUnnecessaryIsInstance] (no types)
        msg = f"limits is {kind_of(limits)}: give loomstream.agent.RunLimits(…)"
        raise RequestError(msg)
    if not callable(getattr(model, "stream", None)):
        msg = f"the model is {model!r} ({type(model).__name__}): give one of loomstream.connect or loomstream.joined"
        raise UsageError(msg)
    toolbox = Toolbox(tools, tool_time_s)
    return Loop(
        model,
        messages=conversation,
        toolbox=toolbox,
        approval=Approval(approve, toolbox.names),
        limits=limits or RunLimits(),
        parallel=parallel,
        options=cast("RequestOptions", {name: value for name, value in options.items() if name != "tools"}),
    )
