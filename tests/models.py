"""What the tests of models share: no keys on the machine, answers as bytes, models that replay them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import httpx
from keyring.backends import null

from loomstream.errors import (
    LoomstreamError,
)
from loomstream.handler import Middleware
from loomstream.middleware.cost import cost
from loomstream.model import Model, connect
from loomstream.providers import look_up
from loomstream.testing import Recording, ReplayTransport, replay_model
from loomstream.testing.replay import Step

CANARY = "sk-canary-7f3a9c2e41d8"


class Keyring(null.Keyring):
    """Holds one key."""

    priority = -1  # type: ignore[assignment]

    def __init__(self, name: str, key: str) -> None:
        self.entry = (name, key)

    def get_password(self, service: str, username: str) -> str | None:
        return self.entry[1] if (service, username) == ("loom", self.entry[0]) else None


# --- answers -------------------------------------------------------------------------------------


def sse(*frames: object) -> bytes:
    return b"".join(f"data: {json.dumps(frame)}\n\n".encode() for frame in frames)


def delta(text: str) -> bytes:
    return sse({"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": text}}]})


FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}})
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
ANSWER = delta("hi") + FINISH + USAGE + DONE

WHOLE = {
    "id": "c1",
    "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
}
"""An answer that is not streamed."""
WHOLE_ANSWER = Recording([json.dumps(WHOLE).encode()], headers={"content-type": "application/json"})


def sleeping(seconds: float) -> Callable[[], Awaitable[None]]:
    async def sleep() -> None:
        await anyio.sleep(seconds)

    return sleep


def failing(error: LoomstreamError) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


def noting(log: list[str], word: str) -> Callable[[], Awaitable[None]]:
    async def note() -> None:
        log.append(word)

    return note


def counting(provider: str, model: str = "") -> tuple[Middleware, ...]:
    """Give what counts and repeats nothing: each request is the one that the test has made, and waits for no other."""
    row = look_up(provider)
    return (cost(row.name, model or row.default_model),)


def replay(
    *steps: Step, provider: str = "openai", status: int = 200, **options: object
) -> tuple[Model, ReplayTransport]:
    transport = ReplayTransport(Recording(steps, status))
    return replay_model(provider, transport=transport, **options), transport


def connected(
    answer: Callable[[httpx.Request], httpx.Response], spec: str = "openai:gpt-4o", **options: object
) -> tuple[Model, httpx.AsyncClient]:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    options.setdefault("middleware", counting(*spec.partition(":")[::2]))
    return connect(spec, client=client, **options), client


def answering(request: httpx.Request) -> httpx.Response:
    del request
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=ANSWER)


async def key_sent(spec: str = "openai", **options: object) -> str:
    """Give the credential that a request goes out with."""
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization", ""))
        return answering(request)

    model, client = connected(answer, spec, **options)
    async with client, model:
        await model.complete("x")
    return sent[0].removeprefix("Bearer ")
