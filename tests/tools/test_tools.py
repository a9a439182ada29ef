"""Functions wherever tools are taken."""

from __future__ import annotations

from typing import Any, cast

import pytest

import loomstream as ls
from loomstream import errors
from loomstream.messages import RequestOptions, make_request
from loomstream.testing import scripted_model, text_events
from loomstream.tools import with_tools


def get_weather(city: str) -> str:
    """Give the weather."""
    return city


TOOL = ls.Tool(
    "get_weather",
    "Give the weather.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)


@pytest.mark.parametrize("given", [get_weather, ls.tool(get_weather), TOOL], ids=["function", "made", "value"])
@pytest.mark.anyio
async def test_a_function_stands_where_a_tool_does(given: Any) -> None:  # noqa: ANN401 (three kinds)
    model = scripted_model(text_events("hi"))
    await model.complete("x", tools=[given], tool_choice="get_weather")
    assert model.requests[0].tools == (TOOL,)


@pytest.mark.parametrize("given", [get_weather, ls.tool(get_weather)], ids=["function", "made"])
@pytest.mark.anyio
async def test_a_model_takes_them_as_defaults_and_in_a_call(given: Any) -> None:  # noqa: ANN401 (two kinds)
    async with ls.connect("ollama:m", tools=[given]) as model:
        assert model.stream("x", tool_choice="get_weather")
        with pytest.raises(errors.RequestError, match="there are no tools"):
            model.stream("x", tools=[], tool_choice="get_weather")
        assert model.stream("x", tools=[given], tool_choice="get_weather")


def test_what_is_no_tool_says_so() -> None:
    for options in ({"tools": [7]}, {"tools": 7}):
        with pytest.raises(errors.RequestError, match=r"tools(\[0\])? is an int: give a "):
            ls.connect("ollama:m", **cast("RequestOptions", options))


def test_a_function_that_cannot_be_a_tool_fails_before_anything_is_sent() -> None:
    def bare(city) -> None: ...  # noqa: ANN001 (the point)

    with pytest.raises(errors.RequestError, match="bare: the parameter city has no type"):
        ls.connect("ollama:m", tools=[bare])


def test_other_options_stay() -> None:
    options: RequestOptions = {"max_tokens": 3}
    assert with_tools(options) == options
    assert make_request("x", with_tools({"max_tokens": 3, "tools": [get_weather]})).max_tokens == 3
