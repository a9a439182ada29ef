from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import anyio
import msgspec
import pytest

from loomstream.auth import HeaderKey
from loomstream.dialects import Quirks, Target
from loomstream.dialects.discovery import Abilities, HostModel
from loomstream.endpoint import Endpoint
from loomstream.errors import (
    BadFrame,
    ConfigError,
    FirstEventTimeout,
    LimitExceeded,
    LoomstreamError,
    ModelNotFound,
    ServerFault,
)
from loomstream.providers import Provider, discovery, look_up
from loomstream.providers.discovery import abilities, explained, list_models, with_abilities
from loomstream.testing import Recording, ReplayTransport

pytestmark = pytest.mark.anyio

ROW = look_up("ollama")
TARGET = Target(provider="ollama", model="qwen3:4b", base_url="http://localhost:11434/api")
JSON = {"content-type": "application/json; charset=utf-8"}
TAGS = {
    "models": [
        {
            "name": "qwen3:8b",
            "model": "qwen3:8b",
            "modified_at": "2026-05-01T10:00:00.5+02:00",
            "size": 5225388164,
            "digest": "500a",
            "details": {"format": "gguf", "family": "qwen3", "parameter_size": "8.2B", "quantization_level": "Q4_K_M"},
        },
        {"name": "gemma3:1b", "size": "big", "details": None},
        {"model": "llama3.2:latest"},
        {"name": None},
        7,
        {"name": "nomic-embed-text:latest"},
    ]
}
SHOW = {
    "license": "…",
    "details": {"family": "qwen3"},
    "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40960, "qwen3.block_count": 36},
    "capabilities": ["completion", "tools", "thinking"],
}


def answering(value: object, status: int = 200) -> ReplayTransport:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ReplayTransport(Recording([body[:5], body[5:]], status, JSON))


async def test_the_models_of_a_host() -> None:
    transport = answering(TAGS)
    found = await list_models(ROW, TARGET, transport)
    assert found == (
        HostModel(name="qwen3:8b", size_bytes=5225388164, family="qwen3", parameters="8.2B", quantization="Q4_K_M"),
        HostModel(name="gemma3:1b"),
        HostModel(name="llama3.2:latest"),
        HostModel(name="nomic-embed-text:latest"),
    )
    [sent] = transport.requests
    assert (sent.method, sent.url, sent.body) == ("GET", "http://localhost:11434/api/tags", b"")
    assert transport.open_responses == 0


async def test_a_host_without_models() -> None:
    assert await list_models(ROW, TARGET, answering({"models": None})) == ()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            SHOW,
            Abilities(capabilities=("completion", "tools", "thinking"), context_tokens=40960),
        ),
        (
            {"capabilities": ["completion", None], "thinking": {"values": [False, "low", "high"], "default": "low"}},
            Abilities(capabilities=("completion",), think_levels=("low", "high")),
        ),
        ({"thinking": {"values": [False, True]}, "model_info": []}, Abilities()),
    ],
)
async def test_what_a_model_can_do(answer: object, expected: Abilities) -> None:
    transport = answering(answer)
    assert await abilities(ROW, TARGET, transport) == expected
    [sent] = transport.requests
    assert (sent.method, sent.url) == ("POST", "http://localhost:11434/api/show")
    assert json.loads(sent.body) == {"model": "qwen3:4b"}


def test_what_the_host_does_not_say_stays() -> None:
    row = Quirks(think_levels=("low",), top_k=True)
    assert with_abilities(row, Abilities()) == row
    assert with_abilities(row, Abilities(capabilities=("tools",), think_levels=("max",))) == Quirks(
        think_levels=("max",), capabilities=("tools",), top_k=True
    )


async def test_a_key_goes_with_the_question() -> None:
    transport = answering(TAGS)
    credentials = Endpoint(look_up("openai"), api_key="sk-canary-0123456789").credentials()
    await list_models(ROW, TARGET, transport, HeaderKey(credentials, header="authorization", prefix="Bearer "))
    assert "authorization" in transport.requests[0].headers


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "expected"),
    [
        (b"<html>", 200, BadFrame),
        (b"{}", 200, BadFrame),
        (b"[]", 200, BadFrame),
        ({"error": "model 'qwen3:4b' not found"}, 404, ModelNotFound),
        ({"error": "oops"}, 500, ServerFault),
    ],
)
@pytest.mark.parametrize("ask", [list_models, abilities])
async def test_answers_that_are_none(
    ask: Callable[[Provider, Target, ReplayTransport], Awaitable[object]],
    answer: object,
    status: int,
    expected: type[LoomstreamError],
) -> None:
    transport = answering(answer, status)
    with pytest.raises(expected) as caught:
        await ask(ROW, TARGET, transport)
    assert type(caught.value) is expected
    assert transport.open_responses == 0


async def test_an_answer_without_end_is_cut() -> None:
    transport = ReplayTransport(Recording([b"x" * (1 << 22)] * 5, 200, JSON))
    with pytest.raises(LimitExceeded):
        await list_models(ROW, TARGET, transport)
    assert transport.open_responses == 0


async def test_a_host_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "LIMIT_S", 0.01)
    transport = ReplayTransport(Recording([b'{"models"', anyio.sleep_forever], 200, JSON))
    with pytest.raises(FirstEventTimeout, match="is http://localhost:11434/api the right host"):
        await list_models(ROW, TARGET, transport)
    assert transport.open_responses == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (look_up("openai"), "no way to ask"),
        (msgspec.structs.replace(ROW, discovery="no.such.module"), "cannot be imported"),
    ],
)
async def test_a_row_that_does_not_say_how_to_ask(row: Provider, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await list_models(row, TARGET, answering(TAGS))


# --- a model that is missing ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (TAGS, 200, "no; the nearest that the host has: qwen3:8b"),
        ({"models": [{"name": "aaa"}, {"name": "bbb"}]}, 200, "no; the host has aaa, bbb"),
        ({"models": [{"name": name * 3} for name in "abcd"]}, 200, "no; the host has aaa, bbb, ccc, …"),
        ({"models": []}, 200, "no; the host has no models yet"),
        (b"<html>", 200, "no"),
        ({"error": "oops"}, 500, "no"),
    ],
)
async def test_a_missing_model_is_explained(answer: object, status: int, told: str) -> None:
    error = ModelNotFound("no", status=404, provider="ollama", model="qwen3:4b")
    better = await explained(error, ROW, TARGET, answering(answer, status))
    assert str(better) == told
    assert (type(better), better.status, better.provider) == (ModelNotFound, 404, "ollama")


async def test_a_host_that_cannot_be_asked_explains_nothing() -> None:
    transport = answering(TAGS)
    assert str(await explained(ModelNotFound("no"), look_up("openai"), TARGET, transport)) == "no"
    assert transport.requests == []
