"""Experiment: calls split over candidates by a key, and copies of calls that run beside, to compare how they do.

Contract: combinators of handlers. `experiment` gives each call to one candidate, always the same one for the same key;
`shadow` gives it to the first one, and a copy of it to others, whose answers nobody reads. What a copy does never
touches the consumer: it runs in a task of its own, is bounded in number and time, and ends with its stream or, where a
`Shadows` owns it, within that. How each call went is an `Outcome`, told to an observer; one that fails is logged.
"""

from __future__ import annotations

import hashlib
import logging
import math
import uuid
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from itertools import accumulate
from types import TracebackType
from typing import NamedTuple, Self

import anyio

from loomstream.errors import ConfigError, DeadlineExceeded, StreamCancelled, UsageError
from loomstream.events import Event
from loomstream.handler import Handler, batches
from loomstream.messages import Request
from loomstream.middleware.balance import check_weights
from loomstream.middleware.candidates import Candidate, Placed, all_places, checked
from loomstream.middleware.layer import CLOSE_LIMIT_S, Layer
from loomstream.middleware.outcomes import Measure, Observer, Outcome, measured, tell
from loomstream.numerals import is_number
from loomstream.transport.background import Background, close_all

__all__ = ("Outcome", "Shadows", "experiment", "key_of_request", "shadow", "share_of")

Key = str | Callable[[Request], str]
"""What decides on a call's candidate: a text for all calls, or a function of the request."""

_log = logging.getLogger(__name__)

MOST_COPIES = 16
COPY_LIMIT_S = 120.0
FINISH_LIMIT_S = 10.0

_POINT_BITS = 53
"""As many as a float holds, so that no point is rounded up to 1."""


def key_of_request(request: Request) -> str:
    """Give the request's `end_user_id`, else how its conversation began: so that it stays with its candidate."""
    if request.end_user_id:
        return request.end_user_id
    return next((message.text for message in request.messages if message.role == "user"), "")


