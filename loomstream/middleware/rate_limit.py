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
from typing import cast

from msgspec import Struct

from loomstream.errors import ConfigError, DeadlineExceeded, LoomstreamError, ProviderError, QueueFull, RateLimited
from loomstream.events import CONTENT_EVENTS, Event, EventBase, Limits, Notice, Start, Usage, places_of
from loomstream.handler import Handler, Middleware
from loomstream.messages import Request
from loomstream.middleware.estimates import counted_tokens, prompt_tokens
from loomstream.middleware.layer import Layer, tolerated
from loomstream.middleware.store import Demand, MemoryStore, Place, Quota, Store, loop_time, queue_full
from loomstream.numerals import is_number
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
_CONTENT: frozenset[type[EventBase]] = frozenset(CONTENT_EVENTS)
_NO_REQUEST = Request(messages=())


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
    _check(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrency=concurrency,
        burst=burst,
        min_delay_s=min_delay_s,
        max_queue=max_queue,
        max_wait_s=max_wait_s,
    )
    if not isinstance(provider, str | Provider):  # pyright: ignore[reportUnnecessaryIsInstance] (no types)
        msg = f"rate_limit(provider={provider!r}): give a provider's name; limits have names, as requests_per_minute=60"
        raise ConfigError(msg)
    row = look_up(provider) if isinstance(provider, str) and provider else provider
    name, assumed = (row.name, row.requests_per_minute) if isinstance(row, Provider) else ("", 0.0)
    store = store or MemoryStore()
    policy = _Policy(
        requests=_Limit(requests_per_minute, assumed),
        tokens=_Limit(tokens_per_minute, 0.0),
        concurrency=concurrency or 0,
        burst=burst,
        min_delay_s=min_delay_s,
        max_queue=max_queue,
        max_wait_s=math.inf if max_wait_s is None else max_wait_s,
        store=store,
        local=cast("MemoryStore", store) if store.__class__ is MemoryStore else None,
        key=key if key is not None else f"{name}:{account}:{model}",
        words=f"{name}:{model}" if key is None else "",
        learn=learn,
    )

    def wrap(handler: Handler) -> Handler:
        def limited(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return _Limited(policy, handler, request)

        return limited

    return wrap


def _check(**numbers: float | None) -> None:
    """Raise `ConfigError` for a number that is no limit, and for a burst of what has none."""
    for name, number in numbers.items():
        if number is not None and not (is_number(number) and number >= 0):
            msg = f"rate_limit({name}={number!r}): give a number of at least 0"
            raise ConfigError(msg)
    burst = numbers["burst"]
    if burst is not None and numbers["requests_per_minute"] == 0:
        msg = f"rate_limit(requests_per_minute=0, burst={burst!r}): without a limit there is no burst; leave one out"
        raise ConfigError(msg)


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


class _Policy(Struct, frozen=True, kw_only=True):
    """What all calls of one middleware share."""

    requests: _Limit
    tokens: _Limit
    concurrency: int
    burst: float | None
    min_delay_s: float
    max_queue: int
    max_wait_s: float
    store: Store
    local: MemoryStore | None
    """The same, where it is ours, of which nothing is waited for."""
    key: Key
    words: str
    """What the limits are of, where the key does not say it."""
    learn: bool

    def is_limited(self, key: str) -> bool:
        """Say whether a call needs anything at this moment."""
        return bool(self.requests.now(key) or self.tokens.now(key) or self.concurrency or self.min_delay_s)

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
        "_key",
        "_place",
        "_policy",
        "_renew_at_s",
        "_sent",
        "_tell_at_s",
        "_used",
    )

    def __init__(self, policy: _Policy, handler: Handler, request: Request) -> None:
        super().__init__(handler, request)
        self._policy = policy
        self._key = policy.key(request) if callable(policy.key) else policy.key
        self._demand: Demand | None = None
        """What it wants or holds; None where nothing is limited."""
        self._holds = False
        self._used = 0.0
        """What the call has used of the tokens' limit, as far as that is known."""
        self._place: Place | None = None
        self._sent = True
        self._renew_at_s = math.inf

    async def next_batch(self) -> list[Event]:
        if self.inner is None and not self._at_once():
            notice = await self._admitted()
            if notice is not None:
                return [notice]
        try:
            events = await (self.inner or await self.open_inner())()
        except LoomstreamError as error:
            await self._failed(error)
            raise
        if self._policy.local is None and not self._policy.store.is_local:
            await self._renewed()
        if len(events) == 1 and events[0].__class__ not in _WATCHED:  # what most reads bring
            return events
        limits = self._noted(events)
        if limits is not None:
            await self._learned(limits)
        held = self._demand
        if self._policy.local is None or (held is not None and held.token_quota is not None):
            return events
        if not _CONTENT.isdisjoint(map(type, events)):  # from here on nothing that may come changes anything
            self.passing = self.inner
            self._request = _NO_REQUEST  # a prompt can be large, and a stream long
        return events

    def _at_once(self) -> bool:
        """Say whether the call may be sent now: it takes what it needs, without a place in the line."""
        policy, key = self._policy, self._key
        store = policy.local
        if store is None or self._place is not None or not store.is_clear(key):
            return False
        if not policy.is_limited(key):
            return True
        demand = self._wanted()
        if store.take_now(demand):
            return False
        self._demand = demand
        self._holds = True
        return True

    def _wanted(self) -> Demand:
        """Give what the call needs, by the limits of this moment."""
        policy, request = self._policy, self._request
        if policy.tokens.now(self._key) and not self._used:
            answer = OUTPUT_TOKENS if request.max_tokens is None else request.max_tokens
            self._used = float(prompt_tokens(request) + answer)
        if self._demand is None:
            permit = uuid.uuid4().hex if policy.local is None else f"{id(self):x}"
        else:
            permit = self._demand.permit
        return policy.demand(self._key, permit, self._used)

    # --- before it is sent -----------------------------------------------------------------------

    async def _admitted(self) -> Notice | None:
        """Wait until the call may be sent, or for so long that it is told."""
        policy, line = self._policy, self._policy.store.line(self._key)
        if self._place is None:
            now_s = self._began_s = loop_time()
            self._tell_at_s = now_s + NOTICEABLE_S
            self._demand = self._wanted()
            self._place = line.join(policy.max_queue)
        else:
            now_s = loop_time()
        total_s = self._request.timeouts.total_s
        most_s = min(math.inf if total_s is None else total_s, policy.max_wait_s)
        left_s = self._began_s + most_s - now_s
        until_told_s = max(0.0, self._tell_at_s - now_s)
        wait_s = min(left_s, until_told_s) if policy.max_queue else 0.0
        missing_s = await line.admit(self._place, self._take, wait_s=wait_s, give_up_s=left_s)
        if not missing_s:
            line.leave(self._place)
            return None
        if not policy.max_queue:
            raise queue_full(0)
        if min(missing_s, until_told_s) >= left_s or left_s < missing_s < math.inf:
            raise self._too_long(missing_s)
        self._tell_at_s = loop_time() + HEARTBEAT_S
        about = "" if math.isinf(missing_s) else f", about {missing_s:.3g} s more"
        of = policy.words or self._key
        return Notice("heartbeat", f"waiting for your rate limit of {of!r}: {len(line)} calls wait{about}")

    async def _take(self) -> float:
        store, demand = self._policy.store, self._wanted()
        missing_s = await store.take(demand)
        if not missing_s:
            self._demand = demand
            self._holds = True
            if not store.is_local:
                self._renew_at_s = loop_time() + store.lease_s / 3
        return missing_s

    def _too_long(self, missing_s: float) -> LoomstreamError:
        by = "" if math.isinf(missing_s) else f" by {missing_s:.3g} s"
        total_s = self._request.timeouts.total_s
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
        if now_s >= self._renew_at_s and self._demand is not None:
            self._renew_at_s = now_s + self._policy.store.lease_s / 3
            await tolerated(self._policy.store.renew(self._demand), "renewing a permit")

    def _noted(self, events: list[Event]) -> Limits | None:
        """Take note of what was used; give the limits that the provider told, where they count."""
        limits: Limits | None = None
        for place in places_of(_WATCHED, events):
            event = events[place]
            if isinstance(event, Usage):
                self._used = max(counted_tokens(event), 0.0 if event.final else self._used)
            elif isinstance(event, Start) and self._policy.learn:
                limits = event.limits or limits
        return limits

    async def _learned(self, limits: Limits) -> None:
        policy, key = self._policy, self._key
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
            demand = self._policy.demand(self._key, "", 0.0)
            pause = self._policy.store.cap(demand, pause_s=min(error.retry_after_s, LONGEST_PAUSE_S))
            await tolerated(pause, "noting a pause")

    # --- after it --------------------------------------------------------------------------------

    def is_free(self) -> bool:
        return self._policy.store.is_local

    def holds(self) -> bool:
        return self._holds or self._place is not None

    async def released(self) -> None:
        policy, demand = self._policy, self._demand
        place, self._place = self._place, None
        holds, self._holds = self._holds, False
        if place is not None:
            policy.store.line(self._key).leave(place)
        if demand is None or not (holds or (place is not None and not policy.store.is_local)):
            return
        sent = holds and self._sent
        if policy.local is not None:
            policy.local.give_back_now(demand, self._used, sent=sent)
        else:
            await tolerated(policy.store.give_back(demand, self._used, sent=sent), "giving back a permit")


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
