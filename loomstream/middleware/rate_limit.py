"""Rate limit: no more requests, tokens and calls at once than the provider allows, or than you want.

Contract: a call waits before its request is sent, in the order in which the calls of its key came, and never past the
request's `total_s`; what takes longer than a second is told by `heartbeat` notices. Calls run side by side. Tokens are
reserved by an estimate and settled by the provider's usage. What the provider's headers and its errors say lowers and
raises the limits, never above what you state. Whatever a call holds comes back however it ends. The levels are in a
`Store`, which several processes can share.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from msgspec import Struct

from loomstream.errors import ConfigError, DeadlineExceeded, LoomstreamError, ProviderError, QueueFull, RateLimited
from loomstream.events import Event, EventBase, Limits, Notice, Start, Usage
from loomstream.handler import Handler, Middleware
from loomstream.messages import Request
from loomstream.middleware.estimates import counted_tokens, prompt_tokens
from loomstream.middleware.layer import Layer, tolerated
from loomstream.middleware.store import Demand, MemoryStore, Place, Quota, Store, loop_time, queue_full
from loomstream.providers import Provider, look_up

NOTICEABLE_S = 1.0
"""A wait that takes longer than this is told by a notice; further ones follow each `HEARTBEAT_S`. In seconds."""
HEARTBEAT_S = 10.0
LONGEST_PAUSE_S = 120.0
"""Where a provider refuses a call and asks for a pause, all calls of the key keep it, at most so many seconds."""
OUTPUT_TOKENS = 512
"""What is reserved for an answer whose request names no `max_tokens`."""

_BURST_SHARE = 10
"""Where no burst is stated, this part of a minute's requests may go at once: what is sent within any minute stays
within 1.1 times the limit."""
_WINDOW_S = 60.0
_WATCHED: frozenset[type[EventBase]] = frozenset((Start, Usage))


Key = str | Callable[[Request], str]


def rate_limit(  # noqa: PLR0913 (each limit is one; all are keyword-only but what they are for)
    provider: str | Provider = "",
    model: str = "",
    account: str = "",
    *,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    concurrency: int | None = None,
    burst: float | None = None,
    min_delay_s: float = 0.0,
    max_queue: int = 1_000,
    max_wait_s: float | None = None,
    store: Store | None = None,
    key: Key | None = None,
    learn: bool = True,
) -> Middleware:
    """Give the middleware that holds calls to these limits; 0 is no limit, whatever the provider says.

    `requests_per_minute` defaults to the row of `provider`, and then what the provider's headers say takes its place,
    higher or lower; one that you state is only lowered by them. `tokens_per_minute` likewise, but no row has one.
    `burst` requests may go at once after a pause (default: a tenth of a minute's, at least 1), a minute's tokens
    always. `concurrency` calls run at once (default: no limit). `min_delay_s` lies between the beginnings of two calls.
    `max_queue` calls may wait (0: none), each `max_wait_s` seconds (default: as long as `total_s` allows).

    What has the same `key` shares the limits; it is a text or made from the request (default: provider, account and
    model). `store` keeps the levels (default: one of this middleware's own; give several models one store to share
    them, or a `RedisStore` for several processes). `learn` says whether headers and errors count.

    Reading a stream raises `QueueFull` where the line is full or the wait too long, `DeadlineExceeded` where it would
    pass the request's `total_s`, and what the store raises. Raises `ConfigError` for a limit that is negative or no
    number, for a burst of what has no limit, and `UnknownProvider`.
    """
    numbers = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrency": concurrency,
        "burst": burst,
        "min_delay_s": min_delay_s,
        "max_queue": max_queue,
        "max_wait_s": max_wait_s,
    }
    for name, number in numbers.items():
        if number is not None and not 0 <= number < math.inf:
            msg = f"rate_limit({name}={number!r}): give a number of at least 0"
            raise ConfigError(msg)
    if burst is not None and requests_per_minute == 0:
        msg = f"rate_limit(requests_per_minute=0, burst={burst!r}): without a limit there is no burst; leave one out"
        raise ConfigError(msg)
    row = look_up(provider) if isinstance(provider, str) and provider else provider
    name, assumed = (row.name, row.requests_per_minute) if isinstance(row, Provider) else ("", 0.0)
    policy = _Policy(
        requests=_Limit(requests_per_minute, assumed),
        tokens=_Limit(tokens_per_minute, 0.0),
        concurrency=concurrency or 0,
        burst=burst,
        min_delay_s=min_delay_s,
        max_queue=max_queue,
        max_wait_s=math.inf if max_wait_s is None else max_wait_s,
        store=store or MemoryStore(),
        key=key if key is not None else f"{name}:{account}:{model}",
        learn=learn,
    )

    def wrap(handler: Handler) -> Handler:
        def limited(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return _Limited(policy, handler, request)

        return limited

    return wrap


# --- the limits ----------------------------------------------------------------------------------


class _Limit:
    """A limit per minute: what was stated (None: nothing), what is assumed, and what the provider says by key."""

    def __init__(self, stated: float | None, assumed: float) -> None:
        self.stated = stated
        self.assumed = assumed
        self.told: dict[str, float] = {}

    def now(self, key: str) -> float:
        """Give the limit of a key; 0 is none."""
        if self.stated == 0:
            return 0.0
        told = self.told.get(key)
        if self.stated is None:
            return self.assumed if told is None else told
        return self.stated if told is None else min(told, self.stated)

    def learn(self, key: str, limit: int | None, reset_s: float | None) -> None:
        """Take note of a limit; one whose window is longer than a minute is none per minute."""
        if limit and (reset_s is None or reset_s <= _WINDOW_S):
            self.told[key] = float(limit)


class _Policy(NamedTuple):
    """What all calls of one middleware share."""

    requests: _Limit
    tokens: _Limit
    concurrency: int
    burst: float | None
    min_delay_s: float
    max_queue: int
    max_wait_s: float
    store: Store
    key: Key
    learn: bool

    def demand(self, key: str, permit: str, tokens: float) -> Demand:
        """Give what a call needs, by the limits of this moment."""
        requests, per_minute = self.requests.now(key), self.tokens.now(key)
        burst = max(1.0, requests / _BURST_SHARE if self.burst is None else self.burst)
        return Demand(
            key=key,
            permit=permit,
            requests=Quota(requests, burst) if requests else None,
            token_quota=Quota(per_minute, per_minute) if per_minute else None,
            tokens=tokens,
            concurrency=self.concurrency,
            min_delay_s=self.min_delay_s,
        )


# --- one call ------------------------------------------------------------------------------------


class _Limited(Layer):
    """One call: its place in the line, then what it holds, until it is left."""

    __slots__ = (
        "_began_s",
        "_demand",
        "_holds",
        "_line",
        "_place",
        "_policy",
        "_renew_at_s",
        "_sent",
        "_tell_at_s",
        "_total_s",
        "_used",
    )

    def __init__(self, policy: _Policy, handler: Handler, request: Request) -> None:
        super().__init__(handler, request)
        self._policy = policy
        key = policy.key(request) if callable(policy.key) else policy.key
        tokens = prompt_tokens(request) + (OUTPUT_TOKENS if request.max_tokens is None else request.max_tokens)
        self._used = float(tokens)
        """What the call has used of the tokens' limit, as far as that is known."""
        self._demand = policy.demand(key, uuid.uuid4().hex, self._used)
        self._total_s = request.timeouts.total_s
        self._line = policy.store.line(key)
        self._place: Place | None = None
        self._holds = False
        self._sent = True
        self._tell_at_s = 0.0
        self._began_s = 0.0
        self._renew_at_s = math.inf

    async def next_batch(self) -> list[Event]:
        if self.inner is None:
            notice = await self._admitted()
            if notice is not None:
                return [notice]
        try:
            events = await (self.inner or await self.open_inner())()
        except LoomstreamError as error:
            await self._failed(error)
            raise
        if not self._policy.store.is_local:
            await self._renewed()
        if len(events) == 1 and events[0].__class__ not in _WATCHED:  # what most reads bring
            return events
        if not _WATCHED.isdisjoint(map(type, events)):
            await self._noted(events)
        return events

    # --- before it is sent -----------------------------------------------------------------------

    async def _admitted(self) -> Notice | None:
        """Wait until the call may be sent, or for so long that it is told."""
        if self._place is None:
            now_s = self._began_s = loop_time()
            self._tell_at_s = now_s + NOTICEABLE_S
            self._place = self._line.join(self._policy.max_queue)
        else:
            now_s = loop_time()
        most_s = min(math.inf if self._total_s is None else self._total_s, self._policy.max_wait_s)
        left_s = self._began_s + most_s - now_s
        until_told_s = max(0.0, self._tell_at_s - now_s)
        wait_s = min(left_s, until_told_s) if self._policy.max_queue else 0.0
        missing_s = await self._line.admit(self._place, self._take, wait_s=wait_s, give_up_s=left_s)
        if not missing_s:
            self._line.leave(self._place)
            return None
        if not self._policy.max_queue:
            raise queue_full(0)
        if min(missing_s, until_told_s) >= left_s or left_s < missing_s < math.inf:
            raise self._too_long(missing_s)
        self._tell_at_s = loop_time() + HEARTBEAT_S
        about = "" if math.isinf(missing_s) else f", about {missing_s:.3g} s more"
        words = f"waiting for your rate limit of {self._demand.key!r}: {len(self._line)} calls wait{about}"
        return Notice("heartbeat", words)

    async def _take(self) -> float:
        demand, store = (
            self._policy.demand(self._demand.key, self._demand.permit, self._demand.tokens),
            self._policy.store,
        )
        missing_s = await store.take(demand)
        if not missing_s:
            self._demand = demand
            self._holds = True
            if not store.is_local:
                self._renew_at_s = loop_time() + store.lease_s / 3
        return missing_s

    def _too_long(self, missing_s: float) -> LoomstreamError:
        by = "" if math.isinf(missing_s) else f" by {missing_s:.3g} s"
        total_s = self._total_s
        if total_s is not None and total_s <= self._policy.max_wait_s:
            return DeadlineExceeded(
                f"waiting for your own rate limit would pass the {total_s:g} s of the call{by}: not sent; "
                "raise the limit or Timeouts(total_s=…)",
                retry_safety="yes",
            )
        return QueueFull(
            f"waiting for your own rate limit takes longer than max_wait_s={self._policy.max_wait_s:g}: not sent; "
            "raise it, or call less often"
        )

    # --- while it runs ---------------------------------------------------------------------------

    async def _renewed(self) -> None:
        now_s = loop_time()
        if now_s >= self._renew_at_s:
            self._renew_at_s = now_s + self._policy.store.lease_s / 3
            await tolerated(self._policy.store.renew(self._demand), "renewing a permit")

    async def _noted(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Usage):
                self._used = max(counted_tokens(event), 0.0 if event.final else self._used)
            elif isinstance(event, Start) and event.limits is not None and self._policy.learn:
                await self._learned(event.limits)

    async def _learned(self, limits: Limits) -> None:
        policy, key = self._policy, self._demand.key
        policy.requests.learn(key, limits.limit_requests, limits.reset_requests_s)
        policy.tokens.learn(key, limits.limit_tokens, limits.reset_tokens_s)
        if limits.remaining_requests is not None or limits.remaining_tokens is not None:
            demand = policy.demand(key, "", 0.0)
            left = policy.store.cap(demand, requests=limits.remaining_requests, tokens=limits.remaining_tokens)
            await tolerated(left, "noting what the provider says is left")

    async def _failed(self, error: LoomstreamError) -> None:
        self._sent = error.retry_safety != "yes" or isinstance(error, ProviderError)
        if error.retry_safety == "yes":
            self._used = 0.0
        if isinstance(error, RateLimited) and error.retry_after_s and self._policy.learn:
            pause = self._policy.store.cap(self._demand, pause_s=min(error.retry_after_s, LONGEST_PAUSE_S))
            await tolerated(pause, "noting a pause")

    # --- after it --------------------------------------------------------------------------------

    @property
    def is_free(self) -> bool:
        return self._policy.store.is_local

    async def released(self) -> None:
        place, self._place = self._place, None
        holds, self._holds = self._holds, False
        if place is not None:
            self._line.leave(place)
        if place is not None and (holds or not self._policy.store.is_local):
            back = self._policy.store.give_back(self._demand, self._used, sent=holds and self._sent)
            await tolerated(back, "giving back a permit")


# --- the seed system's keys ----------------------------------------------------------------------


class RateLimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a `rate_limit:` in `looms.yaml`, as the seed system has them; what is unset is None.

    `limits` and `retries` give them in this library's words; 0 is honoured: no limit, no delay, no retry, no wait.
    """

    disabled: bool = False
    requests_per_second: float | None = None
    tokens_per_minute: float | None = None
    burst_capacity: float | None = None
    min_delay_ms: float | None = None
    max_retries: int | None = None
    retry_backoff_ms: float | None = None
    queue_timeout_seconds: float | None = None

    def limits(self, concurrency_limit: int | None = None) -> dict[str, float | int | bool]:
        """Give the arguments of `rate_limit`; `concurrency_limit` is the key of that name above it.

        Where it is disabled nothing is limited but concurrency, and nothing learned.
        """
        given: dict[str, float | None] = {"concurrency": concurrency_limit}
        if self.disabled:
            given |= {"requests_per_minute": 0, "tokens_per_minute": 0, "learn": False}
        else:
            given |= {
                "requests_per_minute": None if self.requests_per_second is None else self.requests_per_second * 60,
                "tokens_per_minute": self.tokens_per_minute,
                "burst": None if self.requests_per_second == 0 else self.burst_capacity,
                "min_delay_s": None if self.min_delay_ms is None else self.min_delay_ms / 1000,
                "max_wait_s": self.queue_timeout_seconds,
            }
        return {name: value for name, value in given.items() if value is not None}

    def retries(self) -> dict[str, float | int]:
        """Give the number of retries and the first wait in seconds, as `max_retries` and `backoff_s`."""
        given = {
            "max_retries": self.max_retries,
            "backoff_s": None if self.retry_backoff_ms is None else self.retry_backoff_ms / 1000,
        }
        return {name: value for name, value in given.items() if value is not None}
