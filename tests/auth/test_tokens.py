"""A token is fetched once for all who wait, again before it expires, and once more when it is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from auth_services import REQUEST, Clock, revealed

from loomstream.auth.tokens import (
    FETCH_LIMIT_S,
    MARGIN_S,
    THREAD_NAME,
    Fixed,
    Grant,
    TokenCache,
    TokenHeaders,
    _Flight,
    bearer,
)
from loomstream.errors import AuthFailed, ConfigError, ConnectFailed, LoomstreamError

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.0
HOUR = 3600.0


class Source:
    """Gives token-1, token-2, …; what `then` holds is raised first; closed gates are waited for."""

    def __init__(self, clock: Clock, life_s: float | None = HOUR) -> None:
        self.clock = clock
        self.life_s = life_s
        self.fetches = 0
        self.error: BaseException | None = None
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.gate.set()
        self.name: Callable[[int], str] = "token-{}".format

    def __call__(self) -> Grant[str]:
        self.fetches += 1
        self.begun.set()
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return Grant(self.name(self.fetches), None if self.life_s is None else self.clock() + self.life_s)


def _translated(error: BaseException) -> LoomstreamError:
    return ConfigError(f"translated {type(error).__name__}")


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def source(clock: Clock) -> Source:
    return Source(clock)


@pytest.fixture
def cache(source: Source, clock: Clock) -> TokenCache[str]:
    return TokenCache(source, provider="acme", failed=_translated, clock=clock)


async def test_fifty_at_once_make_one_fetch(cache: TokenCache[str], source: Source) -> None:
    source.gate.clear()
    got: list[str] = []

    async def ask() -> None:
        got.append(await cache.get())

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        source.gate.set()
    assert got == ["token-1"] * 50
    assert source.fetches == 1


async def test_one_who_is_cancelled_takes_nothing_from_the_others(cache: TokenCache[str], source: Source) -> None:
    source.gate.clear()
    got: list[str] = []
    first = anyio.CancelScope()

    async def ask(scope: anyio.CancelScope) -> None:
        with scope:
            got.append(await cache.get())

    async with anyio.create_task_group() as group:
        group.start_soon(ask, first)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(ask, anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await anyio.wait_all_tasks_blocked()
        source.gate.set()
    assert first.cancelled_caught
    assert (got, source.fetches) == (["token-1"], 1)


async def test_a_fetch_that_nobody_waits_for_any_more_serves_the_next(cache: TokenCache[str], source: Source) -> None:
    source.gate.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(cache.get)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    source.gate.set()
    assert await cache.get() == "token-1"
    assert source.fetches == 1


async def test_the_event_loop_goes_on_meanwhile(cache: TokenCache[str], source: Source) -> None:
    source.gate.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(cache.get)
        while not source.begun.is_set():
            await anyio.lowlevel.checkpoint()
        source.gate.set()
    assert cache.recent == ("token-1",)


@pytest.mark.parametrize(("life_s", "margin_s"), [(HOUR, MARGIN_S), (12 * HOUR, MARGIN_S), (100.0, 10.0)])
async def test_it_is_replaced_before_it_expires(clock: Clock, life_s: float, margin_s: float) -> None:
    source = Source(clock, life_s)
    cache = TokenCache(source, provider="acme", failed=_translated, clock=clock)
    await cache.get()
    clock.now = NOW + life_s - margin_s - 1
    assert await cache.get() == "token-1"
    clock.now = NOW + life_s - margin_s
    assert await cache.get() == "token-2"


async def test_one_that_does_not_expire_is_kept(clock: Clock) -> None:
    source = Source(clock, None)
    cache = TokenCache(source, provider="acme", failed=_translated, clock=clock)
    await cache.get()
    clock.now += 1e9
    assert await cache.get() == "token-1"


async def test_a_valid_one_is_used_on_where_its_replacement_fails(
    cache: TokenCache[str], source: Source, clock: Clock
) -> None:
    await cache.get()
    source.error = ConnectFailed("away")
    clock.now = NOW + HOUR - 100
    assert [await cache.get(), await cache.get()] == ["token-1", "token-1"]
    assert source.fetches == 2  # not for each request
    clock.now = NOW + HOUR - 40
    assert await cache.get() == "token-1"
    assert source.fetches == 3
    clock.now = NOW + HOUR
    with pytest.raises(ConnectFailed, match="away"):
        await cache.get()


async def test_a_source_whose_tokens_are_old_is_not_asked_for_each_request(
    cache: TokenCache[str], source: Source
) -> None:
    source.life_s = 60.0  # as a metadata server hands out the same one until it expires
    assert [await cache.get() for _ in range(10)] == ["token-1"] * 10


async def test_what_had_expired_already_is_refused(cache: TokenCache[str], source: Source) -> None:
    source.life_s = -1.0
    with pytest.raises(AuthFailed, match="machine's clock"):
        await cache.get()


async def test_each_waiter_gets_an_error_of_its_own(cache: TokenCache[str], source: Source) -> None:
    source.gate.clear()
    source.error = KeyError("a vendor's error with top-secret-text")
    errors: list[LoomstreamError] = []

    async def ask() -> None:
        with pytest.raises(ConfigError, match=r"^translated KeyError$") as caught:
            await cache.get()
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        source.gate.set()
    assert len({id(error) for error in errors}) == 3
    assert {(error.__cause__, error.__context__) for error in errors} == {(None, None)}
    assert source.fetches == 1


async def test_an_error_is_not_kept(cache: TokenCache[str], source: Source) -> None:
    source.error = ConnectFailed("away")
    with pytest.raises(ConnectFailed):
        await cache.get()
    source.error = None
    assert await cache.get() == "token-2"


async def test_a_library_that_wants_to_end_the_process_does_not(cache: TokenCache[str], source: Source) -> None:
    source.error = SystemExit(3)
    with pytest.raises(ConfigError, match="SystemExit"):
        await cache.get()


async def test_one_that_never_answers_is_given_up_and_asked_again(clock: Clock, source: Source) -> None:
    cache = TokenCache(source, provider="acme", failed=_translated, clock=clock, limit_s=0.01)
    source.gate.clear()
    with pytest.raises(ConnectFailed, match=r"acme did not answer within 0\.01 s"):
        await cache.get()
    late = source.fetches
    source.gate.set()
    patient = TokenCache(source, provider="acme", failed=_translated, clock=clock, limit_s=FETCH_LIMIT_S)
    assert await patient.get() == f"token-{late + 1}"


async def test_what_a_fetch_brings_after_it_was_given_up_counts_no_more(clock: Clock) -> None:
    gates = [threading.Event(), threading.Event()]
    ended = threading.Event()

    def fetch() -> Grant[str]:
        number = next(number for number, gate in enumerate(gates) if not gate.is_set())
        if number:
            return Grant("second")
        assert ended.wait(30)
        return Grant("first")

    cache = TokenCache(fetch, provider="acme", failed=_translated, clock=clock, limit_s=0.01)
    with pytest.raises(ConnectFailed):
        await cache.get()
    gates[0].set()
    assert await cache.get() == "second"
    ended.set()
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(30)
    assert await cache.get() == "second"


async def test_a_fetch_that_lands_just_before_it_is_joined_is_not_repeated(
    cache: TokenCache[str], source: Source
) -> None:
    await cache.get()
    assert cache._valid_or_joined() == Grant("token-1", NOW + HOUR)
    cache.drop()
    flight = cache._valid_or_joined()
    assert isinstance(flight, _Flight)
    assert await flight.wait() == await flight.wait() == Grant("token-2", NOW + HOUR)
    assert source.fetches == 2


# --- a refusal -----------------------------------------------------------------------------------


async def test_a_refused_one_is_fetched_anew(cache: TokenCache[str], source: Source) -> None:
    await cache.get()
    assert await cache.renew()
    assert await cache.get() == "token-2"
    assert source.fetches == 2


async def test_refusals_at_many_requests_count_as_one(cache: TokenCache[str], source: Source, clock: Clock) -> None:
    await cache.get()
    renewed: list[bool] = []

    async def renew() -> None:
        renewed.append(await cache.renew())

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(renew)
    clock.now += 5
    await renew()  # one whose answer took longer
    assert renewed == [True] * 51
    assert source.fetches == 2
    clock.now += HOUR / 2
    await renew()
    assert source.fetches == 3


async def test_where_the_source_has_no_other_there_is_nothing_to_repeat_with(
    cache: TokenCache[str], source: Source
) -> None:
    source.name = lambda _: "the same"
    await cache.get()
    assert not await cache.renew()
    assert source.fetches == 2


async def test_a_refused_one_is_not_used_on_where_the_next_fails(cache: TokenCache[str], source: Source) -> None:
    await cache.get()
    source.error = ConnectFailed("away")
    with pytest.raises(ConnectFailed):
        await cache.renew()


async def test_what_was_dropped_is_fetched_again(cache: TokenCache[str]) -> None:
    await cache.get()
    cache.drop()
    assert await cache.get() == "token-2"


async def test_the_last_three_are_remembered(cache: TokenCache[str], clock: Clock) -> None:
    for _ in range(5):
        await cache.get()
        clock.now += HOUR
    assert cache.recent == ("token-3", "token-4", "token-5")


def test_one_cache_serves_event_loops_in_several_threads(clock: Clock, source: Source) -> None:
    cache = TokenCache(source, provider="acme", failed=_translated, clock=clock)
    source.gate.clear()
    got: list[str] = []

    async def ask() -> None:
        got.append(await cache.get())

    threads = [
        threading.Thread(target=anyio.run, args=(ask,), kwargs={"backend": name}) for name in ("asyncio", "trio")
    ]
    for thread in threads:
        thread.start()
    assert source.begun.wait(30)
    source.gate.set()
    for thread in threads:
        thread.join()
    assert got == ["token-1", "token-1"]
    assert source.fetches == 1


def test_an_event_loop_that_is_gone_does_no_harm(clock: Clock, source: Source, anyio_backend_name: str) -> None:
    cache = TokenCache(source, provider="acme", failed=_translated, clock=clock)
    source.gate.clear()

    async def ask_in_vain() -> None:
        with anyio.move_on_after(0):
            await cache.get()

    async def ask() -> str:
        return await cache.get()

    anyio.run(ask_in_vain, backend=anyio_backend_name)
    source.gate.set()
    assert anyio.run(ask, backend=anyio_backend_name) == "token-1"


# --- headers -------------------------------------------------------------------------------------


async def test_a_token_becomes_headers(clock: Clock) -> None:
    def fetch() -> Grant[object]:
        return Grant(bearer("canary-token", headers={"x-extra": "1"}, discovered={"project": "p"}), NOW + HOUR)

    authenticator = TokenHeaders(TokenCache(fetch, provider="acme", failed=_translated, clock=clock))  # type: ignore[arg-type]
    assert (authenticator.secrets, authenticator.discovered) == ((), {})
    await authenticator.prepare()
    assert authenticator.discovered == {"project": "p"}
    sent = await authenticator.authorize(REQUEST)
    assert revealed(sent) == {
        "content-type": "application/json",
        "authorization": "Bearer canary-token",
        "x-extra": "1",
    }
    assert [secret.reveal() for secret in authenticator.secrets] == ["canary-token"]
    assert "canary" not in repr(sent) + repr(authenticator.secrets)
    await authenticator.aclose()


async def test_a_fixed_token_has_no_other() -> None:
    authenticator = TokenHeaders(Fixed(bearer("canary-token")))
    await authenticator.prepare()
    assert not await authenticator.renew()
    await authenticator.aclose()
    assert revealed(await authenticator.authorize(REQUEST))["authorization"] == "Bearer canary-token"
    assert [secret.reveal() for secret in authenticator.secrets] == ["canary-token"]
