"""The store of several processes, in a Redis server: one Lua script a step, on the server's clock.

Contract: as `loomstream.middleware.store`. Every key expires: levels when they would be full again, sums at the end of
their period. What a process holds is leased: where it was killed its permits are free, and its reservations shrink to
what they had used, after `lease_s`; a live call renews its own while events come. Calls of one process wait in its
line; the first ones of all processes have their turns in the order in which they came. A server cannot wake anybody, so
they look again every `LOOK_S`. The extra `redis` brings the client, whose blocking calls run in threads: so it serves
asyncio and trio alike.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Protocol, Self, TypeVar, cast
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from loomstream.errors import ConfigError, ConnectFailed, LoomstreamError
from loomstream.middleware.store import Account, Demand, Line, Spent

LOOK_S = 0.1
"""The longest time until a call sees what another process has given back, in seconds."""
LEASE_S = 120.0
_THREADS = 16
_SOCKET_S = 5.0
_NONE = -1

_T = TypeVar("_T")
_Argument = str | int | float


class _Script(Protocol):
    def __call__(self, keys: list[str], args: list[_Argument]) -> object: ...


class RedisStore:
    """The store at a Redis server (5 or newer), as `redis://host:6379/0` or `rediss://…`.

    `prefix` begins every key. `lease_s` is the time after which what a killed process held is free, in seconds; a call
    whose consumer takes longer between two events may lose its permit to another. Several stores may share a server.
    Close it, or use it as an async context manager.

    Raises `ConfigError` where the extra is not installed, the address is none, or `lease_s` is below a second; its
    steps raise `ConnectFailed` where the server does not answer within 5 s, and `ConfigError` where it refuses.
    """

    is_local = False

    def __init__(self, url: str, *, prefix: str = "loomstream", lease_s: float = LEASE_S) -> None:
        if not 1 <= lease_s < math.inf:
            msg = f"RedisStore(lease_s={lease_s!r}): give at least 1 s"
            raise ConfigError(msg)
        self.lease_s = lease_s
        self._prefix = prefix
        self._lines: dict[str, Line] = {}
        self._threads: anyio.CapacityLimiter | None = None
        self._redis = _client(url)
        self._address = shown_address(url)
        self._scripts: dict[str, _Script] = {}
        source = files("loomstream.middleware").joinpath("redis_store.lua").read_text("utf-8")
        common, *steps = source.split("\n--- step ")
        for step in steps:
            name, _, body = step.partition("\n")
            self._scripts[name.strip()] = cast("_Script", self._redis.register_script(f"{common}\n{body}"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._redis.close)

    def line(self, key: str) -> Line:
        """Give the line of this process's calls of a key."""
        found = self._lines.get(key)
        if found is None:
            found = self._lines[key] = Line(LOOK_S)
        return found

    # --- rates -----------------------------------------------------------------------------------

    def _rate_keys(self, key: str) -> list[str]:
        base = f"{self._prefix}:rate:{{{key}}}"  # the braces keep the keys together in a cluster
        return [base, f"{base}:permits", f"{base}:first", f"{base}:seen"]

    async def take(self, demand: Demand) -> float:
        """See `Store.take`."""
        keys = self._rate_keys(demand.key)
        undo = lambda: self._step("give_back", keys, [*_demanded(demand), demand.tokens, 1])  # noqa: E731
        arguments = [*_demanded(demand), self.lease_s, LOOK_S, demand.concurrency, demand.min_delay_s]
        return float(cast("bytes", await self._run(lambda: self._step("take", keys, arguments), undo)))

    async def renew(self, demand: Demand) -> None:
        """See `Store.renew`."""
        keys = self._rate_keys(demand.key)
        await self._run(lambda: self._step("renew", keys, [demand.permit, self.lease_s]))

    async def give_back(self, demand: Demand, used_tokens: float, *, sent: bool) -> None:
        """See `Store.give_back`."""
        keys = self._rate_keys(demand.key)
        refund = demand.tokens - used_tokens
        with anyio.CancelScope(shield=True):
            await self._run(
                lambda: self._step("give_back", keys, [*_demanded(demand), refund, 0 if sent else 1]), finish=True
            )
        self.line(demand.key).wake()

    async def cap(
        self, demand: Demand, *, requests: float | None = None, tokens: float | None = None, pause_s: float = 0.0
    ) -> None:
        """See `Store.cap`."""
        left = [_NONE if value is None else max(0.0, value) for value in (requests, tokens)]
        keys = self._rate_keys(demand.key)
        await self._run(lambda: self._step("cap", keys, [*_demanded(demand), *left, pause_s]))

    # --- spending --------------------------------------------------------------------------------

    def _account_keys(self, account: Account) -> list[str]:
        base = f"{self._prefix}:spent:{{{account.key}}}"
        return [base, f"{base}:reserved", f"{base}:used", f"{base}:leases"]

    def _account_arguments(self, account: Account, holder: str) -> list[_Argument]:
        kept_s = _NONE if account.kept_s is None else math.ceil(account.kept_s)
        return [holder, account.limit, kept_s, self.lease_s]

    async def reserve(self, account: Account, holder: str, want: int, least: int) -> int:
        """See `Store.reserve`."""
        keys, given = self._account_keys(account), self._account_arguments(account, holder)
        undo = lambda: self._step("settle", keys, [*given, 0])  # noqa: E731
        granted = await self._run(lambda: self._step("reserve", keys, [*given, want, least]), undo)
        return int(cast("bytes", granted))

    async def spend(self, account: Account, holder: str, used: int, want: int) -> Spent:
        """See `Store.spend`."""
        keys, given = self._account_keys(account), self._account_arguments(account, holder)
        return _spent(await self._run(lambda: self._step("spend", keys, [*given, used, want])))

    async def settle(self, account: Account, holder: str, used: int) -> Spent:
        """See `Store.settle`."""
        keys, given = self._account_keys(account), self._account_arguments(account, holder)
        answer: object = None
        with anyio.CancelScope(shield=True):
            answer = await self._run(lambda: self._step("settle", keys, [*given, used]), finish=True)
        return _spent(answer)

    # --- calling the server ----------------------------------------------------------------------

    def _step(self, name: str, keys: list[str], arguments: list[_Argument]) -> object:
        """Run a script; in a thread."""
        try:
            return self._scripts[name](keys=keys, args=arguments)
        except Exception as error:
            raise _typed(error, self._address) from error

    async def _run(
        self, step: Callable[[], _T], undo: Callable[[], object] | None = None, *, finish: bool = False
    ) -> _T:
        """Run a step in a thread; where the caller is cancelled meanwhile, what the step did is undone."""
        threads = self._threads
        if threads is None:
            threads = self._threads = anyio.CapacityLimiter(_THREADS)
        call = _Call(step, undo)
        if finish:
            return await anyio.to_thread.run_sync(call.run, limiter=threads)
        try:
            return await anyio.to_thread.run_sync(call.run, limiter=threads)
        except anyio.get_cancelled_exc_class():
            if call.abandon():
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(call.undo, limiter=threads)
            raise


