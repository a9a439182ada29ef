"""Calls of a tool: arguments checked, results as text, errors for the model."""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread
import msgspec
import pytest

import loomstream as ls
from loomstream import errors
from loomstream.messages import Image, Text, ToolCall, ToolResult
from loomstream.testing import scripted_model, text_events

pytestmark = pytest.mark.anyio


@dataclass
class Place:
    city: str
    height: float = 0


@ls.tool
async def weather(place: Place, days: Annotated[int, msgspec.Meta(ge=1)] = 1, unit: Literal["C", "F"] = "C") -> str:
    """Give the weather."""
    return f"{place.city} {days} {unit}"


async def answer(tool: Any, arguments: str = "{}", **call: Any) -> tuple[str, bool]:  # noqa: ANN401 (any tool)
    message = await tool.answer(ToolCall("call_1", tool.name, arguments, **call))
    (result,) = message.content
    assert message.role == "tool"
    assert isinstance(result, ToolResult)
    assert (result.tool_call_id, result.name) == ("call_1", tool.name)
    (text,) = result.content
    assert isinstance(text, Text)
    return text.text, result.is_error


class TestArguments:
    def test_they_are_of_the_parameters_types(self) -> None:
        decoded = weather.decode('{"place":{"city":"Oslo","height":3},"days":2}')
        assert decoded == {"place": Place("Oslo", 3.0), "days": 2}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ('{"place":{"city":7}}', "weather: $.place.city: expected str, got int"),
            ('{"place":{"city":"a"},"days":0}', "weather: $.days: expected int >= 1"),
            ('{"place":{"city":"a"},"days":"1"}', "weather: $.days: expected int, got str"),
            ('{"place":{"city":"a"},"days":1.0}', "weather: $.days: expected int, got float"),
            ('{"place":{"city":"a"},"unit":"K"}', "weather: $.unit: invalid enum value 'K'"),
            ('{"place":{"city":"a"},"town":1}', "weather: $: object contains unknown field town"),
            ("{}", "weather: $: object missing required field place"),
            ("", "weather: $: object missing required field place"),
            ("[]", "weather: $: expected object, got array"),
        ],
    )
    def test_wrong_ones_say_where(self, arguments: str, message: str) -> None:
        with pytest.raises(errors.InvalidArguments) as caught:
            weather.decode(arguments)
        assert str(caught.value) == message

    @pytest.mark.parametrize("arguments", ['{"place":', "nonsense", '{"place": NaN}', '"\\ud800"', "\ud800"])
    def test_what_is_no_json(self, arguments: str) -> None:
        with pytest.raises(errors.InvalidArguments, match="weather: the arguments are no JSON"):
            weather.decode(arguments)

    def test_nesting_is_bounded(self) -> None:
        with pytest.raises(errors.InvalidArguments, match="nest deeper than 128"):
            weather.decode('{"place":' + "[" * 5000 + "]" * 5000 + "}")

    def test_an_empty_text_is_an_empty_object(self) -> None:
        assert ls.tool(lambda: 1, name="f").decode(" ") == {}

    def test_a_type_that_refuses_with_an_error_of_its_own(self) -> None:
        def take(thing: Fussy) -> None: ...

        with pytest.raises(errors.InvalidArguments, match=r"take: \$: refused \(KeyError: 1\)"):
            ls.tool(take).decode('{"thing":{"x":1}}')

    def test_a_type_that_refuses_without_words(self) -> None:
        def take(thing: Silent) -> None: ...

        with pytest.raises(errors.InvalidArguments, match=r"refused \(Speechless: no words: .* raised LookupError\)"):
            ls.tool(take).decode('{"thing":{"x":1}}')

    def test_a_type_with_a_schema_that_nothing_reads(self) -> None:
        def take(thing: Annotated[Adder, msgspec.Meta(extra_json_schema={"type": "string"})]) -> None: ...

        with pytest.raises(errors.InvalidArguments, match=r"take: \$.thing: nothing reads a Adder"):
            ls.tool(take).decode('{"thing":"a"}')


