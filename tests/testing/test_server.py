"""The simulator in front of the real pipeline: every provider's row, every fault, on both event loops."""

from __future__ import annotations

import math
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

import loomstream as ls
from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    FirstEventTimeout,
    IdleTimeout,
    LoomstreamError,
    ProviderError,
    RateLimited,
    UsageError,
    WireError,
)
from loomstream.messages import Timeouts
from loomstream.providers.table import TABLE
from loomstream.testing import Recording, text_events
from loomstream.testing.faults import Fault, read_fault
from loomstream.testing.pace import Pace, typical
from loomstream.testing.server import Received, Simulator, simulator
from loomstream.testing.wires import WIRES, answer_of

ROWS = [row for row in TABLE if not row.launch]


def connected(server: Simulator, spec: str = "openai:gpt-4o") -> ls.Model:
    return ls.connect(spec, **server.options(spec.partition(":")[0]), middleware=[])


@pytest.mark.anyio
@pytest.mark.usefixtures("no_keys")
async def test_every_provider_of_the_table_is_served() -> None:
    async with simulator("Hello there") as server:
        for row in ROWS:
            async with connected(server, f"{row.name}:{row.default_model or 'm'}") as model:
                assert (await model.complete("hi")).text == "Hello there", row.name
                assert (await model.complete("hi", stream=False)).text == "Hello there", row.name
    assert [request.provider for request in server.requests] == [row.name for row in ROWS for _ in (1, 2)]
    assert {request.outcome for request in server.requests} == {"whole"}


@pytest.mark.anyio
async def test_requests_are_there_to_be_looked_at() -> None:
    async with simulator("a", "b") as server, connected(server) as model:
        assert [(await model.complete("hi")).text for _ in range(3)] == ["a", "b", "b"]
    first = server.requests[0]
    assert (first.dialect, first.model, first.streams, first.provider) == ("openai_chat", "gpt-4o", True, "openai")
    assert first.json["messages"] == [{"role": "user", "content": "hi"}]
    assert first.headers["authorization"] == "Bearer simulated"


@pytest.mark.anyio
async def test_a_responder_answers_by_the_request() -> None:
    def respond(received: Received) -> str:
        return f"you are {received.json['max_completion_tokens']}"

    async with simulator(respond=respond) as server, connected(server) as model:
        assert (await model.complete("hi", max_tokens=7)).text == "you are 7"


@pytest.mark.anyio
async def test_what_a_responder_raises_is_raised_on_closing() -> None:
    def respond(received: Received) -> str:
        raise KeyError(received.model)

    async def run() -> None:
        async with simulator(respond=respond) as server, connected(server) as model:
            with pytest.raises(ConnectionLost):
                await model.complete("hi")

    with pytest.raises(KeyError, match="gpt-4o"):
        await run()


@pytest.mark.anyio
async def test_a_recording_is_played_as_it_is() -> None:
    frames = WIRES["openai_chat"].frames(answer_of(text_events("x", "y")))
    async with simulator(Recording([frame.data for frame in frames])) as server, connected(server) as model:
        assert (await model.complete("hi")).text == "xy"


