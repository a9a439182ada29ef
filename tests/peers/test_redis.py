"""The shared store at a real Redis server: several processes, one of them killed."""

from __future__ import annotations

import itertools
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import anyio
import pytest

from loomstream.errors import BudgetExceeded, ConfigError, ConnectFailed, QueueFull
from loomstream.events import Start
from loomstream.messages import Request
from loomstream.middleware.budget import Alert, budget
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.redis_store import RedisStore
from loomstream.middleware.store import Account, Demand, MemoryStore, Quota
from loomstream.testing import Pause, scripted_model, text_events

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

ANSWER = text_events("ok")
MINUTE = Quota(60.0, 3.0)


@pytest.fixture
async def store(redis_server: str, request: pytest.FixtureRequest) -> AsyncIterator[RedisStore]:
    async with RedisStore(redis_server, prefix=request.node.name, lease_s=60) as store:
        yield store


# --- as the store of one process ------------------------------------------------------------------


async def test_a_bucket_is_emptied_and_says_when_to_ask_again(store: RedisStore) -> None:
    demands = [Demand("k", f"call {number}", MINUTE) for number in range(4)]
    assert [await store.take(demand) for demand in demands[:3]] == [0, 0, 0]
    assert 0.5 < await store.take(demands[3]) <= 1
    await store.give_back(demands[0], 0, sent=False)
    assert await store.take(demands[3]) == 0


async def test_tokens_are_settled(store: RedisStore) -> None:
    def demand(permit: str, tokens: float) -> Demand:
        return Demand("k", permit, token_quota=Quota(6.0, 100.0), tokens=tokens)

    assert await store.take(demand("a", 90)) == 0
    assert await store.take(demand("b", 90)) > 100
    await store.give_back(demand("a", 90), 5, sent=True)
    assert await store.take(demand("b", 90)) == 0


async def test_permits_are_counted_and_given_back_once(store: RedisStore) -> None:
    first, second, third = (Demand("k", name, concurrency=1) for name in "abc")
    assert await store.take(first) == 0
    assert await store.take(second) == float("inf")
    for _ in range(2):
        await store.give_back(first, 0, sent=True)
    assert await store.take(second) == 0
    assert await store.take(third) == float("inf")


async def test_the_first_to_come_has_the_first_turn(store: RedisStore) -> None:
    held, early, late = (Demand("k", name, concurrency=1) for name in "abc")
    assert await store.take(held) == 0
    assert await store.take(early) == float("inf")
    await store.give_back(held, 0, sent=True)
    assert await store.take(late) > 0
    assert await store.take(early) == 0


async def test_levels_are_lowered_and_paused(store: RedisStore) -> None:
    demand = Demand("k", "a", MINUTE)
    await store.cap(demand, requests=0)
    assert 0 < await store.take(demand) <= 1
    await store.cap(demand, pause_s=30)
    assert 29 < await store.take(demand) <= 30


async def test_sums_are_reserved_used_and_settled(store: RedisStore) -> None:
    account = Account("a", 100, kept_s=60)
    assert await store.reserve(account, "x", 60, 10) == 60
    assert await store.reserve(account, "y", 60, 10) == 40
    assert await store.reserve(account, "z", 60, 10) == 0
    assert await store.spend(account, "x", 55, 0) == (60, 0, 55)
    assert await store.settle(account, "x", 50) == (0, 55, 55)
    assert await store.settle(account, "x", 50) == (0, 55, 55)
    assert await store.spend(account, "y", 10, 90) == (50, 55, 60)


async def test_every_key_expires(store: RedisStore, redis_server: str, request: pytest.FixtureRequest) -> None:
    import redis  # noqa: PLC0415 (an extra)

    demand = Demand("k", "a", MINUTE, Quota(60.0, 100.0), 10, concurrency=1)
    await store.take(demand)
    await store.take(demand._replace(permit="b"))
    await store.cap(demand, pause_s=1)
    account = Account("a", 100, kept_s=60)
    await store.reserve(account, "x", 60, 10)
    await store.spend(account, "x", 5, 0)
    with redis.Redis.from_url(redis_server) as client:
        keys = list(client.scan_iter(f"*{request.node.name.split('[')[0]}*"))
        assert len(keys) >= 6
        assert all(client.ttl(key) > 0 for key in keys)


