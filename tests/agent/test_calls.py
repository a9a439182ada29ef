"""How a call ends: every outcome, and what the model reads of it."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any, Literal

import anyio
import pytest
import trio
from agents import Bench, answer, call_events, check_messages, check_run, read, results, wait

import loomstream as ls
from loomstream import agent
from loomstream.messages import Image, Message, ToolResult
from loomstream.testing import scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.tools import FunctionTool

pytestmark = pytest.mark.anyio


async def lookup(city: Literal["Oslo", "Rome"], days: int = 1) -> str:
    return f"{city} {days}"


async def raises() -> None:
    msg = "the database is down"
    raise OSError(msg)


async def raises_typed() -> None:
    msg = "too fast"
    raise ls.errors.RateLimited(msg)


async def raises_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(raises_typed)


async def raises_two() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(raises_typed)
        group.start_soon(raises)


async def times_out_itself() -> None:
    with anyio.fail_after(1):
        await anyio.sleep(5)


async def forever() -> None:
    await anyio.sleep_forever()


async def swallows() -> str:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(20)
    return "late"


async def unwritable() -> object:
    return object()


async def no_image() -> Image:
    return Image(b"not an image")


class Speechless(Exception):
    def __str__(self) -> str:
        msg = "its words are gone"
        raise LookupError(msg)


async def raises_speechless() -> None:
    raise Speechless


async def leaves() -> str:
    """Its own scope is its own business."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep(1)
    return "left"


def blocking() -> str:
    return threading.current_thread().name


OUTCOMES: list[tuple[Any, str, str, str]] = [
    (lookup, '{"city": "Oslo"}', "ok", "Oslo 1"),
    (leaves, "", "ok", "left"),
    (raises, "{}", "failed", "OSError: the database is down"),
    (raises_typed, "{}", "failed", "too fast"),
    (raises_group, "{}", "failed", "too fast"),
    (raises_two, "{}", "failed", r"ExceptionGroup: .* \(2 sub-exceptions\)"),
    (times_out_itself, "{}", "failed", "TimeoutError: "),
    (raises_speechless, "{}", "failed", "Speechless: no words: its __str__ raised LookupError"),
    (
        unwritable,
        "{}",
        "failed",
        "unwritable gave an object, which JSON cannot write .*: return a str, or .*",
    ),
    (no_image, "{}", "failed", r"the result\[0\] is no image/png: .*"),
    (forever, "{}", "timed_out", "forever took longer than 10 s and was stopped"),
    (lookup, '{"city": "Bonn"}', "invalid_arguments", r"lookup: \$.city: invalid enum value 'Bonn'"),
    (lookup, '{"city": "Oslo", "days": "2"}', "invalid_arguments", r"lookup: \$.days: expected int, got str"),
    (lookup, "{}", "invalid_arguments", r"lookup: \$: object missing required field city"),
    (lookup, '{"city": "Oslo", "day": 1}', "invalid_arguments", r"lookup: \$: object contains unknown field day"),
    (lookup, "no json", "invalid_arguments", "lookup: the arguments are no JSON .*"),
    (lookup, '{"city": ' + "[" * 200 + "]" * 200 + "}", "invalid_arguments", "lookup: the arguments nest deeper.*"),
]


@pytest.mark.parametrize(
    ("function", "arguments", "outcome", "words"), OUTCOMES, ids=lambda each: getattr(each, "__name__", str(each))[:40]
)
async def test_a_call_has_an_outcome_that_the_model_reads(
    function: Any,  # noqa: ANN401 (any function)
    arguments: str,
    outcome: str,
    words: str,
) -> None:
    model = scripted_model(answer((function.__name__, arguments)), text_events("I see."))
    run = agent.run(model, "Go", [function], tool_time_s={function.__name__: 10})
    events = await read(run)
    check_run(events)
    check_messages(run.messages)
    ((call_id, told, text),) = results(events)
    assert (call_id, told, run.ended) == ("call_0", outcome, "done")
    assert re.fullmatch(words, text, re.DOTALL)
    (result,) = model.requests[1].messages[2].content
    assert isinstance(result, ToolResult)
    assert result.is_error == (outcome != "ok")


async def test_a_tool_that_the_model_invents() -> None:
    run = agent.run(scripted_model(answer(("lokup", "{}")), text_events("Hi")), "Go", [lookup, raises])
    assert results(await read(run)) == [
        ("call_0", "unknown_tool", "there is no tool 'lokup'; there are: lookup, raises")
    ]
    run = agent.run(scripted_model(answer(("lokup", "{}")), text_events("Hi")), "Go")
    assert results(await read(run)) == [("call_0", "unknown_tool", "there is no tool 'lokup'; there are: none")]


async def test_a_call_that_was_cut_is_never_run() -> None:
    bench = Bench()
    script = answer(*call_events(0, "wait", '{"seconds": 1}', executable=False), stop="max_tokens")
    run = agent.run(scripted_model(script, text_events("Hi")), "Go", [bench.wait])
    events = await read(run)
    assert results(events) == [
        ("call_0", "not_executable", "not run: the call was cut before its arguments were whole")
    ]
    assert not bench.began
    check_messages(run.messages)


