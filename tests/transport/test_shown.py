"""`LOOM_DEBUG_BEDROCK=1`, and its like: what is sent, on standard error."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import httpx
import pytest
from models import ANSWER, CANARY

from loomstream.config.load import load
from loomstream.errors import AuthFailed
from loomstream.model import connect
from loomstream.testing.replay import ReplayTransport
from loomstream.transport.shown import ShownTransport, is_asked_for
from loomstream.wire import WireRequest

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def nothing_is_configured(no_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del no_keys
    monkeypatch.setenv("LOOM_DATA_DIR", "/nowhere")


def client(status: int = 200) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        del request
        return httpx.Response(status, headers={"content-type": "text/event-stream"}, content=ANSWER)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.mark.anyio
async def test_the_requests_of_bedrock_are_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOOM_DEBUG_BEDROCK", "1")
    monkeypatch.setenv("LOOM_LLM_BEDROCK_BEARER_TOKEN", CANARY)
    async with client(401) as http, connect("bedrock:amazon.nova-lite-v1:0", client=http) as model:
        with pytest.raises(AuthFailed):
            await model.complete(f"Why? \x1b[31m {CANARY}", max_tokens=77)
    out, told = capfd.readouterr()
    assert out == ""
    first, *rest = told.splitlines()
    assert first.startswith(
        "LOOM_DEBUG_BEDROCK: POST https://bedrock-runtime.us-west-2.amazonaws.com/model/amazon.nova"
    )
    assert "  authorization: ***" in [line.lower() for line in rest]
    assert '"maxTokens":77' in told
    assert "Why?" in told
    assert CANARY not in told
    assert "\x1b" not in told


@pytest.mark.anyio
async def test_it_is_one_provider_s_alone(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOOM_DEBUG_BEDROCK", "1")
    async with client() as http, connect("openai:m", api_key="k", client=http) as model:
        assert (await model.complete("x")).text == "hi"
    monkeypatch.setenv("LOOM_DEBUG_OPENAI", "yes")
    async with client() as http, connect("openai:m", api_key="k", client=http, config=load(environ={})) as model:
        assert (await model.complete("x")).text == "hi"
    assert capfd.readouterr().err == ""
    async with client() as http, connect("openai:m", api_key="k", client=http) as model:
        assert (await model.complete("x")).text == "hi"
    assert capfd.readouterr().err.startswith("LOOM_DEBUG_OPENAI: POST https://api.openai.com/v1/chat/completions\n")


@pytest.mark.anyio
async def test_a_standard_error_that_takes_nothing_stops_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_DEBUG_OPENAI", "1")
    closed = io.StringIO()
    closed.close()
    for stream in (closed, Full(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        async with client() as http, connect("openai:m", api_key="k", client=http) as model:
            assert (await model.complete("x")).text == "hi"


class Full(io.StringIO):
    """A device without space."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device", text)


@pytest.mark.parametrize(("value", "asked"), [("1", True), ("yes", True), ("0", False), (" ", False), ("False", False)])
def test_what_asks_for_it(value: str, *, asked: bool) -> None:
    assert is_asked_for("azure-openai", {"LOOM_DEBUG_AZURE_OPENAI": value}) is asked
    assert not is_asked_for("openai", {"LOOM_DEBUG_AZURE_OPENAI": value})


HIDDEN = "5b6c7d8e9f0a1b2c3d4e"


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({"x-acme": HIDDEN}, b"{}", "  x-acme: ***"),
        ({"x-acme": f"acme {HIDDEN}"}, f'{{"text": "it is {HIDDEN}"}}'.encode(), "it is ****"),
        ({"x-acme": "blue", "accept": "text/event-stream-1234"}, b"{}", "  accept: text/event-stream-1234"),
        ({"x-acme": "blue", "acme-beta": "streaming-2025-05-14"}, b"{}", "  acme-beta: streaming-2025-05-14"),
        ({"x-acme": "it is CANARY in words"}, b"CANARY", "in words"),
        (
            {"content-type": "application/x-www-form-urlencoded"},
            f"grant_type=x&client%5Fsecret={HIDDEN}&assertion={HIDDEN}&refresh_token={HIDDEN}&scope=all".encode(),
            "&scope=all",
        ),
        (
            {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"},
            f"password={HIDDEN}".encode(),
            "password=**",
        ),
    ],
)
def test_a_credential_under_a_name_that_says_nothing(
    headers: dict[str, str],
    body: bytes,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ACME_ACCESS_TOKEN", CANARY)
    headers = {name: value.replace("CANARY", CANARY) for name, value in headers.items()}
    asked = WireRequest(url="https://acme.test/v1", headers=headers, body=body.replace(b"CANARY", CANARY.encode()))
    ShownTransport(ReplayTransport(), "acme").open(asked)
    told = capfd.readouterr().err
    assert said in told
    assert HIDDEN not in told
    assert CANARY not in told
