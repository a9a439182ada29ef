"""A run from its first turn to its end: events, tools beside the stream, what it comes to."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Self

import anyio
import pytest
from agents import Bench, answer, call_events, check_messages, check_run, names, read, results, wait

import loomstream as ls
from loomstream import agent, errors
from loomstream.agent import RunStop, ToolResultEvent, TurnStart
from loomstream.events import Event
from loomstream.handler import Handler
from loomstream.messages import Image, Request, Text, ToolCall, ToolChoice, ToolResult
from loomstream.testing import Pause, replay_model, scripted_model, text_events, tool_call_events

pytestmark = pytest.mark.anyio


@ls.tool
async def get_weather(city: str) -> str:
    """Give the weather of a city."""
    return f"4 °C in {city}"


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


PICTURE = Image(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
OSLO = ("get_weather", '{"city": "Oslo"}')


class TestARun:
    async def test_it_asks_runs_the_calls_and_asks_again(self) -> None:
        model = scripted_model(tool_call_events("get_weather", '{"city":', ' "Oslo"}'), text_events("It is ", "4 °C."))
        run = agent.run(model, "What is the weather in Oslo?", [get_weather])
        events = await read(run)
        check_run(events)
        assert events[0] == TurnStart(1)
        assert events[-1] == RunStop("done")
        assert results(events) == [("call_0", "ok", "4 °C in Oslo")]
        assert (run.ended, run.turns, run.calls, run.response.text) == ("done", 2, 1, "It is 4 °C.")
        assert run.messages == (
            ls.user("What is the weather in Oslo?"),
            ls.Message("assistant", (ToolCall("call_0", *OSLO),)),
            ls.Message("tool", (ToolResult("call_0", (Text("4 °C in Oslo"),), name="get_weather"),)),
            ls.assistant("It is 4 °C."),
        )
        assert model.requests[1].messages == run.messages[:-1]

    async def test_the_events_of_a_turn_are_those_of_its_stream(self) -> None:
        script = text_events("Hi")
        run = agent.run(scripted_model(script), [ls.user("Hi")])
        assert await read(run) == [TurnStart(1), *script, RunStop("done")]

    async def test_two_calls_and_a_bare_function(self) -> None:
        model = scripted_model(answer(OSLO, ("add", '{"a": 1, "b": 2}')), text_events("Done."))
        run = agent.run(model, "Go", tools=[get_weather, add])
        await read(run)
        texts = [block.content[0] for message in run.messages[2:4] for block in message.content]  # type: ignore[union-attr]
        assert texts == [Text("4 °C in Oslo"), Text("3")]
        check_messages(run.messages)
        assert [tool.name for tool in model.requests[0].tools] == ["get_weather", "add"]

    async def test_collect_gives_the_last_answer(self) -> None:
        model = scripted_model(answer(OSLO), text_events("Cold."))
        async with agent.run(model, "Hi", [get_weather]) as run:
            assert (await run.collect()).text == "Cold."

    async def test_what_the_turns_come_to(self) -> None:
        cost = ls.Cost(provider="p", model="m", amount_usd=Decimal("0.25"), lower_usd=Decimal("0.25"), exact=True)
        usage = ls.Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4, final=True)
        calling = [*answer(OSLO, usage=usage)[:-1], cost, ls.Stop("tool_use")]
        run = agent.run(scripted_model(calling, calling, [*text_events("Hi")[:-1], cost, ls.Stop("end_turn")]), "Hi")
        run = agent.run(
            scripted_model(calling, calling, [*text_events("Hi")[:-1], cost, ls.Stop("end_turn")]), "Hi", [get_weather]
        )
        assert (run.usage, run.cost.amount_usd) == (None, 0)
        await read(run)
        assert run.usage == ls.Usage(
            input_tokens=3, output_tokens=5, cache_read_tokens=6, cache_write_tokens=8, final=True
        )
        assert (run.cost.amount_usd, run.cost.lower_usd, run.cost.upper_usd) == (Decimal("0.75"), Decimal("0.75"), None)
        assert (run.cost.exact, run.cost.attempts, run.cost.provider) == (True, 3, "p")

    async def test_options_go_to_every_turn(self) -> None:
        model = scripted_model(answer(OSLO), text_events("Hi"))
        await read(agent.run(model, "Hi", [get_weather], system="Be brief", max_tokens=7))
        assert [(request.system, request.max_tokens) for request in model.requests] == [("Be brief", 7)] * 2

    @pytest.mark.parametrize(
        ("choice", "modes"),
        [
            ("any", ["any", "auto"]),
            ("get_weather", ["tool", "auto"]),
            ("auto", ["auto", "auto"]),
            (ToolChoice("tool", "get_weather"), ["tool", "auto"]),
            (ToolChoice("none"), ["none", "none"]),
        ],
    )
    async def test_a_forced_call_is_forced_once(self, choice: ToolChoice | str, modes: list[str]) -> None:
        model = scripted_model(answer(OSLO), text_events("Hi"))
        await read(agent.run(model, "Hi", [get_weather], tool_choice=choice))
        assert [request.tool_choice.mode for request in model.requests if request.tool_choice] == modes

    async def test_an_answer_that_the_provider_paused_goes_on(self) -> None:
        model = scripted_model(
            [*text_events("Searching…")[:-1], ls.Stop("pause", "pause_turn")], text_events("Found it.")
        )
        run = agent.run(model, "Search")
        await read(run)
        assert run.messages == (ls.user("Search"), ls.assistant("Searching…"), ls.assistant("Found it."))

    async def test_an_empty_answer_is_no_message(self) -> None:
        run = agent.run(scripted_model(answer(stop="end_turn")), "Hi")
        await read(run)
        assert (run.ended, run.messages) == ("done", (ls.user("Hi"),))

    async def test_tools_see_the_callers_context(self) -> None:
        caller = contextvars.ContextVar("caller", default="nobody")

        async def who() -> str:
            return caller.get()

        caller.set("Ada")
        events = await read(agent.run(scripted_model(answer(("who", "{}")), text_events("Hi")), "Hi", [who]))
        assert results(events) == [("call_0", "ok", "Ada")]

    async def test_any_provider(self) -> None:
        body = (
            b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x1",'
            b'"function":{"name":"get_weather","arguments":"{\\"city\\": \\"Oslo\\"}"}}]}}]}\n\n'
            b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
        )
        last = b'data: {"id":"2","choices":[{"index":0,"delta":{"content":"Cold."},"finish_reason":"stop"}]}\n\n'
        async with replay_model("openai", body, last, model="gpt-4o") as model:
            run = agent.run(model, "Hi", [get_weather])
            events = await read(run)
        check_run([event for event in events if not isinstance(event, ls.Cost)])
        assert (run.response.text, results(events)) == ("Cold.", [("x1", "ok", "4 °C in Oslo")])


class TestToolsBesideTheStream:
    async def test_a_tool_starts_as_soon_as_its_arguments_close(self) -> None:
        bench = Bench()
        script = answer(wait(2), Pause(1), wait(5), Pause(10))
        run = agent.run(scripted_model(script, text_events("Hi")), "Go", [bench.wait])
        events = await read(run)
        check_run(events)
        assert bench.began == [("wait 2", 0), ("wait 5", 1)]
        assert bench.ended == [("wait 2", 2), ("wait 5", 6)]

    async def test_a_result_comes_as_soon_as_it_is_there(self) -> None:
        bench = Bench()
        run = agent.run(scripted_model(answer(wait(2), Pause(10)), text_events("Hi")), "Go", [bench.wait])
        times = dict[str, float]()
        async with run:
            async for event in run:
                times.setdefault(type(event).__name__, anyio.current_time())
        assert (times["ToolResultEvent"], times["Stop"]) == (2, 10)

    async def test_results_come_in_the_order_of_their_ends_and_stand_in_that_of_their_calls(self) -> None:
        bench = Bench()
        run = agent.run(scripted_model(answer(wait(3), wait(1), wait(2)), text_events("Hi")), "Go", [bench.wait])
        events = await read(run)
        assert [call_id for call_id, _, _ in results(events)] == ["call_1", "call_2", "call_0"]
        assert [event.time_s for event in events if isinstance(event, ToolResultEvent)] == pytest.approx([1, 2, 3])
        check_messages(run.messages)
        assert bench.most == 3

    async def test_the_next_turn_starts_when_all_have_results(self) -> None:
        bench = Bench()
        run = agent.run(scripted_model(answer(wait(3), wait(1)), text_events("Hi")), "Go", [bench.wait])
        async with run:
            turns = {event.turn: anyio.current_time() async for event in run if isinstance(event, TurnStart)}
        assert turns == {1: 0, 2: 3}

    @pytest.mark.parametrize(("parallel", "ends"), [(1, [2, 4, 6, 8]), (2, [2, 2, 4, 4]), (8, [2, 2, 2, 2])])
    async def test_no_more_run_at_once_than_allowed_in_the_order_of_the_calls(
        self, parallel: int, ends: list[float]
    ) -> None:
        bench = Bench()
        script = answer(*(wait(2, letter) for letter in "abcd"))
        await read(agent.run(scripted_model(script, text_events("Hi")), "Go", [bench.wait], parallel=parallel))
        assert bench.most == min(parallel, 4)
        assert [at for _, at in bench.ended] == ends
        if parallel == 1:
            assert [name for name, _ in bench.began] == list("abcd")

    async def test_a_slow_reader_holds_the_model_up(self) -> None:
        model = scripted_model([*text_events(*"x" * 500)])
        async with agent.run(model, "Hi") as run:
            await anext(run)
            await anyio.sleep(1)
            assert len(run.response.text) < 100
            assert (await run.collect()).text == "x" * 500

    async def test_a_void_answer_voids_its_calls(self) -> None:
        bench = Bench()
        script = [
            *answer(wait(1), wait(50), wait(60, "queued"))[:-2],
            Pause(2),
            ls.Notice("reset", "failover"),
            *answer(wait(3)),
        ]
        run = agent.run(scripted_model(script, text_events("Hi")), "Go", [bench.wait], parallel=2)
        events = await read(run)
        check_run(events)
        assert results(events) == [("call_0", "ok", "waited 1"), ("call_0", "ok", "waited 3")]
        assert sorted(bench.ended) == [("queued", 2), ("wait 1", 1), ("wait 3", 5), ("wait 50", 2)]
        check_messages(run.messages)
        assert len(run.messages) == 4

    async def test_a_void_call_that_ends_all_the_same_has_no_result(self) -> None:
        async def stubborn() -> str:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(4)
            return "late"

        script = [
            *answer(("stubborn", "{}"))[:-2],
            Pause(1),
            ls.Notice("reset", "failover"),
            *answer(("stubborn", "{}")),
        ]
        run = agent.run(scripted_model(script, text_events("Hi")), "Go", [stubborn])
        events = await read(run)
        check_run(events)
        assert results(events) == [("call_0", "ok", "late")]
        assert anyio.current_time() == pytest.approx(5)

    @pytest.mark.parametrize("asked", [False, True])
    async def test_a_call_that_is_void_before_it_began_does_not_begin(self, *, asked: bool) -> None:
        """Where one read brings the call and what voids it, its task has not made a step."""
        bench = Bench()

        async def approve(call: ToolCall) -> bool:
            with bench.noted(f"approve {call.arguments}"):
                return True

        script = [
            *answer(wait(1, "void"))[:-2], ls.Notice("reset", "failover"), *answer(wait(2, "good")),
        ]  # fmt: skip
        model = scripted_model(script, text_events("Hi"), middleware=[at_once])
        run = agent.run(model, "Go", [bench.wait], parallel=1, approve=approve if asked else None)
        events = await read(run)
        check_run(events)
        assert results(events) == [("call_0", "ok", "waited 2")]
        assert not [name for name, _ in bench.began if "void" in name]

    async def test_calls_of_other_choices_are_not_run(self) -> None:
        other = [ls.ToolCallStart(0, "b", "wait", choice=1), ls.ToolCallEnd(0, "b", "wait", "{}")]
        run = agent.run(scripted_model(answer(*other), text_events("Hi")), "Go", [Bench().wait])
        assert results(await read(run)) == []


class AtOnce:
    """All events of a stream in one batch, as one read of a socket may bring them."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __loomstream_batch__(self) -> list[Event]:
        batch = [event async for event in self._events]
        if not batch:
            raise StopAsyncIteration
        return batch


