"""Retry, rate limit, budget and timeout in one stack: cancelled at each step, nothing stays behind."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from loomstream.errors import LoomstreamError, Overloaded
from loomstream.handler import Middleware
from loomstream.middleware.budget import budget
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.retry import retry
from loomstream.middleware.store import MemoryStore
from loomstream.middleware.timeout import timeout
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ANSWER = text_events("one ", "two ", "three")


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def stack(store: MemoryStore) -> list[Middleware]:
    return [
        retry(max_retries=1),
        rate_limit(requests_per_minute=600, tokens_per_minute=60_000, concurrency=2, store=store),
        budget(limit_tokens=100_000, per="total", store=store),
        timeout(total_s=60),
    ]


def is_clean(store: MemoryStore, model: ScriptedModel) -> bool:
    keys, ledgers = store._keys.by_name.values(), store._ledgers.values()
    held = [key for key in keys if key.permits or len(key.line)]
    reserved = [ledger for ledger in ledgers if ledger.reserved or ledger.holders]
    return not held and not reserved and not model.open_streams


async def test_a_call_cancelled_at_any_step_leaves_nothing_behind() -> None:
    store = MemoryStore()
    script = [Overloaded("busy", retry_after_s=1)], [*ANSWER[:3], Pause(1), *ANSWER[3:]]
    finished = 0
    for steps in range(80):
        model = scripted_model(*script, middleware=stack(store))
        async with anyio.create_task_group() as group:

            async def call(model: ScriptedModel = model) -> None:
                nonlocal finished
                await model.complete("hi")
                finished += 1

            for _ in range(3):
                group.start_soon(call)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
                if steps % 10 == 9:
                    await anyio.sleep(0.05)  # lets timers ring, so that later steps are reached
            group.cancel_scope.cancel()
        assert is_clean(store, model), steps
    assert 0 < finished < 80 * 3


async def test_a_stream_left_or_broken_at_any_event_leaves_nothing_behind() -> None:
    for count in range(len(ANSWER) + 1):
        store = MemoryStore()
        model = scripted_model(ANSWER, middleware=stack(store))
        async with model.stream("hi") as stream:
            for _ in range(count):
                await anext(stream)
        assert is_clean(store, model)
        broken = scripted_model([*ANSWER[:count], Overloaded("busy")], middleware=stack(store))
        with pytest.raises(LoomstreamError):
            await broken.complete("hi")
        assert is_clean(store, broken)


async def test_in_the_stack_an_answer_is_what_it_was() -> None:
    async with scripted_model(ANSWER, middleware=stack(MemoryStore())).stream("hi") as stream:
        events = [event async for event in stream]
    check_order(events)
    assert events == ANSWER