@pytest.mark.anyio
@pytest.mark.usefixtures("no_keys")
async def test_every_provider_refuses_a_wrong_key_in_its_own_words() -> None:
    keyed = [row for row in ROWS if row.auth != "none"]
    assert {row.dialect for row in keyed} | {"ollama_chat"} >= set(WIRES) - {"bedrock_invoke", "openai_responses"}
    async with simulator("Come in", api_key="sk-right") as server:
        for row in keyed:
            spec = f"{row.name}:{row.default_model or 'm'}"
            async with connected(server, spec) as model:
                assert (await model.complete("hi")).text == "Come in", row.name
            options = {**server.options(row.name), "api_key": "sk-wrong"}
            async with ls.connect(spec, **options, middleware=[]) as model:
                for streams in (True, False):
                    with pytest.raises(AuthFailed):
                        await model.complete("hi", stream=streams)
    assert [request.outcome for request in server.requests] == ["whole", "refused", "refused"] * len(keyed)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/openai/v1/chat/completions", {}, 401),
        ("/openai/v1/chat/completions", {"authorization": "Bearer k"}, 200),
        ("/openai/v1/chat/completions", {"x-api-key": "k"}, 401),
        ("/openai/v1/chat/completions", {"authorization": "Basic k"}, 401),
        ("/openai/v1/responses", {"authorization": "Bearer other"}, 401),
        ("/anthropic/v1/messages", {"x-api-key": "k"}, 200),
        ("/anthropic/v1/messages", {}, 401),
        ("/gemini/v1beta/models/m:generateContent", {}, 403),
        ("/gemini/v1beta/models/m:generateContent?key=k", {}, 200),
        ("/gemini/v1beta/models/m:generateContent?key=other", {}, 400),
        ("/bedrock/model/m/invoke", {"authorization": "AWS4-HMAC-SHA256 Credential=k/20260101/r/s, x=y"}, 200),
        ("/bedrock/model/m/invoke", {"authorization": "AWS4-HMAC-SHA256 Credential=kk/20260101/r/s, x=y"}, 403),
        ("/ollama/api/chat", {}, 200),
        ("/nobody/api/chat", {}, 401),
        ("/nobody/v2/chat", {"api-key": "k"}, 200),
    ],
)
def test_where_a_key_is_looked_for(path: str, headers: dict[str, str], status: int) -> None:
    with (
        simulator("a", api_key="k") as server,
        closing(HTTPConnection("127.0.0.1", server.port, timeout=20)) as client,
    ):
        client.request("POST", path, b'{"model":"m"}', headers)
        assert client.getresponse().status == status


def test_a_key_that_no_header_can_hold() -> None:
    for key in ("", " ", "a\nb", "ключ"):
        with pytest.raises(ConfigError, match="printable"):
            simulator("a", api_key=key)


