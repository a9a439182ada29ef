"""The calls of one turn: decided on, run beside the stream in a task group, settled.

Contract: `open`, `close` and `void` follow the stream's events and never wait. Every call gets one result, or waits for
the caller; each is told by one event. At most `parallel` tools run at once, begun in the order in which their calls
were allowed. No tool raises into the task group: what is no result goes to `fail`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from loomstream.agent.approval import Approval
from loomstream.agent.events import CallPending, Content, Needs, Outcome, RunEvent, ToolResultEvent
from loomstream.agent.state import Allow, Answer, Decision, Deny, Pause, PausedCall
from loomstream.agent.toolbox import Toolbox, execute, read, text
from loomstream.errors import InvalidArguments, MiddlewareError
from loomstream.events import ToolCallEnd, ToolCallStart
from loomstream.messages import Message, ToolCall, ToolResult

CUT = "not run: the call was cut before its arguments were whole"


_Work = Callable[["_Slot"], Awaitable[None]]


class _Slot:
    """A call on its way to its result."""

    __slots__ = ("began_s", "call", "closed", "needs", "result", "run", "scope", "void")

    def __init__(self, call: ToolCall) -> None:
        self.call = call
        self.closed = False
        self.run: Callable[[], Awaitable[tuple[Outcome, Content]]] = _nothing
        self.needs: Needs | None = None
        self.result: ToolResult | None = None
        self.scope: anyio.CancelScope | None = None
        self.began_s: float | None = None
        self.void = False

    @property
    def busy(self) -> bool:
        return self.result is None and self.needs is None


class Calls:
    """See the module's contract. `made` counts the calls of all turns, those that were not run included."""

    def __init__(
        self,
        toolbox: Toolbox,
        approval: Approval,
        *,
        parallel: int,
        limit: int | None,
        push: Callable[[RunEvent], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._toolbox = toolbox
        self._approval = approval
        self._parallel = parallel
        self._limit = limit
        self._push = push
        self._fail = fail
        self._group: TaskGroup | None = None
        self._slots: dict[int, _Slot] = {}
        self._allowed: deque[_Slot] = deque()
        self._running = 0
        self._changed: anyio.Event | None = None
        self._turn = 0
        self.made = 0

    def attach(self, group: TaskGroup) -> None:
        """Say in which task group tools run."""
        self._group = group

    def begin(self, turn: int) -> None:
        """Begin a turn, without calls."""
        self._turn = turn
        self._slots = {}

    def restore(self, turn: int, paused: Iterable[PausedCall]) -> None:
        """Take up the calls of a paused turn."""
        self.begin(turn)
        for index, each in enumerate(paused):
            slot = self._slots[index] = _Slot(each.call)
            slot.closed, slot.result, slot.needs = True, each.result, each.needs

    def decide(self, decisions: Mapping[str, Decision]) -> None:
        """Go on with the calls that wait, as far as there are decisions; tell the others again.

        A decision is about one call: of two that have one id, the first.
        """
        left = dict(decisions)
        for slot in self._slots.values():
            if slot.needs is not None:
                decision = left.pop(slot.call.id, Pause())
                needs, slot.needs = slot.needs, None
                if isinstance(decision, Pause):
                    self._wait(slot, needs)
                elif isinstance(decision, Allow):
                    self._prepare(slot, decision)
                else:
                    self._apply(slot, decision)

    # --- following the stream --------------------------------------------------------------------

    def open(self, event: ToolCallStart) -> None:
        """A call begins. Those of other choices than the first are not the run's."""
        if event.choice == 0:
            self._slots[event.index] = _Slot(ToolCall(event.id, event.name, "", executable=False))

    def close(self, event: ToolCallEnd) -> None:
        """A call is whole: start it, or say why not."""
        slot = self._slots.get(event.index)
        if slot is None:
            return
        slot.closed = True
        slot.call = ToolCall(event.id, event.name, event.arguments, event.opaque, executable=event.executable)
        self.made += 1
        if self._limit is not None and self.made > self._limit:
            self._settle(slot, "cancelled", text(f"not run: the limit of {self._limit} calls was reached"))
        else:
            self._prepare(slot)

    def void(self) -> None:
        """The answer is void: stop its calls, and forget them."""
        for slot in self._slots.values():
            slot.void = True
            if slot.scope is not None:
                slot.scope.cancel()
        self._slots = {}
        self._allowed.clear()

    async def settled(self) -> None:
        """Wait until every call has its result, or waits for the caller. A call that never closed was cut."""
        for slot in self._slots.values():
            if not slot.closed:
                self._settle(slot, "not_executable", text(CUT))
        for slot in self._slots.values():  # what is settled, or waits for the caller, stays so
            while slot.busy:
                self._changed = anyio.Event()
                await self._changed.wait()

    def settle_rest(self, why: str) -> None:
        """The run ends before its calls do: give those without a result an error that says why."""
        for slot in self._ordered():
            if slot.result is None:
                begun = "stopped before it had a result" if slot.began_s is not None else "not run"
                outcome, words = ("cancelled", f"{begun}: {why}") if slot.closed else ("not_executable", CUT)
                self._settle(slot, outcome, text(words))

    # --- what has come ---------------------------------------------------------------------------

    @property
    def present(self) -> bool:
        """Whether there are calls in this turn."""
        return bool(self._slots)

    @property
    def pending(self) -> bool:
        """Whether calls wait for the caller."""
        return any(slot.needs is not None for slot in self._slots.values())

    def paused(self) -> tuple[PausedCall, ...]:
        """Give the calls as a state keeps them."""
        return tuple(PausedCall(call=slot.call, result=slot.result, needs=slot.needs) for slot in self._ordered())

    def answers(self) -> tuple[Message, ...]:
        """Give one message for each call; where there is no result yet, an error that says so."""
        return tuple(Message("tool", (slot.result or _missing(slot),)) for slot in self._ordered())

    def _ordered(self) -> list[_Slot]:
        return [slot for _, slot in sorted(self._slots.items())]

    # --- a call's way ----------------------------------------------------------------------------

    def _prepare(self, slot: _Slot, decision: Decision | None = None) -> None:
        """Refuse what cannot run, read the arguments, and ask whether it may where that is not decided."""
        call = slot.call
        if not call.executable:
            self._settle(slot, "not_executable", text(CUT))
        elif call.name not in self._toolbox:
            known = ", ".join(self._toolbox.names) or "none"
            self._settle(slot, "unknown_tool", text(f"there is no tool {call.name!r}; there are: {known}"))
        elif (tool := self._toolbox.function(call.name)) is None:
            self._wait(slot, "result")
        elif isinstance(values := read(tool, call.arguments), InvalidArguments):
            self._settle(slot, "invalid_arguments", text(str(values)))
        else:
            slot.run = partial(execute, tool, values, self._toolbox.time_limit_s(call.name))
            self._apply(slot, decision or self._approval.known(call.name))

    def _apply(self, slot: _Slot, decision: Decision | None) -> None:
        if slot.void:
            return
        match decision:
            case None:
                self._start(self._ask, slot)
            case Allow():
                self._allowed.append(slot)
                self._launch()
            case Deny(reason=reason):
                self._settle(slot, "denied", text(f"not run: denied{': ' * bool(reason)}{reason}"))
            case Answer(content=content, is_error=is_error):
                blocks = text(content) if isinstance(content, str) else content
                self._settle(slot, "failed" if is_error else "ok", blocks)
            case Pause():
                self._wait(slot, "decision")

    async def _ask(self, slot: _Slot) -> None:
        if not slot.void:
            self._apply(slot, await self._approval.ask(slot.call))

    def _launch(self) -> None:
        while self._allowed and self._running < self._parallel:
            self._running += 1
            self._start(self._run, self._allowed.popleft())

    async def _run(self, slot: _Slot) -> None:
        try:
            if not slot.void:  # voided before this task's first step, there was no scope to cancel
                slot.began_s = anyio.current_time()
                self._settle(slot, *await slot.run())
        finally:
            self._running -= 1

    def _start(self, work: _Work, slot: _Slot) -> None:
        if self._group is not None:
            self._group.start_soon(self._guarded, work, slot)

    async def _guarded(self, work: _Work, slot: _Slot) -> None:
        try:
            with anyio.CancelScope() as slot.scope:
                await anyio.lowlevel.checkpoint_if_cancelled()  # else it would run up to where it first waits
                await work(slot)
        except anyio.get_cancelled_exc_class():
            if anyio.get_current_task().has_pending_cancellation():
                raise
            self._fail(MiddlewareError(f"approve cancelled itself for a call of {slot.call.name}"))
        except BaseException as error:  # noqa: BLE001 (nothing is raised into the task group)
            self._fail(error)
        self._launch()

    def _wait(self, slot: _Slot, needs: Needs) -> None:
        slot.needs = needs
        self._push(CallPending(self._turn, slot.call, needs))
        self._note_change()

    def _settle(self, slot: _Slot, outcome: Outcome, content: Content) -> None:
        if slot.void or slot.result is not None:
            return
        time_s = 0.0 if slot.began_s is None else anyio.current_time() - slot.began_s
        slot.needs = None
        slot.result = ToolResult(slot.call.id, content, is_error=outcome != "ok", name=slot.call.name)
        self._push(ToolResultEvent(self._turn, slot.result, outcome, time_s))
        self._note_change()

    def _note_change(self) -> None:
        if self._changed is not None:
            self._changed.set()


async def _nothing() -> tuple[Outcome, Content]:
    """Stand where a call's arguments have not been read."""
    return "not_executable", text(CUT)


def _missing(slot: _Slot) -> ToolResult:
    words = "not run yet: it waits" if slot.needs is not None else "no result yet"
    return ToolResult(slot.call.id, text(words), is_error=True, name=slot.call.name)
