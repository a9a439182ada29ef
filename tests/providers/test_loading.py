"""Loading a model on demand: `Model.prepare` with a `keep_alive_s` among the request defaults."""

from __future__ import annotations

import json
from typing import Any

import anyio
import msgspec
import pytest

from loomstream.dialects import Target
from loomstream.endpoint import Endpoint
from loomstream.errors import FirstEventTimeout, ModelNotFound
from loomstream.messages import Request, Timeouts, user
from loomstream.model import Model
from loomstream.providers import look_up
from loomstream.providers.discovery import load
from loomstream.testing import Recording, ReplayTransport

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json; charset=utf-8"}
LOADED = b'{"model":"qwen3:4b","created_at":"2026-05-01T10:00:00Z","response":"","done":true,"done_reason":"load"}'
ROW = look_up("ollama")
TARGET = Target(provider="ollama", model="qwen3:4b", base_url="http://localhost:11434")


def model_with(transport: ReplayTransport, provider: str = "ollama", **defaults: Any) -> Model:  # noqa: ANN401 (options)
    endpoint = Endpoint(
        look_up(provider), "qwen3:4b", api_key="sk-canary-0123456789", base_url="http://localhost:11434"
    )
    return Model(endpoint, transport=transport, request_defaults=defaults)  # pyright: ignore[reportArgumentType]


def loaded() -> ReplayTransport:
    return ReplayTransport(Recording([LOADED], 200, JSON))


async def test_preparing_has_the_host_load_the_model() -> None:
    transport = loaded()
    async with model_with(transport, keep_alive_s=-1, context_tokens=8192) as model:
        await model.prepare()
    [sent] = transport.requests
    assert sent.url == "http://localhost:11434/api/generate"
    assert json.loads(sent.body) == {
        "model": "qwen3:4b",
        "stream": False,
        "keep_alive": -1,
        "options": {"num_ctx": 8192},
    }
    assert transport.open_responses == 0


@pytest.mark.parametrize(
    ("provider", "defaults"),
    [
        ("ollama", {}),
        ("ollama", {"context_tokens": 8192}),
        ("ollama", {"keep_alive_s": 0}),
        ("vllm", {"keep_alive_s": 9}),
    ],
)
async def test_preparing_loads_nothing(provider: str, defaults: dict[str, Any]) -> None:
    transport = loaded()
    async with model_with(transport, provider, **defaults) as model:
        await model.prepare()
    assert transport.requests == []


async def test_a_model_that_is_missing() -> None:
    transport = ReplayTransport(Recording([b'{"error":"model \'qwen3:4b\' not found"}'], 404, JSON))
    async with model_with(transport, keep_alive_s=60) as model:
        with pytest.raises(ModelNotFound):
            await model.prepare()
    assert transport.open_responses == 0


async def test_loading_ends_with_the_limit_on_a_whole_answer() -> None:
    transport = ReplayTransport(Recording([anyio.sleep_forever], 200, JSON))
    request = Request(messages=(user("x"),), keep_alive_s=60, timeouts=Timeouts(whole_s=0.01))
    with pytest.raises(FirstEventTimeout, match=r"did not load qwen3:4b within 0\.01 s"):
        await load(ROW, TARGET, transport, None, request)
    assert transport.open_responses == 0


async def test_a_host_that_only_says_what_it_has_loads_nothing() -> None:
    transport = loaded()
    row = msgspec.structs.replace(ROW, discovery="loomstream.dialects.discovery")
    await load(row, TARGET, transport, None, Request(messages=(user("x"),), keep_alive_s=60))
    assert transport.requests == []