SIZE = len(b"".join(frame.data for frame in WIRES["openai_chat"].frames(answer_of("one two three"))))
FAULTS: list[tuple[Fault, type[LoomstreamError]]] = [
    (Fault("status", status=429), RateLimited),
    (Fault("status", status=401), AuthFailed),
    (Fault("status", status=503), ProviderError),
    (Fault("hang"), FirstEventTimeout),
    (Fault("stall", at=2), IdleTimeout),
    (Fault("cut", at=SIZE // 2), ConnectionLost),
    (Fault("reset", at=SIZE // 2), ConnectionLost),
    (Fault("malformed", at=2), WireError),
    (Fault("error", at=2), ProviderError),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=[f"{fault.kind}-{fault.status}" for fault, _ in FAULTS])
async def test_a_fault_is_a_typed_error_and_the_next_request_is_well(
    fault: Fault, error: type[LoomstreamError]
) -> None:
    limits = {"hang": Timeouts(first_event_s=0.2), "stall": Timeouts(idle_s=0.2)}.get(fault.kind, Timeouts())
    async with simulator("one two three", faults=[fault]) as server, connected(server) as model:
        with pytest.raises(error):
            await model.complete("hi", timeouts=limits)
        assert (await model.complete("hi")).text == "one two three"
    assert [request.outcome for request in server.requests][1] == "whole"
    assert server.requests[0].fault == fault
    assert server.requests[0].outcome in {"fault", "client_left"}  # it may leave while it is failed


@pytest.mark.anyio
@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(("status", "error"), [(413, BadRequest), (422, BadRequest), (403, AuthFailed)])
async def test_a_status_about_the_request_is_so_at_every_provider(status: int, error: type[ProviderError]) -> None:
    async with simulator("never", faults=[Fault("status", status=status)] * len(ROWS)) as server:
        for row in ROWS:
            async with connected(server, f"{row.name}:{row.default_model or 'm'}") as model:
                with pytest.raises(ProviderError) as caught:
                    await model.complete("hi")
                assert type(caught.value) is error, row.name


@pytest.mark.anyio
async def test_a_drip_loses_nothing() -> None:
    async with simulator("one two", faults=Fault("drip")) as server, connected(server) as model:
        assert (await model.complete("hi")).text == "one two"
    assert server.requests[0].sent_frames > 100


@pytest.mark.anyio
async def test_a_client_that_leaves_is_noticed() -> None:
    async with simulator("a " * 5_000, pace=Pace(gap_s=0.001)) as server:
        async with connected(server) as model, model.stream("hi") as stream:
            async for event in stream:
                if isinstance(event, ls.TextDelta):
                    break
        async with connected(server) as model, model.stream("hi") as stream:
            async for event in stream:
                if isinstance(event, ls.TextDelta):
                    break
    assert server.requests[0].sent_frames < 5_000
    assert "whole" not in {request.outcome for request in server.requests}


def test_waits_take_no_time_on_the_virtual_clock(fetch: Callable[[str], bytes]) -> None:
    with simulator("a b c", pace=Pace(first_s=3_600, gap_s=3_600), real_time=False) as server:
        assert b'"content":" c"' in fetch(server.url("openai") + "/chat/completions")


@pytest.fixture
def fetch() -> Callable[[str], bytes]:
    def post(url: str) -> bytes:
        with urllib.request.urlopen(url, b'{"model":"m","stream":true}', timeout=20) as answer:  # noqa: S310 (loopback)
            return answer.read()

    return post


def test_the_same_seed_gives_the_same_faults(fetch: Callable[[str], bytes]) -> None:
    def outcomes(seed: int) -> list[bool]:
        with simulator("a", faults=[Fault("status")], fault_rate=0.5, seed=seed) as server:
            for _ in range(12):
                try:
                    fetch(server.url("openai") + "/chat/completions")
                except urllib.error.HTTPError as error:
                    error.close()
            return [request.fault is not None for request in server.requests]

    assert outcomes(1) == outcomes(1) != outcomes(2)


@pytest.mark.parametrize(
    "raw",
    [b"\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: -4\r\n\r\n"],
)
def test_rubbish_is_refused(raw: bytes, fetch: Callable[[str], bytes]) -> None:
    with simulator("a") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(raw)
            assert client.recv(1_000).startswith(b"HTTP/1.1 400")
        assert fetch(server.url("openai") + "/chat/completions")


def test_a_taken_port_and_a_closed_simulator_say_what_to_do() -> None:
    with simulator("a") as server, pytest.raises(ConnectFailed, match="give another port"):
        simulator("a", port=server.port).__enter__()
    with pytest.raises(UsageError, match="not open"):
        server.url("openai")


def test_the_times_scatter_as_they_should() -> None:
    sent = WIRES["openai_chat"].frames(answer_of("w " * 1_000))
    pace = typical(3, 7)
    totals = sorted(sum(pace.waits(sent, seed=5, number=number)) for number in range(400))
    assert totals[200] == pytest.approx(3, rel=0.15)
    assert totals[380] == pytest.approx(7, rel=0.25)
    assert pace.waits(sent, number=3) == pace.waits(sent, number=3) != pace.waits(sent, number=4)


def test_faults_in_words() -> None:
    assert read_fault("status:429") == Fault("status", status=429)
    assert read_fault("cut@500") == Fault("cut", at=500)
    assert read_fault("none") is None
    for text in ("cut:429", "fire", "stall@-1", ""):
        with pytest.raises(ConfigError, match="is no fault"):
            read_fault(text)
    with pytest.raises(ConfigError, match="from 400"):
        Fault("status", status=200)
    with pytest.raises(ValueError, match="not negative"):
        Pace(gap_s=math.nan)
    with pytest.raises(ConfigError, match="share"):
        simulator(fault_rate=2)


def test_the_fixture(loom_simulator: Callable[..., Simulator], fetch: Callable[[str], bytes]) -> None:
    server = loom_simulator("Hello")
    assert b"Hello" in fetch(server.url("anthropic") + "/v1/messages")


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [({}, "whole"), ({"api_key": "sk-right"}, "refused"), ({"faults": Fault("status", status=503)}, "fault")],
)
def test_who_has_the_answer_may_ask_how_it_went(settings: dict[str, Any], outcome: str) -> None:
    with simulator("one", **settings) as server, httpx.Client() as client:
        for number in range(200):
            body = {"model": "m", "messages": [], "stream": number % 2 == 0}
            with client.stream("POST", f"{server.url('openai')}/chat/completions", json=body) as response:
                for line in response.iter_lines():
                    if line == "data: [DONE]":
                        break
            assert server.requests[-1].outcome == outcome
