"""The running streams of a server, by key: who begins one and who reads it are different requests.

    async with Hub() as hub:
        hub.publish("answer-1", model.stream("…"))
        async with hub.get("answer-1").reader(after=17) as reader: ...

Contract: each stream is read in a task of its own, which nothing of the caller's holds open; leaving the hub stops them
all and waits until they are closed. What is over is kept for readers who come late, for `keep_s`, and never more than
`max_streams` in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
from msgspec import Struct

from loomstream.errors import LimitExceeded, UsageError
from loomstream.transport.background import Background
from loomstream.ui.broadcast import Broadcast, Source

LINGER_S = 10.0
"""How long a stream of a hub goes on without readers, in seconds: a page that is reloaded takes a moment to be back."""


class _Running(Struct, frozen=True):
    broadcast: Broadcast
    background: Background[None]


class Hub:
    """Streams by key. `max_streams` bounds the running ones, and those that are over beside them.

    `linger_s` and `keep_going` say what becomes of a stream that nobody reads; see `Broadcast`.
    """

    def __init__(
        self, *, max_streams: int = 1000, keep_s: float = 300.0, linger_s: float = LINGER_S, keep_going: bool = False
    ) -> None:
        self._max_streams = max_streams
        self._keep_s = keep_s
        self._linger_s = linger_s
        self._keep_going = keep_going
        self._running: dict[str, _Running] = {}
        self._over: dict[str, tuple[float, Broadcast]] = {}
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop every stream, and wait until it is closed; safe to call again."""
        self._is_open = False
        self.stop_all("the server is shutting down")
        with anyio.CancelScope(shield=True):
            for running in list(self._running.values()):
                await running.background.wait(math.inf)
        self._over.clear()

    def stop_all(self, reason: str) -> None:
        """Close every stream; their readers get `StreamCancelled`."""
        for running in list(self._running.values()):
            running.broadcast.stop(reason)

    def publish(self, key: str, source: Source, *, then: Callable[[Broadcast], None] | None = None) -> Broadcast:
        """Begin to read a stream, and give its broadcast; `then` is called with it once the stream is over.

        Raises `UsageError` where the hub is not open or the key is taken, `LimitExceeded` where too many streams run.
        """
        self._sweep()
        if not self._is_open or key in self._running or key in self._over:
            msg = f"a stream has the key {key!r} already" if self._is_open else "enter the hub first: async with Hub()"
            raise UsageError(msg)
        if len(self._running) >= self._max_streams:
            msg = f"{self._max_streams} streams run already: try again when one is over, or raise max_streams"
            raise LimitExceeded(msg)
        broadcast = Broadcast(source, linger_s=self._linger_s, keep_going=self._keep_going)

        async def run() -> None:
            try:
                await broadcast.run()
            finally:
                self._ended(key, broadcast)
                if then is not None:
                    then(broadcast)

        self._running[key] = _Running(broadcast, Background(run))
        return broadcast

    def get(self, key: str) -> Broadcast | None:
        """Give the broadcast of a key; None where there is none, or it is over for longer than it is kept."""
        self._sweep()
        running = self._running.get(key)
        if running is not None:
            return running.broadcast
        kept = self._over.get(key)
        return None if kept is None else kept[1]

    def _ended(self, key: str, broadcast: Broadcast) -> None:
        self._running.pop(key, None)
        if self._is_open:
            self._over[key] = (anyio.current_time() + self._keep_s, broadcast)

    def _sweep(self) -> None:
        now_s = anyio.current_time() if self._over else 0.0
        while self._over:
            key, (until_s, _) = next(iter(self._over.items()))
            if until_s > now_s and len(self._over) <= self._max_streams:
                return
            del self._over[key]
