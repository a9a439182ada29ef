"""What goes wrong between two attempts, and in closing them: resets, cancellations, closings that take long."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import sniffio

from loomstream.errors import (
    BudgetExceeded,
    ConfigError,
    ConnectionLost,
    LoomstreamError,
    MiddlewareError,
    Overloaded,
    RateLimited,
)
from loomstream.events import (
    Cost,
    Event,
    Logprobs,
    Notice,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    TokenLogprob,
    Usage,
)
from loomstream.handler import Handler, compose
from loomstream.messages import Request, Response, Text, Timeouts
from loomstream.middleware.balance import balance
from loomstream.middleware.budget import budget
from loomstream.middleware.cache import cache
from loomstream.middleware.cache_store import FileCache
from loomstream.middleware.circuit_breaker import Circuit, circuit_breaker
from loomstream.middleware.cost import cost
from loomstream.middleware.failover import failover
from loomstream.middleware.hedge import hedge
from loomstream.middleware.ledger import Ledger
from loomstream.middleware.retry import RetryBudget, retry
from loomstream.stream import Stream
from loomstream.testing import check_order, text_events
from loomstream.testing.clock import virtual_clock_backends
from tests.upstreams import Step, Upstream, named, played, unpriced

pytestmark = pytest.mark.anyio

REQUEST = Request(messages=())
ASYNCIO = pytest.mark.parametrize("anyio_backend", [pytest.param(virtual_clock_backends()[0], id="asyncio")])
"""On trio nothing but a scope cancels."""


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


async def read(handler: Handler, request: Request = REQUEST) -> tuple[list[Event], LoomstreamError | None, Response]:
    events: list[Event] = []
    error: LoomstreamError | None = None
    async with Stream(handler, request, cost_of=unpriced) as stream:
        try:
            async for event in stream:
                events.append(event)  # noqa: PERF401 (what came before an error counts)
        except LoomstreamError as raised:
            error = raised
    if error is None:
        check_order(events)
    return events, error, stream.response


def broken(*pieces: str, provider: str = "p", model: str = "m") -> list[Step]:
    texts = [TextDelta(0, piece) for piece in pieces]
    return [Start(provider, model), TextStart(0), *texts, ConnectionLost("cut")]


# --- a reset, and an answer that goes on ---------------------------------------------------------


async def test_an_answer_goes_on_behind_what_was_not_voided() -> None:
    """The inner retry voids, the outer failover goes on: the model is shown only what counts."""
    upstream = Upstream(broken("The answer is 41"), broken("It is "), broken("It is "), broken("It is "))
    inner = compose(upstream, retry(0, resume="restart", budget=RetryBudget(0, 100)))
    last = Upstream(text_events("42."))
    handler = failover(named(a=inner), resume="prefill")
    events, error, response = await read(handler)
    assert isinstance(error, ConnectionLost)
    assert [event.kind for event in events if isinstance(event, Notice)][:1] == ["reset"]
    shown = [block.text for block in upstream.requests[-1].messages[-1].content if isinstance(block, Text)]
    assert shown == ["It is It is It is"[: len(shown[0])]] if shown else True
    assert "41" not in str([request.messages for request in upstream.requests])
    assert "41" not in response.text
    assert not last.requests


async def test_a_continuation_that_begins_anew_is_the_whole_answer() -> None:
    anew: list[Step] = [
        Start("p", "m"),
        TextStart(0),
        TextDelta(0, "ld, but"),
        Notice("reset", "the provider fell back"),
        *text_events("A new answer"),
    ]
    events, error, response = await read(compose(Upstream(broken("Hello wor"), anew), retry(1, resume="prefill")))
    assert error is None
    assert response.text == "A new answer"
    assert isinstance(events[-1], Stop)


async def test_blocks_of_a_void_answer_are_not_ended_behind_it() -> None:
    first: list[Step] = [
        Start("p", "m"),
        *[ReasoningStart(0), ReasoningDelta(0, "h"), ReasoningEnd(0), TextStart(1), TextDelta(1, "void")],
        Notice("reset", "the provider fell back"),
        *broken("Real"),
    ]
    _, error, response = await read(compose(Upstream(first, text_events(" answer")), retry(1, resume="prefill")))
    assert error is None
    assert response.text == "Real answer"


# --- the seam ------------------------------------------------------------------------------------


async def test_blanks_that_were_not_shown_are_not_doubled_by_a_prompted_model() -> None:
    upstream = Upstream(broken("Items:\n\n"), text_events("\n\n- one"))
    _, _, response = await read(compose(upstream, retry(1, resume="prompt")))
    assert response.text == "Items:\n\n- one"


async def test_reasoning_of_a_prompted_model_is_given_as_it_comes() -> None:
    thought: list[Step] = [Start("p", "m"), ReasoningStart(0)]
    for _ in range(3):
        thought += [10.0, ReasoningDelta(0, "hm ")]
    thought += [ReasoningEnd(0), TextStart(1), TextDelta(1, "and so on"), TextEnd(1), Stop("end_turn")]
    handler = compose(Upstream(broken("I say "), thought), retry(1, resume="prompt"))
    began_s = anyio.current_time()
    came_s: list[float] = []
    async with Stream(handler, REQUEST, cost_of=unpriced) as stream:
        async for event in stream:
            came_s += [round(anyio.current_time() - began_s)] * isinstance(event, ReasoningDelta)
    assert came_s == [10, 20, 30]
    assert stream.response.text == "I say and so on"


async def test_what_belongs_to_a_repeated_text_goes_with_it() -> None:
    said = "the quick brown fox"
    again: list[Step] = [Start("p", "m"), TextStart(0), TextDelta(0, said)]
    again += [Logprobs(0, (TokenLogprob(said, -0.1),)), TextDelta(0, " jumps")]
    again += [Logprobs(0, (TokenLogprob(" jumps", -0.2),)), TextEnd(0), Stop("end_turn")]
    events, _, response = await read(compose(Upstream(broken(said), again), retry(1, resume="prompt")))
    assert response.text == "the quick brown fox jumps"
    assert [event.tokens[0].token for event in events if isinstance(event, Logprobs)] == [" jumps"]


async def test_two_choices_are_not_pieced_together_though_one_has_no_text_yet() -> None:
    first = [Start("p", "m"), TextStart(0), TextDelta(0, "one is"), TextStart(1, 1), ConnectionLost("cut")]
    upstream = Upstream(first, text_events(" here"))
    _, error, _ = await read(compose(upstream, retry(1, resume="prefill")))
    assert isinstance(error, ConnectionLost)
    assert len(upstream.requests) == 1


async def test_a_pause_before_going_on_does_not_pass_the_deadline() -> None:
    first = [Start("p", "m"), TextStart(0), TextDelta(0, "Hello "), ConnectionLost("cut", retry_after_s=60)]
    began_s = anyio.current_time()
    handler = compose(Upstream(first, text_events("rest")), retry(1, resume="prefill"))
    _, error, _ = await read(handler, Request(messages=(), timeouts=Timeouts(total_s=5)))
    assert isinstance(error, ConnectionLost)
    assert anyio.current_time() - began_s < 1


# --- what a broken piece has cost ----------------------------------------------------------------

_USED = Usage(input_tokens=10, output_tokens=10, final=True)
PRICED: list[Step] = [Start("openai", "gpt-4o"), TextStart(0), TextDelta(0, "x"), TextEnd(0), _USED, Stop("end_turn")]
LONG = broken("word " * 400, provider="openai", model="gpt-4o")


@pytest.mark.parametrize("how", ["prefill", "restart"])
async def test_a_broken_piece_is_in_the_books(how: str) -> None:
    alone, ledger = Ledger(), Ledger()
    await read(compose(Upstream(LONG), cost("openai", "gpt-4o", ledger=alone)))
    layers = (cost("openai", "gpt-4o", ledger=ledger), retry(1, resume=how))  # type: ignore[arg-type]
    events, error, response = await read(compose(Upstream(LONG, PRICED), *layers))
    assert error is None
    assert alone.total.amount_usd is not None
    assert ledger.total.amount_usd == alone.total.amount_usd + Decimal("0.000125")
    assert response.cost == [event for event in events if isinstance(event, Cost)][-1]
    assert (response.cost.amount_usd, response.cost.exact) == (ledger.total.amount_usd, False)
    assert (response.cost.lower_usd, response.cost.upper_usd) == (Decimal("0.000125"), None)
    assert response.cost.attempts == 2


async def test_what_a_broken_piece_reported_counts_once() -> None:
    reported = Usage(input_tokens=1_000, output_tokens=0)
    first = [*LONG[:-1], reported, ConnectionLost("cut")]
    _, _, response = await read(compose(Upstream(first, PRICED), cost("openai", "gpt-4o"), retry(1, resume="prefill")))
    assert response.cost.amount_usd == Decimal("0.0025") + Decimal("0.000125")


async def test_a_budget_counts_pieces_that_broke() -> None:
    layers = [
        budget("openai", "gpt-4o", limit_usd=Decimal("0.02"), per="total"),
        cost("openai", "gpt-4o"),
        retry(1, resume="prefill", budget=RetryBudget(0, 1_000)),
    ]
    handler = compose(Upstream(*([LONG, PRICED] * 50)), *layers)
    errors = [(await read(handler))[1] for _ in range(10)]
    assert errors[0] is None
    assert isinstance(errors[-1], BudgetExceeded)


@pytest.mark.parametrize("how", ["prefill", "restart"])
async def test_a_piece_that_told_no_cost_leaves_the_sum_open(how: str) -> None:
    layers = (retry(1, resume=how), cost("openai", "gpt-4o"))  # type: ignore[arg-type]
    _, _, response = await read(compose(Upstream(LONG, PRICED), *layers))
    assert response.cost.lower_usd == Decimal("0.000125")
    assert (response.cost.exact, response.cost.upper_usd, response.cost.attempts) == (False, None, 2)


@pytest.mark.parametrize("how", ["prefill", "restart"])
async def test_a_free_model_that_broke_is_still_free(how: str) -> None:
    first = broken("Hello ", provider="ollama", model="m")
    rest = text_events("you", provider="ollama", model="m")
    layers = (retry(1, resume=how), cost("ollama", "m"))  # type: ignore[arg-type]
    _, _, response = await read(compose(Upstream(first, rest), *layers))
    assert (response.cost.amount_usd, response.cost.exact) == (0, True)


@pytest.mark.parametrize("combined", ["failover", "hedge"])
async def test_books_outside_of_a_combinator_say_what_its_stream_says(combined: str) -> None:
    def priced(*script: Step) -> Handler:
        return compose(Upstream(script), cost("openai", "gpt-4o"))

    slow, whole = priced(10.0, *PRICED), priced(*PRICED)
    maybe_billed = priced(Overloaded("billed?", retry_safety="maybe"))
    handler = hedge(named(a=slow, b=whole), delay_s=1) if combined == "hedge" else None
    handler = handler or failover(named(a=maybe_billed, b=whole))
    ledger = Ledger()
    events, _, response = await read(compose(handler, cost("openai", "gpt-4o", ledger=ledger)))
    told = [event for event in events if isinstance(event, Cost)][-1]
    assert told == response.cost
    assert (told.exact, told.upper_usd, told.attempts) == (False, None, 2)
    assert (ledger.total.exact, ledger.total.upper_usd) == (False, None)


async def test_a_hedge_behind_a_failure_that_nobody_bills_is_exact() -> None:
    free = compose(Upstream([RateLimited("429")]), cost("openai", "gpt-4o"))
    whole = compose(Upstream(PRICED), cost("openai", "gpt-4o"))
    _, _, response = await read(hedge(named(a=free, b=whole), delay_s=1))
    assert (response.cost.exact, response.cost.attempts) == (True, 1)


# --- closing -------------------------------------------------------------------------------------

FAILING: dict[str, Callable[[Handler], Handler]] = {
    "cache": lambda inner: compose(inner, cache("p", "m")),
    "restart": lambda inner: compose(inner, retry(1, resume="restart", budget=RetryBudget(0, 0))),
    "prefill": lambda inner: compose(inner, retry(1, resume="prefill", budget=RetryBudget(0, 0))),
}


@pytest.mark.parametrize("end", [ConnectionLost("cut"), 10.0], ids=["in closing", "in a read"])
@pytest.mark.parametrize("layer", FAILING)
async def test_an_upstream_lets_go_though_its_reader_is_cancelled(layer: str, end: Step) -> None:
    upstream = Upstream([*broken("a")[:-1], end], leave=lambda: anyio.sleep(0.3))
    began_s = anyio.current_time()
    with anyio.move_on_after(0.15) as scope:
        await read(FAILING[layer](upstream))
    assert scope.cancelled_caught == (end == 10.0)  # an error that is on its way is told first
    assert len(upstream.left_s) == 1
    assert anyio.current_time() - began_s < 1


@pytest.mark.parametrize("how", ["restart", "prefill"])
async def test_a_broken_piece_that_does_not_close_is_waited_for_three_seconds(how: str) -> None:
    upstream = Upstream(broken("a"), leave=lambda: anyio.sleep(40))
    began_s = anyio.current_time()
    await read(compose(upstream, retry(1, resume=how, budget=RetryBudget(0, 0))))  # type: ignore[arg-type]
    assert anyio.current_time() - began_s < 4


async def test_nobody_who_shares_an_answer_ends_before_its_upstream_is_closed() -> None:
    upstream = Upstream([1.0, *broken("a")], leave=lambda: anyio.sleep(2))
    handler = compose(upstream, cache("p", "m"))
    ended_s: list[float] = []

    async def one() -> None:
        _, error, _ = await read(handler)
        assert isinstance(error, ConnectionLost)
        ended_s.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    assert len(upstream.left_s) == 1
    assert min(ended_s) >= upstream.left_s[0]


@pytest.mark.parametrize("slow", ["get", "put"])
async def test_a_slow_store_leaves_the_answer_its_time(slow: str) -> None:
    class Slow:
        async def get(self, key: str) -> None:  # noqa: ARG002 (its signature)
            if slow == "get":
                await anyio.sleep_forever()

        async def put(self, key: str, events: object) -> None:  # noqa: ARG002 (its signature)
            if slow == "put":
                await anyio.sleep_forever()

    request = Request(messages=(), timeouts=Timeouts(total_s=5))
    handler = compose(Upstream([1.0, *text_events("whole")]), cache("p", "m", store=Slow()))
    events, error, response = await read(handler, request)
    assert error is None
    assert response.text == "whole"
    assert [event.kind for event in events if isinstance(event, Notice)] == ["warning"]


# --- hedge ---------------------------------------------------------------------------------------


async def bad() -> None:
    msg = "closing broke"
    raise RuntimeError(msg)


async def test_a_cancelled_race_stays_cancelled_where_a_loser_cannot_be_closed() -> None:
    race = hedge(named(a=Upstream([10.0, *text_events("a")], leave=bad), b=Upstream([50.0])), delay_s=1)
    with anyio.move_on_after(2) as scope:
        await read(race)
    assert scope.cancelled_caught


@ASYNCIO
async def test_a_cancelled_task_stays_cancelled_where_a_loser_cannot_be_closed() -> None:
    race = hedge(named(a=Upstream([10.0, *text_events("a")], leave=bad), b=Upstream([50.0])), delay_s=1)
    task = asyncio.create_task(read(race))  # type: ignore[arg-type]
    await anyio.sleep(2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


@asynccontextmanager
async def with_children(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:  # noqa: ARG001 (a handler)
    async def events() -> AsyncGenerator[Event]:
        await _wait_with_children()
        yield Start()

    async with aclosing(events()) as given:
        yield given


async def _wait_with_children() -> None:
    if sniffio.current_async_library() == "trio":
        import trio  # noqa: PLC0415 (only on trio)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(100)
    else:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1_000))
            await asyncio.sleep(100)


async def test_a_loser_with_children_loses_quietly() -> None:
    _, error, response = await read(hedge(named(a=with_children, b=Upstream(text_events("fast"))), delay_s=1))
    assert error is None
    assert response.text == "fast"


@ASYNCIO
async def test_an_attempt_that_cancels_itself_has_failed() -> None:
    @asynccontextmanager
    async def cancels_itself(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:  # noqa: ARG001 (a handler)
        shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        shared.cancel()
        await shared
        yield played([])

    race = hedge(named(a=cancels_itself, b=Upstream([3.0, *text_events("fine")])), delay_s=1)
    _, error, response = await read(race)
    assert error is None
    assert response.text == "fine"
    _, error, _ = await read(hedge(named(a=cancels_itself), delay_s=1))
    assert isinstance(error, MiddlewareError)
    assert "cancelled" in str(error)


async def test_what_ends_the_program_passes_a_race() -> None:
    def when(error: LoomstreamError) -> bool:
        raise SystemExit(4) from error

    race = hedge(named(a=Upstream([1.0, Overloaded("x")]), b=Upstream([9.0])), delay_s=0.5, when=when)
    with pytest.raises(SystemExit):
        await read(race)


# --- the breaker, weights, files -----------------------------------------------------------------


async def test_an_old_probe_that_fails_late_is_one_fault_among_others() -> None:
    circuit = Circuit(2, open_s=10)
    fault, late = [Overloaded("x")], [15.0, Overloaded("late")]
    handler = compose(Upstream(fault, fault, late, text_events("ok")), circuit_breaker(circuit))
    for _ in range(2):
        await read(handler)
    assert circuit.state == "open"
    await anyio.sleep(10)
    async with anyio.create_task_group() as group:
        group.start_soon(read, handler)
        await anyio.sleep(11)
        _, error, _ = await read(handler)
        assert error is None
    assert circuit.state == "closed"


def test_weights_that_no_float_holds_are_refused() -> None:
    huge = int(1.7e308)
    with pytest.raises(ConfigError, match="too large to be added"):
        balance(named(a=Upstream(), b=Upstream()), "weighted", weights={"a": huge, "b": huge})


async def test_a_folder_of_answers_keeps_what_others_have_put_there(tmp_path: Path) -> None:
    old_s = time.time() - 7_200
    others = tmp_path / "holiday.mp4.part"
    others.write_text("x")
    folder = tmp_path / ".loomstream-x.part"
    folder.mkdir()
    ours = tmp_path / ".loomstream-abandoned.part"
    ours.write_text("x")
    for path in (others, folder, ours):
        os.utime(path, (old_s, old_s))
    await FileCache(tmp_path).put("ab", text_events("x"))
    assert others.exists()
    assert folder.exists()
    assert not ours.exists()
