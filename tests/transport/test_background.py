"""Work beside its caller: waited for in pieces, cancelled with the wait for its end, its error the caller's alone."""

from __future__ import annotations

from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest

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
