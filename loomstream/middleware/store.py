"""Where limits on calls and on spending are counted: the `Store` protocol, and the store of one process.

Contract: each step is atomic; what a step needs to know of the limits travels with it, so that a store holds levels and
no policy. A store never waits for a limit: it says how long that would take, and the calls of one key wait in a `Line`,
in the order in which they came, until they are woken. Times are those of the event loop (the other store's: of its
server). One store serves one event loop; where several threads run one each, each has its own levels of a key. It knows
neither requests nor events.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import anyio

from loomstream.errors import QueueFull
from loomstream.transport.loops import running_loop

ENOUGH = 1e-6
"""A level that lacks no more than this of what is wanted has it: sums of parts of a second are not exact."""


def loop_time() -> float:
    """Give the event loop's time in seconds; on asyncio without the search for it that costs several times as much."""
    loop = running_loop()
    return anyio.current_time() if loop is None else loop.time()


class Quota(NamedTuple):
    """A bucket: refilled by so much a minute, up to `burst`; both above 0."""

    per_minute: float
    burst: float


class Demand(NamedTuple):
    """What one call needs: a request, `tokens` of a bucket, and one of `concurrency` permits (0: no such limit).

    `permit` names the call. `min_delay_s` is the shortest time between the beginnings of two calls of the key.
    """

    key: str
    permit: str
    requests: Quota | None = None
    token_quota: Quota | None = None
    tokens: float = 0.0
    concurrency: int = 0
    min_delay_s: float = 0.0


class Account(NamedTuple):
    """A limit on spending, in whole units (tokens, or billionths of a dollar), and how long it is kept: None for ever.

    The units of `limit` and of all amounts are at most 2**53, which a Redis script counts exactly.
    """

    key: str
    limit: int
    kept_s: float | None = None


class Spent(NamedTuple):
    """What a holder has reserved now, and the most that was ever spent in all: before this step and after it."""

    reserved: int
    before: int
    after: int


class Store(Protocol):
    """The levels behind `rate_limit` and `budget`; see the module's contract."""

    @property
    def is_local(self) -> bool:
        """Whether the steps wait for nothing, and nothing need be renewed."""
        ...

    @property
    def lease_s(self) -> float:
        """What is held is freed so long after it was taken or renewed last, in seconds; infinite where it is local."""
        ...

    def line(self, key: str) -> Line:
        """Give the line in which this process's calls of a key wait."""
        ...

    async def take(self, demand: Demand) -> float:
        """Take all that a call needs, or nothing: give 0, or the seconds after which to ask again.

        Infinite where that depends on another call's end.
        """
        ...

    async def renew(self, demand: Demand) -> None:
        """Say that the call goes on."""
        ...

    async def give_back(self, demand: Demand, used_tokens: float, *, sent: bool) -> None:
        """End a call that took, or wanted to: settle its tokens; the request comes back where none was sent."""
        ...

    async def cap(
        self, demand: Demand, *, requests: float | None = None, tokens: float | None = None, pause_s: float = 0.0
    ) -> None:
        """Lower the key's levels to what the provider says is left; let nothing begin within `pause_s` seconds."""
        ...

    async def reserve(self, account: Account, holder: str, want: int, least: int) -> int:
        """Reserve what is left of an account, at most `want`; give 0 and reserve nothing where `least` is not left."""
        ...

    async def spend(self, account: Account, holder: str, used: int, want: int) -> Spent:
        """Say what a holder has used so far, and widen its reservation to `want` as far as the account allows."""
        ...

    async def settle(self, account: Account, holder: str, used: int) -> Spent:
        """End a holder's reservation with what it used; a second time changes nothing."""
        ...


# --- waiting -------------------------------------------------------------------------------------


class Place:
    """One call's place in a line; while its consumer has the turn it is not `present`, and others may pass."""

    __slots__ = ("event", "present")

    def __init__(self) -> None:
        self.present = False
        self.event: anyio.Event | None = None
        """Set to wake it; None before it waits."""


