from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from msgspec import Raw as RawJSON
from msgspec.structs import replace

from loomstream.events import NULL, Cost, Event, Notice, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.handler import Handler, compose
from loomstream.messages import Request, user
from loomstream.middleware.cost import billed_usage, cost, cost_of, reported_cost, zero_cost
from tests.batched import Batched

pytestmark = pytest.mark.anyio

STOP = Stop(reason="end_turn")
FINAL = Usage(input_tokens=500, output_tokens=1000, final=True)
TEXT = (TextStart(index=0), TextDelta(index=0, text="Hello"), TextEnd(index=0))


class Clock:
    """Gives the times it was told, one a reading."""

    def __init__(self, *times_s: float) -> None:
        self.times_s = list(times_s)

    def __call__(self) -> float:
        return self.times_s.pop(0)


def replaying(events: Sequence[Event]) -> Handler:
    @asynccontextmanager
    async def handler(_request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async def iterate() -> AsyncIterator[Event]:
            for event in events:
                yield event

        yield iterate()

    return handler


async def run(
    events: Sequence[Event],
    *,
    provider: str = "openai",
    model: str = "gpt-4o",
    clock: Clock | None = None,
    max_tokens: int | None = None,
) -> list[Event]:
    stage = cost(provider, model, clock or Clock(*(float(second) for second in range(100))))
    handler = compose(replaying(events), stage)
    request = Request(messages=(user("Hi"),), max_tokens=max_tokens)
    async with handler(request) as stream:
        return [event async for event in stream]


def costs(events: Sequence[Event]) -> list[Cost]:
    return [event for event in events if isinstance(event, Cost)]


async def test_events_that_come_at_once_tell_one_running_cost() -> None:
    counts: list[Event] = [Usage(input_tokens=1000, output_tokens=output) for output in (100, 200, 300)]
    batches = [Start(), *TEXT, *counts], [*counts[1:], Usage(input_tokens=1000, output_tokens=400), FINAL, STOP]
    handler = compose(Batched(*batches), cost("openai", "gpt-4o", Clock(0, 1)))
    async with handler(Request(messages=(user("Hi"),))) as stream:
        seen = [event async for event in stream]
    told = [(position, event.amount_usd) for position, event in enumerate(seen) if isinstance(event, Cost)]
    first, second = 1 + len(TEXT) + 1, 1 + len(TEXT) + 1 + 3 + 1
    assert told == [(first, Decimal("0.0035")), (second, Decimal("0.0045")), (len(seen) - 2, Decimal("0.01125"))]
    assert [event for event in seen if not isinstance(event, Cost)] == [*batches[0], *batches[1]]


async def test_one_exact_cost_stands_right_before_the_stop() -> None:
    start = Start(provider="openai", model="gpt-4o-2024-08-06")
    seen = await run([start, *TEXT, FINAL, STOP])
    amount = Decimal("0.01125")
    assert seen == [
        start,
        *TEXT,
        FINAL,
        Cost(
            provider="openai",
            model="gpt-4o-2024-08-06",
            amount_usd=amount,
            lower_usd=amount,
            upper_usd=amount,
            exact=True,
        ),
        STOP,
    ]


async def test_the_response_s_model_is_priced_not_the_requested_one() -> None:
    seen = await run([Start(model="gpt-4o-mini"), FINAL, STOP])
    assert costs(seen)[0].amount_usd == Decimal("0.000675")
    assert costs(seen)[0].model == "gpt-4o-mini"


async def test_the_request_says_what_the_start_leaves_open() -> None:
    for start in ([Start()], []):
        [only] = costs(await run([*start, FINAL, STOP]))
        assert (only.provider, only.model, only.amount_usd) == ("openai", "gpt-4o", Decimal("0.01125"))


async def test_an_unknown_answering_model_is_priced_as_requested_but_not_as_exact() -> None:
    [only] = costs(await run([Start(model="gpt-4o-next"), FINAL, STOP]))
    assert only == Cost(provider="openai", model="gpt-4o-next", amount_usd=Decimal("0.01125"))


async def test_an_unknown_price_is_unknown() -> None:
    [only] = costs(await run([Start(model="gpt-4o-next"), FINAL, STOP], model="gpt-next"))
    assert only == Cost(provider="openai", model="gpt-4o-next")
    [only] = costs(await run([FINAL, STOP], provider="huggingface", model="google/gemma-2-27b-it"))
    assert only == Cost(provider="huggingface", model="google/gemma-2-27b-it")


async def test_without_usage_the_cost_is_an_estimate_with_nothing_below() -> None:
    # "Hi" is 1 token of 4 characters or less, "Hello" 2 of them: (1 * 2.50 + 2 * 10.00) / 1,000,000
    assert costs(await run([Start(), *TEXT, STOP])) == [
        Cost(provider="openai", model="gpt-4o", amount_usd=Decimal("0.0000225"), lower_usd=Decimal(0))
    ]
    assert costs(await run([Start(model="unheard-of"), *TEXT, STOP], model="x")) == [
        Cost(provider="openai", model="unheard-of")
    ]


async def test_what_runs_here_costs_nothing_with_or_without_usage() -> None:
    for events in ([Start(model="some.gguf"), STOP], [Start(model="some.gguf"), FINAL, STOP]):
        [only] = costs(await run(events, provider="local", model="some.gguf"))
        assert only == zero_cost("local", "some.gguf")
        assert only.exact
        assert only.amount_usd == only.lower_usd == only.upper_usd == Decimal(0)


async def test_a_running_cost_comes_at_most_each_250_ms_and_only_with_news() -> None:
    usages = [Usage(output_tokens=tokens) for tokens in (1, 2, 3, 3, 4)]
    seen = await run([Start(), *usages, *TEXT, FINAL, STOP], clock=Clock(10.0, 10.249, 10.25, 11.0, 11.1))
    assert [(type(event).__name__, getattr(event, "amount_usd", None)) for event in seen[1:10]] == [
        ("Usage", None),
        ("Cost", Decimal("0.00001")),
        ("Usage", None),
        ("Usage", None),
        ("Cost", Decimal("0.00003")),
        ("Usage", None),
        ("Usage", None),
        ("Cost", Decimal("0.00004")),
        ("TextStart", None),
    ]
    assert [event.exact for event in costs(seen)] == [False, False, False, True]


async def test_a_running_cost_is_the_lower_bound_and_max_tokens_the_upper() -> None:
    first = Usage(input_tokens=1000, output_tokens=10)
    bounded = costs(await run([Start(), first, FINAL, STOP], max_tokens=100))[0]
    assert bounded.amount_usd == bounded.lower_usd == Decimal("0.0026")
    assert bounded.upper_usd == Decimal("0.0035")
    assert not bounded.exact
    unbounded = costs(await run([Start(), first, FINAL, STOP]))[0]
    assert (unbounded.lower_usd, unbounded.upper_usd) == (Decimal("0.0026"), None)


async def test_the_clock_is_read_only_for_usage_that_may_be_followed_by_more() -> None:
    seen = await run([Start(), *TEXT, Notice(kind="warning"), FINAL, STOP], clock=Clock())
    assert len(costs(seen)) == 1


async def test_the_default_clock_is_the_event_loop_s() -> None:
    handler = compose(replaying([Start(), Usage(output_tokens=1), FINAL, STOP]), cost("openai", "gpt-4o"))
    async with handler(Request(messages=(user("Hi"),))) as stream:
        seen = [event async for event in stream]
    assert [event.amount_usd for event in costs(seen)] == [Decimal("0.00001"), Decimal("0.01125")]


async def test_a_last_usage_that_is_not_final_gives_no_exact_cost() -> None:
    seen = await run([Start(), Usage(output_tokens=10), STOP], max_tokens=10)
    assert [(event.amount_usd, event.exact) for event in costs(seen)] == [(Decimal("0.0001"), False)] * 2


async def test_an_answer_that_begins_again_costs_both_attempts() -> None:
    first = [Start(model="gpt-4o"), *TEXT, Usage(output_tokens=10)]
    second = [Notice(kind="reset"), Start(model="gpt-4o-mini"), *TEXT, FINAL, STOP]
    last = costs(await run([*first, *second]))[-1]
    total = Decimal("0.0001") + Decimal("0.000675")
    assert last == Cost(
        provider="openai", model="gpt-4o-mini", amount_usd=total, lower_usd=total, exact=False, attempts=2
    )


async def test_the_usage_of_an_abandoned_attempt_is_not_counted_twice() -> None:
    events = [Start(), Usage(output_tokens=10), Notice(kind="reset"), Start(), *TEXT, STOP]
    last = costs(await run(events))[-1]
    assert last.amount_usd == Decimal("0.0001") + Decimal("0.0000225")
    assert (last.lower_usd, last.upper_usd, last.exact, last.attempts) == (Decimal("0.0001"), None, False, 2)


async def test_an_abandoned_attempt_without_usage_is_estimated() -> None:
    last = costs(await run([Start(), *TEXT, Notice(kind="reset"), Start(), FINAL, STOP]))[-1]
    assert last.amount_usd == Decimal("0.01125") + Decimal("0.0000225")
    assert (last.lower_usd, last.upper_usd, last.exact, last.attempts) == (Decimal("0.01125"), None, False, 2)


async def test_an_abandoned_attempt_of_unknown_cost_makes_the_sum_unknown() -> None:
    first = [Start(model="unheard-of"), *TEXT, Notice(kind="reset")]
    last = costs(await run([*first, Start(model="gpt-4o-mini"), FINAL, STOP], model="x"))[-1]
    assert last == Cost(provider="openai", model="gpt-4o-mini", attempts=2)


async def test_a_cost_from_nearer_to_the_wire_is_kept_and_not_doubled() -> None:
    inner = Cost(provider="anthropic", model="claude-sonnet-5-5", amount_usd=Decimal(1), exact=True)
    events = [Start(), inner, Usage(output_tokens=7), FINAL, inner, STOP]
    assert await run(events) == events


async def test_a_stream_without_stop_gets_no_last_cost() -> None:
    assert costs(await run([Start(), *TEXT, FINAL])) == []


async def test_streams_of_one_middleware_share_nothing() -> None:
    stage = cost("openai", "gpt-4o", Clock())
    for tokens in (1000, 2000):
        usage = Usage(output_tokens=tokens, final=True)
        async with stage(replaying([Start(), usage, STOP]))(Request(messages=(user("Hi"),))) as stream:
            [only] = costs([event async for event in stream])
        assert only.amount_usd == Decimal(tokens) * 10 / 1_000_000
        assert only.attempts == 1


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"cost":0.000896,"is_byok":false}', "0.000896"),
        (b'{"cost":"0.00637625"}', "0.00637625"),
        (b'{"cost":0}', "0"),
        (b'{"cost":1e-05}', "0.00001"),
        (b'{"cost":{"input_tokens_cost":0.00002,"request_cost":0.005,"total_cost":0.00504}}', "0.00504"),
        (b'{"cost":{"diem":0,"usd":0.0005813}}', "0.0005813"),
        (b'{"cost_in_usd_ticks":2521500}', "0.00025215"),
        (b'{"cost":0.001,"is_byok":true,"cost_details":{"upstream_inference_cost":0.02}}', "0.021"),
        (b'{"cost":0.001,"is_byok":true,"cost_details":{"upstream_inference_cost":null}}', None),
        (b'{"cost":0.001,"is_byok":true,"cost_details":[]}', None),
        (b'{"prompt_tokens":1}', None),
        (b'{"cost":null}', None),
        (b'{"cost":-1}', None),
        (b'{"cost":"NaN"}', None),
        (b'{"cost":"Infinity"}', None),
        (b'{"cost":1e999999999}', None),
        (b'{"cost":true}', None),
        (b'{"cost":{}}', None),
        (b'{"cost":[1]}', None),
        (b'["cost"]', None),
        (b'"cost"', None),
        (b"null", None),
    ],
)
async def test_what_a_gateway_charged_is_read(raw: bytes, expected: str | None) -> None:
    usage = Usage(raw=RawJSON(raw))
    assert reported_cost(usage) == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (b'{"input_tokens":98.0,"output_tokens":6.0}', (98, 6)),
        (b'{"input_tokens":98,"output_tokens":6,"search_units":0,"classifications":null}', (98, 6)),
        (b'{"input_tokens":98,"output_tokens":6,"search_units":1}', None),
        (b'{"input_tokens":98.5}', None),
        (b'{"output_tokens":"many"}', None),
        (b"null", (1508, 6)),
        (b"[]", (1508, 6)),
    ],
)
async def test_the_tokens_that_a_host_bills_are_priced(units: bytes, expected: tuple[int, int] | None) -> None:
    raw = RawJSON(b'{"tokens":{"input_tokens":1508},"billed_units":' + units + b"}")
    counted = Usage(input_tokens=1500, cache_read_tokens=8, output_tokens=6, final=True, raw=raw)
    billed = billed_usage(counted)
    assert expected == (billed and (billed.input_tokens + billed.cache_read_tokens, billed.output_tokens))
    found = cost_of("openai", "gpt-4o", counted, max_tokens=9)
    if billed is None:
        assert (found.amount_usd, found.upper_usd, found.exact) == (None, None, False)
    else:
        assert found.exact
        assert found.amount_usd == cost_of("openai", "gpt-4o", replace(billed, raw=NULL)).amount_usd


