"""Tap: an observer sees all, changes nothing, and cannot break the stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loomstream.errors import ConfigError, LoomstreamError, Overloaded
from loomstream.events import Event, Notice, Start, Stop, TextDelta
from loomstream.messages import Request
from loomstream.middleware import stage
from loomstream.middleware.tap import tap, tap_each
from loomstream.testing import check_order, scripted_model, text_events

pytestmark = pytest.mark.anyio

OOPS = RuntimeError("oops")
ANSWER = text_events("Hel", "lo")


async def run(middleware: object, script: list[Event | LoomstreamError] | None = None) -> list[Event]:
    model = scripted_model(script or ANSWER, middleware=[middleware])  # type: ignore[list-item]
    async with model.stream("hi") as stream:
        return [event async for event in stream]


async def test_the_observer_sees_each_event_and_none_is_changed() -> None:
    seen: list[Event] = []
    assert await run(tap(seen.append)) == ANSWER == seen


async def test_each_stream_has_an_observer_of_its_own() -> None:
    seen: dict[int, list[Event]] = {}

    def make(request: Request) -> Callable[[Event], object]:
        assert request.messages[0].text == "hi"
        return seen.setdefault(len(seen), []).append

    watching = tap_each(make)
    assert await run(watching) == await run(watching)
    assert seen == {0: ANSWER, 1: ANSWER}


@pytest.mark.parametrize("kind", [Start, TextDelta, Stop])
async def test_an_observer_that_fails_is_told_of_once_and_goes_on(kind: type[Event]) -> None:
    calls: list[Event] = []

    def observer(event: Event) -> None:
        calls.append(event)
        if isinstance(event, kind):
            raise OOPS

    events = await run(tap(observer))
    check_order(events)
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert notice == Notice("warning", "an observer raised RuntimeError: oops; the stream goes on")
    assert isinstance(events[events.index(notice) + 1], kind)
    assert [event for event in events if event is not notice] == ANSWER == calls


async def test_an_observer_that_cannot_be_made_is_told_of_once() -> None:
    def make(_: Request) -> Callable[[Event], object]:
        raise OOPS

    assert [type(event) for event in await run(tap_each(make))] == [Notice, *map(type, ANSWER)]


async def test_an_error_passes_the_observer() -> None:
    seen: list[Event] = []
    with pytest.raises(Overloaded):
        await run(tap(seen.append), [*ANSWER[:3], Overloaded("busy")])
    assert seen == ANSWER[:3]


async def test_what_cannot_observe_is_refused() -> None:
    async def later(event: Event) -> None: ...

    with pytest.raises(ConfigError, match="is a coroutine function"):
        tap(later)
    with pytest.raises(ConfigError, match="is a str"):
        tap("print")  # type: ignore[arg-type]


async def test_a_stage_is_written_in_a_few_lines() -> None:
    def shout(_: Request) -> Callable[[Event], tuple[Event, ...]]:
        return lambda event: (TextDelta(event.index, event.text.upper()) if isinstance(event, TextDelta) else event,)

    events = await run(stage(shout))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["HEL", "LO"]
