"""Agents: a model, its tools, and the loop between them.

    async with agent.run(model, "What is the weather in Oslo?", [get_weather]) as run:
        async for event in run:
            ...

Contract: a run is an async iterator of the events of every turn's stream, and of `TurnStart`, `ToolResultEvent`,
`CallPending` and `RunStop`. Tools start as soon as their arguments close, beside the stream. However a run ends,
`run.messages` can be sent, and nothing is left behind.
"""

from __future__ import annotations

from loomstream.agent.approval import Approve
from loomstream.agent.events import (
    CallPending,
    EndReason,
    Needs,
    Outcome,
    RunEvent,
    RunStop,
    ToolResultEvent,
    TurnStart,
    decode,
    encode,
)
from loomstream.agent.limits import RunLimits
from loomstream.agent.loop import StreamingModel
from loomstream.agent.runs import Run, resume, run
from loomstream.agent.state import Allow, Answer, Decision, Deny, Pause, PausedCall, RunState

__all__ = (
    "Allow",
    "Answer",
    "Approve",
    "CallPending",
    "Decision",
    "Deny",
    "EndReason",
    "Needs",
    "Outcome",
    "Pause",
    "PausedCall",
    "Run",
    "RunEvent",
    "RunLimits",
    "RunState",
    "RunStop",
    "StreamingModel",
    "ToolResultEvent",
    "TurnStart",
    "decode",
    "encode",
    "resume",
    "run",
)
