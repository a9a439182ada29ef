"""Calls that need a decision: allowed, denied, answered in the tool's place, or paused and resumed from JSON."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import anyio
import pytest
from agents import Bench, answer, check_messages, check_run, read, results, wait
from quiet import QUIET

import loomstream as ls
from loomstream import agent, errors
from loomstream.agent import Allow, Answer, CallPending, Deny, Pause, RunLimits, RunState, RunStop
from loomstream.messages import Image, ToolCall
from loomstream.testing import scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends

pytestmark = pytest.mark.anyio


async def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


DELETE = ("delete", '{"path": "a.txt"}')
TOOL = ls.Tool("ask_human", "Ask a human.")


def model_of(*calls: tuple[str, str]) -> Any:  # noqa: ANN401 (a scripted model)
    return scripted_model(answer(*calls), text_events("Done."))


class TestApprove:
    @pytest.mark.parametrize(
        ("decision", "outcome", "text"),
        [
            (True, "ok", "deleted a.txt"),
            (Allow(), "ok", "deleted a.txt"),
            (False, "denied", "not run: denied"),
            (Deny("ask me first"), "denied", "not run: denied: ask me first"),
            (Answer("it is gone"), "ok", "it is gone"),
            (Answer("no", is_error=True), "failed", "no"),
        ],
    )
    async def test_decisions(self, decision: object, outcome: str, text: str) -> None:
        asked: list[ToolCall] = []

        def approve(call: ToolCall) -> Any:  # noqa: ANN401 (any decision)
            asked.append(call)
            return decision

        async def approve_later(call: ToolCall) -> Any:  # noqa: ANN401 (any decision)
            await anyio.sleep(5)
            return approve(call)

        for ask in (approve, approve_later):
            run = agent.run(model_of(DELETE), "Go", [delete], approve=ask)
            events = await read(run)
            check_run(events)
            check_messages(run.messages)
            assert results(events) == [("call_0", outcome, text)]
            assert run.ended == "done"
        assert asked == [ToolCall("call_0", *DELETE)] * 2

    async def test_who_decides_holds_up_nobody_else(self) -> None:
        bench = Bench()

        async def approve(call: ToolCall) -> bool:
            if call.name == "delete":
                await anyio.sleep(100)
            return True

        run = agent.run(model_of(DELETE, wait(1)), "Go", [delete, bench.wait], approve=approve, parallel=1)
        await read(run)
        assert bench.ended == [("wait 1", 1)]

    async def test_only_calls_that_can_run_are_asked_about(self) -> None:
        asked: list[str] = []

        def approve(call: ToolCall) -> bool:
            asked.append(call.name)
            return True

        run = agent.run(model_of(("delete", "{}"), ("nothing", "{}"), DELETE), "Go", [delete], approve=approve)
        outcomes = [outcome for _, outcome, _ in results(await read(run))]
        assert sorted(outcomes) == ["invalid_arguments", "ok", "unknown_tool"]
        assert asked == ["delete"]

    async def test_what_it_raises_ends_the_run(self) -> None:
        def approve(call: ToolCall) -> bool:
            raise KeyError(call.name)

        bench, model = Bench(), model_of(wait(9), DELETE)
        async with agent.run(
            model, "Go", [bench.wait, delete], approve=lambda call: call.name == "wait" or approve(call)
        ) as run:
            with pytest.raises(errors.MiddlewareError, match="approve raised KeyError for a call of delete: 'delete'"):
                await run.collect()
        assert (run.ended, bench.running, model.open_streams) == ("failed", 0, 0)
        check_messages(run.messages)

    async def test_what_is_no_decision_ends_the_run(self) -> None:
        def approve(call: ToolCall) -> Any:  # noqa: ANN401 (the point)
            return f"yes, {call.name}"

        async with agent.run(model_of(DELETE), "Go", [delete], approve=approve) as run:
            with pytest.raises(errors.UsageError, match="approve gave a str for a call of delete: give a bool"):
                await run.collect()

    @pytest.mark.parametrize("anyio_backend", virtual_clock_backends()[:1], ids=["asyncio"])
    async def test_one_that_cancels_itself_ends_the_run(self) -> None:
        async def approve(call: ToolCall) -> bool:
            future = asyncio.get_running_loop().create_future()
            future.cancel(call.name)
            return await future

        async with agent.run(model_of(DELETE), "Go", [delete], approve=approve) as run:
            with pytest.raises(errors.MiddlewareError, match="approve cancelled itself for a call of delete"):
                await run.collect()


async def paused(*calls: tuple[str, str], tools: Any = (), **options: Any) -> tuple[agent.Run, list[agent.RunEvent]]:  # noqa: ANN401
    run = agent.run(model_of(*calls), "Go", tools or [delete], approve={"delete"}, **options)
    events = await read(run)
    assert run.ended == "paused"
    return run, events


class TestPause:
    async def test_a_call_waits_and_the_others_go_on(self) -> None:
        bench = Bench()
        run, events = await paused(DELETE, wait(3), tools=[delete, bench.wait])
        check_run(events)
        assert [event for event in events if isinstance(event, CallPending)] == [
            CallPending(1, ToolCall("call_0", *DELETE), "decision")
        ]
        assert results(events) == [("call_1", "ok", "waited 3")]
        assert events[-1] == RunStop("paused")
        check_messages(run.messages)
        (call,) = run.state.pending
        assert (call.call, call.needs) == (ToolCall("call_0", *DELETE), "decision")

    @pytest.mark.parametrize(
        ("decision", "outcome", "text"),
        [
            (Allow(), "ok", "deleted a.txt"),
            (Deny("no"), "denied", "not run: denied: no"),
            (Answer("gone"), "ok", "gone"),
            (Answer((Image(url="https://a.test/x.png"),)), "ok", ""),
        ],
    )
    async def test_it_goes_on_from_json(self, decision: agent.Decision, outcome: str, text: str) -> None:
        bench = Bench()
        before, _ = await paused(wait(1), DELETE, tools=[delete, bench.wait])
        state = RunState.decode(before.state.encode())
        assert state == before.state
        model = scripted_model(text_events("Done."))
        run = agent.resume(model, state, [delete, bench.wait], {"call_1": decision})
        check_messages(run.messages)
        events = await read(run)
        check_run(events)
        assert results(events) == [("call_1", outcome, text)]
        assert (run.ended, run.turns, run.calls, run.response.text) == ("done", 2, 2, "Done.")
        assert run.usage is not None
        assert run.usage.input_tokens == 11
        check_messages(run.messages)
        assert model.requests[0].messages == run.messages[:-1]
        assert len(bench.ended) == 1

    async def test_a_tool_without_a_function_comes_back_to_the_caller(self) -> None:
        run = agent.run(model_of(("ask_human", '{"a": 1}'), DELETE), "Go", [TOOL, delete])
        events = await read(run)
        assert [event.needs for event in events if isinstance(event, CallPending)] == ["result"]
        assert results(events) == [("call_1", "ok", "deleted a.txt")]
        with pytest.raises(errors.RequestError, match=r"decisions\['call_0'\]: ask_human has no function to run"):
            agent.resume(model_of(), run.state, [TOOL], {"call_0": Allow()})
        again = agent.resume(scripted_model(text_events("Thanks")), run.state, [TOOL], {"call_0": Answer("yes")})
        await read(again)
        assert again.response.text == "Thanks"
        check_messages(again.messages)

    async def test_decisions_may_come_one_by_one(self) -> None:
        first, _ = await paused(DELETE, DELETE)
        second = agent.resume(scripted_model(text_events("Done.")), first.state, [delete], {"call_1": Allow()})
        events = await read(second)
        assert [(event.call.id, event.needs) for event in events if isinstance(event, CallPending)] == [
            ("call_0", "decision")
        ]
        assert (second.ended, second.turns) == ("paused", 1)
        third = agent.resume(
            scripted_model(text_events("Done.")), second.state, [delete], {"call_0": Deny()}, approve={"delete"}
        )
        await read(third)
        assert third.ended == "done"
        check_messages(third.messages)

    async def test_without_a_decision_nothing_changes(self) -> None:
        first, _ = await paused(DELETE)
        model = scripted_model(text_events("Done."))
        second = agent.resume(model, first.state, [delete])
        await read(second)
        assert (second.ended, model.requests) == ("paused", [])
        assert second.state.calls == first.state.calls

    async def test_a_function_may_pause(self) -> None:
        run = agent.run(model_of(DELETE), "Go", [delete], approve=lambda _: Pause())
        await read(run)
        assert run.ended == "paused"

    async def test_limits_count_what_was_before(self) -> None:
        first, _ = await paused(DELETE, limits=RunLimits(turns=1))
        second = agent.resume(
            scripted_model(text_events("x")), first.state, [delete], {"call_0": Allow()}, limits=RunLimits(turns=1)
        )
        events = await read(second)
        assert (second.ended, results(events)) == ("turns", [("call_0", "ok", "deleted a.txt")])

    async def test_time_counts_but_not_that_of_the_pause(self) -> None:
        bench = Bench()
        limits = RunLimits(time_s=10)
        first, _ = await paused(wait(6), DELETE, tools=[bench.wait, delete], limits=limits)
        await anyio.sleep(1000)
        model = scripted_model(answer(wait(60)))
        second = agent.resume(model, first.state, [bench.wait, delete], {"call_1": Allow()}, limits=limits)
        await read(second)
        assert second.ended == "time"
        assert anyio.current_time() == pytest.approx(1010)
        check_messages(second.messages)

    async def test_arguments_that_no_longer_fit(self) -> None:
        async def remove(name: str) -> str:
            return name

        first, _ = await paused(DELETE)
        second = agent.resume(
            scripted_model(text_events("x")), first.state, [ls.tool(remove, name="delete")], {"call_0": Allow()}
        )
        ((_, outcome, text),) = results(await read(second))
        assert (outcome, text.startswith("delete: $: object")) == ("invalid_arguments", True)

    async def test_only_a_paused_run_has_a_state(self) -> None:
        run = agent.run(model_of(), "Go")
        with pytest.raises(errors.UsageError, match="only a paused run has a state; this one is not over"):
            _ = run.state
        await read(run)
        with pytest.raises(errors.UsageError, match="this one is done"):
            _ = run.state


async def test_it_goes_on_in_another_process() -> None:
    run, _ = await paused(DELETE)
    code = (
        "import anyio, sys, loomstream as ls\n"
        "from loomstream import agent\n"
        "from loomstream.testing import scripted_model, text_events\n"
        "def delete(path: str) -> str: return 'deleted ' + path\n"
        "async def main():\n"
        "    state = agent.RunState.decode(sys.stdin.buffer.read())\n"
        "    model = scripted_model(text_events('Done.'))\n"
        "    async with agent.resume(model, state, [delete], {state.pending[0].call.id: agent.Allow()}) as run:\n"
        "        print((await run.collect()).text, run.messages[-2].content[0].content[0].text)\n"
        "anyio.run(main)\n"
    )
    done = subprocess.run(  # noqa: ASYNC221 (nothing else runs)
        [sys.executable, "-c", code], input=run.state.encode(), env=QUIET, capture_output=True, check=False
    )
    assert (done.stdout.decode().strip(), done.stderr) == ("Done. deleted a.txt", b"")


def answered(state: Any, call_id: str, name: str) -> None:  # noqa: ANN401 (JSON)
    state["calls"][0] |= {"needs": None, "result": {"type": "tool_result", "tool_call_id": call_id, "name": name}}


class TestStates:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda state: state.update(version=9), "the state has version 9; this loomstream reads version 1"),
            (lambda state: state["messages"].pop(), "the state's calls are not those of its last message"),
            (lambda state: state["calls"].pop(), "the state's calls are not those of its last message"),
            (lambda state: state["calls"][0].update(needs=None), r"calls\[0\]: a call has either a result or a need"),
            (lambda state: state["calls"][0].update(needs="luck"), r"this is no state of a run: .*needs"),
            (lambda state: state.update(messages=[]), "the prompt is empty"),
            (lambda state: state["tally"].update(turns=-1), "the state's tally holds a negative count"),
            (lambda state: state["tally"]["usage"].update(input_tokens=-1), "tally holds a negative count"),
            (lambda state: state["tally"]["cost"].update(attempts=-1), "tally holds a negative count"),
            *(
                (lambda state, amount=amount: state["tally"]["cost"].update(amount_usd=amount), "no amount of money")
                for amount in ("NaN", "sNaN", "Infinity", "-1")
            ),
            (lambda state: answered(state, "call_9", "delete"), r"calls\[0\]: the result is of 'call_9' \(delete\)"),
            (lambda state: answered(state, "call_0", "other"), r"calls\[0\]: the result is of 'call_0' \(other\)"),
            (lambda state: state.pop("tally"), "this is no state of a run: .*tally"),
            (
                lambda state: state["messages"].insert(0, state["messages"][1]),
                r"messages\[0\].content\[0\]: the call 'call_0' has no result",
            ),
        ],
    )
    async def test_what_no_run_can_have_left(self, change: Any, words: str) -> None:  # noqa: ANN401 (any change)
        run, _ = await paused(DELETE)
        state = json.loads(run.state.encode())
        change(state)
        with pytest.raises(errors.RequestError, match=words):
            RunState.decode(json.dumps(state))

    @pytest.mark.parametrize(
        "data", [b"", b"[]", b"\xff", "{}", '{"messages": 7}', '{"x":' + "[" * 100_000 + "]" * 100_000 + "}", "\ud800"]
    )
    def test_what_is_no_state(self, data: Any) -> None:  # noqa: ANN401 (anything is given)
        with pytest.raises(errors.RequestError, match="this is no state of a run"):
            RunState.decode(data)

    @pytest.mark.parametrize(
        ("decisions", "words"),
        [
            ({"call_9": Allow()}, r"decisions\['call_9'\]: no call of this id waits; waiting are 'call_0'"),
            ({"call_0": True}, r"decisions\['call_0'\] is a bool: give Allow\(\), Deny"),
            ([("call_0", Allow())], "decisions is a list: give a dict from the ids of calls to decisions"),
        ],
    )
    async def test_decisions_that_fit_no_call(self, decisions: Any, words: str) -> None:  # noqa: ANN401
        run, _ = await paused(DELETE)
        with pytest.raises(errors.RequestError, match=words):
            agent.resume(model_of(), run.state, [delete], decisions)

    def test_what_has_not_been_decoded(self) -> None:
        with pytest.raises(errors.RequestError, match=r"the state is a bytes: give a RunState, as RunState\.decode"):
            agent.resume(model_of(), b"{}")  # type: ignore[arg-type]

    async def test_a_decision_is_about_one_call(self) -> None:
        """Of two calls that a provider gave one id, who allows the first has not seen the second."""
        script = answer(DELETE, ("delete", '{"path": "b.txt"}'))
        same = json.loads(
            json.dumps([json.loads(ls.events.encode(item)) for item in script]).replace("call_1", "call_0")
        )
        model = scripted_model([ls.events.decode(json.dumps(item)) for item in same], text_events("Done."))
        await read(run := agent.run(model, "Go", [delete], approve={"delete"}))
        state = run.state
        for told in ("deleted a.txt", "deleted b.txt"):
            events = await read(run := agent.resume(model, state, [delete], {"call_0": Allow()}))
            assert [text for _, _, text in results(events)] == [told]
            state = run.state if run.ended == "paused" else state
        assert run.ended == "done"
        check_messages(run.messages)

    async def test_money_is_exact_in_json(self) -> None:
        cost = ls.Cost(provider="p", model="m", amount_usd=Decimal("0.1000000000000000000001"), exact=True)
        script = [*answer(DELETE)[:-1], cost, ls.Stop("tool_use")]
        run = agent.run(scripted_model(script), "Go", [delete], approve={"delete"})
        await read(run)
        assert RunState.decode(run.state.encode()).tally.cost.amount_usd == cost.amount_usd

    @pytest.mark.parametrize("content", [7, (), [], ("a",), (Image(b"x"),), (Image(),)])
    def test_what_is_no_answer(self, content: Any) -> None:  # noqa: ANN401 (anything is given)
        with pytest.raises(errors.RequestError):
            Answer(content)
