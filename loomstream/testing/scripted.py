"""A model that plays a script of events: for testing consumers, middleware and agent loops.

Contract: what the script says comes out, in order, through the given middleware and the real `Stream`; requests are
kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar, Unpack

import anyio
import anyio.lowlevel
from msgspec import Struct

from loomstream.errors import LoomstreamError
from loomstream.events import Cost, Event, Usage
from loomstream.handler import Handler, Middleware, compose
from loomstream.messages import Prompt, Request, RequestOptions, Response, make_request
from loomstream.stream import Stream
from loomstream.tools import with_output, with_tools
from loomstream.tools.outputs import extract

_T = TypeVar("_T")
_PROVIDER, _MODEL = "scripted", "scripted-model"


class Pause(Struct, frozen=True):
    """Wait for this long (on the event loop's clock, so a virtual clock makes it free), in seconds."""

    seconds: float


Script = Iterable[Event | Pause | LoomstreamError]
"""Events to give, pauses to make, an error to raise."""


class ScriptedModel:
    """Plays one script a call, the last one again and again."""

    def __init__(self, scripts: Sequence[Script], middleware: Sequence[Middleware], defaults: RequestOptions) -> None:
        self._scripts = [list(script) for script in scripts]
        self._defaults = defaults
        self._handler = compose(self._play, *middleware)
        self.requests: list[Request] = []
        self.open_streams = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Do nothing, as there is nothing to close: a program that closes its model need not know which one it has."""

    @property
    def provider(self) -> str:
        """`scripted`."""
        return _PROVIDER

    @property
    def model(self) -> str:
        """`scripted-model`."""
        return _MODEL

    @property
    def request_defaults(self) -> RequestOptions:
        """What was given for every request; `handler` does not know of it."""
        return self._defaults

    @property
    def handler(self) -> Handler:
        """Request to events, with the middleware: the building block of combinators."""
        return self._handler

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give the stream of the next script."""
        request = make_request(prompt, with_output(with_tools({**self._defaults, **options})))
        return Stream(self._handler, request, cost_of=_unknown_cost, provider=_PROVIDER, model=_MODEL)

    async def complete(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Response:
        """Give the whole answer of the next script."""
        async with self.stream(prompt, **options) as stream:
            return await stream.collect()

    async def extract(
        self, prompt: Prompt, kind: type[_T], *, repair: int = 1, **options: Unpack[RequestOptions]
    ) -> _T:
        """Give the answer of the next script as a value of a type; see `loomstream.Model.extract`."""
        return await extract(self, prompt, kind, repair=repair, **options)

    @asynccontextmanager
    async def _play(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        self.requests.append(request)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.open_streams += 1
        try:
            async with aclosing(_play(script)) as events:
                yield events
        finally:
            self.open_streams -= 1


async def _play(script: list[Event | Pause | LoomstreamError]) -> AsyncGenerator[Event]:
    for item in script:
        await anyio.lowlevel.checkpoint()
        if isinstance(item, Pause):
            await anyio.sleep(item.seconds)
        elif isinstance(item, LoomstreamError):
            item.attempts = ()  # what an earlier call made of it
            raise item
        else:
            yield item


def _unknown_cost(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (the signature of CostOf)
    return Cost(provider=provider, model=model)


def scripted_model(
    *scripts: Script, middleware: Sequence[Middleware] = (), **defaults: Unpack[RequestOptions]
) -> ScriptedModel:
    """Give a model that plays the scripts, one a call."""
    return ScriptedModel(scripts, middleware, defaults)
