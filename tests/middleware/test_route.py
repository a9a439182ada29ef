"""Route: who is chosen under which constraints, and what is said of it."""

from __future__ import annotations

import logging
from datetime import date
from decimal import Decimal

import anyio
import pytest

from loomstream.catalog import Entry, Price
from loomstream.errors import ConfigError, Overloaded, Unsupported
from loomstream.events import Cost, Event, Notice, Usage
from loomstream.handler import Handler
from loomstream.messages import Request, Response, Tool, user
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.route import RECENT_S, Decision, Route, estimated_cost, route
from loomstream.stream import Stream
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends

pytestmark = pytest.mark.anyio


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def entry(dollars: str | None, **facts: object) -> Entry:
    price = None if dollars is None else Price(input=Decimal(dollars), output=Decimal(dollars) * 4)
    known: dict[str, object] = {
        "context_tokens": 8_000,
        "max_output_tokens": 1_000,
        "streaming": True,
        "tools": "native",
    }
    return Entry(
        provider="p",
        model="m",
        price=price,
        as_of=date(2026, 1, 1),
        source="here",
        **{**known, **facts},  # type: ignore[arg-type]
    )


ENTRIES = {"dear": entry("10"), "cheap": entry("1"), "middle": entry("3"), "unknown": entry(None)}


def candidate(name: str, *before: object) -> Candidate:
    return Candidate(name, scripted_model([*before, *text_events(name, provider=name)]).handler)  # type: ignore[list-item]


def routed(entries: dict[str, Entry] | None = None, *before: object, **options: object) -> Route:
    known = entries or ENTRIES
    return route([candidate(name, *before) for name in known], entries=known, **options)  # type: ignore[arg-type]


def asking(text: str = "hi", **options: object) -> Request:
    return Request(messages=(user(text),), **options)  # type: ignore[arg-type]