async def test_it_counts_as_the_store_of_one_process_does(store: RedisStore) -> None:
    draw = random.Random(5)  # noqa: S311 (no secret)
    memory, account = MemoryStore(), Account("a", 1_000, 60)
    holders: list[str] = []
    for number in range(300):
        step = draw.choice(("reserve", "spend", "settle")) if holders else "reserve"
        if step == "reserve":
            given = (f"holder {number}", draw.randrange(1, 700), draw.randrange(1, 100))
            granted = await store.reserve(account, *given)
            assert granted == await memory.reserve(account, *given)
            holders += [given[0]] if granted else []
        elif step == "spend":
            used = (draw.choice(holders), draw.randrange(300), draw.randrange(900))
            assert await store.spend(account, *used) == await memory.spend(account, *used)
        else:
            settled = (holders.pop(draw.randrange(len(holders))), draw.randrange(5))
            assert await store.settle(account, *settled) == await memory.settle(account, *settled)


# --- behind the middleware ------------------------------------------------------------------------


async def test_two_stores_share_the_limits_of_calls(redis_server: str, request: pytest.FixtureRequest) -> None:
    running = most = 0

    async def call(store: RedisStore) -> None:
        nonlocal running, most
        slow = [ANSWER[0], Pause(0.05), *ANSWER[1:]]
        model = scripted_model(
            slow, middleware=[rate_limit("openai", requests_per_minute=0, concurrency=2, store=store)]
        )
        async with model.stream("hi") as stream:
            async for event in stream:
                if isinstance(event, Start):
                    running += 1
                    most = max(most, running)
            running -= 1

    stores = [RedisStore(redis_server, prefix=request.node.name) for _ in range(2)]
    async with stores[0], stores[1], anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(call, stores[number % 2])
    assert most == 2


async def test_a_cancelled_call_leaves_no_permit(store: RedisStore) -> None:
    handler = scripted_model([Pause(30), *ANSWER]).handler
    limited = rate_limit(concurrency=1, max_queue=0, store=store)(handler)
    for wait_s in (0, 0.0005, 0.001, 0.002, 0.02):
        with anyio.move_on_after(wait_s):
            async with limited(Request(messages=())) as events:
                await anext(events)
    with anyio.fail_after(20):  # before the lease would free it
        while await store.take(Demand("::", "mine", concurrency=1)):  # noqa: ASYNC110 (a server wakes nobody)
            await anyio.sleep(0.01)


async def test_a_thousand_racers_never_spend_more_than_there_is(store: RedisStore) -> None:
    alerts: list[Alert] = []
    limited = budget(limit_tokens=1_005, per="total", store=store, on_alert=alerts.append)
    model = scripted_model(text_events(*["four"] * 9), middleware=[limited])
    outcomes: list[bool] = []

    async def call() -> None:
        try:
            await model.complete("four", max_tokens=9)
        except BudgetExceeded:
            outcomes.append(False)
        else:
            outcomes.append(True)

    async with anyio.create_task_group() as group:
        for _ in range(1_000):
            group.start_soon(call)
    assert 1 <= outcomes.count(True) <= 100
    assert len(outcomes) == 1_000
    spent = await store.spend(Account("budget:tokens:total:", 1_005), "late", 0, 0)
    assert spent.after == 10 * outcomes.count(True)
    assert len({alert.part for alert in alerts}) == len(alerts)


# --- several processes ----------------------------------------------------------------------------

CHILD = """
import sys, time, anyio
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.redis_store import RedisStore
from loomstream.testing import Pause, scripted_model, text_events

async def main(url, prefix, pause_s, calls):
    async with RedisStore(url, prefix=prefix, lease_s=2) as store:
        answer = text_events("ok")
        model = scripted_model(
            [answer[0], Pause(float(pause_s)), *answer[1:]],
            middleware=[rate_limit("openai", requests_per_minute=0, concurrency=2, store=store)],
        )
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(calls)):
            async with model.stream("hi") as stream:
                async for event in stream:
                    # the last event comes before the permit is given back
                    if event in (answer[0], answer[-1]):
                        print(time.monotonic(), "+" if event == answer[0] else "-", flush=True)

anyio.run(main, *sys.argv[1:])
"""


