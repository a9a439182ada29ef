"""The public API as a strict type checker sees it; never run, checked by pyright."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TypedDict, assert_type

import httpx
import httpx2

import loomstream as ls
from loomstream.messages import ToolCall
from loomstream.tools import Partial


async def streaming(spec: str) -> None:
    async with ls.connect(spec, max_tokens=10, temperature=0) as model:
        assert_type(model, ls.Model)
        async with model.stream(
            "hi", tools=[ls.Tool("f")], tool_choice="any", timeouts=ls.Timeouts(idle_s=1)
        ) as stream:
            assert_type(stream, ls.Stream)
            async for event in stream:
                match event:
                    case ls.TextDelta(text=text):
                        assert_type(text, str)
                    case ls.ToolCallEnd(name=name, arguments=arguments, executable=executable):
                        assert_type(name, str)
                        assert_type(arguments, str)
                        assert_type(executable, bool)
                    case ls.Usage(output_tokens=count):
                        assert_type(count, int)
                    case _:
                        pass
            assert_type(stream.usage, ls.Usage | None)
            assert_type(stream.cost, ls.Cost)
            assert_type(stream.response.tool_calls, tuple[ToolCall, ...])
        assert_type(await model.complete([ls.user("a"), ls.assistant("b")]), ls.Response)


class Recipe(TypedDict):
    title: str


async def outputs(model: ls.Model) -> None:
    assert_type(await model.extract("cook", Recipe, repair=2, max_tokens=100), Recipe)
    assert_type(await model.extract("count", list[int]), list[int])
    async with model.stream("cook", output=Recipe) as stream:
        async for partial in stream.objects(Recipe):
            assert_type(partial, Partial[Recipe])
            assert_type(partial.is_whole, bool)
            assert_type(partial.final, Recipe)


@ls.tool
async def find(city: str, days: int = 1) -> list[str]:
    return [city] * days


@ls.tool(name="twice")
def double(n: int) -> int:
    return 2 * n


def bare(n: int) -> int:
    return n


async def tools(model: ls.Model, call: ToolCall) -> None:
    assert_type(await find("Oslo", days=2), list[str])
    assert_type(double(2), int)
    await find(7)  # pyright: ignore[reportArgumentType] (it is called like the function)
    assert_type(await find.answer(call), ls.Message)
    assert_type(find.decode("{}"), dict[str, object])
    ls.connect("openai", tools=[find, bare, ls.Tool("f")])
    model.stream("hi", tools=[bare])
    model.stream("hi", tools=[7])  # pyright: ignore[reportArgumentType] (no tool)


async def strings(model: ls.Model) -> None:
    async with model.stream("hi") as stream:
        pieces: AsyncIterator[str] = stream.text()
        async for piece in pieces:
            assert_type(piece, str)


def clients() -> None:
    ls.connect("openai", client=httpx.AsyncClient())
    ls.connect("openai", client=httpx2.AsyncClient())
    ls.connect("openai", temprature=1)  # pyright: ignore[reportCallIssue] (an unknown option is an error)


def captured(body: bytes) -> Iterator[ls.Event]:
    return ls.decode("openai", body, status=200, content_type="text/event-stream")
