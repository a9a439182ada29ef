"""Cost while text streams: estimates, what they learn, attempts made inside, ledgers, tiers, and names of hosts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw as RawJSON
from msgspec.structs import replace

from loomstream import catalog
from loomstream.errors import (
    AuthFailed,
    ConnectionLost,
    FirstEventTimeout,
    LoomstreamError,
    Overloaded,
    RateLimited,
    StreamTruncated,
)
from loomstream.events import Cost, Event, ReasoningDelta, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.messages import Request, user
from loomstream.middleware.bills import served_tier
from loomstream.middleware.cost import Pricing, cost, cost_of, may_be_billed
from loomstream.middleware.failover import Candidate, failover
from loomstream.middleware.hedge import hedge
from loomstream.middleware.ledger import Ledger, Line
from loomstream.middleware.retry import retry
from loomstream.testing import Pause, scripted_model
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel
from tests.batched import Batched

pytestmark = pytest.mark.anyio

START = Start("openai", "gpt-4o")
SLOW = RateLimited("slow")
STOP = Stop("end_turn")
FINAL = Usage(input_tokens=500, output_tokens=1000, final=True)
EXACT = Decimal("0.01125")  # 500 * 2.50 + 1000 * 10.00, for a million
ANSWER: list[Event] = [START, TextStart(0), TextDelta(0, "Hi"), TextEnd(0), FINAL, STOP]

PROMPT = Request(messages=(user("p" * 400),))

Script = Sequence[Event | Pause | LoomstreamError]


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def texts(*sizes: int, pause_s: float = 0.3) -> list[Event | Pause]:
    return [item for size in sizes for item in (Pause(pause_s), TextDelta(0, "x" * size))]


async def ask(model: ScriptedModel, **options: object) -> list[Event]:
    async with model.stream("p" * 400, **options) as stream:  # type: ignore[arg-type]
        return [event async for event in stream]


def costs(events: Sequence[Event]) -> list[Cost]:
    return [event for event in events if isinstance(event, Cost)]


# --- estimates -----------------------------------------------------------------------------------


async def test_text_is_reckoned_while_it_streams_before_any_usage() -> None:
    script = [START, TextStart(0), *texts(400, 400), TextEnd(0), FINAL, STOP]
    seen = costs(await ask(scripted_model(script, middleware=[cost("openai", "gpt-4o")])))
    # 400 characters are 100 tokens by the rule of thumb: 100 * 2.50 for the prompt, and 100 * 10.00 for each text
    assert [one.amount_usd for one in seen] == [Decimal("0.00125"), Decimal("0.00225"), EXACT]
    assert [one.lower_usd for one in seen] == [0, 0, EXACT]
    assert [one.exact for one in seen] == [False, False, True]


async def test_running_costs_are_no_more_than_four_a_second() -> None:
    script = [START, TextStart(0), *texts(*[100] * 100, pause_s=0.01), TextEnd(0), FINAL, STOP]
    assert len(costs(await ask(scripted_model(script, middleware=[cost("openai", "gpt-4o")])))) == 5


async def test_what_a_usage_counted_is_not_estimated_again() -> None:
    head = Usage(input_tokens=1000, output_tokens=1)
    script = [START, head, TextStart(0), *texts(400), Usage(input_tokens=1000, output_tokens=90), *texts(40), STOP]
    seen = costs(await ask(scripted_model(script, middleware=[cost("openai", "gpt-4o")]), max_tokens=200))
    tokens = [(one.amount_usd * 1_000_000 - 2500) / 10 for one in seen if one.amount_usd is not None]
    assert tokens == [1, 101, 100]
    assert seen[-1].lower_usd == Decimal("0.0034")  # the 90 that were reported
    assert seen[-1].upper_usd == Decimal("0.0045")


async def test_how_many_characters_make_a_token_is_learned_for_each_model() -> None:
    taught = [START, TextStart(0), *texts(2000), TextEnd(0), Usage(output_tokens=1000, final=True), STOP]
    asked = [START, TextStart(0), *texts(1000), TextEnd(0), FINAL, STOP]
    middleware = [cost("openai", "gpt-4o")]
    model = scripted_model(taught, asked, middleware=middleware)
    await ask(model)
    assert costs(await ask(model))[0].amount_usd == Decimal("0.00525")  # 500 tokens, not 250


async def test_an_answer_that_came_at_once_teaches_too() -> None:
    text = TextDelta(0, "x" * 2000)
    taught = [START, Usage(input_tokens=1), TextStart(0), text, Usage(output_tokens=1000, final=True), STOP]
    asked = [START, TextStart(0), *texts(1000), TextEnd(0), FINAL, STOP]
    middleware = cost("openai", "gpt-4o")
    async with middleware(Batched(taught))(PROMPT) as events:
        assert [type(event) async for event in events][-1] is Stop
    assert costs(await ask(scripted_model(asked, middleware=[middleware])))[0].amount_usd == Decimal("0.00525")


async def test_thoughts_that_are_not_shown_teach_nothing_wrong() -> None:
    hidden = Usage(output_tokens=5500, reasoning_tokens=5000, final=True)
    shown = [
        START,
        ReasoningDelta(0, "r" * 1000),
        *texts(1000),
        Usage(output_tokens=500, reasoning_tokens=250, final=True),
        STOP,
    ]
    for taught in ([START, *texts(2000), hidden, STOP], shown):
        model = scripted_model(taught, [START, *texts(400), FINAL, STOP], middleware=[cost("openai", "gpt-4o")])
        handler = model.handler
        for _ in range(2):
            seen: list[Event] = []
            async with handler(PROMPT) as events:
                seen = [event async for event in events]
        assert costs(seen)[0].amount_usd == Decimal("0.00125")  # 4 characters to the token in both


async def test_a_free_or_unknown_model_is_never_estimated() -> None:
    for provider, amount in (("local", Decimal(0)), ("nobody", None)):
        script = [Start(provider, "m"), TextStart(0), *texts(4000), TextEnd(0), STOP]
        seen = costs(await ask(scripted_model(script, middleware=[cost(provider, "m")])))
        assert [one.amount_usd for one in seen] == [amount]


# --- attempts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "billed"),
    [
        (RateLimited("slow"), False),
        (AuthFailed("no"), False),
        (ConnectionLost("gone"), True),
        (FirstEventTimeout("late"), True),
        (StreamTruncated("cut"), True),
    ],
)
async def test_which_failures_may_be_billed(error: LoomstreamError, billed: bool) -> None:  # noqa: FBT001
    assert may_be_billed(error) is billed


async def test_a_try_that_cost_nothing_leaves_the_cost_exact() -> None:
    model = scripted_model([Overloaded("busy")], ANSWER, middleware=[cost("openai", "gpt-4o"), retry()])
    [only] = costs(await ask(model))
    assert (only.amount_usd, only.upper_usd, only.exact, only.attempts) == (EXACT, EXACT, True, 2)


async def test_a_try_that_may_have_been_billed_leaves_no_upper_bound() -> None:
    model = scripted_model([START, ConnectionLost("gone")], ANSWER, middleware=[cost("openai", "gpt-4o"), retry()])
    [only] = costs(await ask(model, max_tokens=10))
    assert (only.lower_usd, only.upper_usd, only.exact, only.attempts) == (EXACT, None, False, 2)


async def test_failover_and_hedge_are_counted_by_what_they_left_behind() -> None:
    slow = scripted_model([Pause(100), *ANSWER])
    quick = scripted_model(ANSWER)
    chains = {
        "failover": failover(
            [Candidate("a", scripted_model([ConnectionLost("gone")]).handler), Candidate("b", quick.handler)]
        ),
        "hedge": hedge([Candidate("a", slow.handler), Candidate("b", quick.handler)], delay_s=1),
    }
    for handler in chains.values():
        model = scripted_model([], middleware=[cost("openai", "gpt-4o"), lambda _, inner=handler: inner])  # type: ignore[misc]
        [only] = costs(await ask(model))
        assert (only.amount_usd, only.upper_usd, only.exact, only.attempts) == (EXACT, None, False, 2)


async def test_a_ledger_innermost_counts_failed_hedged_and_cancelled_attempts_as_bounds() -> None:
    ledger = Ledger()
    metered = cost("openai", "gpt-4o", ledger=ledger)
    begun: Script = [START, Usage(input_tokens=100), Pause(100), *ANSWER[1:]]
    slow, quick = scripted_model(begun, middleware=[metered]), scripted_model([Pause(1), *ANSWER], middleware=[metered])
    race = hedge([Candidate("a", slow.handler), Candidate("b", quick.handler)], delay_s=1)
    model = scripted_model([], middleware=[lambda _: race])
    await ask(model, max_tokens=50)
    assert ledger.total.calls == 2
    assert ledger.total.lower_usd == EXACT + Decimal("0.00025")
    assert ledger.total.upper_usd == EXACT + Decimal("0.00075")
    assert not ledger.total.exact


async def test_an_attempt_that_was_refused_costs_nothing() -> None:
    ledger = Ledger()
    metered = cost("openai", "gpt-4o", ledger=ledger)
    model = scripted_model([RateLimited("slow")], ANSWER, middleware=[retry(), metered])
    await ask(model)
    assert (ledger.total.calls, ledger.total.amount_usd, ledger.total.exact) == (2, EXACT, True)


async def test_an_attempt_that_may_have_been_billed_has_no_upper_bound() -> None:
    ledger = Ledger()
    model = scripted_model(
        [ConnectionLost("gone")], ANSWER, middleware=[retry(), cost("openai", "gpt-4o", ledger=ledger)]
    )
    await ask(model)
    assert (ledger.total.lower_usd, ledger.total.upper_usd, ledger.total.unknown) == (EXACT, None, 1)


# --- ledgers -------------------------------------------------------------------------------------


async def test_totals_by_tag_provider_and_model() -> None:
    ledger = Ledger()
    by_user = cost("openai", "gpt-4o", ledger=ledger, tag=lambda request: request.end_user_id)
    mini = [Start("openai", "gpt-4o-mini"), *ANSWER[1:]]
    model = scripted_model(ANSWER, ANSWER, mini, middleware=[by_user])
    for name in ("ann", "bob", "bob"):
        await ask(model, end_user_id=name)
    small = Decimal("0.000675")
    assert {tag: sums.amount_usd for tag, sums in ledger.by_tag().items()} == {"ann": EXACT, "bob": EXACT + small}
    assert ledger.by_provider()["openai"].amount_usd == 2 * EXACT + small == ledger.total.amount_usd
    assert ledger.by_model()["openai:gpt-4o"].calls == 2
    assert ledger.lines[Line("bob", "openai", "gpt-4o-mini")].output_tokens == 1000
    assert ledger.total.exact


async def test_a_stream_that_was_left_or_cancelled_is_booked_with_bounds() -> None:
    ledger = Ledger()
    script: Script = [START, Usage(input_tokens=1000), TextStart(0), *texts(400, 400)]
    model = scripted_model(script, middleware=[cost("openai", "gpt-4o", ledger=ledger)])
    async with model.stream("hi", max_tokens=100) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    with anyio.move_on_after(0.4):
        await ask(model, max_tokens=100)
    assert ledger.total.calls == 2
    assert ledger.total.lower_usd == 2 * Decimal("0.0025")
    assert ledger.total.amount_usd == ledger.total.upper_usd == 2 * Decimal("0.0035")


async def test_a_call_that_never_began_is_not_booked() -> None:
    ledger = Ledger()
    async with scripted_model(ANSWER, middleware=[cost("openai", "gpt-4o", ledger=ledger)]).stream("hi"):
        pass
    assert ledger.total.calls == 0


async def test_an_error_while_it_is_opened_is_booked() -> None:
    ledger = Ledger()

    @asynccontextmanager
    async def refused(_: object) -> AsyncGenerator[AsyncIterator[Event]]:
        raise SLOW
        yield

    model = scripted_model([], middleware=[cost("openai", "gpt-4o", ledger=ledger), lambda _: refused])  # type: ignore[list-item]
    with pytest.raises(RateLimited):
        await ask(model)
    assert (ledger.total.calls, ledger.total.upper_usd) == (1, 0)


money = st.decimals(min_value=0, max_value=1000, places=9) | st.none()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), money), max_size=20))
async def test_sums_are_exact_however_they_are_grouped(calls: list[tuple[str, str, Decimal | None]]) -> None:
    ledger = Ledger()
    for tag, model, amount in calls:
        ledger.add(Cost(provider="p", model=model, amount_usd=amount, lower_usd=amount, upper_usd=amount), tag=tag)
    known = [amount for _, _, amount in calls if amount is not None]
    assert ledger.total.amount_usd == sum(known, Decimal(0))
    assert ledger.total.unknown == len(calls) - len(known)
    assert ledger.total.upper_usd == (sum(known, Decimal(0)) if len(known) == len(calls) else None)
    for groups in (ledger.by_tag(), ledger.by_model(), ledger.by_provider()):
        assert sum((sums.amount_usd for sums in groups.values()), Decimal(0)) == ledger.total.amount_usd
        assert sum(sums.calls for sums in groups.values()) == len(calls)


# --- prices --------------------------------------------------------------------------------------

RATES = catalog.TieredRates(input=Decimal(1), output=Decimal(2))
PRICE = catalog.Price(input=Decimal(2), output=Decimal(4), service_tiers={"batch": RATES})


async def test_a_service_tier_has_its_own_price_or_none_that_is_known() -> None:
    for tier, expected in (("", 8), ("Default", 8), ("batch", 4), ("priority", None)):
        amount = catalog.price(PRICE, Usage(input_tokens=2_000_000, output_tokens=1_000_000), tier)
        assert amount == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("raw", "tier"),
    [
        (b'{"service_tier":"priority"}', "priority"),
        (b'{"serviceTier":"FLEX"}', "FLEX"),
        (b'{"service_tier":null}', None),
        (b'{"service_tier":7}', None),
        (b'{"input_tokens":1}', None),
        (b"null", None),
    ],
)
async def test_the_tier_that_served_is_read(raw: bytes, tier: str | None) -> None:
    assert served_tier(Usage(raw=RawJSON(raw))) == tier


async def test_the_tier_that_was_asked_for_counts_until_the_answer_says_another() -> None:
    [unknown] = costs(await ask(scripted_model(ANSWER, middleware=[cost("openai", "gpt-4o")]), service_tier="flex"))
    assert (unknown.amount_usd, unknown.exact) == (None, False)
    usual = [*ANSWER[:-2], replace(FINAL, raw=RawJSON(b'{"service_tier":"default"}')), STOP]
    [known] = costs(await ask(scripted_model(usual, middleware=[cost("openai", "gpt-4o")]), service_tier="flex"))
    assert known.amount_usd == EXACT


async def test_a_deployment_is_never_priced_by_its_name() -> None:
    by_answer = Pricing(by_request=False)
    named_like_a_model = Start("azure-openai", "")
    for start, pricing, expected in (
        (named_like_a_model, by_answer, None),
        (Start("azure-openai", "gpt-4o"), by_answer, EXACT),
        (named_like_a_model, Pricing(by_request=False, base_model="gpt-4o"), EXACT),
        (Start("azure-openai", "gpt-4o-mini"), Pricing(by_request=False, base_model="gpt-4o"), Decimal("0.000675")),
    ):
        middleware = cost("azure-openai", "gpt-4.1", pricing=pricing)
        [only] = costs(await ask(scripted_model([start, *ANSWER[1:]], middleware=[middleware])))
        assert only.amount_usd == expected


async def test_a_provider_under_another_name_has_the_price_of_the_one_that_it_is() -> None:
    script = [Start("work-openai", "gpt-4o"), *ANSWER[1:]]
    for pricing, expected in ((Pricing(), None), (Pricing(provider="openai"), EXACT)):
        [only] = costs(await ask(scripted_model(script, middleware=[cost("work-openai", "gpt-4o", pricing=pricing)])))
        assert (only.provider, only.amount_usd) == ("work-openai", expected)


async def test_another_host_that_answered_is_priced_by_its_own_name() -> None:
    pricing = Pricing(provider="openai", base_model="gpt-4o")
    script = [Start("nobody", "gpt-4o"), *ANSWER[1:]]
    [only] = costs(await ask(scripted_model(script, middleware=[cost("work-openai", "gpt-4o", pricing=pricing)])))
    assert only.amount_usd is None


async def test_bedrock_is_priced_by_the_region_of_its_profile() -> None:
    worldwide, regional = (
        cost_of("bedrock", f"{where}anthropic.claude-sonnet-4-5-20250929-v1:0", FINAL).amount_usd
        for where in ("global.", "eu.")
    )
    assert (worldwide, regional) == (Decimal("0.0165"), Decimal("0.01815"))
