"""Credentials that expire: fetched once for many waiters, in a thread, and again before they expire.

Contract: a fetch is a plain function that may block; it runs in a daemon thread of its own, so that neither the event
loop (vendors' libraries take up to half a second to import, and read files) nor the end of the process waits for it.
All who ask while it runs wait for the same fetch; one who is cancelled takes nothing from the others. It works for any
number of asyncio and trio loops at once. Whatever a fetch raises reaches each waiter as a `LoomstreamError` of its own.
This module knows no vendor.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Generic, NamedTuple, Protocol, TypeVar

import anyio

from loomstream.auth import with_headers
from loomstream.errors import AuthFailed, ConnectFailed, LoomstreamError
from loomstream.wire import Secret, WireRequest

FETCH_LIMIT_S = 60.0
"""How long a fetch may take, in seconds; a chain of sources may have to wait for several that are not there."""

MARGIN_S = 300.0
"""How long before it expires a credential is replaced, in seconds, but at most a tenth of the time that it has left."""

THREAD_NAME = "loomstream credentials"
"""The name of the threads that fetch."""

_MARGIN_SHARE = 0.1
_RENEWED_JUST_NOW_S = 10.0
"""Refusals of one credential arrive at many requests, one after the other: those within this time count as one."""
_REMEMBERED = 3
"""How many credentials are remembered for `secrets`: answers to requests sent with an older one may still arrive."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Grant(NamedTuple, Generic[T]):
    """What a fetch gives. `expires_at` is in seconds since 1970, None where it does not expire."""

    value: T
    expires_at: float | None = None


class Source(Protocol[T_co]):
    """Gives a credential, the same one until it must be replaced."""

    @property
    def recent(self) -> tuple[T_co, ...]:
        """The credentials given lately, the newest last."""
        ...

    async def get(self) -> T_co:
        """Give one that is valid."""
        ...

    async def renew(self) -> bool:
        """Replace the one that was refused; say whether there is another one now."""
        ...

    def drop(self) -> None:
        """Forget it."""
        ...


class Fixed(Generic[T]):
    """A credential that was given once and for all."""

    def __init__(self, value: T) -> None:
        self._value = value

    @property
    def recent(self) -> tuple[T, ...]:
        """The credential."""
        return (self._value,)

    async def get(self) -> T:
        """Give it."""
        return self._value

    async def renew(self) -> bool:
        """There is no other."""
        return False

    def drop(self) -> None:
        """It stays: it is the caller's."""


class TokenCache(Generic[T]):
    """A `Source` that fetches.

    `fetch` is called in a thread; `failed` translates what it raises, unless that is a `LoomstreamError` already.
    `clock` gives seconds since 1970. `limit_s`: after that many seconds a fetch is given up with `ConnectFailed`.
    """

    def __init__(
        self,
        fetch: Callable[[], Grant[T]],
        *,
        provider: str,
        failed: Callable[[BaseException], LoomstreamError],
        clock: Callable[[], float] = time.time,
        limit_s: float = FETCH_LIMIT_S,
    ) -> None:
        self._fetch = fetch
        self._provider = provider
        self._failed = failed
        self._clock = clock
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._grant: Grant[T] | None = None
        self._replace_at = float("-inf")
        self._flight: _Flight[T] | None = None
        self._refused: T | None = None
        self._renewed_at = float("-inf")
        self._recent: deque[T] = deque(maxlen=_REMEMBERED)

    @property
    def recent(self) -> tuple[T, ...]:
        """The credentials given lately, the newest last."""
        return tuple(self._recent)

    async def get(self) -> T:
        """Give the credential, fetched if need be.

        One that is still valid is given on where its replacement cannot be had; it is tried again later.
        """
        grant = self._grant
        if grant is not None and self._clock() < self._replace_at:
            return grant.value
        found = self._valid_or_joined()
        outcome = await found.wait() if isinstance(found, _Flight) else found
        if isinstance(outcome, LoomstreamError):
            raise copy.copy(outcome)
        return outcome.value

    async def renew(self) -> bool:
        """Fetch anew, once for all whose credential was refused; say whether it is another one."""
        now = self._clock()
        with self._lock:
            if self._grant is not None and not 0 <= now - self._renewed_at < _RENEWED_JUST_NOW_S:
                self._refused, self._grant, self._renewed_at = self._grant.value, None, now
        return await self.get() != self._refused

    def drop(self) -> None:
        """Forget the credential: the next `get` fetches."""
        with self._lock:
            self._grant = None

    def _valid_or_joined(self) -> Grant[T] | _Flight[T]:
        """Give what a fetch has brought meanwhile, or the fetch that is under way, begun here if there is none."""
        with self._lock:
            if self._grant is not None and self._clock() < self._replace_at:
                return self._grant
            flight = self._flight
            if flight is None:
                flight = self._flight = _Flight(self._asked, self._landed)
                flight.start(self._limit_s, self._given_up())
            return flight

    def _given_up(self) -> ConnectFailed:
        msg = (
            f"the credential service of {self._provider} did not answer within {self._limit_s:g} s: "
            "see that this machine reaches it, or give a key"
        )
        return ConnectFailed(msg, provider=self._provider)

    def _asked(self) -> _Outcome[T]:
        """Fetch. Runs in the thread; gives the failure instead of raising it."""
        try:
            grant = self._fetch()
        except LoomstreamError as error:
            return error
        except BaseException as error:  # noqa: BLE001 (vendors' libraries raise anything, and the waiters must hear of it)
            return self._failed(error)
        if grant.expires_at is None or grant.expires_at > self._clock():
            return grant
        msg = (
            f"the credential for {self._provider} had expired already when it was given out: set this machine's clock, "
            "or log in anew where you logged in by hand"
        )
        return AuthFailed(msg, provider=self._provider)

    def _landed(self, flight: _Flight[T], outcome: _Outcome[T]) -> _Outcome[T]:
        """Keep what a fetch gave, and give what its waiters get. Runs in a thread."""
        with self._lock:
            if self._flight is not flight:  # it was given up
                return outcome
            self._flight = None
            now = self._clock()
            if isinstance(outcome, LoomstreamError):
                return self._still_valid(now) or outcome
            self._grant = outcome
            self._recent.append(outcome.value)
            self._replace_at = _replace_at(outcome.expires_at, now)
            return outcome

    def _still_valid(self, now: float) -> Grant[T] | None:
        grant = self._grant
        if grant is None or grant.expires_at is None or grant.expires_at <= now:
            return None
        self._replace_at = now + (grant.expires_at - now) / 2
        return grant


