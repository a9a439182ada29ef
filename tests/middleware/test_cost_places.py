"""Hosts whose models are priced by another name than the one that was asked for, or by where they are served."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import httpx
import pytest

import loomstream as ls
from loomstream.catalog import look_up, price
from loomstream.errors import ConfigError
from loomstream.events import Usage
from loomstream.middleware.cost import Pricing, cost_of

pytestmark = pytest.mark.anyio

USAGE = Usage(input_tokens=500, output_tokens=1000, final=True)
GPT_4O = Decimal("0.01125")
"""500 in at 2.5 and 1000 out at 10 US dollars per million tokens."""


def answer(model: str) -> bytes:
    named = f'"model":"{model}",' if model else ""
    return (
        f'data: {{"id":"r1",{named}"choices":[{{"index":0,"delta":{{"content":"Hi"}},"finish_reason":"stop"}}]}}\n\n'
        'data: {"id":"r1","choices":[],"usage":{"prompt_tokens":500,"completion_tokens":1000}}\n\n'
        "data: [DONE]\n\n"
    ).encode()


async def asked(spec: str, body: bytes, headers: dict[str, str] | None = None, **options: object) -> ls.Response:
    told = {"content-type": "text/event-stream", **(headers or {})}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body, headers=told))
    async with (
        httpx.AsyncClient(transport=transport) as client,
        ls.connect(spec, client=client, api_key="k", **options) as model,  # type: ignore[arg-type]
    ):
        return await model.complete("x")


@pytest.mark.parametrize(
    ("deployment", "told", "base_model", "expected"),
    [
        ("prod", "gpt-4o-2024-08-06", "", GPT_4O),
        ("gpt-4", "gpt-4o-2024-08-06", "", GPT_4O),
        ("gpt-4", "", "", None),
        ("prod", "", "gpt-4o", GPT_4O),
        ("gpt-4", "who-knows", "gpt-4o", GPT_4O),
        ("gpt-4", "gpt-4o-mini", "gpt-4o", Decimal("0.000675")),
    ],
)
async def test_a_deployment_is_priced_by_what_answers_or_by_the_setting(
    deployment: str, told: str, base_model: str, expected: Decimal | None
) -> None:
    settings = {"base_model": base_model} if base_model else {}
    spec = f"azure-openai:{deployment}"
    response = await asked(spec, answer(told), base_url="https://acme.openai.azure.com", settings=settings)
    assert response.cost is not None
    assert (response.cost.amount_usd, response.cost.exact) == (expected, expected is not None)


async def test_the_base_model_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_LLM_AZURE_OPENAI_BASE_MODEL", "gpt-4o")
    response = await asked("azure-openai:prod", answer(""), base_url="https://acme.openai.azure.com")
    assert response.cost is not None
    assert response.cost.amount_usd == GPT_4O


async def test_a_built_in_provider_under_a_name_of_yours_has_its_prices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "looms.yaml"
    path.write_text("providers:\n  - name: work\n    provider: openai\n", "utf-8")
    monkeypatch.setenv("LOOM_CONFIG", str(path))
    response = await asked("work:gpt-4o", answer("gpt-4o-2024-08-06"))
    assert response.cost is not None
    assert (response.cost.amount_usd, response.cost.exact) == (GPT_4O, True)


async def test_a_budget_in_dollars_knows_no_deployment_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "looms.yaml"
    path.write_text("middleware:\n  budget: {limit_usd: 5}\n", "utf-8")
    monkeypatch.setenv("LOOM_CONFIG", str(path))
    url = "https://acme.openai.azure.com"
    with pytest.raises(ConfigError, match="the deployment gpt-4 is not known"):
        ls.connect("azure-openai:gpt-4", base_url=url, api_key="k")
    response = await asked("azure-openai:gpt-4", answer(""), base_url=url, settings={"base_model": "gpt-4o"})
    assert response.cost is not None
    assert response.cost.amount_usd == GPT_4O


MODEL = "meta-llama/Llama-3.3-70B-Instruct"


@pytest.mark.parametrize("backend", ["together", "nebius"])
async def test_a_router_s_model_is_priced_by_the_backend_that_served(backend: str) -> None:
    served = f"{MODEL}:{backend}"
    entry = look_up("huggingface", served)
    assert entry is not None
    response = await asked(f"huggingface:{MODEL}", answer("theirs"), {"x-inference-provider": backend})
    assert response.cost is not None
    assert response.model == served
    assert response.cost.amount_usd == price(entry, USAGE) is not None


async def test_without_the_backend_s_name_or_its_price_the_cost_is_unknown() -> None:
    for headers in ({}, {"x-inference-provider": "nobody"}):
        response = await asked(f"huggingface:{MODEL}", answer(MODEL), headers)
        assert response.cost is not None
        assert response.cost.amount_usd is None


async def test_a_region_is_charged_at_its_own_rate() -> None:
    model = "meta.llama3-70b-instruct-v1:0"
    usual = cost_of("bedrock", model, USAGE).amount_usd
    mumbai = cost_of("bedrock", model, USAGE, pricing=Pricing(region="ap-south-1")).amount_usd
    assert usual == Decimal("0.004825")  # 500 at 2.65 and 1000 at 3.5
    assert mumbai == Decimal("0.00579")  # 500 at 3.18 and 1000 at 4.2
    assert cost_of("bedrock", model, USAGE, pricing=Pricing(region="mars-north-1")).amount_usd is None


async def test_what_runs_here_costs_nothing_under_any_name() -> None:
    for provider in ("ollama", "local"):
        found = cost_of("mine", "whatever:7b", USAGE, pricing=Pricing(provider=provider))
        assert (found.amount_usd, found.exact) == (Decimal(0), True)