def child(server: str, prefix: str, pause_s: float, calls: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, server, prefix, str(pause_s), str(calls)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def begin(*processes: subprocess.Popen[str]) -> None:
    """Have all of them begin at one time, when each has started."""
    for process in processes:
        assert process.stdout is not None
        assert await anyio.to_thread.run_sync(process.stdout.readline) == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


async def test_what_a_killed_process_held_is_free_after_its_lease(
    redis_server: str, request: pytest.FixtureRequest
) -> None:
    prefix = request.node.name
    with child(redis_server, prefix, 60, 1) as doomed:
        await begin(doomed)
        assert doomed.stdout is not None
        assert "+" in await anyio.to_thread.run_sync(doomed.stdout.readline)
        doomed.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(doomed.wait)
    first, second = (Demand("openai::", name, concurrency=2) for name in "ab")
    async with RedisStore(redis_server, prefix=prefix, lease_s=2) as store:
        assert await store.take(first) == 0
        assert await store.take(second) == float("inf")
        with anyio.fail_after(10):
            while await store.take(second):  # noqa: ASYNC110 (a server wakes nobody)
                await anyio.sleep(0.05)


async def test_several_processes_never_run_more_calls_than_may(
    redis_server: str, request: pytest.FixtureRequest
) -> None:
    children = [child(redis_server, request.node.name, 0.2, 5) for _ in range(3)]
    await begin(*children)
    steps: list[tuple[float, int]] = []
    for process in children:
        out, _ = await anyio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0
        steps += [(float(line.split()[0]), 1 if line.endswith("+") else -1) for line in out.splitlines()]
    assert len(steps) == 30
    running = list(itertools.accumulate(step for _, step in sorted(steps)))
    assert (max(running), running[-1]) == (2, 0)


async def test_a_killed_process_s_reservation_shrinks_to_what_it_used(
    redis_server: str, request: pytest.FixtureRequest
) -> None:
    account = Account("a", 100)
    async with RedisStore(redis_server, prefix=request.node.name, lease_s=1) as store:
        assert await store.reserve(account, "killed", 90, 10) == 90
        await store.spend(account, "killed", 30, 0)
        assert await store.reserve(account, "next", 50, 50) == 0
        with anyio.fail_after(10):
            while not await store.reserve(account, "next", 70, 70):  # noqa: ASYNC110 (a server wakes nobody)
                await anyio.sleep(0.05)
        assert await store.reserve(account, "more", 1, 1) == 0
        assert await store.settle(account, "killed", 30) == (0, 30, 30)  # it lives after all: nothing is counted twice


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.usefixtures("redis_server")  # the client must be there
async def test_no_server_is_said(request: pytest.FixtureRequest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    store = RedisStore(f"redis://me:s3cret@127.0.0.1:{port}/0", prefix=request.node.name)
    model = scripted_model(ANSWER, middleware=[rate_limit(concurrency=1, store=store)])
    with pytest.raises(
        ConnectFailed, match=f"server of the shared limits, 127.0.0.1:{port}, does not answer"
    ) as caught:
        await model.complete("hi")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost", "http://localhost"])
@pytest.mark.usefixtures("redis_server")
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no address of a Redis server"):
        RedisStore(url)


def test_a_lease_must_last(redis_server: str) -> None:
    with pytest.raises(ConfigError, match="at least 1 s"):
        RedisStore(redis_server, lease_s=0)


async def test_the_line_is_bounded_here_too(store: RedisStore) -> None:
    model = scripted_model(ANSWER, middleware=[rate_limit(concurrency=1, max_queue=0, store=store)])
    async with model.stream("hi") as stream:
        await anext(stream)
        with pytest.raises(QueueFull):
            await model.complete("hi")