async def test_a_tool_that_is_slow_does_not_hold_up_others() -> None:
    bench = Bench()
    script = answer(wait(1000), wait(1), ("fail", '{"seconds": 2}'))
    run = agent.run(scripted_model(script, text_events("Hi")), "Go", [bench.wait, bench.fail], tool_time_s=60)
    events = await read(run)
    assert results(events) == [
        ("call_1", "ok", "waited 1"),
        ("call_2", "failed", "LookupError: no such place"),
        ("call_0", "timed_out", "wait took longer than 60 s and was stopped"),
    ]
    assert bench.ended[-1] == ("wait 1000", 60)


async def test_the_time_limit_is_that_of_the_tool() -> None:
    bench = Bench()
    script = answer(wait(5), ("fail", '{"seconds": 5}'))
    run = agent.run(scripted_model(script, text_events("Hi")), "Go", [bench.wait, bench.fail], tool_time_s={"fail": 1})
    assert [outcome for _, outcome, _ in results(await read(run))] == ["timed_out", "ok"]


async def test_waiting_for_a_turn_takes_none_of_a_calls_time() -> None:
    bench = Bench()
    run = agent.run(
        scripted_model(answer(wait(5), wait(5)), text_events("Hi")), "Go", [bench.wait], tool_time_s=6, parallel=1
    )
    assert [outcome for _, outcome, _ in results(await read(run))] == ["ok", "ok"]


async def test_a_tool_that_shields_itself_is_waited_for() -> None:
    run = agent.run(scripted_model(answer(("swallows", "")), text_events("Hi")), "Go", [swallows], tool_time_s=1)
    assert results(await read(run)) == [("call_0", "ok", "late")]
    assert anyio.current_time() == pytest.approx(20)


async def test_a_plain_function_runs_in_a_thread_beside_the_stream() -> None:
    run = agent.run(scripted_model(answer(("blocking", "")), text_events("Hi")), "Go", [blocking])
    ((_, outcome, name),) = results(await read(run))
    assert outcome == "ok"
    assert name != threading.main_thread().name


@pytest.mark.parametrize("anyio_backend", virtual_clock_backends()[:1], ids=["asyncio"])
async def test_a_tool_that_cancels_itself() -> None:
    async def cancels() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    bench = Bench()
    run = agent.run(scripted_model(answer(("cancels", ""), wait(1)), text_events("Hi")), "Go", [cancels, bench.wait])
    events = await read(run)
    assert results(events) == [
        ("call_0", "cancelled", "cancels cancelled itself before it had a result"),
        ("call_1", "ok", "waited 1"),
    ]
    assert run.ended == "done"


class Fatal(BaseException):
    """What no handler of errors catches."""


async def test_what_is_no_exception_ends_the_run_and_comes_out_bare() -> None:
    async def fatal() -> None:
        raise Fatal

    bench = Bench()
    model = scripted_model(answer(wait(5), ("fatal", "")), text_events("Hi"))
    with pytest.raises(Fatal):
        await read(run := agent.run(model, "Go", [bench.wait, fatal]))
    assert (run.ended, bench.running, model.open_streams) == ("failed", 0, 0)
    check_messages(run.messages)


async def test_nor_does_a_group_hide_it() -> None:
    async def fatal() -> None:
        msg = "two"
        raise BaseExceptionGroup(msg, [BaseExceptionGroup(msg, [Fatal()])])

    with pytest.raises(Fatal):
        await read(agent.run(scripted_model(answer(("fatal", ""))), "Go", [fatal]))


@pytest.mark.parametrize("anyio_backend", virtual_clock_backends()[1:], ids=["trio"])
async def test_trios_own_nurseries_are_cancelled_as_any_tool_is() -> None:
    """They put cancellations into a group, which is no failure of the tool."""

    async def nested() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    run = agent.run(scripted_model(answer(("nested", ""))), "Go", [nested], limits=agent.RunLimits(time_s=3))
    events = await read(run)
    assert results(events) == [
        ("call_0", "cancelled", "stopped before it had a result: the run's time limit was reached")
    ]
    assert run.ended == "time"


async def test_many_calls_of_one_answer() -> None:
    calls = [("lookup", '{"city": "Oslo"}')] * 300
    run = agent.run(scripted_model(answer(*calls), text_events("Hi")), "Go", [lookup], parallel=3)
    assert len(results(await read(run))) == 300
    check_messages(run.messages)


async def test_calls_with_the_same_id_have_a_result_each() -> None:
    script = answer(ls.ToolCallStart(0, "x", "lookup"), ls.ToolCallDelta(0, '{"city": "Oslo"}'))[:-2]
    script += [ls.ToolCallEnd(0, "x", "lookup", '{"city": "Oslo"}'), ls.ToolCallStart(1, "x", "lookup")]
    script += [ls.ToolCallDelta(1, '{"city": "Rome"}'), ls.ToolCallEnd(1, "x", "lookup", '{"city": "Rome"}')]
    run = agent.run(scripted_model([*script, ls.Stop("tool_use")], text_events("Hi")), "Go", [lookup])
    await read(run)
    assert [_text(message) for message in run.messages[2:4]] == ["Oslo 1", "Rome 1"]


def _text(message: Message) -> str:
    (result,) = message.content
    assert isinstance(result, ToolResult)
    return "".join(getattr(block, "text", "") for block in result.content)


async def test_a_tool_of_one_instance() -> None:
    first, second = Bench(), Bench()
    assert isinstance(first.wait, FunctionTool)
    await read(agent.run(scripted_model(answer(wait(1)), text_events("Hi")), "Go", [second.wait]))
    assert (first.began, second.began) == ([], [("wait 1", 0)])
