"""However a run goes and ends, its conversation is whole: random answers, tools, approvals, limits and ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import anyio
import pytest
from agents import Bench, Item, answer, call_events, check_messages, check_nothing_left, check_run
from hypothesis import given, settings
from hypothesis import strategies as st

import loomstream as ls
from loomstream import agent, errors
from loomstream.agent import Allow, Answer, Deny, Pause, RunLimits, RunState
from loomstream.errors import LoomstreamError
from loomstream.testing import Pause as Wait
from loomstream.testing import scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends

CALLS = [
    ("wait", '{"seconds": 0}'),
    ("wait", '{"seconds": 2}'),
    ("wait", '{"seconds": 500}'),
    ("wait", '{"seconds": "soon"}'),
    ("fail", '{"seconds": 1}'),
    ("nothing", "{}"),
    ("ask_human", "{}"),
]


class Plan(NamedTuple):
    """What happens in one run."""

    turns: list[list[Item]]
    decisions: list[agent.Decision]
    limits: RunLimits
    parallel: int
    cancel_s: float | None
    leave_after: int | None


@st.composite
def turns(draw: st.DrawFn) -> list[Item]:
    calls = draw(st.lists(st.sampled_from(CALLS), max_size=4))
    items: list[Item] = []
    for index, (name, arguments) in enumerate(calls):
        items += call_events(index, name, arguments, executable=draw(st.sampled_from([True, True, True, False])))
        items += draw(st.sampled_from([[], [Wait(1)], [Wait(3)], [ls.Usage(output_tokens=50)]]))
    script = answer(*items, stop="tool_use" if calls else "end_turn")
    ends = st.sampled_from([0, 0, 0, 1, 2, 3, 4])
    cut = draw(ends)
    if not cut:
        return script
    how: list[list[Item]] = [[errors.ConnectionLost("gone")], [], [ls.Notice("reset", "again"), *text_events("Again")]]
    return script[:-cut] + draw(st.sampled_from(how))


decisions = st.sampled_from([Allow(), Allow(), Deny("no"), Answer("yes"), Pause()])
limits = st.builds(
    RunLimits,
    turns=st.sampled_from([1, 2, 5]),
    calls=st.sampled_from([None, 1, 3]),
    tokens=st.sampled_from([None, 20, 60]),
    time_s=st.sampled_from([None, 1.5, 30]),
)
plans = st.builds(
    Plan,
    st.lists(turns(), min_size=1, max_size=4),
    st.lists(decisions, min_size=1, max_size=6),
    limits,
    st.integers(1, 3),
    st.sampled_from([None, None, 0, 0.5, 2.5]),
    st.sampled_from([None, None, 1, 5, 12]),
)


class Decider:
    """Gives the decisions in turn, the last one again and again."""

    def __init__(self, given: list[agent.Decision]) -> None:
        self._given = list(given)

    def __call__(self, call: Any) -> agent.Decision:  # noqa: ANN401, ARG002 (any call)
        return self._given.pop(0) if len(self._given) > 1 else self._given[0]


async def follow(run: agent.Run, plan: Plan) -> None:
    events: list[agent.RunEvent] = []
    with anyio.move_on_after(plan.cancel_s):
        try:
            async with run:
                async for event in run:
                    events.append(event)
                    check_messages(run.messages)
                    if plan.leave_after is not None and len(events) > plan.leave_after:
                        break
        except LoomstreamError as error:
            assert run.ended == "failed", error  # noqa: PT017 (only sometimes raised)
    check_messages(run.messages)
    if run.ended in {"done", "turns", "calls", "paused"} and events[-1:] and events[-1].__class__ is agent.RunStop:
        check_run(events)


async def play(plan: Plan) -> None:
    bench = Bench()
    model = scripted_model(*plan.turns, text_events("Done."))
    tools = [bench.wait, bench.fail, ls.Tool("ask_human")]
    options: dict[str, Any] = {"limits": plan.limits, "parallel": plan.parallel, "tool_time_s": 60}
    run = agent.run(model, "Go", tools, approve=Decider(plan.decisions), **options)
    await follow(run, plan)
    if run.ended == "paused":
        state = RunState.decode(run.state.encode())
        answers = {paused.call.id: Answer("later") for paused in state.pending}
        run = agent.resume(model, state, tools, answers, approve=Decider(plan.decisions), **options)
        await follow(run, plan)
    check_nothing_left(model, bench)


@pytest.mark.parametrize("backend", virtual_clock_backends(), ids=lambda backend: backend[0])
@settings(max_examples=150, deadline=None)
@given(plan=plans)
def test_every_call_has_its_result(backend: tuple[str, dict[str, Any]], plan: Plan) -> None:
    name, options = backend
    if name == "trio":  # a clock serves one run
        options = {"clock": type(options["clock"])(autojump_threshold=0)}
    run: Callable[..., None] = partial(anyio.run, backend=name, backend_options=options)
    run(play, plan)
