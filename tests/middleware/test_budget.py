"""The budget: what is refused, where a stream is stopped, and that racers never spend more than there is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import anyio
import pytest

from loomstream.errors import BudgetExceeded, ConfigError, ConnectFailed, LoomstreamError
from loomstream.events import Event, Notice, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.messages import Request, assistant, user
from loomstream.middleware.budget import Alert, budget
from loomstream.middleware.store import MemoryStore
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

PRICED = ("anthropic", "claude-sonnet-4-5-20250929")  # 3 USD and 15 USD a million
PIECE = "four"  # one token, by the estimate


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def answer(pieces: int, *, used: int | None = None, provider: str = "p", model: str = "m") -> list[Event]:
    usage = Usage(input_tokens=1, output_tokens=pieces if used is None else used, final=True)
    return [
        Start(provider, model),
        TextStart(0),
        *[TextDelta(0, PIECE)] * pieces,
        TextEnd(0),
        usage,
        Stop("end_turn"),
    ]


def model_of(*scripts: object, provider: str = "", model: str = "", **options: object) -> ScriptedModel:
    middleware = budget(provider, model, **options)  # type: ignore[arg-type]
    return scripted_model(*scripts, middleware=[middleware])  # type: ignore[arg-type]


async def test_the_event_that_would_pass_the_limit_is_not_given() -> None:
    model = model_of(answer(100), limit_tokens=11, alerts=())
    with pytest.raises(BudgetExceeded, match="11 tokens per call is used up: the answer was stopped") as caught:
        await model.complete("four")  # a token; so ten are left
    assert caught.value.partial is not None
    assert caught.value.partial.text == PIECE * 10
    assert not caught.value.partial.complete
    assert caught.value.committed
    assert model.open_streams == 0


async def test_what_fits_is_given_whole() -> None:
    events = answer(10)
    async with model_of(events, limit_tokens=11, alerts=()).stream("four") as stream:
        assert [event async for event in stream] == events


async def test_a_limit_in_dollars_stops_in_the_middle() -> None:
    endless = answer(100, provider=PRICED[0], model=PRICED[1])
    model = model_of(endless, provider=PRICED[0], model=PRICED[1], limit_usd="0.000153", alerts=())
    with pytest.raises(BudgetExceeded, match=r"0\.000153000 USD per call") as caught:
        await model.complete("four")  # 0.000003 for the prompt, 0.000015 for each token
    assert caught.value.partial is not None
    assert caught.value.partial.text == PIECE * 10


async def test_nothing_is_sent_where_nothing_is_left() -> None:
    model = model_of(answer(9), limit_tokens=11, per="total")
    await model.complete("four")
    with pytest.raises(BudgetExceeded, match="not sent"):
        await model.complete("four")
    assert len(model.requests) == 1


@pytest.mark.parametrize("limit", [{"limit_tokens": 0}, {"limit_usd": 0, "provider": PRICED[0], "model": PRICED[1]}])
async def test_zero_allows_no_call(limit: dict[str, object]) -> None:
    model = model_of(answer(1), **limit)
    with pytest.raises(BudgetExceeded):
        await model.complete("")
    assert model.requests == []


async def test_an_answer_that_is_whole_is_never_cut_and_counts() -> None:
    model = model_of([Start("p", "m"), *answer(3, used=500)[1:]], limit_tokens=400, per="total")
    events = answer(100)
    whole = model_of(events, limit_tokens=50, per="total")
    assert (await whole.complete("hi", stream=False)).complete
    with pytest.raises(BudgetExceeded):
        await whole.complete("hi")
    with pytest.raises(
        BudgetExceeded
    ):  # told by the usage, before the Stop: a streamed answer's is an event of its own
        await model.complete("hi")


async def test_the_usage_takes_the_place_of_the_estimate() -> None:
    store = MemoryStore()
    model = model_of(answer(50, used=7), limit_tokens=1_000, per="total", store=store)
    await model.complete("four")
    (ledger,) = store._ledgers.values()
    assert (ledger.spent, ledger.reserved, ledger.holders) == (8, 0, {})


async def test_a_broken_attempt_stays_counted() -> None:
    store = MemoryStore()
    twice = [*answer(10)[:-2], Notice("reset"), *answer(5)]
    model = model_of(twice, limit_tokens=1_000, per="total", store=store)
    await model.complete("four")
    (ledger,) = store._ledgers.values()
    assert ledger.spent == 11 + 6


async def test_what_was_not_sent_costs_nothing_and_what_was_broken_off_what_came() -> None:
    store = MemoryStore()
    model = model_of([ConnectFailed("no")], answer(50), limit_tokens=1_000, per="total", store=store)
    with pytest.raises(ConnectFailed):
        await model.complete("four")
    (ledger,) = store._ledgers.values()
    assert (ledger.spent, ledger.reserved) == (0, 0)
    async with model.stream("four") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert ledger.reserved == 0
    assert ledger.spent == 2


# --- racers ---------------------------------------------------------------------------------------


async def race(model: ScriptedModel, racers: int, **options: object) -> list[str]:
    outcomes: list[str] = []

    async def call() -> None:
        try:
            await model.complete("four", **options)  # type: ignore[arg-type]
        except LoomstreamError as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("ok")

    async with anyio.create_task_group() as group:
        for _ in range(racers):
            group.start_soon(call)
    return outcomes


async def test_a_thousand_racers_never_spend_more_than_there_is() -> None:
    store = MemoryStore()
    model = model_of(answer(9), limit_tokens=2_005, per="total", store=store, alerts=())
    outcomes = await race(model, 1_000, max_tokens=9)
    assert (outcomes.count("ok"), outcomes.count("BudgetExceeded")) == (200, 800)
    (ledger,) = store._ledgers.values()
    assert (ledger.spent, ledger.reserved) == (2_000, 0)


async def test_a_thousand_racers_without_max_tokens_are_given_no_more_than_there_is() -> None:
    store, given = MemoryStore(), 0
    model = model_of(
        [Start("p", "m"), TextStart(0), *[TextDelta(0, PIECE), Pause(1)] * 40, *answer(40)[-3:]],
        limit_tokens=3_000,
        per="total",
        store=store,
        alerts=(),
    )

    async def call() -> None:
        nonlocal given
        try:
            async with model.stream("four") as stream:
                async for event in stream:
                    given += isinstance(event, TextDelta)
        except BudgetExceeded:
            pass

    async with anyio.create_task_group() as group:
        for _ in range(1_000):
            group.start_soon(call)
    assert 0 < given <= 3_000
    (ledger,) = store._ledgers.values()
    assert ledger.reserved == 0
    assert not ledger.holders


# --- over what it runs ----------------------------------------------------------------------------


async def test_tags_have_budgets_of_their_own() -> None:
    model = model_of(answer(9), limit_tokens=11, per="tag")
    for name in ("a", "b"):
        await model.complete("four", metadata={"tag": name})
    with pytest.raises(BudgetExceeded):
        await model.complete("four", metadata={"tag": "a"})


@pytest.mark.parametrize(("per", "seconds"), [("hour", 3_600), ("day", 86_400), ("month", 31 * 86_400)])
async def test_a_period_has_a_new_budget(per: str, seconds: float) -> None:
    now_s = 1_700_000_000.0
    model = model_of(answer(9), limit_tokens=11, per=per, now=lambda: now_s)
    await model.complete("four")
    with pytest.raises(BudgetExceeded, match=f"per {per}"):
        await model.complete("four")
    now_s += seconds
    await model.complete("four")


async def test_each_call_has_its_own() -> None:
    model = model_of(answer(9), limit_tokens=11)
    for _ in range(3):
        await model.complete("four")


# --- alerts ---------------------------------------------------------------------------------------


async def test_each_alert_is_told_once_while_it_streams() -> None:
    alerts: list[Alert] = []
    model = model_of(answer(29), limit_tokens=100, per="total", on_alert=alerts.append)
    told: list[str] = []
    for _ in range(3):
        async with model.stream("four") as stream:
            events = [event async for event in stream]
        check_order(events)
        told += [event.detail for event in events if isinstance(event, Notice)]
    assert [(alert.part, alert.spent, alert.limit) for alert in alerts] == [
        (0.5, Decimal(50), Decimal(100)),
        (0.8, Decimal(80), Decimal(100)),
    ]
    assert told[0] == "50% of a budget is used up: 50 of 100 tokens"
    with pytest.raises(BudgetExceeded):
        await model.complete("four")
    assert [alert.part for alert in alerts] == [0.5, 0.8, 1.0]


async def test_an_observer_that_fails_breaks_nothing() -> None:
    def fail(alert: Alert) -> None:
        msg = f"no {alert.part}"
        raise RuntimeError(msg)

    events = answer(9)
    async with model_of(events, limit_tokens=10, on_alert=fail).stream("four") as stream:
        got = [event async for event in stream]
    told = [event.detail for event in got if isinstance(event, Notice)]
    assert "on_alert of the budget raised RuntimeError: no 0.5" in told
    assert [event for event in got if not isinstance(event, Notice)] == events


# --- leaving --------------------------------------------------------------------------------------


@asynccontextmanager
async def stepping(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:  # noqa: ARG001 (a handler's signature)
    async def events() -> AsyncIterator[Event]:
        for event in text_events("ok"):
            await anyio.sleep(1)
            yield event

    await anyio.sleep(1)
    source = events()
    yield source
    await source.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("cancelled_s", [0, 0.5, 1.5, 2.5, 5.5, 6.5])
async def test_a_cancelled_call_leaves_no_reservation(cancelled_s: float) -> None:
    store = MemoryStore()
    handler = budget(limit_tokens=1_000, per="total", store=store)(stepping)
    with anyio.move_on_after(cancelled_s):
        async with handler(Request(messages=(user("four"), assistant("four")))) as events:
            async for _ in events:
                pass
    assert [(ledger.reserved, ledger.holders) for ledger in store._ledgers.values()] in ([], [(0, {})])


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give one of them"),
        ({"limit_usd": 1, "limit_tokens": 1}, "give one of them"),
        ({"limit_tokens": -1}, "whole number of at least 0"),
        ({"limit_tokens": 1.5}, "whole number of at least 0"),
        ({"limit_usd": "-1", "provider": PRICED[0], "model": PRICED[1]}, "at least 0"),
        ({"limit_usd": "nan", "provider": PRICED[0], "model": PRICED[1]}, "at least 0"),
        ({"limit_usd": "much", "provider": PRICED[0], "model": PRICED[1]}, "at least 0"),
        ({"limit_usd": 1}, "name the provider and the model that it prices"),
        ({"limit_usd": 1, "provider": "openai", "model": "nothing"}, "price of openai:nothing is not known"),
        ({"limit_tokens": 1, "per": "fortnight"}, "give call, tag, hour"),
        ({"limit_tokens": 1, "alerts": (0.0,)}, "parts of the limit above 0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        budget(**options)  # type: ignore[arg-type]


async def test_what_is_free_needs_no_budget() -> None:
    model = model_of(answer(9), provider="ollama", model="any", limit_usd="0.000001")
    assert (await model.complete("four")).complete
