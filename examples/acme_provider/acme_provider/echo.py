"""A provider without HTTP: it says the prompt again, word by word.

A handler takes a request and gives an async context manager over events. What it must keep: the order law
(`loomstream.testing.check_order`), nothing open across a `yield` but itself, and when its context is left, whatever it
holds is closed. Errors are `LoomstreamError`s; anything else becomes a `MiddlewareError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio.lowlevel

from loomstream.auth import Credentials
from loomstream.errors import Unsupported
from loomstream.events import Event, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.handler import Handler
from loomstream.messages import Image, Request


def make(model: str, credentials: Credentials) -> Handler:
    """Give the handler of a model; called once for each `connect`. `await credentials.key()` gives a key, where needed.

    Its context manager raises `Unsupported` for a prompt with images.
    """

    @asynccontextmanager
    async def handler(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async with aclosing(_answer(request, credentials.provider, model)) as events:
            yield events

    return handler


async def _answer(request: Request, provider: str, model: str) -> AsyncGenerator[Event]:
    if any(isinstance(block, Image) for message in request.messages for block in message.content):
        msg = f"{provider} cannot see images"
        raise Unsupported(msg, provider=provider, model=model)
    words = request.messages[-1].text.split()
    told = words[: request.max_tokens]
    warnings = ("tools are ignored",) if request.tools else ()
    yield Start(provider, model, warnings=warnings)
    yield TextStart(0)
    for word in told:
        await anyio.lowlevel.checkpoint()  # where a real one would wait
        yield TextDelta(0, f"{word} ")
    yield TextEnd(0)
    yield Usage(input_tokens=len(words), output_tokens=len(told), final=True)
    yield Stop("end_turn" if len(told) == len(words) else "max_tokens")
