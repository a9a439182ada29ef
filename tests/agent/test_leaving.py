"""A run that is left early, by any road and at any moment, leaves nothing behind and a conversation that is whole."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import anyio
import anyio.lowlevel
import pytest
from agents import Bench, answer, check_messages, check_nothing_left, read, wait

import loomstream as ls
from loomstream import agent, errors
from loomstream.messages import ToolCall
from loomstream.testing import Pause, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio


def tasks() -> set[int]:
    return {task.id for task in anyio.get_running_tasks()}


class Case:
    """Two turns with tools of all kinds; what they leave can be looked at."""

    def __init__(self) -> None:
        self.bench = Bench()
        script = answer(wait(1), Pause(0.5), ("fail", '{"seconds": 2}'), ("steps", "{}"), wait(3), Pause(0.5))
        self.model: ScriptedModel = scripted_model(script, answer(wait(1), ("steps", "{}")), text_events("a", "b"))
        self.run = agent.run(
            self.model, "Go", [self.bench.wait, self.bench.fail, self.steps], parallel=3, approve=self.approve
        )

    async def steps(self) -> str:
        with self.bench.noted("steps"):
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
        return "done"

    async def approve(self, call: ToolCall) -> bool:
        with self.bench.noted(f"approve {call.name}"):
            await anyio.lowlevel.checkpoint()
        return True

    def check_left(self, before: set[int]) -> None:
        assert tasks() == before
        check_nothing_left(self.model, self.bench)
        check_messages(self.run.messages)


async def ticks(count: int) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def seconds(count: int) -> None:
    await anyio.sleep(count * 0.25)


@pytest.mark.parametrize("wait_for", [ticks, seconds])
async def test_a_cancellation_at_each_moment(wait_for: Callable[[int], Awaitable[None]]) -> None:
    ended: set[str | None] = set()
    for moment in range(40):
        case = Case()
        before = tasks()
        async with anyio.create_task_group() as group:

            async def cancel(group: anyio.abc.TaskGroup = group, moment: int = moment) -> None:
                await wait_for(moment)
                group.cancel_scope.cancel()

            group.start_soon(cancel)
            async with case.run:
                async for _ in case.run:
                    pass
            group.cancel_scope.cancel()
        case.check_left(before)
        ended.add(case.run.ended)
    assert "cancelled" in ended


async def test_leaving_after_each_event() -> None:
    count = len(await read(Case().run))
    for length in range(count + 1):
        case = Case()
        before = tasks()
        async with case.run:
            for _ in range(length):
                await anext(case.run)
        case.check_left(before)
        assert case.run.ended in ({None} if length == 0 else {"cancelled", "done"})


async def test_the_consumers_own_error_stays_what_it_is() -> None:
    for length in range(1, 30):
        case = Case()
        before = tasks()
        with pytest.raises(ValueError, match="mine") as caught:  # noqa: PT012 (the loop is the point)
            async with case.run:
                for _ in range(length):
                    await anext(case.run)
                raise ValueError("mine")  # noqa: EM101
        assert type(caught.value) is ValueError
        assert caught.value.__context__ is None
        case.check_left(before)


@pytest.mark.parametrize("after_s", [0.1, 0.6, 2, 3.5])
async def test_closing_from_another_task(after_s: float) -> None:
    case = Case()
    before = tasks()
    caught: list[str] = []

    async def consume() -> None:
        async with case.run:
            try:
                await case.run.collect()
            except errors.StreamCancelled as error:
                caught.append(str(error))

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await anyio.sleep(after_s)
        await case.run.aclose()
        check_nothing_left(case.model, case.bench)
        await case.run.aclose()
    assert caught == ["the run was closed by Run.aclose(); the conversation is in run.messages"]
    case.check_left(before)


async def test_runs_are_left_in_any_order() -> None:
    first, second, third = Case(), Case(), Case()
    before = tasks()
    for case in (first, second, third):
        await case.run.__aenter__()
        await anext(case.run)
        await anext(case.run)
    await second.run.aclose()
    await first.run.__aexit__(None, None, None)
    second.check_left(tasks())
    assert (await third.run.collect()).text == "ab"
    await third.run.aclose()
    for case in (first, second, third):
        case.check_left(before)


async def test_no_scope_of_the_users_is_touched() -> None:
    """A scope that was opened within the run may be left after it, and one that was opened before it holds."""
    case = Case()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(case.run)
        await anext(case.run)
        with anyio.move_on_after(0.7) as scope:
            await case.run.collect()
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(0.7)
        assert (await case.run.collect()).text == "ab"
    assert case.run.ended == "done"


async def test_an_outer_deadline_ends_it_at_once() -> None:
    case = Case()
    before = tasks()
    with anyio.move_on_after(1.25):
        async with case.run:
            await case.run.collect()
    assert anyio.current_time() == pytest.approx(1.25)
    case.check_left(before)
    assert case.run.ended == "cancelled"


async def test_tools_that_clean_up_are_waited_for() -> None:
    cleaned: list[float] = []

    async def careful() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            cleaned.append(anyio.current_time())

    async with agent.run(scripted_model(answer(("careful", "{}"))), "Go", [careful]) as run:
        async for event in run:
            if isinstance(event, ls.Stop):
                await anyio.sleep(1)
                break
    assert cleaned == [4]
    check_messages(run.messages)


async def test_a_tool_that_has_not_begun_does_not_begin() -> None:
    ran: list[str] = []

    async def at_once() -> None:
        ran.append("at once")

    async def close_then_allow(call: ToolCall) -> bool:
        await run.aclose()
        return call.name == "at_once"

    model = scripted_model(answer(("at_once", "{}")))
    async with agent.run(model, "Go", [at_once], approve=close_then_allow) as run:
        with pytest.raises(errors.StreamCancelled):
            await run.collect()
    assert (run.ended, ran) == ("cancelled", [])
    check_messages(run.messages)


async def test_a_tool_may_end_its_run() -> None:
    async def give_up() -> str:
        await run.aclose()
        return "given up"

    bench = Bench()
    model = scripted_model(answer(wait(9), ("give_up", "{}")))
    before = tasks()
    async with agent.run(model, "Go", [bench.wait, give_up]) as run:
        with pytest.raises(errors.StreamCancelled):
            await run.collect()
    assert tasks() == before
    check_nothing_left(model, bench)
    assert [_words(message) for message in run.messages[2:]] == [
        "stopped before it had a result: the run was cancelled",
        "given up",
    ]


async def test_tools_of_two_runs_may_close_each_others() -> None:
    async def close_other(number: int) -> None:
        await anyio.sleep(1)
        await runs[1 - number].aclose()

    async def read_it(run: agent.Run) -> None:
        with suppress(errors.StreamCancelled):
            await read(run)

    scripts = [answer(("close_other", f'{{"number": {number}}}')) for number in range(2)]
    runs = [agent.run(scripted_model(script), "Go", [close_other]) for script in scripts]
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for run in runs:
                group.start_soon(read_it, run)
    assert "cancelled" in [run.ended for run in runs]  # both, or the one whose tool was not as quick as the other's


async def test_calls_without_a_result_say_why() -> None:
    bench = Bench()
    async with agent.run(scripted_model(answer(wait(9), wait(8))), "Go", [bench.wait], parallel=1) as run:
        async for event in run:
            if isinstance(event, ls.Stop):
                await anyio.sleep(1)
                words = [_words(message) for message in run.messages[2:]]
                assert words == ["no result yet", "no result yet"]
                break
    assert [_words(message) for message in run.messages[2:]] == [
        "stopped before it had a result: the run was cancelled",
        "not run: the run was cancelled",
    ]


def _words(message: ls.Message) -> str:
    (result,) = message.content
    assert isinstance(result, ls.messages.ToolResult)
    return "".join(getattr(block, "text", "") for block in result.content)


@pytest.mark.parametrize("anyio_backend", virtual_clock_backends()[:1], ids=["asyncio"])
async def test_asyncios_own_ways_to_cancel() -> None:
    case = Case()
    before = tasks()

    async def consume() -> None:
        async with case.run:
            await case.run.collect()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(consume(), 1.25)
    case.check_left(before)
    case = Case()
    task = asyncio.create_task(consume())
    await asyncio.sleep(0.8)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    case.check_left(before)


def test_a_loop_that_ends_with_a_run_open() -> None:
    case = Case()

    async def main() -> None:
        run = await case.run.__aenter__()
        await anext(run)

    asyncio.run(main())
    gc.collect()
    check_nothing_left(case.model, case.bench)
    check_messages(case.run.messages)
