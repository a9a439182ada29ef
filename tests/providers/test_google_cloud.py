"""Google Cloud's models: the paths of the publishers, and express mode."""

from __future__ import annotations

import json

import pytest

from loomstream.endpoint import Endpoint
from loomstream.errors import ConfigError
from loomstream.model import Model
from loomstream.providers import look_up
from loomstream.testing import Recording, ReplayTransport
from loomstream.wire import WireRequest

pytestmark = pytest.mark.anyio

GEMINI = b'{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}'
CHAT = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'
CHAT_STREAM = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
PLACED = {"project": "p1", "location": "us-central1"}
REGION = "https://us-central1-aiplatform.googleapis.com/v1/projects/p1/locations/us-central1"
OWN = "publishers/google/models/gemini-2.5-flash"


def endpoint_of(model: str, settings: dict[str, str], base_url: str | None = None) -> Endpoint:
    return Endpoint(look_up("vertex-ai"), model, api_key="canary-key", settings=settings, base_url=base_url)


async def sent(endpoint: Endpoint, answer: bytes, *, stream: bool) -> WireRequest:
    kind = "text/event-stream" if stream else "application/json"
    body = b"data: " + answer + b"\n\n" if stream and not answer.startswith(b"data") else answer
    transport = ReplayTransport(Recording([body], 200, {"content-type": kind}))
    async with Model(endpoint, transport=transport) as model:
        assert (await model.complete("x", stream=stream)).text == "hi"
    [wire_request] = transport.requests
    assert "x-goog-api-key" in wire_request.headers
    return wire_request


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, "https://aiplatform.googleapis.com/v1"),
        ({"location": "us-central1"}, "https://aiplatform.googleapis.com/v1"),
        (PLACED, REGION),
        ({"project": "p1"}, "https://aiplatform.googleapis.com/v1/projects/p1/locations/global"),
    ],
)
async def test_a_key_without_a_project_is_express_mode(settings: dict[str, str], base: str) -> None:
    endpoint = endpoint_of("gemini-2.5-flash", settings)
    streamed = await sent(endpoint, GEMINI, stream=True)
    assert streamed.url == f"{base}/{OWN}:streamGenerateContent?alt=sse"
    whole = await sent(endpoint_of("gemini-2.5-flash", settings), GEMINI, stream=False)
    assert whole.url == f"{base}/{OWN}:generateContent"


async def test_express_mode_behind_an_address_of_your_own() -> None:
    endpoint = endpoint_of("gemini-2.5-flash", {}, base_url="https://proxy.example")
    streamed = await sent(endpoint, GEMINI, stream=True)
    assert streamed.url == f"https://proxy.example/v1/{OWN}:streamGenerateContent?alt=sse"


async def test_a_project_of_the_environment_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p2")
    streamed = await sent(endpoint_of("gemini-2.5-flash", {}), GEMINI, stream=True)
    assert "/projects/p2/locations/global/" in streamed.url


@pytest.mark.parametrize(
    "model", ["claude-sonnet-4-5@20250929", "mistral-medium-3", "meta/llama-3.3-70b-instruct-maas"]
)
async def test_other_publishers_need_a_project(model: str) -> None:
    with pytest.raises(ConfigError, match="vertex-ai needs the setting project"):
        await endpoint_of(model, {}).resolve()


async def test_tokens_need_a_project() -> None:
    endpoint = Endpoint(look_up("vertex-ai"), "gemini-2.5-flash", api_key=lambda: "token")
    with pytest.raises(ConfigError, match="vertex-ai needs the setting project"):
        await endpoint.resolve()


@pytest.mark.parametrize(("stream", "call"), [(True, "streamRawPredict"), (False, "rawPredict")])
async def test_mistral_s_models(stream: bool, call: str) -> None:  # noqa: FBT001 (a column of the table)
    endpoint = endpoint_of("mistral-medium-3", PLACED)
    assert endpoint.route.dialect == "openai_chat"
    wire_request = await sent(endpoint, CHAT_STREAM if stream else CHAT, stream=stream)
    assert wire_request.url == f"{REGION}/publishers/mistralai/models/mistral-medium-3:{call}"
    body = json.loads(wire_request.body)
    assert body["model"] == "mistral-medium-3"
    assert "stream_options" not in body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["meta/llama-3.3-70b-instruct-maas", "deepseek-ai/deepseek-v3.1-maas"])
async def test_open_models(model: str, stream: bool) -> None:  # noqa: FBT001 (a column of the table)
    endpoint = endpoint_of(model, PLACED)
    assert endpoint.route.dialect == "openai_chat"
    wire_request = await sent(endpoint, CHAT_STREAM if stream else CHAT, stream=stream)
    assert wire_request.url == f"{REGION}/endpoints/openapi/chat/completions"
    assert json.loads(wire_request.body)["model"] == model