def _replace_at(expires_at: float | None, now: float) -> float:
    if expires_at is None:
        return float("inf")
    return expires_at - min(MARGIN_S, (expires_at - now) * _MARGIN_SHARE)


_Outcome = Grant[T] | LoomstreamError


class _Flight(Generic[T]):
    """One fetch and those who wait for it."""

    def __init__(
        self, work: Callable[[], _Outcome[T]], landed: Callable[[_Flight[T], _Outcome[T]], _Outcome[T]]
    ) -> None:
        self._work = work
        self._landed = landed
        self._lock = threading.Lock()
        self._wake: list[Callable[[], object]] = []
        self._outcome: _Outcome[T] | None = None

    def start(self, limit_s: float, given_up: LoomstreamError) -> None:
        """Begin; after `limit_s` seconds it ends with `given_up`. A timer of the loop would not do: loops are many."""
        timer = threading.Timer(limit_s, self._end, (given_up,))
        timer.daemon = True
        timer.start()
        threading.Thread(target=self._run, args=(timer,), name=THREAD_NAME, daemon=True).start()

    def _run(self, timer: threading.Timer) -> None:
        outcome = self._work()
        timer.cancel()
        self._end(outcome)

    def _end(self, outcome: _Outcome[T]) -> None:
        kept = self._landed(self, outcome)
        with self._lock:
            if self._outcome is not None:
                return
            self._outcome = kept
            wake, self._wake = self._wake, []
        for call in wake:
            with suppress(RuntimeError):  # that waiter's event loop is closed: nobody waits there
                call()

    async def wait(self) -> _Outcome[T]:
        """Wait for the end and give what came of it."""
        done = anyio.Event()
        with self._lock:
            if self._outcome is not None:
                return self._outcome
            self._wake.append(partial(_from_thread(), done.set))
        await done.wait()
        assert self._outcome is not None  # noqa: S101 (for the type checker: set before anyone is woken)
        return self._outcome


def _from_thread() -> Callable[[Callable[[], object]], object]:
    """Give the way to call a function in the running event loop from any thread."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio  # noqa: PLC0415 (only on trio)

        return trio.lowlevel.current_trio_token().run_sync_soon


# --- authenticators ------------------------------------------------------------------------------


class SentHeaders(NamedTuple):
    """A credential as headers; `secrets` are what must not be shown of them."""

    headers: Mapping[str, str | Secret]
    secrets: tuple[Secret, ...]
    discovered: Mapping[str, str] = MappingProxyType({})


_NONE: Mapping[str, str] = MappingProxyType({})


def bearer(token: str, *, headers: Mapping[str, str] = _NONE, discovered: Mapping[str, str] = _NONE) -> SentHeaders:
    """Give a token as a header, with others beside it and the settings that came with it."""
    return SentHeaders({"authorization": Secret(f"Bearer {token}"), **headers}, (Secret(token),), discovered)


class TokenHeaders:
    """An authenticator that adds the headers that a source gives."""

    def __init__(self, source: Source[SentHeaders]) -> None:
        self._source = source

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The tokens given lately."""
        return tuple(secret for sent in self._source.recent for secret in sent.secrets)

    @property
    def discovered(self) -> Mapping[str, str]:
        """What came with the token; nothing before it was fetched."""
        recent = self._source.recent
        return recent[-1].discovered if recent else {}

    async def prepare(self) -> None:
        """Fetch the token."""
        await self._source.get()

    async def authorize(self, wire_request: WireRequest) -> WireRequest:
        """Give the request with the token's headers."""
        return with_headers(wire_request, (await self._source.get()).headers)

    async def renew(self, sent: tuple[Secret, ...] = ()) -> bool:  # noqa: ARG002 (the source tells refusals apart by time)
        """Fetch the token anew, unless another request just did."""
        return await self._source.renew()

    async def aclose(self) -> None:
        """Forget the token."""
        self._source.drop()