class Line:
    """The calls of one key that wait, in the order in which they came. Only the first one asks the store.

    `look_s` is the longest time between two looks at a store that cannot wake anybody.
    """

    __slots__ = ("_look_s", "places")

    def __init__(self, look_s: float = math.inf) -> None:
        self._look_s = look_s
        self.places: dict[Place, None] = {}
        """Those who wait, in their order; `join` and `leave` change it."""

    def __len__(self) -> int:
        return len(self.places)

    def join(self, most: int) -> Place:
        """Give a place at the end. Raises `QueueFull` where `most` wait already."""
        if self.places and len(self.places) >= most:
            raise queue_full(most)
        place = Place()
        self.places[place] = None
        return place

    def leave(self, place: Place) -> None:
        """Give up a place; also a second time."""
        self.places.pop(place, None)

    def wake(self) -> None:
        """Have the first one ask the store again."""
        first = self._first()
        if first is not None and first.event is not None:
            first.event.set()

    def _first(self) -> Place | None:
        return next((place for place in self.places if place.present), None)

    async def admit(
        self, place: Place, take: Callable[[], Awaitable[float]], *, wait_s: float, give_up_s: float
    ) -> float:
        """Wait for the place's turn until `take` gives 0, and give 0; else the seconds that are known to be missing.

        It waits `wait_s` at most, and not at all for what is known to take longer than `give_up_s`.
        """
        place.present = True
        try:
            missing_s = await take() if self._first() is place else math.inf
            if missing_s == 0 or give_up_s < missing_s < math.inf or wait_s <= 0:
                return missing_s
            with anyio.move_on_after(wait_s):
                while True:
                    missing_s = await self._turn(place, take, missing_s)
                    if missing_s == 0 or give_up_s < missing_s < math.inf:
                        return missing_s
            return missing_s
        finally:
            place.present = False
            self.wake()

    async def _turn(self, place: Place, take: Callable[[], Awaitable[float]], missing_s: float) -> float:
        """Wait once, as long as the store said or until woken, and ask it where this place is the first one."""
        event = place.event = anyio.Event()
        is_first = self._first() is place
        with anyio.move_on_after(min(missing_s, self._look_s) if is_first else math.inf):
            await event.wait()
        return await take() if self._first() is place else math.inf


def queue_full(most: int) -> QueueFull:
    """Give the error of a line that is full."""
    return QueueFull(f"{most} calls wait for your own rate limit: not sent; raise max_queue, or call less often")


# --- one process ---------------------------------------------------------------------------------


class _Bucket:
    """The level of a bucket; it is full when it is first looked at."""

    __slots__ = ("at_s", "level")

    def __init__(self) -> None:
        self.level = math.inf
        self.at_s = 0.0

    def refill(self, now_s: float, quota: Quota) -> None:
        """Add what has flowed in since it was last looked at."""
        self.level = min(quota.burst, self.level + (now_s - self.at_s) * quota.per_minute / 60.0)
        self.at_s = now_s

    def lower(self, now_s: float, quota: Quota, left: float) -> None:
        """Leave no more in it than this."""
        self.refill(now_s, quota)
        self.level = min(self.level, left)

    def missing_s(self, now_s: float, quota: Quota, wanted: float) -> float:
        """Refill, and give the seconds until it has what is wanted; more than it can hold: until it is full."""
        self.refill(now_s, quota)
        lacking = min(wanted, quota.burst) - self.level
        return 0.0 if lacking <= ENOUGH else lacking * 60.0 / quota.per_minute


class _Key:
    """The levels of one key."""

    __slots__ = ("began_s", "line", "paused_s", "permits", "requests", "seen_s", "tokens")

    def __init__(self) -> None:
        self.line = Line()
        self.requests = _Bucket()
        self.tokens = _Bucket()
        self.permits: set[str] = set()
        self.paused_s = -math.inf
        self.began_s = -math.inf
        self.seen_s = -math.inf

    def at(self, now_s: float) -> float:
        """Give the time. Where it went back it is another event loop's: what the first one reckoned is void."""
        if now_s < self.seen_s:
            self.requests.at_s = self.tokens.at_s = now_s
            self.paused_s = self.began_s = -math.inf
        self.seen_s = now_s
        return now_s


class _Ledger:
    """The state of one account: holders are name to what they reserved and used."""

    __slots__ = ("ends_s", "holders", "most", "reserved", "spent", "used")

    def __init__(self, ends_s: float) -> None:
        self.ends_s = ends_s
        self.spent = 0
        self.reserved = 0
        self.used = 0
        self.most = 0
        self.holders: dict[str, tuple[int, int]] = {}

    def hold(self, holder: str, reserved: int, used: int) -> None:
        """Set what a holder reserved and used, both 0 to forget it."""
        old_reserved, old_used = self.holders.pop(holder, (0, 0))
        self.reserved += reserved - old_reserved
        self.used += used - old_used
        if reserved or used:
            self.holders[holder] = (reserved, used)

    def noted(self, reserved: int) -> Spent:
        """Give the state after a step."""
        before, self.most = self.most, max(self.most, self.spent + self.used)
        return Spent(reserved, before, self.most)


class _Keys(threading.local):
    """The keys of the running thread: a line of one event loop cannot be woken from another."""

    def __init__(self) -> None:
        self.by_name: dict[str, _Key] = {}


