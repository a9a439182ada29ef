"""The virtual clock: time passes only where every task waits, and real I/O comes first."""

from __future__ import annotations

import socket
import sys

import anyio
import pytest

from loomstream.testing.clock import VirtualClockLoop, virtual_clock_backends

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]


async def test_a_year_passes_at_once() -> None:
    began_s = anyio.current_time()
    await anyio.sleep(365 * 24 * 3600)
    assert anyio.current_time() - began_s == pytest.approx(365 * 24 * 3600)


async def test_timers_ring_in_order() -> None:
    rung: list[int] = []

    async def ring(after_s: int) -> None:
        await anyio.sleep(after_s)
        rung.append(after_s)

    async with anyio.create_task_group() as group:
        for after_s in (3000, 1000, 2000):
            group.start_soon(ring, after_s)
    assert rung == [1000, 2000, 3000]


async def test_time_does_not_pass_while_a_task_works() -> None:
    began_s = anyio.current_time()
    for _ in range(100):
        await anyio.lowlevel.checkpoint()
    assert anyio.current_time() == pytest.approx(began_s)


async def test_a_time_limit_ends_a_wait() -> None:
    began_s = anyio.current_time()
    with pytest.raises(TimeoutError), anyio.fail_after(60):
        await anyio.Event().wait()
    assert anyio.current_time() - began_s == pytest.approx(60)


async def test_bytes_that_have_arrived_come_before_a_timer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)  # noqa: FBT003 (the socket's signature)
        theirs.send(b"x")
        with anyio.fail_after(3600):
            await anyio.wait_readable(ours)
        assert ours.recv(1) == b"x"


async def test_work_in_a_thread_ends_a_wait_without_timers() -> None:
    assert await anyio.to_thread.run_sync(lambda: 7) == 7


def test_asyncio_is_there_without_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio.testing", None)
    assert virtual_clock_backends() == [("asyncio", {"loop_factory": VirtualClockLoop})]