def at_once(handler: Handler) -> Handler:
    @asynccontextmanager
    async def opened(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async with handler(request) as events:
            yield AtOnce(events)

    return opened


async def broken(model: object, *args: Any, **options: Any) -> None:  # noqa: ANN401 (anything is given)
    agent.run(model, *args, **options)  # type: ignore[arg-type]


def clash() -> ls.Tool:
    return ls.Tool("get_weather")


CALL = ls.Message("assistant", (Text("…"), ToolCall("c1", "f")))
WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (
        ["Hi", [get_weather, clash()]],
        {},
        errors.RequestError,
        r"tools\[0\] and tools\[1\] are both called 'get_weather'",
    ),
    (["Hi", [7]], {}, errors.RequestError, r"tools\[0\] is an int"),
    (["Hi", [Bench.wait]], {}, errors.RequestError, "wait: the parameter self has no type"),
    (["Hi", [add]], {"tools": [add]}, errors.UsageError, "tools were given twice"),
    (["Hi"], {"temprature": 1}, errors.UsageError, "did you mean temperature"),
    ([[]], {}, errors.RequestError, "the prompt is empty"),
    ([[CALL]], {}, errors.RequestError, r"messages\[0\].content\[1\]: the call 'c1' has no result"),
    ([[CALL, ls.user("a"), ls.assistant("b")]], {}, errors.RequestError, r"messages\[0\].content\[1\]: the call 'c1'"),
    (
        [[ls.user("a"), ls.Message("tool", (ToolResult("c9"),))]],
        {},
        errors.RequestError,
        r"messages\[1\].content\[0\]: a result for 'c9', which",
    ),
    (["Hi"], {"limits": {"turns": 3}}, errors.RequestError, "limits is a dict: give loomstream.agent.RunLimits"),
    (["Hi", [add]], {"approve": [["add"]]}, errors.UsageError, r"approve is \[\['add'\]\]: give a function, or a set"),
    (["Hi"], {"parallel": 0}, errors.RequestError, "parallel is 0: give a whole number above 0"),
    (["Hi"], {"tool_time_s": -1}, errors.RequestError, "tool_time_s is -1: give seconds above 0"),
    (
        ["Hi", [add]],
        {"tool_time_s": {"ad": 1}},
        errors.RequestError,
        r"tool_time_s\['ad'\]: there is no tool .* are add",
    ),
    (["Hi", [add]], {"tool_time_s": {"add": 0}}, errors.RequestError, r"tool_time_s\['add'\] is 0"),
    (["Hi", [add]], {"approve": {"ad"}}, errors.RequestError, "approve names 'ad', which is no tool .* there are add"),
    (["Hi", [add]], {"approve": "add"}, errors.UsageError, "approve is a str: give a function, or a set"),
    (["Hi", [add]], {"approve": 7}, errors.UsageError, "approve is an int"),
]


