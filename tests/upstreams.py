"""Handlers that play scripts and note how they were opened and left, and what goes with them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.lowlevel

from loomstream.events import Cost, Event, Usage
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.middleware.candidates import Candidate

Step = Event | float | BaseException
"""An event to give, seconds to wait, an error to raise."""


class Upstream:
    """A handler: one script a call, the last one again and again; `leave` is awaited in leaving it."""

    def __init__(self, *scripts: Iterable[Step], leave: Callable[[], Awaitable[object]] | None = None) -> None:
        self._scripts = [list(script) for script in scripts]
        self._leave = leave
        self.log: list[str] = []
        self.requests: list[Request] = []
        self.left_s: list[float] = []

    @property
    def calls(self) -> int:
        return self.log.count("open")

    @asynccontextmanager
    async def __call__(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        script = self._scripts[min(self.calls, len(self._scripts) - 1)]
        self.requests.append(request)
        self.log.append("open")
        try:
            async with aclosing(played(script)) as events:
                yield events
        finally:
            self.log.append("leaving")
            if self._leave is not None:
                await self._leave()
            self.log.append("left")
            self.left_s.append(anyio.current_time())


async def played(script: list[Step]) -> AsyncGenerator[Event]:
    for step in script:
        await anyio.lowlevel.checkpoint()
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, int | float):
            await anyio.sleep(step)
        else:
            yield step


def named(**handlers: Handler) -> list[Candidate]:
    return [Candidate(name, handler, name, "m") for name, handler in handlers.items()]


def unpriced(provider: str, model: str, usage: Usage | None) -> Cost:  # noqa: ARG001 (its signature)
    return Cost(provider=provider, model=model)
