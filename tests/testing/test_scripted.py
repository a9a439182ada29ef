"""The scripted model: what the script says comes out, through the real stream."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from loomstream.errors import RateLimited, StreamTruncated, UsageError
from loomstream.events import Cost, Start
from loomstream.messages import Timeouts, user
from loomstream.testing import Pause, scripted_model, text_events, tool_call_events
from loomstream.testing.clock import virtual_clock_backends

pytestmark = pytest.mark.anyio

ANSWER = text_events("a")


async def test_scripts_are_played_in_order_and_the_last_again() -> None:
    model = scripted_model(text_events("one"), text_events("two"))
    assert [(await model.complete("x")).text for _ in range(3)] == ["one", "two", "two"]


async def test_a_script_may_be_any_iterable() -> None:
    model = scripted_model(event for event in text_events("a"))
    assert [(await model.complete("x")).text for _ in range(2)] == ["a", "a"]


async def test_requests_are_kept_with_their_defaults() -> None:
    model = scripted_model(tool_call_events("f"), system="be brief", max_tokens=5)
    await model.complete("hi", max_tokens=7)
    (request,) = model.requests
    assert request.messages == (user("hi"),)
    assert (request.system, request.max_tokens) == ("be brief", 7)


async def test_an_error_in_the_script_is_raised() -> None:
    model = scripted_model([Start(), RateLimited("slow down", retry_after_s=2)], text_events("a"))
    with pytest.raises(RateLimited, match="slow down") as raised:
        await model.complete("x")
    assert raised.value.retry_after_s == 2
    assert (await model.complete("x")).text == "a"


async def test_an_unknown_option_is_refused_as_by_a_real_model() -> None:
    with pytest.raises(UsageError, match="temperature"):
        scripted_model(text_events("a")).stream("x", temprature=1)  # type: ignore[call-arg]


async def test_it_stands_where_a_connected_model_stands() -> None:
    async with scripted_model(text_events("one")) as model, model.stream("x") as stream:
        assert (await stream.collect()).text == "one"
    await model.aclose()


@pytest.mark.parametrize(
    ("scripts", "options", "words"),
    [
        (("text",), {}, "script 1 of scripted_model is a str, 'text': .*text_events"),
        ((ANSWER, None), {}, "script 2 of scripted_model is None"),
        ((["text"],), {}, "item 1 of script 1 of scripted_model is a str"),
        ((), {}, "nothing to play"),
        ((), {"model": "gpt-4o"}, "takes no model: its events say who answers"),
        ((ANSWER,), {"maxtokens": 5}, "did you mean max_tokens"),
    ],
)
def test_what_cannot_be_played_is_refused_at_once(
    scripts: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        scripted_model(*scripts, **options)


async def test_a_script_without_an_end_is_said_to_be_one() -> None:
    with pytest.raises(StreamTruncated, match="the script ends without a Stop"):
        await scripted_model(ANSWER[:-1]).complete("hi")


async def test_its_cost_is_unknown() -> None:
    response = await scripted_model(text_events("a")).complete("x")
    assert response.cost == Cost(provider="scripted", model="scripted-model")


class TestPause:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]

    async def test_a_pause_takes_its_time(self) -> None:
        model = scripted_model([*text_events("a")[:3], Pause(120), *text_events("a")[3:]])
        began_s = anyio.current_time()
        await model.complete("x", timeouts=Timeouts(total_s=200))
        assert anyio.current_time() - began_s == pytest.approx(120)