@pytest.mark.parametrize(("args", "options", "error", "words"), WRONG, ids=[each[3][:30] for each in WRONG])
def test_what_cannot_be_run_is_said_at_once(
    args: list[Any], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        agent.run(scripted_model(text_events("Hi")), *args, **options)


class TestReading:
    async def test_nothing_is_asked_before_the_first_read(self) -> None:
        model = scripted_model(text_events("Hi"))
        async with agent.run(model, "Hi"):
            await anyio.sleep(1)
        assert not model.requests

    async def test_a_run_must_be_entered_and_is_used_once(self) -> None:
        run = agent.run(scripted_model(text_events("Hi")), "Hi")
        with pytest.raises(errors.UsageError, match="enter the run"):
            await anext(run)
        assert (run.ended, run.response.text, run.messages) == (None, "", (ls.user("Hi"),))
        await read(run)
        with pytest.raises(errors.UsageError, match="is read to its end: a run is used once"):
            await read(run)
        with pytest.raises(StopAsyncIteration):
            await anext(run)

    async def test_a_run_that_was_left_cannot_be_read(self) -> None:
        async with agent.run(scripted_model(text_events("Hi")), "Hi") as run:
            await anext(run)
        with pytest.raises(errors.UsageError, match="this run is closed; the conversation"):
            await anext(run)

    async def test_a_second_reader_is_refused(self) -> None:
        model = scripted_model([ls.Start(), Pause(5), *text_events("Hi")[1:]])
        refused: list[str] = []

        async def read_too() -> None:
            await anyio.sleep(1)
            try:
                await anext(run)
            except errors.UsageError as error:
                refused.append(str(error))

        async with agent.run(model, "Hi") as run, anyio.create_task_group() as group:
            group.start_soon(read_too)
            assert (await run.collect()).text == "Hi"
        assert refused == ["this run is being read already: one run has one reader"]

    async def test_a_read_that_is_cancelled_loses_nothing(self) -> None:
        script = text_events("a", "b", "c")
        paused = [item for event in script for item in (Pause(3), event)]
        events: list[object] = []
        async with agent.run(scripted_model(paused), "Hi") as run:
            while run.ended is None or len(events) < len(script) + 2:
                with anyio.move_on_after(1):
                    events.append(await anext(run))
        assert events == [TurnStart(1), *script, RunStop("done")]


class TestErrors:
    async def test_the_models_error_comes_out_of_the_iteration(self) -> None:
        bench = Bench()
        script = [*answer(wait(1), wait(100))[:-2], Pause(5), errors.ConnectionLost("gone")]
        model = scripted_model(script)
        events: list[agent.RunEvent] = []
        async with agent.run(model, "Go", [bench.wait]) as run:
            with pytest.raises(errors.ConnectionLost, match="gone") as caught:  # noqa: PT012 (the loop is the point)
                async for event in run:
                    events.append(event)  # noqa: PERF401 (what came before the error)
            with pytest.raises(errors.UsageError, match="has failed"):
                await anext(run)
        assert (run.ended, bench.running, model.open_streams) == ("failed", 0, 0)
        assert results(events) == [
            ("call_0", "ok", "waited 1"),
            ("call_1", "cancelled", "stopped before it had a result: the run failed"),
        ]
        check_messages(run.messages)
        assert caught.value.partial
        assert len(caught.value.partial.tool_calls) == 2
        assert "RunStop" not in names(events)

    async def test_an_answer_that_is_cut_within_a_call(self) -> None:
        script = [*answer(*call_events(0, "wait", "")[:1], ls.ToolCallDelta(0, '{"seconds": 1')), Pause(1)][:-3]
        bench = Bench()
        async with agent.run(scripted_model(script), "Go", [bench.wait]) as run:
            with pytest.raises(errors.StreamTruncated):
                await run.collect()
        check_messages(run.messages)
        (result,) = run.messages[-1].content
        assert isinstance(result, ToolResult)
        assert result.is_error
        assert result.content == (Text("not run: the call was cut before its arguments were whole"),)
        assert not bench.began

    async def test_what_a_request_is_refused_for(self) -> None:
        async with agent.run(scripted_model(text_events("Hi")), "Hi", temperature=float("nan")) as run:
            with pytest.raises(errors.RequestError, match="temperature is nan"):
                await run.collect()
        assert (run.ended, run.messages) == ("failed", (ls.user("Hi"),))

    async def test_what_a_foreign_model_raises_is_typed(self) -> None:
        class Foreign:
            def stream(self, prompt: object, **options: object) -> ls.Stream:
                raise KeyError(prompt, options)

        async with agent.run(Foreign(), "Hi") as run:
            with pytest.raises(errors.MiddlewareError, match="the model raised KeyError: "):
                await run.collect()

    async def test_the_conversation_goes_on_after_an_error(self) -> None:
        failing = [*answer(OSLO)[:-2], errors.Overloaded("busy")]
        model = scripted_model(failing, text_events("Cold."))
        async with agent.run(model, "Hi", [get_weather]) as run:
            with pytest.raises(errors.Overloaded):
                await run.collect()
        again = agent.run(model, run.messages, [get_weather])
        await read(again)
        assert again.response.text == "Cold."

    async def test_an_image_is_a_result(self) -> None:
        async def picture() -> Image:
            return PICTURE

        run = agent.run(scripted_model(answer(("picture", "")), text_events("Hi")), "Hi", [picture])
        check_run(await read(run))
        assert run.messages[2].content == (ToolResult("call_0", (PICTURE,), name="picture"),)
