"""What `models:` of a configuration says: in the cost, the budget and the request of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from models import ANSWER

from loomstream import catalog
from loomstream.errors import BudgetExceeded
from loomstream.model import connect

Write = Callable[..., Path]
OWN = "providers: [{name: acme, base_url: 'https://acme.test/v1', model: big}]\n"


@pytest.fixture(autouse=True)
def nothing_said(tmp_path: Path) -> Iterator[None]:
    yield
    catalog.configure(str(tmp_path / "data" / "looms.yaml"), {})


def client() -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        del request
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=ANSWER)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.mark.anyio
async def test_a_call_costs_what_the_configuration_says(write: Write) -> None:
    write(OWN + "models: {'acme:big': {input: 1000, output: 10000}, 'openai:gpt-4o': {input: 5, output: 0}}")
    async with client() as http:
        async with connect("acme", client=http) as model:
            assert (await model.complete("x")).cost.amount_usd == 2
        async with connect("openai:gpt-4o", api_key="k", client=http, middleware=()) as model:
            assert (await model.complete("x")).cost.amount_usd == Decimal("0.005")


@pytest.mark.anyio
async def test_a_budget_goes_by_what_the_configuration_says(write: Write) -> None:
    write(
        OWN + "models: {'acme:big': {input: 0, output: 10000, max_output_tokens: 100}}\n"
        "middleware: {budget: {limit_usd: 1.5}}"
    )
    async with client() as http, connect("acme", client=http) as model:
        await model.complete("x", max_tokens=100)
        with pytest.raises(BudgetExceeded):
            await model.complete("x", max_tokens=100)


def test_a_limit_of_the_configuration_is_asked_for_where_the_wire_demands_one(write: Write) -> None:
    write("models: {'anthropic:claude-mine': {max_output_tokens: 77}}")
    assert connect("anthropic:claude-mine")._endpoint.route.quirks.needs_max_tokens == 77


@pytest.mark.anyio
@pytest.mark.parametrize(("successor", "asked"), [("", "gpt-4o"), (", successor: gpt-4.1", "gpt-4.1")])
async def test_a_default_model_that_is_no_more_is_told_of_once(
    successor: str, asked: str, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    own = "{deprecated_on: '2020-01-01'" + successor + "}"
    write("models: {'openai:gpt-4o': " + own + ", 'openai:gpt-4.1': {deprecated_on: '2999-01-01'}}")
    async with client() as http, connect("openai", api_key="k", client=http) as model:
        response = await model.complete("x")
    assert model.model == asked
    told = [*caplog.messages, *response.warnings]
    assert len(told) == 1, told
    assert "2020-01-01" in told[0]