def unpriced(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (its signature)
    return Cost(provider=provider, model=model)


async def run(handler: Handler, request: Request | None = None) -> tuple[list[Event], Response]:
    async with Stream(handler, request or asking(), cost_of=unpriced) as stream:
        events = [event async for event in stream]
    check_order(events)
    return events, stream.response


async def test_the_cheapest_answers_and_an_unknown_price_comes_last() -> None:
    handler = routed()
    _, response = await run(handler)
    assert response.provider == "cheap"
    names = [figures.name for figures in handler.decide(asking()).candidates]
    assert names == ["cheap", "middle", "dear", "unknown"]


async def test_the_decision_is_on_the_response() -> None:
    events, response = await run(routed(), asking("x" * 400, max_tokens=100))
    assert events[0] == Notice("route", response.route)
    assert response.route.startswith(
        "cheap: the cheapest of 4 that fit, for about 100 tokens in and 100 out: "
        "cheap (about $0.000500, not yet timed, window 8000); middle (about $0.001500, "
    )
    assert "unknown (price unknown, not yet timed, window 8000)" in response.route


@pytest.mark.parametrize(
    ("lacking", "request_", "why"),
    [
        ({"context_tokens": 50}, asking("x" * 400), "its window of 50 tokens is less than about 100"),
        ({"context_tokens": 150}, asking("x" * 400, max_tokens=100), "its window of 150 tokens is less than about 200"),
        ({"max_output_tokens": 99}, asking(max_tokens=100), "it writes 99 tokens at most, not 100"),
        ({"tools": "none"}, asking(tools=(Tool("f", "", {}),)), "it calls no tools"),
        ({"tools": "prompt"}, asking(tools=(Tool("f", "", {}),), tool_mode="native"), "it calls tools in the prompt"),
        ({"streaming": False}, asking(), "it does not stream"),
    ],
)
async def test_what_does_not_fit_is_left_out_and_told(lacking: dict[str, object], request_: Request, why: str) -> None:
    handler = routed({"cheap": entry("1", **lacking), "dear": entry("10")})
    _, response = await run(handler, request_)
    assert response.provider == "dear"
    assert f"; left out: {why}" in response.route


@pytest.mark.parametrize(
    ("fitting", "request_"),
    [
        ({"context_tokens": None, "max_output_tokens": None}, asking("x" * 400, max_tokens=100)),
        ({"tools": "prompt"}, asking(tools=(Tool("f", "", {}),))),
        ({"streaming": False}, asking(stream=False)),
        ({"tools": "none"}, asking()),
    ],
)
async def test_what_is_not_known_or_not_needed_refuses_nobody(fitting: dict[str, object], request_: Request) -> None:
    _, response = await run(routed({"cheap": entry("1", **fitting), "dear": entry("10")}), request_)
    assert response.provider == "cheap"


async def test_where_nobody_fits_the_error_has_all_figures() -> None:
    with pytest.raises(Unsupported, match=r"no model fits: .*none fits.*window of 8000.*window of 8000"):
        await run(routed(), asking("x" * 100_000))


async def test_a_cost_limit_refuses_what_is_dearer_or_unknown() -> None:
    handler = routed(max_cost_usd=Decimal("0.01"))
    refused = {figures.name: figures.refused for figures in handler.decide(asking()).candidates if figures.refused}
    assert refused == {
        "dear": "dearer than max_cost_usd=0.01",
        "unknown": "its price is unknown, under max_cost_usd=0.01",
    }


async def test_a_slow_one_is_left_out_until_its_time_is_forgotten() -> None:
    models = [candidate("cheap", Pause(5)), candidate("dear", Pause(1))]
    handler = route(models, entries={name: ENTRIES[name] for name in ("cheap", "dear")}, max_latency_s=3)
    assert [(await run(handler))[1].provider for _ in range(3)] == ["cheap", "dear", "dear"]
    figures = {each.name: each for each in handler.decide(asking()).candidates}
    assert (figures["cheap"].first_event_s, figures["dear"].first_event_s) == (5, 1)
    assert figures["cheap"].refused == "slower than max_latency_s=3"
    await anyio.sleep(RECENT_S)
    assert (await run(handler))[1].provider == "cheap"


async def test_the_next_one_follows_where_the_cheapest_fails() -> None:
    models = [candidate("dear"), candidate("cheap", Overloaded("busy"))]
    events, response = await run(route(models, entries={name: ENTRIES[name] for name in ("cheap", "dear")}))
    assert response.provider == "dear"
    assert [event.kind for event in events if isinstance(event, Notice)] == ["route", "failover"]


async def test_the_decision_is_a_value_too_and_its_observer_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Decision] = []
    await run(routed(on_decision=told.append))
    assert told[0].chosen == "cheap"
    assert told[0].candidates[0].cost_usd == Decimal("0.002049")  # 1 token at $1, 512 at $4 a million

    def broken(decision: Decision) -> None:
        raise ZeroDivisionError(decision.chosen)

    with caplog.at_level(logging.ERROR):
        assert (await run(routed(on_decision=broken)))[1].text == "cheap"
    assert "on_decision failed" in caplog.text


async def test_the_catalog_is_asked_by_provider_and_model() -> None:
    handler = route(
        [
            candidate("paid")._replace(provider="openai", model="gpt-4o"),
            local := candidate("local")._replace(provider="ollama", model="any"),
        ]
    )
    assert handler.decide(asking()).chosen == local.name
    costs = {each.name: each.cost_usd for each in handler.decide(asking()).candidates}
    assert costs == {"local": 0, "paid": estimated_cost("openai", "gpt-4o", asking())}
    assert costs["paid"]
    assert estimated_cost("openai", "no-such-model", asking()) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_latency_s": 0}, "max_latency_s=0"),
        ({"max_cost_usd": -1}, "max_cost_usd=-1"),
        ({"entries": {"z": ENTRIES["cheap"]}}, "names 'z', which is no candidate"),
        ({"entries": {}}, "'a' does not say its provider and model"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        route([candidate("a")], **{"entries": {"a": ENTRIES["cheap"]}, **options})  # type: ignore[arg-type]
