"""Each limit of a run: where it ends, with which reason, and that the conversation stays whole."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import anyio
import pytest
from agents import Bench, answer, check_messages, check_nothing_left, check_run, read, results, wait

import loomstream as ls
from loomstream import agent, errors
from loomstream.agent import RunLimits, RunStop
from loomstream.agent.limits import Tally, add_cost
from loomstream.testing import Pause, scripted_model, text_events

pytestmark = pytest.mark.anyio


def priced(amount: str | None, *, exact: bool = True) -> ls.Cost:
    usd = None if amount is None else Decimal(amount)
    return ls.Cost(provider="scripted", model="scripted-model", amount_usd=usd, exact=exact)


async def test_turns() -> None:
    bench = Bench()
    run = agent.run(scripted_model(answer(wait(1))), "Go", [bench.wait], limits=RunLimits(turns=3))
    events = await read(run)
    check_run(events)
    assert events[-1] == RunStop("turns", "3 turns were taken; the limit is 3")
    assert (run.ended, run.turns, len(bench.ended), len(run.messages)) == ("turns", 3, 3, 7)
    check_messages(run.messages)


async def test_turns_are_limited_where_nothing_is_said() -> None:
    run = agent.run(scripted_model(answer(wait(1))), "Go", [Bench().wait])
    await read(run)
    assert (run.ended, run.turns) == ("turns", 50)


async def test_calls() -> None:
    bench = Bench()
    model = scripted_model(answer(wait(1), wait(2)))
    run = agent.run(model, "Go", [bench.wait], limits=RunLimits(calls=3))
    events = await read(run)
    check_run(events)
    assert events[-1] == RunStop("calls", "the model made 4 calls; the limit is 3")
    assert results(events)[2:] == [
        ("call_1", "cancelled", "not run: the limit of 3 calls was reached"),
        ("call_0", "ok", "waited 1"),
    ]
    assert (run.turns, run.calls, len(bench.ended)) == (2, 4, 3)
    check_messages(run.messages)


async def test_as_many_calls_as_allowed_may_be_answered() -> None:
    run = agent.run(scripted_model(answer(wait(1)), text_events("Hi")), "Go", [Bench().wait], limits=RunLimits(calls=1))
    await read(run)
    assert (run.ended, run.response.text) == ("done", "Hi")


async def test_tokens_after_a_turn() -> None:
    run = agent.run(scripted_model(answer(wait(1))), "Go", [Bench().wait], limits=RunLimits(tokens=30))
    events = await read(run)
    assert events[-1] == RunStop("tokens", "30 tokens were used; the limit is 30")
    assert run.turns == 2
    check_messages(run.messages)


async def test_tokens_within_an_answer() -> None:
    bench = Bench()
    told = ls.Usage(input_tokens=5, cache_read_tokens=20, cache_write_tokens=10, output_tokens=5)
    model = scripted_model(answer(wait(1), wait(100), Pause(5), told, Pause(100)))
    run = agent.run(model, "Go", [bench.wait], limits=RunLimits(tokens=40))
    events = await read(run)
    check_run(events, complete=False)
    assert anyio.current_time() == pytest.approx(5)
    assert (run.ended, run.usage) == ("tokens", told)
    assert results(events) == [
        ("call_0", "ok", "waited 1"),
        ("call_1", "cancelled", "stopped before it had a result: the run's limit of tokens was reached"),
    ]
    check_messages(run.messages)
    check_nothing_left(model, bench)


async def test_an_answer_that_is_whole_is_the_end_whatever_it_took() -> None:
    run = agent.run(scripted_model(text_events("a", "b")), "Go", limits=RunLimits(tokens=1))
    await read(run)
    assert (run.ended, run.response.text) == ("done", "ab")


async def test_cost() -> None:
    script = [*answer(wait(1))[:-1], priced("0.02"), ls.Stop("tool_use")]
    run = agent.run(scripted_model(script), "Go", [Bench().wait], limits=RunLimits(cost_usd=Decimal("0.05")))
    events = await read(run)
    assert events[-1] == RunStop("cost", "0.06 USD were spent; the limit is 0.05")
    assert (run.turns, run.cost.amount_usd) == (3, Decimal("0.06"))


async def test_cost_within_an_answer() -> None:
    script = answer(priced("0.01", exact=False), Pause(1), priced("0.05", exact=False), Pause(9))
    model = scripted_model(script)
    run = agent.run(model, "Go", limits=RunLimits(cost_usd=Decimal("0.05")))
    await read(run)
    assert (run.ended, anyio.current_time(), model.open_streams) == ("cost", 1, 0)


async def test_time() -> None:
    bench = Bench()
    model = scripted_model(answer(wait(4), wait(20), Pause(100)))
    run = agent.run(model, "Go", [bench.wait], limits=RunLimits(time_s=10))
    events = await read(run)
    check_run(events, complete=False)
    assert events[-1] == RunStop("time", "the run took longer than 10 s")
    assert anyio.current_time() == pytest.approx(10)
    assert results(events) == [
        ("call_0", "ok", "waited 4"),
        ("call_1", "cancelled", "stopped before it had a result: the run's time limit was reached"),
    ]
    check_messages(run.messages)
    check_nothing_left(model, bench)


async def test_time_while_only_tools_run() -> None:
    bench = Bench()
    run = agent.run(
        scripted_model(answer(wait(20), wait(30))), "Go", [bench.wait], limits=RunLimits(time_s=10), parallel=1
    )
    events = await read(run)
    assert [text for _, _, text in results(events)] == [
        "stopped before it had a result: the run's time limit was reached",
        "not run: the run's time limit was reached",
    ]
    check_run(events)


async def test_a_limit_on_money_that_cannot_be_kept_is_an_error() -> None:
    model = scripted_model(answer(wait(1)), text_events("Hi"))
    async with agent.run(model, "Go", [Bench().wait], limits=RunLimits(cost_usd=Decimal(1))) as run:
        with pytest.raises(errors.BudgetExceeded, match="the price of scripted:scripted-model is not known; limit tok"):
            await run.collect()
    assert (run.ended, len(model.requests)) == ("failed", 1)
    check_messages(run.messages)


async def test_a_limit_on_tokens_that_cannot_be_kept_is_an_error() -> None:
    script = [item for item in answer(wait(1)) if not isinstance(item, ls.Usage)]
    async with agent.run(scripted_model(script), "Go", [Bench().wait], limits=RunLimits(tokens=9)) as run:
        with pytest.raises(errors.BudgetExceeded, match="the provider sends no usage; limit turns or time_s"):
            await run.collect()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"turns": 0}, r"RunLimits\(turns=0\): give a whole number above 0, or None"),
        ({"calls": 1.5}, "give a whole number"),
        ({"tokens": True}, "give a whole number"),
        ({"cost_usd": 0.5}, r"give US dollars as a decimal.Decimal, as in Decimal\('0.50'\), above 0"),
        ({"cost_usd": Decimal("sNaN")}, "give US dollars"),
        ({"cost_usd": Decimal(-1)}, "give US dollars"),
        ({"time_s": float("nan")}, "give seconds above 0"),
        ({"time_s": "9"}, "give seconds above 0"),
    ],
)
def test_what_is_no_limit(given: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.RequestError, match=words):
        RunLimits(**given)


def test_no_limits_at_all() -> None:
    limits = RunLimits(turns=None)
    assert all(getattr(limits, name) is None for name in limits.__struct_fields__)


def test_a_sum_knows_what_is_not_known() -> None:
    total = add_cost(add_cost(Tally().cost, priced("0.5")), priced(None, exact=False))
    assert (total.amount_usd, total.exact, total.attempts) == (None, False, 2)
    assert add_cost(total, priced("0.5")).exact is False
    usage = ls.Usage(input_tokens=1)
    assert Tally().plus(usage, priced("1")).plus(None, priced("1")).usage == usage


async def test_the_tokens_of_a_void_answer_count() -> None:
    void = ls.Usage(input_tokens=7, output_tokens=2, cache_read_tokens=1)
    script = [*answer(wait(1), void)[:-2], ls.Notice("reset", "failover"), *answer(wait(1))]
    model = scripted_model(script, text_events("Hi"))
    run = agent.run(model, "Go", [Bench().wait])
    await read(run)
    used = run.usage
    assert used is not None
    assert (used.input_tokens, used.output_tokens, used.cache_read_tokens) == (7 + 10 + 1, 2 + 5 + 1, 1)


async def test_the_tokens_of_a_void_answer_reach_the_limit() -> None:
    void = ls.Usage(input_tokens=20, output_tokens=5)
    script = [*answer(void)[:-2], ls.Notice("reset", "failover"), *answer(wait(1))]
    run = agent.run(scripted_model(script), "Go", [Bench().wait], limits=RunLimits(tokens=40))
    events = await read(run)
    assert events[-1] == RunStop("tokens", "40 tokens were used; the limit is 40")
    assert run.turns == 1


async def test_one_turn_of_unknown_price_ends_a_run_with_a_limit_on_money() -> None:
    """What it cost cannot be known, so that the limit cannot be kept: the model without a price is named."""
    known = [*answer(wait(1))[:-1], priced("0.01"), ls.Stop("tool_use")]
    free_of_price = ls.Cost(provider="other", model="new-model")
    unknown = [*answer(wait(1))[:-1], free_of_price, ls.Stop("tool_use")]
    model = scripted_model(known, unknown, known)
    limits = RunLimits(cost_usd=Decimal(1))
    async with agent.run(model, "Go", [Bench().wait], limits=limits) as run:
        with pytest.raises(errors.BudgetExceeded, match="the price of other:new-model is not known"):
            await run.collect()
    assert (run.ended, run.turns, run.cost.amount_usd) == ("failed", 2, None)
    check_messages(run.messages)


def test_the_model_without_a_price_is_named_after_others_have_answered() -> None:
    tally = Tally().plus(None, ls.Cost(provider="other", model="new-model")).plus(None, priced("0.01"))
    assert tally.unpriced == "other:new-model"


async def test_an_answer_of_unknown_price_that_is_whole_is_the_end() -> None:
    run = agent.run(scripted_model(text_events("Hi")), "Go", limits=RunLimits(cost_usd=Decimal(1)))
    await read(run)
    assert (run.ended, run.cost.amount_usd) == ("done", None)
