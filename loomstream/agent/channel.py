"""A bounded channel from the loop to whoever reads the run.

Contract: one reader, any number of writers. `push` never waits; a writer then waits for `room`, so that no more stands
in the channel than its capacity and one item for each writer. A read that is cancelled loses nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import anyio

_T = TypeVar("_T")


class Channel(Generic[_T]):
    """Items in the order in which they were pushed."""

    __slots__ = ("_capacity", "_closed", "_drained", "_filled", "_items")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[_T] = deque()
        self._closed = False
        self._filled: anyio.Event | None = None
        self._drained: anyio.Event | None = None

    def push(self, item: _T) -> None:
        """Add an item."""
        self._items.append(item)
        self._wake_reader()

    @property
    def is_full(self) -> bool:
        """Whether a writer has to wait for room."""
        return len(self._items) >= self._capacity

    async def room(self) -> None:
        """Wait until there is room for another item."""
        while self.is_full:
            self._drained = self._drained or anyio.Event()
            await self._drained.wait()

    async def get(self) -> _T | None:
        """Give the next item, or None where the channel is closed and empty."""
        while not self._items:
            if self._closed:
                return None
            self._filled = anyio.Event()
            await self._filled.wait()
        item = self._items.popleft()
        if self._drained is not None and len(self._items) < self._capacity:
            self._drained.set()
            self._drained = None
        return item

    def close(self) -> None:
        """Say that no more items come."""
        self._closed = True
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._filled is not None:
            self._filled.set()
            self._filled = None
