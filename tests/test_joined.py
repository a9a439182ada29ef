"""Models joined into one: specs and models, defaults, costs, nesting, and who closes what."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from loomstream import agent, catalog, joined
from loomstream.errors import ConfigError, LoomstreamError, Overloaded, UnknownProvider, UsageError
from loomstream.events import Notice, Usage
from loomstream.middleware.candidates import Candidate, Place
from loomstream.middleware.outcomes import Outcome
from loomstream.middleware.retry import retry
from loomstream.model import connect
from loomstream.testing import Recording, ReplayTransport, replay_model, scripted_model, text_events, tool_call_events

pytestmark = pytest.mark.anyio

ANSWER = (
    b'data: {"id":"c1","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}\n\n'
    b"data: [DONE]\n\n"
)
BUSY = Recording([b'{"error":{"message":"busy"}}'], 503, {"content-type": "application/json"})

JOIN: list[Callable[..., joined.JoinedModel]] = [
    joined.failover,
    joined.balance,
    joined.hedge,
    joined.experiment,
    joined.shadow,
]


async def test_the_next_model_answers_and_tells_its_own_cost() -> None:
    first = replay_model("anthropic", BUSY, middleware=())
    second = replay_model("openai", ANSWER, model="gpt-4o")
    async with first, second, joined.failover(first, second) as model:
        response = await model.complete("hi")
    assert (response.text, response.provider) == ("hi", "openai")
    entry = catalog.look_up("openai", "gpt-4o")
    assert entry is not None
    assert response.cost.amount_usd == catalog.price(entry, Usage(input_tokens=1000, output_tokens=100))
    assert response.cost.amount_usd


@pytest.mark.parametrize("join", JOIN, ids=lambda join: join.__name__)
async def test_each_kind_streams_completes_and_nests(join: Callable[..., joined.JoinedModel]) -> None:
    models = [scripted_model(text_events("a")), scripted_model(text_events("a"))]
    inner = join(*models)
    outer = joined.failover(joined.balance(inner, scripted_model(text_events("a"))))
    async with outer, outer.stream("hi") as stream:
        assert [text async for text in stream.text()] == ["a"]
    assert (await inner.complete("hi")).text == "a"
    assert all(model.open_streams == 0 for model in models)
    assert inner.names == ("scripted:scripted-model", "scripted:scripted-model (2)")
    assert inner.model in repr(inner)


async def test_a_model_s_own_defaults_hold_where_the_call_says_nothing() -> None:
    first = scripted_model(text_events("a"), max_tokens=5, system="own", temperature=0.0)
    async with joined.failover(first, system="joined") as model:
        await model.complete("hi")
        await model.complete("hi", max_tokens=7)
    sent = [(request.max_tokens, request.system, request.temperature) for request in first.requests]
    assert sent == [(5, "joined", 0.0), (7, "joined", 0.0)]


async def test_a_model_that_cannot_stream_is_asked_for_the_whole() -> None:
    entry = next(entry for entry in catalog.entries() if entry.streaming is False)
    transport = ReplayTransport(BUSY)
    async with replay_model(entry.provider, model=entry.model, transport=transport, middleware=()) as first:
        with pytest.raises(LoomstreamError):
            await joined.failover(first).complete("hi")
    assert b'"stream":true' not in bytes(transport.requests[0].body)


async def test_what_was_made_is_closed_and_what_was_given_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1234567890")
    async with replay_model("anthropic", BUSY, middleware=()) as given:
        model = joined.failover("openai:gpt-4o", given)
        stream = model.stream("hi")
        await model.aclose()
        await model.aclose()
        with pytest.raises(UsageError, match="closed"):
            model.stream("hi")
        with pytest.raises(UsageError, match="closed"):  # made from the spec, closed
            async with stream:
                await anext(stream)
        with pytest.raises(Overloaded):
            await given.complete("hi")


def test_specs_are_those_of_connect() -> None:
    model = joined.failover("openai:gpt-4o", "anthropic:claude-x", connect("openai:gpt-4o"))
    assert model.names == ("openai:gpt-4o", "anthropic:claude-x", "openai:gpt-4o (2)")
    assert set(model.places) == {Place("openai"), Place("anthropic")}
    with pytest.raises(UnknownProvider):
        joined.failover("no-such-provider:m")
    with pytest.raises(UsageError, match="an int cannot be joined"):
        joined.failover(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no candidates"):
        joined.failover()
    with pytest.raises(UsageError, match="tempo"):
        joined.failover("openai:gpt-4o", tempo=1)  # type: ignore[call-arg]


def test_places_bind_models() -> None:
    europe = connect("bedrock:anthropic.claude-x", settings={"region": "eu-west-1"})
    joined.failover(europe, allowed_providers=["bedrock"], allowed_regions=["eu-west-1"])
    for other, words in (
        (connect("bedrock:m.x", settings={"region": "us-east-1"}), "the region 'us-east-1'"),
        (connect("bedrock:global.anthropic.x", settings={"region": "eu-west-1"}), "the region 'global'"),
        (connect("bedrock:m.x", settings={"region": "eu-west-1"}, base_url="https://x.example"), "no known region"),
        ("openai:gpt-4o", "no known region"),
    ):
        with pytest.raises(ConfigError, match=words):
            joined.failover(europe, joined.balance(other), allowed_regions=["eu-west-1"])


def test_a_candidate_says_what_a_model_cannot() -> None:
    host = Candidate("own", scripted_model(text_events("a")).handler, "azure", "m", "swedencentral")
    assert joined.failover(host, allowed_regions=["swedencentral"]).names == ("own",)


async def test_middleware_is_around_all() -> None:
    first = scripted_model([Overloaded("a")], text_events("a"))
    second = scripted_model([Overloaded("b")])
    model = joined.failover(first, second, middleware=[retry()])
    async with model.stream("hi") as stream:
        kinds = [event.kind async for event in stream if isinstance(event, Notice)]
    assert kinds == ["failover", "retry"]
    assert model.places


async def test_the_cheapest_by_the_catalog_is_asked_first() -> None:
    dear = Candidate("dear", scripted_model(text_events("dear")).handler, "openai", "gpt-4o")
    cheap = Candidate("cheap", scripted_model(text_events("cheap")).handler, "openai", "gpt-4o-mini")
    assert (await joined.balance(dear, cheap, strategy="lowest_cost").complete("hi")).text == "cheap"
    response = await joined.route(dear, cheap).complete("hi")
    assert response.text == "cheap"
    assert response.route.startswith("cheap: the cheapest of 2 that fit")


async def test_an_experiment_names_models() -> None:
    told: list[Outcome] = []
    models = [scripted_model(text_events("a")), scripted_model(text_events("b"))]
    split = joined.experiment(*models, weights={"scripted:scripted-model": 0}, observer=told.append)
    assert (await split.complete("hi")).text == "b"
    assert told[0].name == "scripted:scripted-model (2)"


async def test_agents_run_on_joined_models() -> None:
    first = scripted_model(tool_call_events("add", '{"a": 1, "b": 2}'), text_events("3"))

    def add(a: int, b: int) -> int:
        return a + b

    async with agent.run(joined.failover(first), "1 + 2?", [add]) as run:
        assert (await run.collect()).text == "3"


async def test_a_typed_answer_comes_from_a_joined_model() -> None:
    model = joined.failover(scripted_model([Overloaded("x")]), scripted_model(text_events('{"value": 3}')))
    assert await model.extract("a number", int) == 3


async def test_the_cost_of_models_without_a_cost_middleware_is_known_too() -> None:
    first = replay_model("openai", ANSWER, model="gpt-4o", middleware=())
    async with first, joined.failover(first).stream("hi") as stream:
        await stream.collect()
    assert stream.cost.amount_usd == Decimal("0.0035")  # $2.50 and $10 a million


# --- attempts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("join", [*JOIN[:3], joined.route], ids=lambda join: join.__name__)
async def test_each_failed_attempt_names_whom_it_asked(join: Callable[..., joined.JoinedModel]) -> None:
    nobody = [
        connect(f"openai-compatible:{name}", base_url="http://127.0.0.1:9/v1", middleware=[]) for name in ("a", "b")
    ]
    silent = scripted_model([Overloaded("busy")])
    async with nobody[0], nobody[1], join(*nobody, silent) as model:
        with pytest.raises(LoomstreamError) as raised:
            await model.complete("hi")
    names = {(attempt.provider, attempt.model, attempt.outcome) for attempt in raised.value.attempts}
    assert names == {
        ("openai-compatible", "a", "ConnectFailed"),
        ("openai-compatible", "b", "ConnectFailed"),
        ("scripted", "scripted-model", "Overloaded"),
    }