class _Call:
    """A step in a thread, whose caller may go away: a task that is cancelled by itself leaves the thread running."""

    def __init__(self, step: Callable[[], Any], undo: Callable[[], object] | None) -> None:
        self._step = step
        self._undo = undo
        self._lock = threading.Lock()
        self._done = False
        self._abandoned = False

    def run(self) -> Any:  # noqa: ANN401 (what the step gives)
        """Run the step, and undo it where nobody waits for it any more."""
        value = self._step()
        with self._lock:
            self._done = True
            abandoned = self._abandoned
        if abandoned:
            self.undo()
        return value

    def abandon(self) -> bool:
        """Say that nobody waits; give whether the step is done already, and must be undone by the caller."""
        with self._lock:
            self._abandoned = True
            return self._done

    def undo(self) -> None:
        """Undo the step, where that is needed."""
        if self._undo is not None:
            self._undo()


def _demanded(demand: Demand) -> list[_Argument]:
    """Give the permit, and both buckets by rate a second and size; a rate below 0 is no bucket."""
    requests, tokens = (
        (_NONE, 0.0) if quota is None else (quota.per_minute / 60.0, quota.burst)
        for quota in (demand.requests, demand.token_quota)
    )
    return [demand.permit, *requests, *tokens, demand.tokens]


def _spent(answer: object) -> Spent:
    return Spent(*(int(number) for number in cast("list[bytes]", answer)))


# --- the client ----------------------------------------------------------------------------------


class _Client(Protocol):
    def register_script(self, script: str) -> object: ...
    def close(self) -> None: ...


def _client(url: str) -> _Client:
    try:
        import redis  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = "a RedisStore needs the client of Redis: pip install 'loomstream[redis]'"
        raise ConfigError(msg) from error
    options: Mapping[str, float] = {"socket_timeout": _SOCKET_S, "socket_connect_timeout": _SOCKET_S}
    try:
        return cast("_Client", redis.Redis.from_url(url, **options))  # pyright: ignore[reportUnknownMemberType]
    except ValueError as error:
        msg = "this is no address of a Redis server: give one such as redis://localhost:6379/0"
        raise ConfigError(msg) from error


def shown_address(url: str) -> str:
    """Give where a URL of Redis leads, without the name and the password that it may hold."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


def _typed(error: Exception, address: str) -> LoomstreamError:
    import redis  # noqa: PLC0415 (loaded by now)

    server = f"the Redis server of the shared limits, {address},"
    if isinstance(error, redis.AuthenticationError | redis.ResponseError):
        return ConfigError(
            f"{server} refuses ({type(error).__name__}: {error}): see that the address has its password, that its user "
            "may run scripts, and that it is of version 5 or newer"
        )
    return ConnectFailed(
        f"{server} does not answer ({type(error).__name__}): start it or drop store=",
        retry_safety="yes",
    )
