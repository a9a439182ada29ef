"""Events in lists, as the reads of a socket bring them: the context that a handler gives, and the handler too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from loomstream.events import Event
from loomstream.messages import Request


class Batched:
    """Gives each list at once; `left` tells whether it was closed, `idle` whether opening it waits for nothing."""

    def __init__(self, *reads: list[Event], idle: bool = True) -> None:
        self.reads = list(reads)
        self.left = False
        self._idle = idle

    def __loomstream_idle__(self) -> bool:
        return self._idle

    def __call__(self, _request: Request) -> Self:
        return self

    async def __aenter__(self) -> AsyncIterator[Event]:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.left = True

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        raise NotImplementedError

    async def __loomstream_batch__(self) -> list[Event]:
        if not self.reads:
            raise StopAsyncIteration
        return self.reads.pop(0)