class MemoryStore:
    """The store of one process: nothing is waited for, whoever waits is woken.

    `clock` gives seconds that never go back (default: the event loop's). `take_now` and `give_back_now` are `take` and
    `give_back` without a coroutine.
    """

    is_local = True
    lease_s = math.inf

    def __init__(self, clock: Callable[[], float] = loop_time) -> None:
        self._clock = clock
        self._keys = _Keys()
        self._ledgers: dict[str, _Ledger] = {}

    def line(self, key: str) -> Line:
        """Give the line of a key."""
        return self._key(key).line

    def _key(self, key: str) -> _Key:
        keys = self._keys.by_name
        found = keys.get(key)
        if found is None:
            found = keys[key] = _Key()
        return found

    def is_clear(self, key: str) -> bool:
        """Say whether no call of the key waits, and none was told to pause."""
        state = self._keys.by_name.get(key)
        if state is None:
            return True
        return not state.line.places and (state.paused_s == -math.inf or state.paused_s <= state.at(self._clock()))

    async def take(self, demand: Demand) -> float:
        """See `Store.take`."""
        return self.take_now(demand)

    def take_now(self, demand: Demand) -> float:
        """See `Store.take`."""
        state = self._key(demand.key)
        now_s = state.at(self._clock())
        missing_s = max(state.paused_s, state.began_s + demand.min_delay_s) - now_s
        if demand.requests is not None:
            missing_s = max(missing_s, state.requests.missing_s(now_s, demand.requests, 1.0))
        if demand.token_quota is not None:
            missing_s = max(missing_s, state.tokens.missing_s(now_s, demand.token_quota, demand.tokens))
        if missing_s > ENOUGH:
            return missing_s
        if demand.concurrency and len(state.permits) >= demand.concurrency:
            return math.inf
        state.began_s = now_s
        state.permits.add(demand.permit)
        if demand.requests:
            state.requests.level -= 1.0
        if demand.token_quota:
            state.tokens.level -= demand.tokens
        return 0.0

    async def renew(self, demand: Demand) -> None:
        """Nothing runs out."""

    async def give_back(self, demand: Demand, used_tokens: float, *, sent: bool) -> None:
        """See `Store.give_back`."""
        self.give_back_now(demand, used_tokens, sent=sent)

    def give_back_now(self, demand: Demand, used_tokens: float, *, sent: bool) -> None:
        """See `Store.give_back`."""
        state = self._key(demand.key)
        now_s = state.at(self._clock())
        if demand.permit not in state.permits:
            return
        state.permits.remove(demand.permit)
        if demand.requests and not sent:
            state.requests.refill(now_s, demand.requests)
            state.requests.level += 1.0
        if demand.token_quota:
            state.tokens.refill(now_s, demand.token_quota)
            state.tokens.level += demand.tokens - used_tokens
        state.line.wake()

    async def cap(
        self, demand: Demand, *, requests: float | None = None, tokens: float | None = None, pause_s: float = 0.0
    ) -> None:
        """See `Store.cap`."""
        state = self._key(demand.key)
        now_s = state.at(self._clock())
        if demand.requests and requests is not None:
            state.requests.lower(now_s, demand.requests, requests)
        if demand.token_quota and tokens is not None:
            state.tokens.lower(now_s, demand.token_quota, tokens)
        if pause_s > 0:
            state.paused_s = max(state.paused_s, now_s + pause_s)

    # --- spending --------------------------------------------------------------------------------

    def _ledger(self, account: Account) -> _Ledger:
        found = self._ledgers.get(account.key)
        if found is None:
            now_s = self._clock()
            self._ledgers = {key: ledger for key, ledger in self._ledgers.items() if ledger.ends_s > now_s}
            ends_s = math.inf if account.kept_s is None else now_s + account.kept_s
            found = self._ledgers[account.key] = _Ledger(ends_s)
        return found

    async def reserve(self, account: Account, holder: str, want: int, least: int) -> int:
        """See `Store.reserve`."""
        ledger = self._ledger(account)
        granted = min(want, account.limit - ledger.spent - ledger.reserved)
        if granted < least or granted <= 0:
            return 0
        ledger.hold(holder, granted, 0)
        return granted

    async def spend(self, account: Account, holder: str, used: int, want: int) -> Spent:
        """See `Store.spend`."""
        ledger = self._ledger(account)
        reserved = ledger.holders.get(holder, (0, 0))[0]
        left = max(0, account.limit - ledger.spent - ledger.reserved)
        reserved += min(max(0, want - reserved), left)
        ledger.hold(holder, reserved, used)
        return ledger.noted(reserved)

    async def settle(self, account: Account, holder: str, used: int) -> Spent:
        """See `Store.settle`."""
        ledger = self._ledger(account)
        if holder in ledger.holders:
            ledger.hold(holder, 0, 0)
            ledger.spent += used
        return ledger.noted(0)
