"""Combinators, where others misbehave: contexts that cannot be left, deciders that raise, answers that were void."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from loomstream.errors import (
    BadRequest,
    CircuitOpen,
    ConnectionLost,
    LoomstreamError,
    MiddlewareError,
    Overloaded,
    ServerFault,
    StreamTruncated,
)
from loomstream.events import Event, Notice, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.handler import Handler, compose
from loomstream.messages import Request
from loomstream.middleware.balance import balance
from loomstream.middleware.circuit_breaker import Circuit, circuit_breaker
from loomstream.middleware.cost import cost
from loomstream.middleware.experiment import experiment, shadow
from loomstream.middleware.failover import failover
from loomstream.middleware.hedge import hedge
from loomstream.middleware.ledger import Ledger
from loomstream.middleware.outcomes import Outcome
from loomstream.middleware.retry import RetryBudget, retry
from loomstream.stream import Stream
from loomstream.testing import check_order, text_events
from loomstream.testing.clock import virtual_clock_backends
from tests.upstreams import Step, Upstream, named, unpriced

pytestmark = pytest.mark.anyio

REQUEST = Request(messages=())


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


async def read(handler: Handler) -> tuple[list[Event], BaseException | None]:
    events: list[Event] = []
    try:
        async with Stream(handler, REQUEST, cost_of=unpriced) as stream:
            async for event in stream:
                events.append(event)  # noqa: PERF401 (what came before an error counts)
    except LoomstreamError as error:
        return events, error
    check_order(events)
    return events, None


def text(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def notices(events: Iterable[Event]) -> list[Notice]:
    return [event for event in events if isinstance(event, Notice)]


async def lost() -> None:
    msg = "closing"
    raise ConnectionLost(msg)


BROKEN: list[Step] = [Start("p", "m"), TextStart(0), TextDelta(0, "x"), 5.0, *text_events("never")]


# --- resume --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restart", "prefill", "prompt"])
async def test_behind_its_stop_an_answer_is_never_resumed(how: str) -> None:
    late = Upstream([*text_events("whole"), ConnectionLost("late")], text_events("again"))
    unclosed = Upstream(text_events("whole"), leave=lost)
    for upstream, words in ((late, "late"), (unclosed, "closing")):
        events, error = await read(failover(named(a=upstream), resume=how))  # type: ignore[arg-type]
        assert (text(events), upstream.calls) == ("whole", 1)
        assert words in str(error)


@pytest.mark.parametrize("how", ["off", "restart", "prefill", "prompt"])
async def test_a_cancelled_answer_is_not_resumed_where_closing_it_fails(how: str) -> None:
    upstream = Upstream(BROKEN, text_events("second"), leave=lost)
    with anyio.move_on_after(1) as scope:
        await read(failover(named(a=upstream), resume=how))  # type: ignore[arg-type]
    assert scope.cancelled_caught
    assert upstream.calls == 1


@pytest.mark.parametrize("how", ["off", "restart", "prefill", "prompt"])
async def test_who_leaves_gets_the_error_of_closing_and_nothing_else(how: str) -> None:
    upstream = Upstream(text_events("a", "b"), text_events("second"), leave=lost)

    async def leave() -> None:
        async with Stream(failover(named(a=upstream), resume=how), REQUEST, cost_of=unpriced) as stream:  # type: ignore[arg-type]
            async for event in stream:
                if isinstance(event, TextDelta):
                    break

    with pytest.raises(ConnectionLost, match="closing"):
        await leave()
    assert upstream.calls == 1


def cut(*events: Event) -> list[Step]:
    return [Start("p", "m"), TextStart(0), *events, ConnectionLost("cut")]


def said(*pieces: str) -> list[Step]:
    """Give a rest of an answer, each piece a block of its own."""
    blocks = [
        event
        for index, piece in enumerate(pieces)
        for event in (TextStart(index), TextDelta(index, piece), TextEnd(index))
    ]
    return [Start("p", "m"), *blocks, Stop("end_turn")]


FOX = "the quick brown fox jumps over the lazy dog"


@pytest.mark.parametrize(
    ("how", "scripts", "whole"),
    [
        ("prompt", [cut(TextDelta(0, "\n\n")), said("\n\nrest")], "\n\nrest"),
        ("prefill", [cut(TextDelta(0, "\n\n")), said("\n\nrest")], "\n\nrest"),
        (
            "prefill",
            [cut(TextDelta(0, "one\n\n")), cut(TextDelta(0, "\n")), said("\n\ntwo")],
            "one\n\ntwo",
        ),
        ("prompt", [cut(TextDelta(0, FOX)), cut(TextDelta(0, " the l")), said(" and slept.")], FOX + " and slept."),
        ("prompt", [cut(TextDelta(0, FOX)), said("jumps over the ", "lazy dog and slept")], FOX + " and slept"),
    ],
    ids=["blanks, prompt", "blanks, prefill", "cut in the blanks", "cut in the repetition", "two blocks"],
)
async def test_no_character_is_doubled_or_lost(how: str, scripts: list[list[Step]], whole: str) -> None:
    upstream = Upstream(*scripts)
    events, error = await read(failover(named(a=upstream), resume=how))  # type: ignore[arg-type]
    assert error is None
    assert text(events) == whole
    assert all(message.text.strip() for request in upstream.requests for message in request.messages)


@pytest.mark.parametrize("how", ["prefill", "prompt"])
async def test_two_answers_at_once_are_never_pieced_together(how: str) -> None:
    upstream = Upstream(cut(TextDelta(0, "A"), TextStart(1, 1), TextDelta(1, "B")), said("rest"))
    _, error = await read(failover(named(a=upstream), resume=how))  # type: ignore[arg-type]
    assert isinstance(error, ConnectionLost)
    assert upstream.calls == 1


async def test_a_model_that_takes_no_prefill_is_prompted_also_behind_a_notice() -> None:
    busy = Upstream(cut(TextDelta(0, "begun ")), [Overloaded("busy")])
    second = Upstream([BadRequest("no prefill")], said("and ended"))
    events, error = await read(failover(named(a=busy, b=second), resume="prefill"))
    assert error is None
    assert text(events) == "begun and ended"


async def test_resuming_is_bound_by_what_binds_retries() -> None:
    broken = cut(TextDelta(0, "begun "))
    spent = Upstream(broken)
    handler = compose(spent, retry(0, resume="prompt", budget=RetryBudget(0, 1)))
    for _ in range(5):
        await read(handler)
    assert spent.calls == 6

    stored = Upstream(broken, said("rest"))
    request = Request(messages=(), extra_body={"store": True})
    with pytest.raises(ConnectionLost):
        async with Stream(compose(stored, retry(resume="restart")), request, cost_of=unpriced) as stream:
            await stream.collect()
    assert stored.calls == 1

    began_s = anyio.current_time()
    patient = Upstream([*broken[:-1], Overloaded("busy", retry_after_s=30)], said("rest"))
    events, error = await read(compose(patient, retry(resume="prompt")))
    assert (text(events), error) == ("begun rest", None)
    assert anyio.current_time() - began_s >= 30


@pytest.mark.parametrize("how", ["restart", "prefill", "prompt"])
async def test_the_cost_of_a_resumed_answer_holds_both_pieces(how: str) -> None:
    used = Usage(input_tokens=1_000, output_tokens=1_000)
    broken: list[Step] = [Start("openai", "gpt-4o"), used, TextStart(0), TextDelta(0, "a" * 40), ConnectionLost("cut")]
    rest: list[Step] = [Start("openai", "gpt-4o"), *said("rest")[1:-1], replace(used, final=True), Stop("end_turn")]
    upstream = compose(Upstream(broken, rest), cost("openai", "gpt-4o"))
    async with Stream(failover(named(a=upstream), resume=how), REQUEST, cost_of=unpriced) as stream:  # type: ignore[arg-type]
        await stream.collect()
    assert stream.cost.amount_usd == Decimal("0.025")
    assert (stream.cost.exact, stream.cost.attempts, stream.cost.upper_usd) == (False, 2, None)


# --- costs and outcomes --------------------------------------------------------------------------


async def test_a_cost_told_inside_is_not_exact_where_others_may_be_billed() -> None:
    used = Usage(input_tokens=10, output_tokens=10, final=True)
    answer: list[Step] = [Start("openai", "gpt-4o"), *said("x")[1:-1], used, Stop("end_turn")]
    priced = compose(Upstream(answer), cost("openai", "gpt-4o"))
    for handler in (
        failover(named(a=Upstream([ServerFault("billed?")]), b=priced)),
        hedge(named(a=Upstream([10.0, *answer]), b=priced), delay_s=1),
    ):
        async with Stream(handler, REQUEST, cost_of=unpriced) as stream:
            await stream.collect()
        assert (stream.cost.exact, stream.cost.attempts, stream.cost.upper_usd) == (False, 2, None)
        assert stream.cost.lower_usd == stream.cost.amount_usd == Decimal("0.000125")


async def test_what_may_be_billed_is_not_booked_as_nothing_where_the_last_one_was_free() -> None:
    ledger = Ledger()
    chain = failover(named(a=Upstream([ServerFault("billed?")]), b=Upstream([Overloaded("no")])))
    await read(compose(chain, cost("openai", "gpt-4o", ledger=ledger)))
    assert not ledger.total.exact
    assert ledger.total.upper_usd is None


async def test_an_outcome_without_its_stop_has_an_error() -> None:
    outcomes: list[Outcome] = []
    candidates = named(a=Upstream(text_events("x")[:-1]), b=Upstream(text_events("y")[:-1]))
    await read(experiment(candidates, observer=outcomes.append))
    assert [(outcome.whole, type(outcome.error)) for outcome in outcomes] == [(False, StreamTruncated)]


# --- balance -------------------------------------------------------------------------------------


async def test_the_lowest_latency_forgets_and_asks_who_failed_last() -> None:
    slow_once = Upstream([10.0, *text_events("a")], text_events("a"))
    other, dead = Upstream([1.0, *text_events("b")]), Upstream([5.0, Overloaded("dead")])
    handler = balance(named(a=slow_once, b=other, c=dead), strategy="lowest_latency")
    for _ in range(20):
        await read(handler)
    assert (slow_once.calls, dead.calls) == (1, 1)
    await anyio.sleep(301)
    for _ in range(5):
        await read(handler)
    assert (slow_once.calls, dead.calls) == (5, 2)


# --- what was void before it began ---------------------------------------------------------------


@pytest.mark.parametrize("combine", ["retry", "failover", "hedge"])
async def test_what_a_reset_voids_before_the_first_content_is_not_given(combine: str) -> None:
    upstream = Upstream([Start("p", "old"), Notice("reset", "another model answers"), *text_events("hi")])
    handlers: dict[str, Handler] = {
        "retry": compose(upstream, retry(1)),
        "failover": failover(named(a=upstream)),
        "hedge": hedge(named(a=upstream)),
    }
    events, error = await read(handlers[combine])
    assert error is None
    assert [type(event) for event in events].count(Start) == 1
    assert text(events) == "hi"


# --- circuit breaker -----------------------------------------------------------------------------


async def test_an_answer_without_its_stop_is_a_fault() -> None:
    circuit = Circuit(2, open_s=10)
    handler = compose(Upstream(text_events("x")[:-1]), circuit_breaker(circuit))
    kinds = [type((await read(handler))[1]) for _ in range(3)]
    assert kinds == [StreamTruncated, StreamTruncated, CircuitOpen]
    await anyio.sleep(10)
    assert circuit.state == "half_open"
    await read(handler)
    assert circuit.state == "open"


# --- hedge ---------------------------------------------------------------------------------------


async def test_a_loser_that_cannot_be_left_holds_up_the_winner_for_a_moment_only() -> None:
    slow = Upstream([10, *text_events("slow")], leave=anyio.sleep_forever)
    began_s = anyio.current_time()
    events, _ = await read(hedge(named(a=slow, b=Upstream(text_events("fast"))), delay_s=1))
    assert text(events) == "fast"
    assert anyio.current_time() - began_s < 5


async def test_a_decision_is_asked_for_once_a_failure() -> None:
    asked: list[str] = []

    def when(error: LoomstreamError) -> bool:
        asked.append(type(error).__name__)
        return False

    refused, slow, never = Upstream([1.5, BadRequest("no")]), Upstream([10, *text_events("b")]), Upstream([])
    handler = hedge(named(a=refused, b=slow, c=never), delay_s=1, when=when)
    events, _ = await read(handler)
    assert text(events) == "b"
    assert asked == ["BadRequest"]
    assert never.calls == 0


async def test_what_a_decision_raises_comes_out_alone() -> None:
    def when(_: LoomstreamError) -> bool:
        msg = "broken"
        raise ValueError(msg)

    a, b = Upstream([2, Overloaded("busy")]), Upstream([10, *text_events("b")])
    _, error = await read(hedge(named(a=a, b=b, c=Upstream([])), delay_s=1.5, when=when))
    assert isinstance(error, MiddlewareError)
    assert isinstance(error.__cause__, ValueError)
    assert a.log == b.log == ["open", "leaving", "left"]


async def test_an_exit_comes_out_alone() -> None:
    a, b = Upstream([2, SystemExit(3)]), Upstream([10, *text_events("b")])
    with pytest.raises(SystemExit):
        await read(hedge(named(a=a, b=b), delay_s=1))
    assert a.log == b.log == ["open", "leaving", "left"]


async def test_who_failed_is_named_and_each_billed_attempt_is_told() -> None:
    retried = compose(Upstream([0.5, ServerFault("billed?")]), retry(1, backoff_s=0))
    events, error = await read(hedge(named(a=retried, b=Upstream([1, Overloaded("no")])), delay_s=0.1))
    assert isinstance(error, Overloaded | ServerFault)
    assert sorted(attempt.outcome for attempt in error.attempts) == ["Overloaded", "ServerFault", "ServerFault"]
    assert [notice.kind for notice in notices(events) if notice.may_be_billed] == ["hedge", "retry"]

    events, _ = await read(
        hedge(named(a=Upstream([0.4, ServerFault("a broke")]), b=Upstream([9, *text_events("b")]),
                    c=Upstream(text_events("c"))), delay_s=0.3)
    )  # fmt: skip
    told = [(notice.detail, notice.attempt and notice.attempt.provider) for notice in notices(events)]
    assert told[0] == ("a has not begun to answer; b is asked too", None)
    assert told[1] == ("a failed (ServerFault: a broke); c is asked too", "a")

    loser = compose(Upstream([ServerFault("billed?")], [9, *text_events("l")]), retry(2, backoff_s=0))
    events, _ = await read(hedge(named(a=loser, b=Upstream(text_events("w"))), delay_s=0.1))
    assert [notice.kind for notice in notices(events)] == ["hedge", "retry"]


@pytest.mark.parametrize("anyio_backend", [pytest.param(virtual_clock_backends()[0], id="asyncio")])
async def test_all_losers_are_left_though_the_task_is_cancelled_meanwhile() -> None:
    closing = anyio.Event()

    async def leave() -> None:
        closing.set()
        await anyio.sleep(1)

    losers = [Upstream([10, *text_events("l")], leave=leave) for _ in range(2)]
    winner = Upstream([1, *text_events("w")])
    task = asyncio.create_task(read(hedge(named(a=losers[0], b=losers[1], c=winner), delay_s=0.1)))
    await closing.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert [upstream.log[:2] for upstream in (*losers, winner)] == [["open", "leaving"]] * 3


# --- shadow --------------------------------------------------------------------------------------


async def test_a_copy_that_cannot_be_left_holds_up_its_stream_for_a_moment_only() -> None:
    async def never() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1_000)

    began_s = anyio.current_time()
    copy = Upstream([50, *text_events("b")], leave=never)
    events, _ = await read(shadow(named(a=Upstream([1, *text_events("a")]), b=copy)))
    assert text(events) == "a"
    assert anyio.current_time() - began_s < 5
    await anyio.sleep(1_000)
    assert copy.log == ["open", "leaving", "left"]


@pytest.mark.parametrize("anyio_backend", [pytest.param(virtual_clock_backends()[0], id="asyncio")])
async def test_all_copies_end_though_the_task_is_cancelled_meanwhile() -> None:
    outcomes: list[Outcome] = []
    copies = [Upstream([50, *text_events("b")], leave=lambda: anyio.sleep(1)) for _ in range(2)]
    handler = shadow(named(a=Upstream([1, *text_events("a")]), b=copies[0], c=copies[1]), observer=outcomes.append)
    task = asyncio.create_task(read(handler))
    await anyio.sleep(1.5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert [copy.log[:2] for copy in copies] == [["open", "leaving"]] * 2
    assert len(outcomes) == 3