def share_of(name: str, key: str) -> float:
    """Give where a key lies, from 0 to below 1: the same in every process, independent for each experiment's name."""
    digest = hashlib.sha256(f"{name}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - _POINT_BITS)) / 2**_POINT_BITS


def experiment(
    candidates: Sequence[Candidate],
    *,
    name: str = "",
    weights: Mapping[str, float] | None = None,
    key: Key = key_of_request,
    observer: Observer | None = None,
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
) -> Placed:
    """Give the handler that splits calls over the candidates by a key.

    `key` is a text or a function of the request (default: `key_of_request`); the same key always goes to the same
    candidate while the names and the `weights` (default 1 each; 0: none) stay. `name` tells experiments apart, so that
    they do not all put the same users together. `observer` is told the `Outcome` of each call. A candidate that fails
    raises its error: put a `failover` into the candidate for more.

    Raises `ConfigError` for no candidates, two of one name, one that may send elsewhere than to `allowed_providers` and
    `allowed_regions`, weights of unknown candidates, below 0, or all 0.
    """
    arms = checked(candidates, "experiment", allowed_providers=allowed_providers, allowed_regions=allowed_regions)
    given = dict(weights or {})
    check_weights(given, [arm.name for arm in arms], zero=True)
    ends = list(accumulate(given.get(arm.name, 1.0) for arm in arms))
    last = ends.index(ends[-1])  # the last one with a weight

    def split(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        chosen_by = key(request) if callable(key) else key
        point = share_of(name, chosen_by) * ends[-1]
        arm = arms[min(bisect_right(ends, point), last)]
        measure = Measure(arm, call=uuid.uuid4().hex, key=chosen_by)
        return measured(arm.handler, measure, observer=observer)(request)

    return Placed(split, all_places(arms))


# --- copies --------------------------------------------------------------------------------------


class Shadows:
    """Owns copies that may go on after their streams: `async with Shadows() as shadows: …`.

    At most `most` run at once, further ones are left out and counted in `skipped`; each takes `limit_s` seconds at
    most. Leaving waits `finish_s` seconds for those that run, then ends them. Raises `ConfigError` for numbers that are
    not above 0 (`finish_s` may be 0).
    """

    def __init__(
        self, most: int = MOST_COPIES, *, limit_s: float = COPY_LIMIT_S, finish_s: float = FINISH_LIMIT_S
    ) -> None:
        given = is_number(most) and is_number(limit_s) and is_number(finish_s)
        if not (given and most > 0 and limit_s > 0 and finish_s >= 0):
            msg = f"Shadows({most!r}, limit_s={limit_s!r}, finish_s={finish_s!r}): give numbers above 0"
            raise ConfigError(msg)
        self._most = most
        self._finish_s = finish_s
        self._open = False
        self._running: set[Background[None]] = set()
        self.limit_s = limit_s
        self.skipped = 0

    @property
    def running(self) -> int:
        """How many copies run now."""
        return sum(not copy.is_over for copy in self._running)

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for the copies as long as `finish_s` says, then end them; safe to call again."""
        self._open = False
        try:
            with anyio.move_on_after(self._finish_s):
                for background in tuple(self._running):
                    await background.wait(math.inf)
        finally:
            await self.end(*self._running)

    def check_open(self) -> None:
        """Raise `UsageError` where nobody would end what is begun."""
        if not self._open:
            msg = "these Shadows are not open: use them as `async with Shadows() as shadows`"
            raise UsageError(msg)

    def begin(self, copy: Callable[[], Awaitable[None]]) -> Background[None] | None:
        """Run a copy beside its caller; None where too many run."""
        if self.running >= self._most:
            self.skipped += 1
            return None

        background = Background(copy)
        self._running = {each for each in (*self._running, background) if not each.is_over}
        return background

    async def end(self, *copies: Background[None]) -> None:
        """End copies now. One that does not let go within a few seconds is left to itself, and logged."""
        try:
            if not await close_all(copies, limit_s=CLOSE_LIMIT_S):
                _log.warning("a copy of a call was ended, and has not let go within %g s", CLOSE_LIMIT_S)
        finally:
            self._running.difference_update(copies)


def shadow(  # noqa: PLR0913 (each limit is one; all are keyword-only but the candidates)
    candidates: Sequence[Candidate],
    *,
    share: float = 1.0,
    observer: Observer | None = None,
    shadows: Shadows | None = None,
    limit_s: float = COPY_LIMIT_S,
    most: int = MOST_COPIES,
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
) -> Placed:
    """Give the handler of the first candidate; a copy of each call goes to all others, and nobody reads their answers.

    Copies cost as much as calls. `share` is the part of calls that is copied, between 0 and 1. A copy ends with its
    stream, or goes on in `shadows` where those are given, whose limits then hold; else it takes `limit_s` seconds at
    most, and `most` run at once. `observer` is told the `Outcome` of each call and of each copy, with the same `call`.

    Raises `ConfigError` for fewer than two candidates, two of one name, one that may send elsewhere than to
    `allowed_providers` and `allowed_regions`, and a number that cannot be; reading a stream raises `UsageError` where
    the `shadows` are not open.
    """
    first, *others = checked(candidates, "shadow", allowed_providers=allowed_providers, allowed_regions=allowed_regions)
    if not others:
        msg = f"shadow has {first.name!r} alone: give at least one more, to which the copies go"
        raise ConfigError(msg)
    if not (is_number(share) and 0 <= share <= 1):
        msg = f"shadow(share={share!r}): give a number between 0 and 1"
        raise ConfigError(msg)
    owner = shadows or Shadows(most, limit_s=limit_s)
    plan = _Plan(first, others, share, observer, owner, shadows is not None)
    return Placed(lambda request: _Shadowed(plan, request), all_places((first, *others)))


class _Plan(NamedTuple):
    """What all calls of one combinator share."""

    first: Candidate
    others: Sequence[Candidate]
    share: float
    observer: Observer | None
    owner: Shadows
    outlives: bool


class _Shadowed(Layer):
    """One call, and its copies."""

    __slots__ = ("_call", "_copies", "_original", "_plan")

    def __init__(self, plan: _Plan, request: Request) -> None:
        call = uuid.uuid4().hex
        handler = measured(plan.first.handler, Measure(plan.first, call=call), observer=plan.observer)
        super().__init__(handler, request)
        self._plan = plan
        self._call = call
        self._copies: list[Background[None]] = []

    async def next_batch(self) -> list[Event]:
        if self.inner is None:
            self._begin_copies()
        return await (self.inner or await self.open_inner())()

    def _begin_copies(self) -> None:
        plan, request = self._plan, self._request
        if plan.outlives:
            plan.owner.check_open()
        if self._copies or share_of("shadow", self._call) >= plan.share:
            return
        for candidate in plan.others:
            measure = Measure(candidate, call=self._call, shadow=True)
            begun = plan.owner.begin(_Copying(candidate.handler, request, measure, plan))
            if begun is not None and not plan.outlives:
                self._copies.append(begun)

    def is_free(self) -> bool:
        return not self._copies

    async def released(self) -> None:
        copies, self._copies = self._copies, []
        await self._plan.owner.end(*copies)


class _Copying:
    """Reads one copy to its end; only a cancellation comes out."""

    def __init__(self, handler: Handler, request: Request, measure: Measure, plan: _Plan) -> None:
        self._handler = measured(handler, measure, observer=None)
        self._request = request
        self._measure = measure
        self._plan = plan

    async def __call__(self) -> None:
        limit_s = self._plan.owner.limit_s
        try:
            with anyio.move_on_after(limit_s) as scope:
                await self._read()
            if scope.cancelled_caught:
                self._measure.failed(DeadlineExceeded(f"the copy took longer than limit_s={limit_s:g}"))
        except Exception as error:  # noqa: BLE001 (it is told to the observer, and touches nobody else)
            self._measure.failed(error)
        except BaseException:
            self._measure.failed(StreamCancelled("the copy was ended with its stream, or with its Shadows"))
            raise
        finally:
            if self._measure.has_begun:
                tell(self._plan.observer, self._measure.outcome())

    async def _read(self) -> None:
        async with self._handler(self._request) as events:
            following = batches(events)
            with suppress(StopAsyncIteration):
                while True:
                    await following()
