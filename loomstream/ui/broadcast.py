"""One stream, several readers: each takes the events at its own pace, and one that was lost comes back where it was.

    async with anyio.create_task_group() as tasks:
        broadcast = Broadcast(model.stream("…"))
        tasks.start_soon(broadcast.run)
        async with broadcast.reader() as reader:
            while batch := await reader.next_batch():
                ...

Contract: events are numbered from 1 and stand in a bounded log. `run` reads the stream, in the task that calls it, and
never raises what the stream raises: the readers get that, after all events before it. The slowest reader holds the
stream back once it is `window` events behind, and is sent away where it takes nothing for `patience_s`. Without readers
for `linger_s` the stream is closed, unless `keep_going`. Nothing is open in a reader between two batches; a read that
is cancelled loses nothing. All on one event loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import anyio

from loomstream.agent.events import RunEvent
from loomstream.errors import LoomstreamError, MiddlewareError, StreamCancelled, UsageError
from loomstream.events import File, ReasoningDelta, TextDelta, ToolCallDelta
from loomstream.messages import Response

WINDOW = 256
"""How many events the slowest reader may be behind before the stream waits for it."""
REPLAY = 100_000
"""How many events are kept for readers who come late or again."""
REPLAY_BYTES = 32 * 1024 * 1024
"""About how much they may hold."""
PATIENCE_S = 30.0
"""How long the stream waits for a reader that takes nothing, in seconds."""
FIRST_READER_S = 30.0
"""How long it waits for its first reader, in seconds, where it is not to keep going without."""
MAX_BATCH = 256
_TRIM_EVERY = 64
_EVENT_BYTES = 200

Numbered = tuple[int, RunEvent]


class Source(Protocol):
    """A `Stream`, or the `Run` of an agent: entered, read and left by `Broadcast.run` alone."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> RunEvent: ...

    @property
    def response(self) -> Response:
        """What has been delivered so far."""
        ...