async def test_what_a_host_bills_is_priced_and_not_what_its_model_counted() -> None:
    usage = Usage(input_tokens=1508, output_tokens=6, final=True, raw=RawJSON(b'{"billed_units":{"input_tokens":98}}'))
    found = cost_of("cohere", "command-a-03-2025", usage)
    assert (found.amount_usd, found.exact) == (Decimal("0.000245"), True)


async def test_what_a_gateway_charged_wins_over_the_catalog() -> None:
    for model in ("gpt-4o", "openai/gpt-4o:extended"):
        usage = Usage(input_tokens=500, output_tokens=1000, final=True, raw=RawJSON(b'{"cost":0.5}'))
        [only] = costs(await run([Start(model=model), usage, STOP]))
        assert only.exact
        assert only.amount_usd == only.lower_usd == only.upper_usd == Decimal("0.5")


async def test_the_cost_of_a_stream_that_was_cut_off() -> None:
    seen = Usage(input_tokens=1000, output_tokens=10)
    assert cost_of("openai", "gpt-4o", seen) == Cost(
        provider="openai", model="gpt-4o", amount_usd=Decimal("0.0026"), lower_usd=Decimal("0.0026")
    )
    assert cost_of("openai", "gpt-4o", seen, max_tokens=100).upper_usd == Decimal("0.0035")
    assert cost_of("openai", "gpt-4o", seen, max_tokens=5).upper_usd == Decimal("0.0026")
    assert cost_of("openai", "gpt-4o", None) == Cost(provider="openai", model="gpt-4o")
    assert cost_of("local", "x", None) == zero_cost("local", "x")
    assert cost_of("nobody", "x", seen, max_tokens=100) == Cost(provider="nobody", model="x")


async def test_after_several_attempts_no_cost_is_exact() -> None:
    several = cost_of("openai", "gpt-4o", FINAL, attempts=3, max_tokens=9999)
    assert (several.exact, several.lower_usd, several.upper_usd) == (False, Decimal("0.01125"), None)
    assert several.attempts == 3


async def test_a_partial_bill_of_a_gateway_is_a_lower_bound() -> None:
    usage = Usage(output_tokens=10, raw=RawJSON(b'{"cost":0.5}'))
    running = cost_of("openai", "gpt-4o", usage, max_tokens=100)
    assert (running.amount_usd, running.upper_usd, running.exact) == (Decimal("0.5"), Decimal("0.5"), False)
