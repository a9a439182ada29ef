"""Smooth: the pace, the bound on delay, and that nothing but the cut of texts changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import Self

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from loomstream.accumulate import fold
from loomstream.errors import ConfigError, LoomstreamError, Overloaded
from loomstream.events import (
    Cost,
    Event,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
)
from loomstream.handler import Middleware, compose
from loomstream.messages import Request
from loomstream.middleware.smooth import FRAME_S, smooth
from loomstream.stream import Stream
from loomstream.testing import Pause, check_order, text_events, tool_call_events
from loomstream.testing.clock import virtual_clock_backends

pytestmark = pytest.mark.anyio

Timed = list[tuple[float, Event]]


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


class Sender:
    """A handler whose events arrive at their times, whoever reads or not."""

    def __init__(self, script: Sequence[Event | Pause | LoomstreamError]) -> None:
        self._script = script

    @asynccontextmanager
    async def __call__(self, _: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async with aclosing(self._events()) as events:
            yield events

    async def _events(self) -> AsyncGenerator[Event]:
        at_s = anyio.current_time()
        for item in self._script:
            if isinstance(item, LoomstreamError):
                raise item
            if isinstance(item, Pause):
                at_s += item.seconds
            else:
                await anyio.sleep_until(at_s)
                yield item


async def timed(
    script: Sequence[Event | Pause | LoomstreamError], *middleware: Middleware, consumer_s: float = 0.0
) -> Timed:
    sender = Sender(script)
    stream = Stream(compose(sender, *middleware), Request(messages=()), cost_of=lambda *_: Cost(provider="", model=""))
    began_s = anyio.current_time()
    seen: Timed = []
    async with stream:
        try:
            async for event in stream:
                seen.append((anyio.current_time() - began_s, event))
                await anyio.sleep(consumer_s)
        except LoomstreamError as error:
            seen.append((anyio.current_time() - began_s, error))  # type: ignore[arg-type]
    return seen


def texts(seen: Timed) -> list[tuple[float, str]]:
    return [(round(time, 4), event.text) for time, event in seen if isinstance(event, TextDelta)]


def script(*lumps: tuple[float, str]) -> list[Event | Pause | LoomstreamError]:
    """Lumps of text, each after a pause; the end after another second."""
    items: list[Event | Pause | LoomstreamError] = [Start("scripted", "m"), TextStart(0)]
    for pause_s, text in lumps:
        items += [Pause(pause_s), TextDelta(0, text)]
    return [*items, Pause(1), TextEnd(0), Stop("end_turn")]


async def test_a_given_pace_is_kept() -> None:
    seen = texts(await timed(script((1, "x" * 120)), smooth(chars_per_second=600, max_delay_s=1)))
    assert "".join(text for _, text in seen) == "x" * 120
    assert [text for _, text in seen] == ["x" * 10] * 12
    assert [time for time, _ in seen] == [round(1 + number * FRAME_S, 4) for number in range(12)]


async def test_text_that_comes_too_fast_for_the_pace_is_never_later_than_the_stated_delay() -> None:
    seen = texts(await timed(script((1, "x" * 1000)), smooth(chars_per_second=60, max_delay_s=0.25)))
    assert seen[0] == (1.0, "x")
    assert seen[-1][0] == 1.25
    assert sum(len(text) for _, text in seen) == 1000


async def test_lumps_are_spread_over_the_time_in_which_the_next_one_is_expected() -> None:
    seen = texts(await timed(script(*[(0.2, "y" * 40)] * 5), smooth()))
    later = [time for time, _ in seen if time > 0.41]
    gaps = [second - first for first, second in pairwise(later)]
    assert max(gaps) < 0.05  # unsmoothed, nothing comes for 0.2 s between two lumps
    assert seen[0] == (0.2, "y" * 40)  # the first one is not held: nothing is known yet


async def test_small_pieces_are_put_together() -> None:
    pieces = [(0.5, "a"), *[(0.0, "b")] * 50]
    seen = texts(await timed(script(*pieces), smooth(chars_per_second=600, max_delay_s=1)))
    assert "".join(text for _, text in seen) == "a" + "b" * 50


async def test_the_consumer_s_own_time_is_pause_enough() -> None:
    seen = await timed(script((1, "x" * 100)), smooth(chars_per_second=600, max_delay_s=1), consumer_s=0.105)
    assert [len(text) for _, text in texts(seen)][:3] == [10, 60, 30]


@pytest.mark.parametrize("ending", [[Overloaded("busy")], tool_call_events("f", "{}")[1:]])
async def test_nothing_is_lost_before_an_error_or_a_tool_call(ending: list[Event | LoomstreamError]) -> None:
    moved = [
        event if isinstance(event, LoomstreamError | Stop) or not hasattr(event, "index") else _second(event)
        for event in ending
    ]
    items = [Start("scripted", "m"), TextStart(0), Pause(1), TextDelta(0, "z" * 500), TextEnd(0), *moved]
    seen = await timed(items, smooth(chars_per_second=1000))  # type: ignore[arg-type]
    assert "".join(text for _, text in texts(seen)) == "z" * 500
    assert seen[-1][0] <= 1.26


def _second(event: object) -> Event:
    return replace(event, index=1)  # type: ignore[type-var, return-value]


async def test_an_empty_text_passes() -> None:
    """No dialect sends one, but a handler of your own may."""
    lumps = [Start(), TextStart(0), TextDelta(0, ""), TextDelta(0, "hi"), TextEnd(0), Stop("end_turn")]
    seen = await timed([item for event in lumps for item in (event, Pause(0.1))], smooth(chars_per_second=50))
    assert "".join(text for _, text in texts(seen)) == "hi"


async def test_what_comes_with_its_end_is_given_at_once() -> None:
    answer = text_events("x" * 5000)

    class Whole:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        def __aiter__(self) -> Self:
            return self

        async def __loomstream_batch__(self) -> list[Event]:
            if not left:
                raise StopAsyncIteration
            return left.pop()

    left = [list(answer)]
    began_s = anyio.current_time()
    async with compose(lambda _: Whole(), smooth(chars_per_second=1))(None) as events:  # type: ignore[arg-type]
        assert [event async for event in events] == answer
    assert anyio.current_time() == began_s


async def test_letters_keep_their_accents_and_emoji_their_parts() -> None:
    text = "e\u0301" * 5 + "👩\u200d👩\u200d👧" * 3 + "🇩🇪" * 2 + "👍🏽" + "a\r\nb"
    seen = texts(await timed(script((1, text)), smooth(chars_per_second=1 / FRAME_S, max_delay_s=5)))
    pieces = [piece for _, piece in seen]
    assert "".join(pieces) == text
    assert "e\u0301" in pieces
    assert "👩\u200d👩\u200d👧" in pieces
    assert "👍🏽" in pieces
    assert "\r\n" in pieces


@pytest.mark.parametrize(
    "options",
    [{"max_delay_s": 0}, {"max_delay_s": float("inf")}, {"chars_per_second": 0}, {"chars_per_second": float("nan")}],
)
async def test_numbers_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="give numbers above 0"):
        smooth(**options)  # type: ignore[arg-type]


TEXT = st.text(min_size=1, max_size=80)
LUMPS = st.lists(st.tuples(st.floats(0, 0.6), TEXT, st.booleans()), min_size=1, max_size=12)


@settings(deadline=None)
@given(lumps=LUMPS, rate=st.none() | st.floats(5, 2000), max_delay_s=st.floats(0.02, 0.5))
async def test_any_stream_keeps_its_fold_and_order_and_is_late_by_no_more_than_stated(
    lumps: list[tuple[float, str, bool]], rate: float | None, max_delay_s: float
) -> None:
    items: list[Event | Pause | LoomstreamError] = [Start("scripted", "m"), ReasoningStart(0), TextStart(1)]
    for pause_s, text, thought in lumps:
        items += [Pause(pause_s), ReasoningDelta(0, text) if thought else TextDelta(1, text)]
    items += [ReasoningEnd(0), Pause(1), TextEnd(1), Stop("end_turn")]
    plain, smoothed = await timed(items), await timed(items, smooth(chars_per_second=rate, max_delay_s=max_delay_s))
    check_order(event for _, event in smoothed)
    assert fold([event for _, event in smoothed]) == fold([event for _, event in plain])
    assert _kinds(smoothed) == _kinds(plain)
    arrivals, given_s = _times(plain), _times(smoothed)
    # a read counts as waited only after a millisecond, of which each lump may have lost one
    assert max(after - before for before, after in zip(arrivals, given_s, strict=True)) <= max_delay_s + 0.001 + 1e-6


def _kinds(seen: Timed) -> list[str]:
    """Kinds of events, runs of one counted once."""
    names = [type(event).__name__ for _, event in seen]
    return [name for position, name in enumerate(names) if position == 0 or names[position - 1] != name]


def _times(seen: Timed) -> list[float]:
    """The time of each character."""
    return [time for time, event in seen if isinstance(event, TextDelta | ReasoningDelta) for _ in event.text]