class Broadcast:
    """Reads one stream for several readers; see the module's contract.

    `replay` and `replay_bytes` bound what is kept for readers who come late (all numbers of the last `replay` events);
    what a reader has still to take is kept for it besides.
    """

    def __init__(
        self,
        source: Source,
        *,
        window: int = WINDOW,
        replay: int = REPLAY,
        replay_bytes: int = REPLAY_BYTES,
        patience_s: float = PATIENCE_S,
        linger_s: float = 0.0,
        keep_going: bool = False,
    ) -> None:
        if window < 1:
            msg = f"window={window}: a reader must be able to be one event behind"
            raise UsageError(msg)
        self._source = source
        self._window = window
        self._replay = replay
        self._replay_bytes = replay_bytes
        self._patience_s = patience_s
        self._linger_s = linger_s
        self._keep_going = keep_going
        self._log: list[RunEvent] = []
        self._log_bytes = 0
        self._dropped = 0
        """How many events have left the log."""
        self._readers: set[Reader] = set()
        self._hold_at: float = math.inf
        """At this number it is to be looked whether a reader is too far behind."""
        self._begun = False
        self._scope: anyio.CancelScope | None = None
        self._stopped = ""
        self._is_read = False
        """Whether the stream came to its end, be it an error."""
        self._ended = False
        self._error: LoomstreamError | None = None
        self._grown: anyio.Event | None = None
        self._room: anyio.Event | None = None
        self._joined = anyio.Event()
        self._emptied = anyio.Event()

    # --- what has come ---------------------------------------------------------------------------

    @property
    def last(self) -> int:
        """The number of the last event so far, 0 before the first."""
        return self._dropped + len(self._log)

    @property
    def first(self) -> int:
        """The number of the first event that is still in the log."""
        return self._dropped + 1

    @property
    def ended(self) -> bool:
        """Whether no more events come."""
        return self._ended

    @property
    def error(self) -> LoomstreamError | None:
        """Why it ended before its time, None while it goes on and where the answer is whole."""
        return self._error if self._ended else None

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(self._readers)

    @property
    def response(self) -> Response:
        """What has been delivered so far."""
        return self._source.response

    # --- the stream ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read the stream to its end. Call it once, in a task of its own; cancelling that closes the stream.

        Raises `UsageError` where it was called before.
        """
        if self._begun:
            msg = "this broadcast runs already, or is over: make another"
            raise UsageError(msg)
        self._begun = True
        try:
            with anyio.CancelScope() as self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._watch_readers)
                    await self._read()
                    tasks.cancel_scope.cancel()
        finally:
            self._end()

    def stop(self, reason: str = "the stream was stopped") -> None:
        """Close the stream now: the readers get `StreamCancelled` after the events that came. Safe to call again."""
        self._stopped = self._stopped or reason
        if self._scope is not None:
            self._scope.cancel()
        elif not self._begun:
            self._begun = True
            self._end()

    async def _read(self) -> None:
        try:
            async with self._source as source:
                async for event in source:
                    self._append(event)
                    if self.last >= self._hold_at:
                        await self._wait_for_readers()
        except LoomstreamError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 (a source of the user's own: only typed errors reach a reader)
            self._error = MiddlewareError(f"the source of this broadcast raised {type(error).__name__}: {error}")
            self._error.__cause__ = error
        self._is_read = True

    def _end(self) -> None:
        """Tell the readers; nothing is awaited behind it, so whoever waits for `run` knows it before them."""
        if not self._is_read:
            self._error = StreamCancelled(self._stopped or "the stream was closed by its server")
        self._ended = True
        self._wake_readers()

    def _append(self, event: RunEvent) -> None:
        self._log.append(event)
        self._log_bytes += _size(event)
        if len(self._log) >= self._replay + _TRIM_EVERY or self._log_bytes > self._replay_bytes:
            self._trim()
        self._wake_readers()

    def _trim(self) -> None:
        """Let go of what is over the bounds and no reader has still to take."""
        taken = min((reader.position for reader in self._readers), default=self.last) - self._dropped
        log, count = self._log, 0
        while count < taken and (len(log) - count > self._replay or self._log_bytes > self._replay_bytes):
            self._log_bytes -= _size(log[count])
            count += 1
        del log[:count]
        self._dropped += count

    def _wake_readers(self) -> None:
        if self._grown is not None:
            self._grown.set()
            self._grown = None

    # --- the readers -----------------------------------------------------------------------------

    def reader(self, *, after: int = 0) -> Reader:
        """Give a reader of everything after an event's number; enter it to read: `async with broadcast.reader() as …`.

        Raises `UsageError` where the log does not hold that: the number is not of this stream, or too old.
        """
        self._check(after)
        return Reader(self, after)

    def _check(self, after: int) -> None:
        if not 0 <= after <= self.last + self._ended:
            msg = f"event {after} is not of this stream: its last so far is {self.last}"
            raise UsageError(msg)
        if after < self._dropped:
            msg = f"the log begins at event {self.first}: what follows event {after} is not kept any more"
            raise UsageError(msg)

    def attach(self, reader: Reader) -> None:
        """Count a reader in: from now on the stream waits for it. Raises `UsageError` where it comes too late."""
        self._check(reader.position)
        self._readers.add(reader)
        self._hold_at = min(self._hold_at, reader.position + self._window)
        self._joined.set()

    def detach(self, reader: Reader) -> None:
        """Count a reader out."""
        self._readers.discard(reader)
        self.taken()
        if not self._readers:
            self._emptied.set()

    def taken(self) -> None:
        """Look whether the stream can go on: a reader took something, or left."""
        if self._room is not None and not self._is_held():
            self._room.set()
            self._room = None

    async def grown(self) -> None:
        """Wait for another event, or the end."""
        self._grown = self._grown or anyio.Event()
        await self._grown.wait()

    def after(self, position: int) -> list[Numbered]:
        """Give the next events after a number, in one batch."""
        begin = position - self._dropped
        return list(enumerate(self._log[begin : begin + MAX_BATCH], position + 1))

    def _is_held(self) -> bool:
        slowest = min((reader.position for reader in self._readers), default=math.inf)
        self._hold_at = slowest + self._window
        return self.last >= self._hold_at

    async def _wait_for_readers(self) -> None:
        while self._is_held():
            before = {reader: reader.position for reader in self._readers}
            self._room = anyio.Event()
            with anyio.move_on_after(self._patience_s) as waited:
                await self._room.wait()
            if waited.cancelled_caught:
                await self._send_away(before)

    async def _send_away(self, before: Mapping[Reader, int]) -> None:
        """Part with those who are in the way and took nothing; where nobody is left, wait for somebody."""
        for reader, position in before.items():
            if reader.position == position and self.last - position >= self._window:
                reader.send_away(
                    f"this reader took nothing for {self._patience_s:g} s, and others wait: come back later"
                )
        if not self._keep_going:
            await self._wait_for_one()

    async def _wait_for_one(self) -> None:
        """Wait until there is a reader."""
        while not self._readers:
            self._joined = anyio.Event() if self._joined.is_set() else self._joined
            await self._joined.wait()

    async def _watch_readers(self) -> None:
        """Stop the stream once nobody reads it any more."""
        if self._keep_going:
            return
        linger_s = max(self._linger_s, FIRST_READER_S)
        while True:
            with anyio.move_on_after(linger_s):
                await self._wait_for_one()
            if not self._readers:
                self.stop("the last reader is gone")
                return
            linger_s = self._linger_s
            while self._readers:
                self._emptied = anyio.Event()
                await self._emptied.wait()


class Reader:
    """One reader of a broadcast. `position` is the number of the last event that it took."""

    __slots__ = ("_broadcast", "_lost", "lost", "position")

    def __init__(self, broadcast: Broadcast, position: int) -> None:
        self._broadcast = broadcast
        self.position = position
        self.lost = anyio.Event()
        """Set where it was sent away: whoever sends its events on must let go."""
        self._lost = ""

    async def __aenter__(self) -> Self:
        self._broadcast.attach(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._broadcast.detach(self)

    async def next_batch(self) -> list[Numbered]:
        """Give the next events with their numbers, at least one; an empty list once the answer is whole.

        Raises what the stream raised, after its last event, and `StreamCancelled` where the reader was sent away.
        """
        broadcast = self._broadcast
        while not self._lost:
            batch = broadcast.after(self.position)
            if batch:
                self.position = batch[-1][0]
                broadcast.taken()
                return batch
            if broadcast.ended:
                if broadcast.error is not None:
                    raise broadcast.error
                return []
            await broadcast.grown()
        raise StreamCancelled(self._lost)

    def send_away(self, why: str) -> None:
        """End it: its next read raises `StreamCancelled`."""
        self._lost = why
        self._broadcast.detach(self)
        self.lost.set()


def _size(event: RunEvent) -> int:
    """Give about how much an event holds, in bytes."""
    match event:
        case TextDelta(text=text) | ReasoningDelta(text=text):
            return _EVENT_BYTES + len(text)
        case ToolCallDelta(arguments=text):
            return _EVENT_BYTES + len(text)
        case File(data=data):
            return _EVENT_BYTES + len(data)
        case _:
            return _EVENT_BYTES
