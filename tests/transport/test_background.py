"""Work beside its caller: waited for in pieces, cancelled with the wait for its end, its error the caller's alone."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest
import trio

from loomstream.testing.clock import virtual_clock_backends
from loomstream.transport.background import Background

pytestmark = pytest.mark.anyio

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]


async def test_it_goes_on_between_two_waits() -> None:
    async def work() -> str:
        await anyio.sleep(25)
        return WHO.get()

    WHO.set("caller")
    background = Background(work)
    assert [await background.wait(10) for _ in range(3)] == [False, False, True]
    assert anyio.current_time() == pytest.approx(25, abs=1)
    assert background.result() == "caller"
    await background.aclose()


async def test_an_error_comes_out_of_result_only() -> None:
    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        msg = "broken"
        raise ValueError(msg)

    background = Background(work)
    assert await background.wait(10)
    await background.aclose()
    with pytest.raises(ValueError, match="broken"):
        background.result()


async def test_closing_cancels_and_waits_for_the_end() -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            log.append("let go")

    background = Background(work)
    assert not await background.wait(1)
    await background.aclose()
    assert log == ["let go"]
    await background.aclose()


async def test_a_caller_that_is_cancelled_leaves_it_to_be_closed() -> None:
    background = Background(anyio.sleep_forever)
    with anyio.move_on_after(2) as scope:
        await background.wait(10)
    assert scope.cancelled_caught
    await background.aclose()


async def test_it_may_be_closed_before_it_began() -> None:
    background = Background(anyio.sleep_forever)
    await background.aclose()


async def test_what_was_cancelled_says_so() -> None:
    async def work() -> str:
        return "done"

    whole, early, late = Background(work), Background(anyio.sleep_forever), Background(anyio.sleep_forever)
    await early.aclose()
    await whole.wait(1)
    await late.wait(1)
    await late.aclose()
    assert [one.was_cancelled for one in (whole, early, late)] == [False, True, True]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_closing_waits_for_the_end_also_where_its_task_is_cancelled_again_and_again() -> None:
    log: list[str] = []
    closing, may_end = anyio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            closing.set()
            await may_end.wait()
            log.append("let go")

    async def close() -> None:
        background = Background(work)
        await background.wait(1)
        try:
            await background.aclose()
        finally:
            log.append("closed")

    task = asyncio.create_task(close())
    await closing.wait()
    for _ in range(3):
        task.cancel()
        await anyio.lowlevel.checkpoint()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["let go", "closed"]


def test_as_a_guest_of_asyncio_it_runs_on_trio() -> None:
    async def guest() -> str:
        background = Background(work)
        await background.wait(10)
        return background.result()

    async def work() -> str:
        await trio.lowlevel.checkpoint()
        return "on trio"

    async def host() -> str:
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=outcome.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        return (await outcome).unwrap()

    assert asyncio.run(host()) == "on trio"
