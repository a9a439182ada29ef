"""Hedge: a second attempt where the first one is slow to begin; the first content wins, the others are closed.

Contract: a combinator of handlers. The race runs inside one `__anext__`: a task group opens the attempts and reads each
up to its first content, the losers are closed there, the group ends, and the winner passes to the caller's task.
Nothing is open across a yield but the winner's own context. Every attempt that was begun may be billed: a `hedge`
notice tells of each. No error leaves in an ExceptionGroup.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import cast

import anyio
from anyio.abc import TaskGroup

from loomstream.errors import Attempt, ConfigError, LoomstreamError, MiddlewareError, UsageError
from loomstream.events import Event, Notice, Start
from loomstream.handler import NextBatch, batches
from loomstream.messages import Request
from loomstream.middleware.attempts import COMMITTING, MAX_HELD
from loomstream.middleware.candidates import Candidate, Placed, all_places, checked
from loomstream.middleware.cost import may_be_billed
from loomstream.middleware.failover import When, elsewhere
from loomstream.middleware.layer import CLOSE_LIMIT_S, Layer, lost_stop, tolerated
from loomstream.numerals import is_number

_log = logging.getLogger(__name__)
_LEAST_KNOWN = 10
"""So many calls must have been timed before a quantile of their times means something."""
_KNOWN = 200
_NO_REQUEST = Request(messages=())


class Latencies:
    """The times to the first content of the last calls; `hedge` waits for a quantile of them."""

    def __init__(self) -> None:
        self._known_s: deque[float] = deque(maxlen=_KNOWN)

    def add(self, first_event_s: float) -> None:
        """Take note of a call's time, in seconds."""
        self._known_s.append(first_event_s)

    def quantile(self, share: float) -> float | None:
        """Give the time within which this share of the calls began, None while too few are known."""
        if len(self._known_s) < _LEAST_KNOWN:
            return None
        ordered = sorted(self._known_s)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def hedge(
    candidates: Sequence[Candidate],
    *,
    delay_s: float = 2.0,
    quantile: float | None = None,
    when: When = elsewhere,
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
) -> Placed:
    """Give the handler that asks the first candidate, and each next one where no content has come for a while.

    `delay_s` is that while, in seconds; with `quantile` (0.95: the slowest twentieth) it is what that share of the last
    calls took, once ten are known. A candidate that fails makes the next one start at once, where `when` allows. For a
    second attempt at the same provider give it twice, under two names.

    Raises `ConfigError` for no candidates, two of one name, one that may send elsewhere than to `allowed_providers` and
    `allowed_regions`, a negative delay, and a quantile not between 0 and 1.
    """
    chain = checked(candidates, "hedge", allowed_providers=allowed_providers, allowed_regions=allowed_regions)
    if not (is_number(delay_s) and delay_s >= 0):
        msg = f"hedge(delay_s={delay_s!r}): give seconds of at least 0"
        raise ConfigError(msg)
    if quantile is not None and not (is_number(quantile) and 0 < quantile < 1):
        msg = f"hedge(quantile={quantile!r}): give a number between 0 and 1"
        raise ConfigError(msg)
    latencies = Latencies()

    def wait_s() -> float:
        known = None if quantile is None else latencies.quantile(quantile)
        return delay_s if known is None else known

    def hedged(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return _Hedged(_Race(chain, request, wait_s, when, latencies))

    return Placed(hedged, all_places(chain))


class _Hedged(Layer):
    """One call; after the race it passes on what the winner gives."""

    __slots__ = ("_failure", "_race")

    def __init__(self, race: _Race) -> None:
        super().__init__(_nowhere, _NO_REQUEST)
        self._race: _Race | None = race
        self._failure: LoomstreamError | None = None

    async def next_batch(self) -> list[Event]:
        race, self._race = self._race, None
        if race is None:
            failure, self._failure = self._failure, None
            raise failure or StopAsyncIteration
        try:
            winner = await race.run()
        except LoomstreamError as error:
            if not race.notices:
                raise
            self._failure = error
            return race.notices
        self._context, self.inner, self.passing = winner.context, winner.inner, winner.inner
        return [*race.notices, *winner.held]

    def holds(self) -> bool:
        """No: the winner is left by leaving its context."""
        return False


def _nowhere(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:  # noqa: ARG001 (a handler)
    msg = "a hedge opens its candidates itself"
    raise UsageError(msg)


async def _nothing() -> list[Event]:
    raise StopAsyncIteration


class _Runner:
    """One attempt on its way to its first content."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.context: AbstractAsyncContextManager[AsyncIterator[Event]] | None = None
        """Entered, and not yet left."""
        self.inner: NextBatch = _nothing
        self.held: list[Event] = []
        self.notices: list[Event] = []
        self.scope = anyio.CancelScope()

    async def begin(self, request: Request) -> None:
        """Read up to the first content."""
        context = self.candidate.handler(request)
        events = await context.__aenter__()
        self.context = context
        self.inner = batches(events)
        while True:
            try:
                read = await self.inner()
            except StopAsyncIteration:
                raise lost_stop() from None
            if self._has_begun(read):
                return

    def _has_begun(self, read: list[Event]) -> bool:
        """Keep what was read; say whether the answer has begun."""
        for at, event in enumerate(read):
            (self.notices if isinstance(event, Notice) else self.held).append(event)
            if isinstance(event, Notice) and event.kind == "reset":  # what came before is void, and nobody has seen it
                self.held.clear()
            if event.__class__ in COMMITTING or len(self.held) > MAX_HELD:
                self.held += read[at + 1 :]
                return True
        return False

    async def close(self) -> None:
        """Leave what was entered."""
        context, self.context = self.context, None
        if context is not None:
            await context.__aexit__(None, None, None)

    def attempts(self, error: LoomstreamError) -> tuple[Attempt, ...]:
        """Give the attempts behind an error: where the candidate is a combinator, those that it made."""
        start = next((event for event in self.held if isinstance(event, Start)), Start())
        error.provider = error.provider or start.provider or self.candidate.provider
        error.model = error.model or start.model or self.candidate.model
        return error.attempts or (Attempt(error.provider, error.model, type(error).__name__, error.retry_after_s),)


async def _close(runners: list[_Runner], raised: list[BaseException]) -> None:
    """Leave all of them at once, within a limit; what is no `LoomstreamError` is kept for the caller."""

    async def close(runner: _Runner) -> None:
        try:
            await tolerated(runner.close(), f"closing {runner.candidate.name}, which lost a race")
        except Exception as error:  # noqa: BLE001 (the group would wrap it)
            raised.append(error)

    with anyio.move_on_after(CLOSE_LIMIT_S, shield=True):
        async with anyio.create_task_group() as group:
            for runner in runners:
                group.start_soon(close, runner)


def _is_cancellation(error: BaseException) -> bool:
    """Say whether it is a cancellation, or on trio a group with one in it."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_cancellation, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return isinstance(error, cancelled)


class _Race:
    """The attempts of one call."""

    def __init__(
        self,
        chain: tuple[Candidate, ...],
        request: Request,
        wait_s: Callable[[], float],
        when: When,
        latencies: Latencies,
    ) -> None:
        self._waiting = list(chain)
        self._request = request
        self._wait_s = wait_s
        self._when = when
        self._latencies = latencies
        self._runners: list[_Runner] = []
        self._failed: list[tuple[_Runner, LoomstreamError]] = []
        self._told = 0
        """So many failures were told of, or made nobody start."""
        self._winner: _Runner | None = None
        self._raised: BaseException | None = None
        self._changed = anyio.Event()
        self.notices: list[Event] = []

    async def run(self) -> _Runner:
        """Give the attempt that began to answer first, with all others closed; raise the last error where none did."""
        try:
            async with anyio.create_task_group() as group:
                try:
                    await self._compete(group)
                except BaseException as error:
                    if _is_cancellation(error):
                        raise
                    self._raised = error  # `when` may raise anything: the group would wrap it
                for runner in self._runners:
                    if runner is not self._winner:
                        runner.scope.cancel()
        except BaseException:  # a cancellation: it passes, whatever goes wrong in closing
            for error in await self._closed(self._runners):
                _log.warning("closing an attempt of a race that was cancelled failed: %r", error)
            raise
        kept = None if self._raised else self._winner
        await self._close_all_but(kept)
        self.notices += [
            notice
            for runner in self._runners
            if runner is not kept
            for notice in runner.notices
            if isinstance(notice, Notice) and notice.may_be_billed
        ]
        if self._raised is not None:
            raise self._raised
        if kept is None:
            raise self._last_error()
        return kept

    async def _compete(self, group: TaskGroup) -> None:
        self._start(group)
        while self._winner is None and self._raised is None:
            self._changed = anyio.Event()
            with anyio.move_on_after(self._wait_s() if self._waiting else None):
                await self._changed.wait()
            if self._winner is not None or self._raised is not None:
                return
            failed, self._told = self._failed[self._told :], len(self._failed)
            if [error for _, error in failed if not self._when(error)]:  # asked once for each
                self._waiting.clear()
            if self._waiting:
                self.notices.append(self._why(failed[-1] if failed else None))
                self._start(group)
            elif len(self._runners) == len(self._failed):
                return

    def _why(self, failed: tuple[_Runner, LoomstreamError] | None) -> Notice:
        """Tell why the next one is begun, with the attempt that has just failed where that is why."""
        asked = f"{self._waiting[0].name} is asked too"
        if failed is None:
            return Notice(
                "hedge", f"{self._runners[-1].candidate.name} has not begun to answer; {asked}", may_be_billed=True
            )
        runner, error = failed
        words = f"{runner.candidate.name} failed ({type(error).__name__}: {error}); {asked}"
        return Notice("hedge", words, may_be_billed(error), runner.attempts(error)[-1])

    def _start(self, group: TaskGroup) -> None:
        runner = _Runner(self._waiting.pop(0))
        self._runners.append(runner)
        group.start_soon(self._read, runner, name=f"hedge {runner.candidate.name}")

    async def _read(self, runner: _Runner) -> None:
        began_s = anyio.current_time()
        try:
            with runner.scope:
                await runner.begin(self._request)
                if self._winner is None:
                    self._winner = runner
                    self._latencies.add(anyio.current_time() - began_s)
                    self.notices = [*self.notices, *runner.notices]
        except LoomstreamError as error:
            self._failed.append((runner, error))
        except BaseException as error:
            if not _is_cancellation(error):
                self._raised = error  # raised by the caller, outside of the group
            elif anyio.current_effective_deadline() == -math.inf:
                raise
            else:  # nobody has cancelled this race
                msg = f"{runner.candidate.name} ended as if it had been cancelled, which nobody did"
                self._failed.append((runner, MiddlewareError(msg)))
        self._changed.set()

    async def _close_all_but(self, kept: _Runner | None) -> None:
        raised = await self._closed([runner for runner in self._runners if runner is not kept])
        if raised and kept is not None:  # then nobody has won
            raised += await self._closed([kept])
        for error in sorted(raised, key=lambda error: isinstance(error, Exception)):
            raise error

    async def _closed(self, runners: list[_Runner]) -> list[BaseException]:
        """Leave all of them, give what was raised meanwhile."""
        raised: list[BaseException] = []
        try:
            await _close(runners, raised)
        except BaseException as error:  # noqa: BLE001 (the caller's to raise)
            raised.append(error)
        return raised

    def _last_error(self) -> LoomstreamError:
        error = self._failed[-1][1]
        error.attempts = tuple(attempt for runner, raised in self._failed for attempt in runner.attempts(raised))
        return error
