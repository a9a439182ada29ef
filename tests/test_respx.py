"""What leaves and how answers come in, seen from the client's side: each dialect through a user's own HTTP client."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import httpx2
import pytest
import respx
from client_wires import ANTHROPIC, KEY, OLLAMA, OPENAI, TOOL, WIRES, Wire
from models import counting

import loomstream as ls
from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ConnectFailed,
    ConnectionLost,
    ContextTooLong,
    FirstEventTimeout,
    LoomstreamError,
    MiddlewareError,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RedirectRefused,
    ServerFault,
    UsageError,
)
from loomstream.testing import check_order

pytestmark = pytest.mark.anyio

TLS = ssl.create_default_context()
"""One for all clients: each would read the system's certificates anew."""


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_ENDPOINT", "OLLAMA_BASE_URL", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def router() -> Iterator[respx.MockRouter]:
    with respx.mock(assert_all_called=False) as started:
        yield started


@pytest.fixture
async def client(router: respx.MockRouter) -> AsyncIterator[httpx.AsyncClient]:  # noqa: ARG001 (it stands before)
    async with httpx.AsyncClient(verify=TLS) as opened:
        yield opened


def model_for(wire: Wire, client: object, **options: Any) -> ls.Model:  # noqa: ANN401 (request options)
    options.setdefault("middleware", counting(*wire.spec.partition(":")[::2]))
    return ls.connect(wire.spec, api_key=KEY if wire.auth else None, client=client, **options)


def stream_of(wire: Wire) -> httpx.Response:
    return httpx.Response(200, headers=wire.stream_headers, content=wire.stream)


def sent(route: respx.Route) -> dict[str, object]:
    return json.loads(route.calls.last.request.content)


# --- what leaves ---------------------------------------------------------------------------------


