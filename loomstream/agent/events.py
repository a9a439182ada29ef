"""What a run gives beside the events of its streams: turns, results of tools, calls that wait, its end.

Contract: immutable values; `encode` and `decode` carry every event of a run through JSON, those of streams included.
The order of a run: `TurnStart`, then the events of that turn's stream in their own order, each call's
`ToolResultEvent` or `CallPending` somewhere behind its `ToolCallEnd`, all of them before the next `TurnStart`; at last
one `RunStop`, or one raised error. A `reset` notice voids the calls of its turn: no result comes for them any more.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from loomstream.errors import RequestError
from loomstream.events import Event, EventBase
from loomstream.messages import ResultContent, Text, ToolCall, ToolResult

Outcome = Literal[
    "ok", "failed", "timed_out", "invalid_arguments", "unknown_tool", "not_executable", "denied", "cancelled"
]
"""How a call ended.

`failed`: the tool raised, or gave what JSON cannot write. `timed_out`: its time limit passed. `invalid_arguments`: not
of the types that it takes; it was not run. `unknown_tool`: the model called what it was not given. `not_executable`:
the call was cut before its arguments were whole; it was not run. `denied`: the approval refused. `cancelled`: the run
ended before the call did, its limit of calls was reached, or the tool cancelled itself.
"""

EndReason = Literal["done", "turns", "calls", "tokens", "cost", "time", "paused", "failed", "cancelled"]
"""Why a run ended.

`done`: the model answered without a call. `turns`, `calls`, `tokens`, `cost`, `time`: that limit was reached. `paused`:
calls wait for a decision or a result. `failed`: an error was raised. `cancelled`: it was left before its end.
"""

Needs = Literal["decision", "result"]
"""What a pending call waits for: whether it may run, or its result (where its tool has no function)."""


class TurnStart(EventBase, frozen=True, tag="turn_start", gc=False):
    """The model is asked; turns count from 1."""

    turn: int


class ToolResultEvent(EventBase, frozen=True, tag="tool_result_event"):
    """A call has its result: `result` is what the model reads, `time_s` for how long the tool ran, in seconds."""

    turn: int
    result: ToolResult
    outcome: Outcome
    time_s: float = 0.0

    @property
    def id(self) -> str:
        """The id of the call."""
        return self.result.tool_call_id

    @property
    def name(self) -> str:
        """The name of the tool."""
        return self.result.name

    @property
    def text(self) -> str:
        """The texts of the result, joined."""
        return "".join(block.text for block in self.result.content if isinstance(block, Text))


class CallPending(EventBase, frozen=True, tag="call_pending"):
    """A call waits for you: the run pauses when all others of its turn have their results."""

    turn: int
    call: ToolCall
    needs: Needs


class RunStop(EventBase, frozen=True, tag="run_stop", gc=False):
    """The run is over; `detail` says more where a limit was reached."""

    reason: EndReason
    detail: str = ""


RunEvent = Event | TurnStart | ToolResultEvent | CallPending | RunStop
"""Any event of a run."""

Content = tuple[ResultContent, ...]
"""What a tool gives."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[RunEvent] = msgspec.json.Decoder(RunEvent)


def encode(event: RunEvent) -> bytes:
    """Give the event as one line of JSON, without the line end."""
    return _encoder.encode(event)


def decode(data: bytes | str) -> RunEvent:
    """Give the event that `encode` wrote. Raises `RequestError` with the place of what is no event of a run."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        msg = f"this is no event of a run: {error}"
        raise RequestError(msg) from None
