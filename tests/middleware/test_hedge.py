"""Hedge: who wins the race, what it costs, and that nothing of the losers stays."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest

from loomstream.errors import Attempt, BadRequest, ConfigError, LoomstreamError, Overloaded, ServerFault
from loomstream.events import Cost, Event, Notice, Start, TextDelta, Usage
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.hedge import hedge
from loomstream.stream import Stream
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

REQUEST = Request(messages=())


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def model(name: str, *before: object, pause_s: float = 0.0) -> ScriptedModel:
    return scripted_model([*before, Pause(pause_s), *text_events(name, "!", provider=name)])  # type: ignore[list-item]


def candidates(**models: ScriptedModel) -> list[Candidate]:
    return [Candidate(name, made.handler) for name, made in models.items()]


def unpriced(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (its signature)
    return Cost(provider=provider, model=model)


async def run(handler: Handler) -> tuple[list[Event], float]:
    began_s = anyio.current_time()
    async with Stream(handler, REQUEST, cost_of=unpriced) as stream:
        events = [event async for event in stream]
    check_order(events)
    return events, round(anyio.current_time() - began_s, 6)


async def test_a_quick_answer_is_alone() -> None:
    first, second = model("a", pause_s=1), model("b")
    events, took_s = await run(hedge(candidates(a=first, b=second), delay_s=2))
    assert events == text_events("a", "!", provider="a")
    assert took_s == 1
    assert second.requests == []


async def test_the_first_content_wins_and_the_loser_is_closed() -> None:
    first, second = model("a", pause_s=10), model("b", pause_s=1)
    handler = hedge(candidates(a=first, b=second), delay_s=2)
    async with Stream(handler, REQUEST, cost_of=unpriced) as stream:
        notice = await anext(stream)
        assert notice == Notice("hedge", "a has not begun to answer; b is asked too", may_be_billed=True)
        assert (first.open_streams, second.open_streams) == (0, 1)
        events = [event async for event in stream]
    assert events == text_events("b", "!", provider="b")
    assert second.open_streams == 0


async def test_the_first_one_may_still_win() -> None:
    first, second = model("a", pause_s=3), model("b", pause_s=9)
    events, took_s = await run(hedge(candidates(a=first, b=second), delay_s=2))
    assert events[1:] == text_events("a", "!", provider="a")
    assert took_s == 3
    assert second.open_streams == 0


async def test_one_that_fails_makes_the_next_start_at_once() -> None:
    first, second = model("a", Overloaded("busy")), model("b")
    events, took_s = await run(hedge(candidates(a=first, b=second), delay_s=60))
    failed = Attempt("", "", "Overloaded")
    assert events[0] == Notice("hedge", "a failed (Overloaded: busy); b is asked too", attempt=failed)
    assert took_s == 0


async def test_where_all_fail_the_last_error_names_them() -> None:
    models = {"a": model("a", Pause(1), Overloaded("x", provider="a")), "b": model("b", ServerFault("y", provider="b"))}
    with pytest.raises(LoomstreamError) as caught:
        await run(hedge(candidates(**models), delay_s=0.5))
    assert [attempt.outcome for attempt in caught.value.attempts] == ["ServerFault", "Overloaded"]
    assert all(made.open_streams == 0 for made in models.values())


async def test_what_would_fail_everywhere_ends_it() -> None:
    second = model("b")
    with pytest.raises(BadRequest):
        await run(hedge(candidates(a=model("a", BadRequest("no")), b=second), delay_s=5))
    assert second.requests == []


async def test_what_is_no_error_of_ours_comes_out_alone() -> None:
    def broken(request: Request) -> object:
        raise ZeroDivisionError(str(request))

    handler = hedge([Candidate("a", broken)])  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        async with handler(REQUEST) as events:
            await anext(events)


class _Log:
    """A handler that says when it is opened and closed, and may fail at that."""

    def __init__(self, name: str, log: list[str], delay_s: float, error: Exception | None = None) -> None:
        self.name, self.log, self.delay_s, self.error = name, log, delay_s, error

    @asynccontextmanager
    async def __call__(self, _: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        self.log.append(f"open {self.name}")
        try:
            async with aclosing(self.read()) as events:
                yield events
        finally:
            self.log.append(f"closed {self.name}")
            if self.error is not None:
                raise self.error

    async def read(self) -> AsyncGenerator[Event]:
        yield Start(self.name)
        await anyio.sleep(self.delay_s)
        for event in text_events(self.name)[1:]:
            yield event


async def test_where_a_loser_cannot_be_closed_all_others_are_and_the_winner_too() -> None:
    log: list[str] = []
    handlers = [_Log("a", log, 10, KeyError("close")), _Log("b", log, 10), _Log("c", log, 1)]
    handler = hedge([Candidate(one.name, one) for one in handlers], delay_s=2)

    async def read_all() -> None:
        async with handler(REQUEST) as events:
            async for _ in events:
                pass

    with pytest.raises(KeyError, match="close"):
        await read_all()
    assert sorted(log) == ["closed a", "closed b", "closed c", "open a", "open b", "open c"]


@pytest.mark.parametrize("after_s", [0.5, 2.5])
async def test_a_caller_that_is_cancelled_leaves_nothing(after_s: float) -> None:
    first, second = model("a", pause_s=10), model("b", pause_s=10)
    with anyio.move_on_after(after_s) as scope:
        await run(hedge(candidates(a=first, b=second), delay_s=2))
    assert scope.cancelled_caught
    assert (first.open_streams, second.open_streams) == (0, 0)


async def test_a_consumer_that_leaves_closes_the_winner() -> None:
    first = model("a")
    async with Stream(hedge(candidates(a=first)), REQUEST, cost_of=unpriced) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert first.open_streams == 0


async def test_the_consumer_s_own_error_comes_out_as_it_is() -> None:
    first, second = model("a", pause_s=10), model("b")

    async def leave_in_anger() -> None:
        async with Stream(hedge(candidates(a=first, b=second), delay_s=1), REQUEST, cost_of=unpriced) as stream:
            async for event in stream:
                if isinstance(event, Start):
                    raise KeyError

    with pytest.raises(KeyError):
        await leave_in_anger()
    assert (first.open_streams, second.open_streams) == (0, 0)


async def test_the_wait_is_a_quantile_of_what_calls_took() -> None:
    usual = [[Pause(1), *text_events("a")] for _ in range(10)]
    first = scripted_model(*usual, [Pause(50), *text_events("a")])
    second = model("b", pause_s=0.25)
    handler = hedge(candidates(a=first, b=second), delay_s=60, quantile=0.9)
    for _ in range(10):
        assert (await run(handler))[1] == 1
    assert (await run(handler))[1] == 1.25


@pytest.mark.parametrize(
    ("options", "what"),
    [({"delay_s": -1}, "delay_s=-1"), ({"quantile": 1.0}, "quantile=1.0"), ({"quantile": 0.0}, "quantile=0.0")],
)
def test_what_cannot_be_is_refused(options: dict[str, float], what: str) -> None:
    with pytest.raises(ConfigError, match=rf"hedge\({what}"):
        hedge(candidates(a=model("a")), **options)