async def test_the_request_s_head(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    route = router.post(wire.url).mock(return_value=stream_of(wire))
    async with model_for(wire, client) as model:
        await model.complete("Hi")
    [call] = route.calls
    headers = call.request.headers
    assert str(call.request.url) == wire.url
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert "application/json" in headers["accept"]
    assert {name: headers[name] for name in wire.auth} == wire.auth
    credentials = {"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization"}
    assert {name for name in credentials if name in headers} == credentials & set(wire.auth)
    assert KEY not in str(call.request.url)
    assert KEY.encode() not in call.request.content


async def test_unset_fields_are_not_sent(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    route = router.post(wire.url).mock(return_value=stream_of(wire))
    async with model_for(wire, client) as model:
        await model.complete("Hi")
    assert sent(route) == wire.bare


async def test_without_streaming_the_body_says_so(
    wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient
) -> None:
    route = router.post(wire.url).respond(json=wire.answer)
    async with model_for(wire, client) as model:
        response = await model.complete("Hi", stream=False)
    assert sent(route) == wire.whole
    assert response.text == "Hello, you"
    assert response.complete


SETTINGS: dict[str, dict[str, object]] = {
    "openai": {"temperature": 0, "top_p": 0.5, "max_completion_tokens": 0, "seed": 7, "stop": ["x"]},
    "anthropic": {"temperature": 0, "top_p": 0.5, "max_tokens": 0, "stop_sequences": ["x"]},
    "ollama": {"options": {"temperature": 0, "top_p": 0.5, "num_predict": 0, "seed": 7, "stop": ["x"]}},
}


async def test_zero_is_a_value(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    route = router.post(wire.url).mock(return_value=stream_of(wire))
    async with model_for(wire, client, temperature=0, top_p=1, seed=7) as model:
        response = await model.complete("Hi", max_tokens=0, top_p=0.5, stop_sequences=["x"])
    assert sent(route) == {**wire.bare, **SETTINGS[model.provider]}
    assert [warning for warning in response.warnings if "seed" in warning] == (
        ["seed is not sent: this wire has none"] if wire is ANTHROPIC else []
    )


async def test_extra_body_and_headers_win(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    route = router.post(wire.url).mock(return_value=stream_of(wire))
    async with model_for(wire, client, extra_headers={"x-team": "rivers"}) as model:
        await model.complete("Hi", extra_body={"metadata": {"run": 1}, "model": "other"})
    assert sent(route) == {**wire.bare, "metadata": {"run": 1}, "model": "other"}
    assert route.calls.last.request.headers["x-team"] == "rivers"


FUNCTION = {"type": "function", "function": {
    "name": "get_weather", "description": "Tells the weather", "parameters": TOOL.parameters,
}}  # fmt: skip
TOOLS: dict[str, dict[str, object]] = {
    "openai": {
        "tools": [FUNCTION],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
    },
    "anthropic": {
        "tools": [
            {"name": "get_weather", "description": "Tells the weather", "input_schema": TOOL.parameters},
        ],
        "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    },
    "ollama": {"tools": [FUNCTION]},
}


async def test_tools(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    route = router.post(wire.url).mock(return_value=stream_of(wire))
    async with model_for(wire, client) as model:
        response = await model.complete("Hi", tools=[TOOL], tool_choice="get_weather", parallel_tool_calls=False)
    assert sent(route) == {**wire.bare, **TOOLS[model.provider]}
    # What a wire cannot carry is said, never dropped in silence.
    told = [warning for warning in response.warnings if "deprecated" not in warning]  # that is the catalog's
    assert len(told) == (2 if wire is OLLAMA else 0)


CHOICES: dict[str, tuple[object, object, object]] = {
    "openai": ("auto", "required", "none"),
    "anthropic": ({"type": "auto"}, {"type": "any"}, {"type": "none"}),
}


@pytest.mark.parametrize("provider", CHOICES)
async def test_tool_choices(provider: str, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    wire = WIRES[provider]
    route = router.post(wire.url).mock(return_value=stream_of(wire))
    async with model_for(wire, client, tools=[TOOL]) as model:
        for mode, expected in zip(("auto", "any", "none"), CHOICES[provider], strict=True):
            await model.complete("Hi", tool_choice=mode)
            assert sent(route)["tool_choice"] == expected


async def test_the_base_url_is_yours(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    path = httpx.URL(wire.url).path.removeprefix("/v1" if wire is OPENAI else "")
    route = router.post(f"https://gateway.example/team/a%3Ab{path}").mock(return_value=stream_of(wire))
    async with model_for(wire, client, base_url="https://gateway.example/team/a%3Ab/") as model:
        await model.complete("Hi")
    assert route.calls.last.request.url.raw_path == f"/team/a%3Ab{path}".encode()


# --- what comes ----------------------------------------------------------------------------------


async def test_a_stream(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    router.post(wire.url).mock(return_value=stream_of(wire))
    async with model_for(wire, client) as model, model.stream("Hi") as stream:
        events = [event async for event in stream]
    check_order(events)
    assert [event.text for event in events if isinstance(event, ls.TextDelta)] == ["Hello, ", "you"]
    assert stream.response.text == "Hello, you"
    assert stream.response.stop is not None
    assert stream.response.stop.reason == "end_turn"
    assert stream.usage is not None
    assert (stream.usage.input_tokens, stream.usage.output_tokens) == (9, 3)


async def test_a_stream_and_a_whole_answer_fold_the_same(
    wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient
) -> None:
    router.post(wire.url).mock(side_effect=[stream_of(wire), httpx.Response(200, json=wire.answer)])
    async with model_for(wire, client) as model:
        one, other = await model.complete("Hi"), await model.complete("Hi", stream=False)
    for name in ("message", "stop", "model", "response_id"):
        assert getattr(one, name) == getattr(other, name)
    assert one.usage is not None
    assert other.usage is not None
    assert (one.usage.input_tokens, one.usage.output_tokens) == (other.usage.input_tokens, other.usage.output_tokens)


async def test_a_stream_without_its_end(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    head, found, _ = wire.stream.partition(b'"you"')
    cut = httpx.Response(200, headers=wire.stream_headers, content=head + found)
    router.post(wire.url).mock(return_value=cut)
    async with model_for(wire, client) as model:
        with pytest.raises(ls.StreamTruncated) as caught:
            await model.complete("Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello, "


# --- errors --------------------------------------------------------------------------------------


def openai_error(kind: str, code: str | None, message: str) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic_error(kind: str, message: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_body"}


class Answer(NamedTuple):
    status: int
    body: object
    expected: type[LoomstreamError]
    retry: str = "no"


ERRORS: dict[str, dict[str, Answer]] = {
    "openai": {
        "bad": Answer(400, openai_error("invalid_request_error", None, "Invalid value: 'x'."), BadRequest),
        "long": Answer(
            400,
            openai_error(
                "invalid_request_error", "context_length_exceeded", "This model's maximum context length is 128000."
            ),
            ContextTooLong,
        ),
        "key": Answer(
            401, openai_error("invalid_request_error", "invalid_api_key", "Incorrect API key provided."), AuthFailed
        ),
        "forbidden": Answer(
            403,
            openai_error("invalid_request_error", "unsupported_country_region_territory", "Country not supported"),
            AuthFailed,
        ),
        "model": Answer(
            404,
            openai_error("invalid_request_error", "model_not_found", "The model `x` does not exist"),
            ModelNotFound,
        ),
        "slow": Answer(408, openai_error("timeout", None, "Request timed out"), ServerFault, "maybe"),
        "large": Answer(413, openai_error("invalid_request_error", None, "Request too large"), BadRequest),
        "rate": Answer(
            429, openai_error("requests", "rate_limit_exceeded", "Rate limit reached for gpt-4o"), RateLimited, "yes"
        ),
        "quota": Answer(
            429,
            openai_error("insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
            QuotaExhausted,
        ),
        "fault": Answer(
            500, openai_error("server_error", None, "The server had an error processing it"), ServerFault, "maybe"
        ),
        "overload": Answer(
            503, openai_error("server_error", None, "The engine is currently overloaded"), Overloaded, "yes"
        ),
        "gateway": Answer(502, "<html><head><title>502 Bad Gateway</title></head></html>", ServerFault, "maybe"),
    },
    "anthropic": {
        "bad": Answer(400, anthropic_error("invalid_request_error", "messages: field required"), BadRequest),
        "long": Answer(
            400,
            anthropic_error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            ContextTooLong,
        ),
        "credit": Answer(
            400,
            anthropic_error("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            QuotaExhausted,
        ),
        "key": Answer(401, anthropic_error("authentication_error", "invalid x-api-key"), AuthFailed),
        "forbidden": Answer(403, anthropic_error("permission_error", "Not for this key"), AuthFailed),
        "model": Answer(404, anthropic_error("not_found_error", "model: claude-9"), ModelNotFound),
        "large": Answer(413, anthropic_error("request_too_large", "Request exceeds the maximum size"), BadRequest),
        "rate": Answer(429, anthropic_error("rate_limit_error", "This would exceed your limit"), RateLimited, "yes"),
        "fault": Answer(500, anthropic_error("api_error", "Internal server error"), ServerFault, "maybe"),
        "overload": Answer(529, anthropic_error("overloaded_error", "Overloaded"), Overloaded, "yes"),
        "unavailable": Answer(503, "upstream connect error or disconnect/reset", Overloaded, "yes"),
    },
    "ollama": {
        "bad": Answer(400, {"error": "invalid options: num_ctx"}, BadRequest),
        "tools": Answer(400, {"error": "registry.ollama.ai/library/x does not support tools"}, BadRequest),
        "key": Answer(401, {"error": "unauthorized"}, AuthFailed),
        "forbidden": Answer(403, "", AuthFailed),
        "model": Answer(404, {"error": "model 'qwen3' not found"}, ModelNotFound),
        "rate": Answer(429, {"error": "too many requests"}, RateLimited, "yes"),
        "fault": Answer(500, {"error": "model requires more system memory (9.9 GiB)"}, ServerFault, "maybe"),
        "overload": Answer(
            503, {"error": "server busy, please try again.  maximum pending requests"}, Overloaded, "yes"
        ),
    },
}
CASES = [(provider, name) for provider, answers in ERRORS.items() for name in answers]


@pytest.mark.parametrize(("provider", "name"), CASES, ids=[f"{provider}-{name}" for provider, name in CASES])
async def test_an_error_answer(provider: str, name: str, router: respx.MockRouter, client: httpx.AsyncClient) -> None:
    wire, answer = WIRES[provider], ERRORS[provider][name]
    content = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    headers = {"content-type": "application/json", "x-request-id": "req_head"}
    router.post(wire.url).respond(answer.status, content=content, headers=headers)
    async with model_for(wire, client) as model:
        with pytest.raises(ls.ProviderError) as caught:
            await model.complete("Hi")
    error = caught.value
    assert type(error) is answer.expected
    assert (error.status, error.retry_safety) == (answer.status, answer.retry)
    assert (error.provider, error.model, error.request_id) == (provider, wire.spec.partition(":")[2], "req_head")
    assert error.body == content
    assert str(answer.status) in str(error)
    assert not error.committed
    assert [attempt.outcome for attempt in error.attempts] == [answer.expected.__name__]
    assert KEY not in repr(error)


@pytest.mark.parametrize("stream", [True, False])
async def test_retry_after(wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient, *, stream: bool) -> None:
    body = ERRORS[wire.spec.partition(":")[0]]["rate"].body
    router.post(wire.url).respond(429, json=body, headers={"retry-after": "17", "x-ratelimit-reset-requests": "6m0s"})
    async with model_for(wire, client, stream=stream) as model:
        with pytest.raises(RateLimited) as caught:
            await model.complete("Hi")
    assert caught.value.retry_after_s == 17


async def test_a_redirect_is_not_followed(wire: Wire, router: respx.MockRouter) -> None:
    elsewhere = router.route(host="evil.example")
    router.post(wire.url).respond(307, headers={"location": "https://evil.example/v1"})
    async with httpx.AsyncClient(follow_redirects=True) as client, model_for(wire, client) as model:
        with pytest.raises(RedirectRefused):
            await model.complete("Hi")
    assert not elsewhere.called


FAILURES: dict[type[Exception], type[LoomstreamError]] = {
    httpx.ConnectError: ConnectFailed,
    httpx.ReadTimeout: FirstEventTimeout,
    httpx.RemoteProtocolError: ConnectionLost,
}


@pytest.mark.parametrize("raised", FAILURES)
async def test_what_the_client_raises_is_ours(
    wire: Wire, router: respx.MockRouter, client: httpx.AsyncClient, raised: type[Exception]
) -> None:
    router.post(wire.url).mock(side_effect=raised)
    async with model_for(wire, client) as model:
        with pytest.raises(LoomstreamError) as caught:
            await model.complete("Hi")
    assert type(caught.value) is FAILURES[raised]


async def test_your_client_stays_open_and_its_settings_count(wire: Wire, router: respx.MockRouter) -> None:
    route = router.post(wire.url).mock(return_value=stream_of(wire))
    async with httpx.AsyncClient(headers={"x-team": "rivers"}, auth=None) as client:
        for _ in range(2):
            async with model_for(wire, client) as model:
                await model.complete("Hi")
        assert not client.is_closed
    assert [call.request.headers["x-team"] for call in route.calls] == ["rivers", "rivers"]


async def test_a_closed_client(wire: Wire, client: httpx.AsyncClient) -> None:
    await client.aclose()
    async with model_for(wire, client) as model:
        with pytest.raises(UsageError, match="closed"):
            await model.complete("Hi")


# --- routers and other clients -------------------------------------------------------------------


async def test_a_router_sees_the_default_client(wire: Wire, router: respx.MockRouter) -> None:
    route = router.post(wire.url).mock(return_value=stream_of(wire))
    async with model_for(wire, None) as model:
        assert (await model.complete("Hi")).text == "Hello, you"
    assert route.call_count == 1
    assert sent(route) == wire.bare
    assert {name: route.calls.last.request.headers[name] for name in wire.auth} == wire.auth


async def test_a_router_without_a_route_says_so_itself(wire: Wire, router: respx.MockRouter) -> None:
    """The user's own test is wrong then: nothing may say that a network failed."""
    router.get("https://example.com/")
    async with model_for(wire, None) as model:
        with pytest.raises(MiddlewareError, match="not mocked") as caught:
            await model.complete("Hi")
    assert isinstance(caught.value.__cause__, respx.models.AllMockedAssertionError)


async def test_a_router_that_starts_after_a_request_is_not_passed_by(wire: Wire) -> None:
    async with model_for(wire, None) as model:
        for _ in range(2):
            with respx.mock:
                respx.post(wire.url).mock(return_value=stream_of(wire))
                assert (await model.complete("Hi")).text == "Hello, you"


async def test_an_httpx2_client(wire: Wire) -> None:
    seen: list[httpx2.Request] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, headers=wire.stream_headers, content=wire.stream)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client, model_for(wire, client) as model:
        response = await model.complete("Hi")
    assert response.text == "Hello, you"
    [request] = seen
    assert str(request.url) == wire.url
    assert {name: request.headers[name] for name in wire.auth} == wire.auth
    assert json.loads(await request.aread()) == wire.bare


async def test_an_httpx2_client_s_errors_are_ours(wire: Wire) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        msg = "no"
        raise httpx2.ConnectError(msg, request=request)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(fail)) as client, model_for(wire, client) as model:
        with pytest.raises(ConnectFailed):
            await model.complete("Hi")


async def test_anything_else_is_refused() -> None:
    with httpx.Client() as client, pytest.raises(UsageError, match="AsyncClient"):
        ls.connect("openai:gpt-4o", client=client)