class Fussy(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        raise KeyError(self.x)


class Speechless(Exception):
    def __str__(self) -> str:
        raise LookupError


class Silent(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        raise Speechless


class Adder:
    def __init__(self) -> None:
        self.total = 0

    async def __call__(self, n: int) -> int:
        self.total += n
        return self.total

    def later(self, n: int) -> Awaitable[int]:
        return self(n)


def thread_name() -> str:
    return threading.current_thread().name


class TestResults:
    async def test_a_text_is_given_as_it_is(self) -> None:
        assert await weather.call('{"place":{"city":"Oslo"}}') == "Oslo 1 C"
        assert await answer(weather, '{"place":{"city":"Oslo"},"unit":"F"}') == ("Oslo 1 F", False)

    @pytest.mark.parametrize(
        ("result", "text"),
        [(None, "null"), (1.5, "1.5"), ({"a": [1]}, '{"a":[1]}'), (Place("é"), '{"city":"é","height":0}'), ([], "[]")],
    )
    async def test_others_are_json(self, result: object, text: str) -> None:
        assert await answer(ls.tool(lambda: result, name="f")) == (text, False)

    async def test_half_a_character_is_mended(self) -> None:
        assert await answer(ls.tool(lambda: "file-\udcff \U0001f600", name="read")) == ("file-\ufffd \U0001f600", False)

    async def test_texts_and_images_are_blocks(self) -> None:
        picture = Image(b"\x89PNG")
        for result, content in [(picture, (picture,)), ([Text("a"), picture], (Text("a"), picture))]:
            message = await ls.tool(partial(_same, result), name="f").answer(ToolCall("1", "f"))
            assert message.content == (ToolResult("1", content, name="f"),)

    async def test_a_plain_function_runs_in_a_worker_thread(self) -> None:
        assert await ls.tool(thread_name).call("{}") != thread_name()

    async def test_objects_partials_and_functions_that_give_an_awaitable(self) -> None:
        adder = Adder()
        assert await ls.tool(adder).call('{"n":2}') == "2"
        assert await ls.tool(partial(adder, n=3), name="three").call("{}") == "5"
        assert await ls.tool(adder.later).call('{"n":4}') == "9"

    async def test_a_tool_is_called_like_its_function(self) -> None:
        assert await weather(Place("Rome"), 2) == "Rome 2 C"
        assert (weather.__name__, weather.__doc__, repr(weather)) == (
            "weather",
            "Give the weather.",
            "<FunctionTool weather>",
        )


def _same(given: Any) -> Any:  # noqa: ANN401 (any result)
    return given


def fail() -> None:
    msg = "no such city"
    raise LookupError(msg)


def stop() -> None:
    raise StopIteration


async def fail_later() -> None:
    fail()


async def fail_typed() -> None:
    msg = "too fast"
    raise errors.RateLimited(msg)


def unwritable() -> object:
    return object()


class TestErrorsForTheModel:
    @pytest.mark.parametrize(
        ("function", "text"),
        [
            (fail, "LookupError: no such city"),
            (fail_later, "LookupError: no such city"),
            (fail_typed, "too fast"),
            (stop, "RuntimeError: coroutine raised StopIteration"),
        ],
    )
    async def test_what_a_function_raises(self, function: Any, text: str) -> None:  # noqa: ANN401 (any function)
        assert await answer(ls.tool(function)) == (text, True)

    async def test_wrong_arguments(self) -> None:
        assert await answer(weather, '{"place":1}') == ("weather: $.place: expected object, got int", True)

    async def test_a_result_that_json_cannot_write(self) -> None:
        text, is_error = await answer(ls.tool(unwritable))
        assert is_error
        assert text.startswith("unwritable gave an object, which JSON cannot write")
        with pytest.raises(errors.RequestError, match="which JSON cannot write"):
            await ls.tool(unwritable).call("{}")

    async def test_a_call_that_was_cut_is_not_run(self) -> None:
        adder = Adder()
        text, is_error = await answer(ls.tool(adder), '{"n":2}', executable=False)
        assert (is_error, adder.total) == (True, 0)
        assert text.startswith("not run: the call was cut")

    async def test_a_call_of_another_tool(self) -> None:
        with pytest.raises(errors.UsageError, match="a call of 'other' was given to the tool 'weather'"):
            await weather.answer(ToolCall("1", "other"))

    async def test_cancellation_passes(self) -> None:
        @ls.tool
        async def wait() -> None:
            await anyio.sleep_forever()

        answers = list[object]()

        async def ask() -> None:
            answers.append(await wait.answer(ToolCall("1", "wait")))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert not answers

    async def test_a_worker_thread_is_not_waited_for(self) -> None:
        started, gate, finished = threading.Event(), threading.Event(), list[bool]()

        def wait() -> None:
            started.set()
            gate.wait(10)
            finished.append(True)

        async with anyio.create_task_group() as group:
            group.start_soon(ls.tool(wait).answer, ToolCall("1", "wait"))
            await anyio.to_thread.run_sync(started.wait)
            group.cancel_scope.cancel()
        before = list(finished)
        gate.set()
        assert not before


class TestNames:
    def test_the_decorator_with_arguments(self) -> None:
        @ls.tool(name="look-up", description="Look it up.")
        def f(query: str) -> str:
            """Not told."""
            return query

        assert (f.name, f.description, f("a")) == ("look-up", "Look it up.", "a")


class Shop:
    def __init__(self, price: float) -> None:
        self._price = price

    @ls.tool
    async def price(self, item: str, amount: int = 1) -> str:
        """Give a price."""
        return f"{amount} {item}: {self._price * amount}"

    @ls.tool(name="buy")
    def purchase(self, item: str) -> str:
        return f"{item} at {self._price}"

    @staticmethod
    @ls.tool
    def greet(name: str) -> str:
        return f"Hello {name}"


class TestMethods:
    def test_the_model_is_not_told_of_the_instance(self) -> None:
        tool = Shop(2.0).price
        assert (tool.name, tool.description, list(tool.parameters["properties"])) == (
            "price",
            "Give a price.",
            ["item", "amount"],
        )
        assert tool.parameters["required"] == ["item"]

    async def test_each_instance_answers_for_itself(self) -> None:
        cheap, dear = Shop(1.0), Shop(9.0)
        assert await answer(cheap.price, '{"item": "tea"}') == ("1 tea: 1.0", False)
        assert await answer(dear.price, '{"item": "tea", "amount": 2}') == ("2 tea: 18.0", False)
        assert await answer(dear.purchase, '{"item": "tea"}') == ("tea at 9.0", False)
        assert await cheap.price("tea", amount=3) == "3 tea: 3.0"
        assert cheap.purchase("tea") == "tea at 1.0"
        assert await answer(cheap.greet, '{"name": "Ada"}') == ("Hello Ada", False)

    def test_a_method_of_no_instance_is_refused_where_it_is_used(self) -> None:
        made = ls.tool(Shop.price.function)
        for tool in (Shop.price, made):
            with pytest.raises(errors.RequestError, match=r"price: the parameter self .* as in tool\(instance.price\)"):
                scripted_model(text_events("a")).stream("Hi", tools=[tool])
            with pytest.raises(errors.RequestError, match="the parameter self"):
                tool.decode("{}")
