"""A paused run as a value, and the decisions that let it go on.

Contract: immutable; a `RunState` goes through JSON, to be resumed later and in another process. It holds no tools, no
model and no options: they are given again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, cast

import msgspec
from msgspec import Struct

from loomstream.agent.events import Content, Needs
from loomstream.agent.history import check_history
from loomstream.agent.limits import Tally
from loomstream.agent.toolbox import checked
from loomstream.errors import RequestError
from loomstream.kind_names import kind_of
from loomstream.messages import Message, ResultContent, ToolCall, ToolResult, to_messages

STATE_VERSION = 1
"""Version of the states' JSON form."""


class Allow(Struct, frozen=True, tag="allow", tag_field="type"):
    """The call may run."""


class Deny(Struct, frozen=True, tag="deny", tag_field="type"):
    """The call is not run; the model reads `reason`."""

    reason: str = ""


class Answer(Struct, frozen=True, tag="answer", tag_field="type"):
    """The call is not run; this is its result: a text, or texts and images. Raises `RequestError` for anything else."""

    content: str | Content
    is_error: bool = False

    def __post_init__(self) -> None:
        content: object = self.content
        blocks = cast("tuple[object, ...]", content) if isinstance(content, tuple) else ()
        if not isinstance(content, str) and not (blocks and all(isinstance(each, ResultContent) for each in blocks)):
            msg = f"Answer({content!r}): give a text, or a tuple of loomstream.messages.Text, Image and Document"
            raise RequestError(msg)
        checked(cast("Content", blocks))


class Pause(Struct, frozen=True, tag="pause", tag_field="type"):
    """The call waits: the run pauses when all others of its turn have their results."""


Decision = Allow | Deny | Answer | Pause
"""What is done with a call."""


class PausedCall(Struct, frozen=True, kw_only=True):
    """A call of the turn in which a run paused: with its result, or with what it `needs`."""

    call: ToolCall
    result: ToolResult | None = None
    needs: Needs | None = None


class RunState(Struct, frozen=True, kw_only=True):
    """A paused run: the conversation up to the answer whose calls wait, those calls, and what was used so far."""

    messages: tuple[Message, ...]
    calls: tuple[PausedCall, ...]
    tally: Tally
    version: int = STATE_VERSION

    @property
    def pending(self) -> tuple[PausedCall, ...]:
        """The calls that wait."""
        return tuple(paused for paused in self.calls if paused.result is None)

    def encode(self) -> bytes:
        """Give the state as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes | str) -> Self:
        """Give the state that `encode` wrote. Raises `RequestError` with the place of what is none."""
        try:
            state = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            msg = f"this is no state of a run: {error}"
            raise RequestError(msg) from None
        check_state(state)
        return state


def check_state(state: RunState) -> None:
    """Raise `RequestError` for a state that no run can have left."""
    if not isinstance(state, RunState):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
        msg = f"the state is {kind_of(state)}: give a RunState, as RunState.decode makes it of JSON"
        raise RequestError(msg)
    if state.version != STATE_VERSION:
        msg = f"the state has version {state.version}; this loomstream reads version {STATE_VERSION}"
        raise RequestError(msg)
    *before, answer = to_messages(state.messages)
    check_history(before)
    called = [block for block in answer.content if isinstance(block, ToolCall)]
    if answer.role != "assistant" or called != [paused.call for paused in state.calls]:
        msg = "the state's calls are not those of its last message: give the state as the run left it"
        raise RequestError(msg)
    for position, paused in enumerate(state.calls):
        _check_paused(f"calls[{position}]", paused)
    _check_tally(state.tally)


def _check_paused(place: str, paused: PausedCall) -> None:
    call, result = paused.call, paused.result
    if (result is None) == (paused.needs is None):
        msg = f"{place}: a call has either a result or a need"
        raise RequestError(msg)
    if result is not None and (result.tool_call_id, result.name) != (call.id, call.name):
        msg = (
            f"{place}: the result is of {result.tool_call_id!r} ({result.name}), the call is {call.id!r} ({call.name})"
        )
        raise RequestError(msg)


def _check_tally(tally: Tally) -> None:
    used, cost = tally.usage, tally.cost
    counts = [tally.turns, tally.calls, tally.time_s, cost.attempts]
    if used is not None:
        counts += [used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens]
    if min(counts) < 0:
        msg = "the state's tally holds a negative count: give what RunState.encode gave"
        raise RequestError(msg)
    amounts = (cost.amount_usd, cost.lower_usd, cost.upper_usd)
    if any(amount is not None and not (amount.is_finite() and amount >= 0) for amount in amounts):
        msg = "the state's tally holds a cost that is no amount of money: give what RunState.encode gave"
        raise RequestError(msg)


def check_decisions(state: RunState, decisions: Mapping[str, Decision]) -> None:
    """Raise `RequestError` for a decision about no pending call, or one that does not fit it."""
    if not isinstance(decisions, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
        msg = f"decisions is {kind_of(decisions)}: give a dict from the ids of calls to decisions"
        raise RequestError(msg)
    pending: dict[str, PausedCall] = {}
    for paused in state.pending:
        pending.setdefault(paused.call.id, paused)  # of two with one id a decision is for the first
    for call_id, decision in decisions.items():
        paused = pending.get(call_id)
        if paused is None:
            waiting = ", ".join(map(repr, pending)) or "none"
            msg = f"decisions[{call_id!r}]: no call of this id waits; waiting are {waiting}"
            raise RequestError(msg)
        if not isinstance(decision, Decision):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
            msg = f"decisions[{call_id!r}] is {kind_of(decision)}: give Allow(), Deny(…), Answer(…) or Pause()"
            raise RequestError(msg)
        if paused.needs == "result" and isinstance(decision, Allow):
            msg = f"decisions[{call_id!r}]: {paused.call.name} has no function to run: give Answer(…) or Deny(…)"
            raise RequestError(msg)
