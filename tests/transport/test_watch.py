"""The time limits of one attempt, on a clock that only the test moves."""
# ruff: noqa: PT012 (an error may come when a response is opened, read or left: a block is the unit here)

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
import trio
import trio.testing

from loomstream.errors import FirstEventTimeout, IdleTimeout, TransportError
from loomstream.messages import Timeouts
from loomstream.transport import ByteResponse
from loomstream.transport.watch import Watch
from loomstream.wire import WireRequest

pytestmark = pytest.mark.anyio

REQUEST = WireRequest(url="https://api.example.com", headers={})


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is left to do."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._virtual_loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self._virtual_loop.now += timeout
        return ready


@pytest.fixture(params=["asyncio wake", "asyncio scope", "trio scope"])
def mode(request: pytest.FixtureRequest) -> str:
    """The two roads of a read; `wake` exists on asyncio only."""
    return request.param


@pytest.fixture
def anyio_backend(mode: str) -> tuple[str, dict[str, object]]:
    if mode.startswith("asyncio"):
        return "asyncio", {"loop_factory": VirtualLoop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.fixture
def road(mode: str) -> str:
    return mode.split()[1]


class Source:
    """A body: waits so many seconds before each chunk, as scripted; None ends it, inf never comes."""

    def __init__(self, *script: tuple[float, bytes | None]) -> None:
        self._script = list(script)
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        delay_s, chunk = self._script.pop(0)
        await self._wait(delay_s)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def _wait(self, delay_s: float) -> None:
        done = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                self._done = done
                tasks.start_soon(self._set_after, done, delay_s)
                await done.wait()
                tasks.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        if self._error is not None:
            raise self._error

    async def _set_after(self, done: anyio.Event, delay_s: float) -> None:
        await (anyio.sleep_forever() if math.isinf(delay_s) else anyio.sleep(delay_s))
        done.set()

    def wake(self, error: Exception) -> None:
        self._error = error
        self._done.set()


class Fake:
    """A transport whose headers take so many seconds."""

    def __init__(self, source: Source, *, wake: bool, headers_s: float = 0, error: Exception | None = None) -> None:
        self._source = source
        self._wake = wake
        self._headers_s = headers_s
        self._error = error
        self.connect_s = None
        self.closed = False

    @asynccontextmanager
    async def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> AsyncIterator[ByteResponse]:
        assert wire_request is REQUEST
        self.connect_s = connect_s
        await (anyio.sleep_forever() if math.isinf(self._headers_s) else anyio.sleep(self._headers_s))
        if self._error is not None:
            raise self._error
        try:
            yield ByteResponse(200, {}, self._source, self._source.wake if self._wake else None)
        finally:
            self.closed = True

    async def aclose(self) -> None:
        self.closed = True


async def test_bytes_pass_and_the_end_is_none(road: str) -> None:
    watch = Watch(Timeouts())
    async with watch.open(Fake(Source((1, b"a"), (0, b"b"), (0, None)), wake=road == "wake"), REQUEST) as response:
        assert [await watch.read(response.chunks) for _ in range(3)] == [b"a", b"b", None]


async def test_the_connect_limit_goes_to_the_transport() -> None:
    fake = Fake(Source(), wake=False)
    async with Watch(Timeouts(connect_s=3)).open(fake, REQUEST):
        assert fake.connect_s == 3
    assert fake.closed


async def test_headers_that_do_not_come() -> None:
    start = anyio.current_time()
    with pytest.raises(FirstEventTimeout, match=r"7 s .*Timeouts\(first_event_s=\d+\)"):
        async with Watch(Timeouts(first_event_s=7)).open(Fake(Source(), wake=False, headers_s=math.inf), REQUEST):
            pytest.fail("opened")
    assert anyio.current_time() - start == pytest.approx(7)


async def test_an_error_while_opening_passes() -> None:
    with pytest.raises(TransportError):
        async with Watch(Timeouts()).open(Fake(Source(), wake=False, error=TransportError("x")), REQUEST):
            pytest.fail("opened")


async def test_the_first_event_limit_covers_headers_and_bytes_that_are_no_event(road: str) -> None:
    """3 s for the headers, then a comment every 2 s: at 10 s it is over."""
    start = anyio.current_time()
    watch = Watch(Timeouts(first_event_s=10, idle_s=1000))
    comments = Source(*[(2, b": ping\n\n")] * 100)
    fake = Fake(comments, wake=road == "wake", headers_s=3)
    with pytest.raises(FirstEventTimeout):
        async with watch.open(fake, REQUEST) as response:
            while await watch.read(response.chunks):
                pass
    assert anyio.current_time() - start == pytest.approx(10)
    assert fake.closed


async def test_the_idle_limit_begins_at_the_last_progress(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=1000, idle_s=5))
    source = Source((4, b"data"), (4, b"data"), *[(2, b": ping")] * 100)
    with pytest.raises(IdleTimeout, match=r"5 s .*timeout_seconds: 10 .*Timeouts\(idle_s=10\)"):
        async with watch.open(Fake(source, wake=road == "wake"), REQUEST) as response:
            for _ in range(2):
                assert await watch.read(response.chunks) == b"data"
                watch.progress()
            start = anyio.current_time()
            while await watch.read(response.chunks):
                pass
    assert anyio.current_time() - start == pytest.approx(5)


async def test_a_slow_consumer_never_trips_a_limit(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=5, idle_s=5))
    source = Source(*[(1, b"data")] * 4, (1, None))
    async with watch.open(Fake(source, wake=road == "wake"), REQUEST) as response:
        while await watch.read(response.chunks):
            watch.progress()
            await anyio.sleep(3600)


async def test_waiting_is_counted_across_a_slow_consumer(road: str) -> None:
    """2 s of waiting, an hour of the consumer's own, and 3 s more of waiting make 5 s."""
    watch = Watch(Timeouts(first_event_s=5))
    source = Source((2, b"event: other"), (math.inf, None))
    with pytest.raises(FirstEventTimeout):
        async with watch.open(Fake(source, wake=road == "wake"), REQUEST) as response:
            assert await watch.read(response.chunks) == b"event: other"
            watch.delivered()
            watch.delivered()
            await anyio.sleep(3600)
            start = anyio.current_time()
            await watch.read(response.chunks)
    assert anyio.current_time() - start == pytest.approx(3)


async def test_bytes_that_are_always_there_do_not_stop_the_clock(road: str) -> None:
    """A peer pings at full speed: no read ever waits, all the time goes into decoding, and the loop never turns."""

    class Ready(Source):
        async def __anext__(self) -> bytes:
            return b": ping"

    watch = Watch(Timeouts(first_event_s=100, idle_s=5))
    reads = 0
    with pytest.raises(IdleTimeout):
        async with watch.open(Fake(Ready(), wake=road == "wake"), REQUEST) as response:
            await watch.read(response.chunks)
            watch.progress()
            while await watch.read(response.chunks) and reads < 100:
                reads += 1
                let_pass(1)
    assert reads == 5


def let_pass(seconds: float) -> None:
    """Let time pass while nobody else runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
    else:
        assert isinstance(loop, VirtualLoop)
        loop.now += seconds


async def test_events_without_content_give_the_consumer_its_turn_and_are_no_progress(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=5))
    source = Source(*[(1, b"event: other")] * 100)
    reads = 0
    with pytest.raises(FirstEventTimeout):
        async with watch.open(Fake(source, wake=road == "wake"), REQUEST) as response:
            while await watch.read(response.chunks):
                reads += 1
                watch.delivered()
                await anyio.sleep(3600)
    assert reads == pytest.approx(4.5, abs=0.5)


async def test_a_shorter_idle_limit_takes_effect_at_the_first_progress(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=100, idle_s=2))
    source = Source((1, b"data"), (math.inf, None))
    with pytest.raises(IdleTimeout):
        async with watch.open(Fake(source, wake=road == "wake"), REQUEST) as response:
            await watch.read(response.chunks)
            watch.progress()
            start = anyio.current_time()
            await watch.read(response.chunks)
    assert anyio.current_time() - start == pytest.approx(2)


async def test_limits_can_be_switched_off(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=None, idle_s=None))
    source = Source((90_000, b"data"), (90_000, b"data"), (90_000, None))
    async with watch.open(Fake(source, wake=road == "wake", headers_s=90_000), REQUEST) as response:
        assert await watch.read(response.chunks) == b"data"
        watch.progress()
        assert await watch.read(response.chunks) == b"data"
        assert await watch.read(response.chunks) is None


async def test_an_error_of_the_body_passes_unchanged(road: str) -> None:
    class Broken(Source):
        async def __anext__(self) -> bytes:
            raise TransportError("cut")  # noqa: EM101 (a test)

    watch = Watch(Timeouts())
    with pytest.raises(TransportError, match="cut"):
        async with watch.open(Fake(Broken(), wake=road == "wake"), REQUEST) as response:
            await watch.read(response.chunks)


async def test_cancelling_a_reader_is_cancellation_and_leaves_nothing_armed(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=50))
    source = Source((math.inf, None))
    with anyio.move_on_after(3) as scope:
        async with watch.open(Fake(source, wake=road == "wake"), REQUEST) as response:
            await watch.read(response.chunks)
    assert scope.cancelled_caught
    assert source.cancelled
    assert armed() == 0


async def test_nothing_stays_armed_after_closing(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=50))
    async with watch.open(Fake(Source((1, b"data")), wake=road == "wake"), REQUEST) as response:
        assert await watch.read(response.chunks) == b"data"
    assert armed() == 0


def armed() -> int:
    """Count the timers of the running asyncio loop that can still fire; trio's scopes end with their block."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return 0
    return sum(not handle.cancelled() for handle in loop._scheduled)


@pytest.mark.parametrize("mode", ["asyncio wake"])
async def test_one_timer_serves_many_reads() -> None:
    """A read sets no timer of its own as long as the one that is set is early enough."""
    watch = Watch(Timeouts(first_event_s=50, idle_s=50))
    source = Source(*[(0.01, b"data")] * 100)
    async with watch.open(Fake(source, wake=True), REQUEST) as response:
        await watch.read(response.chunks)
        alarm = watch._alarm
        for _ in range(99):
            watch.progress()
            await watch.read(response.chunks)
        assert watch._alarm is alarm


async def test_many_watches_end_in_any_order(road: str) -> None:
    """No scope is open across a yield, so streams close in any order and in any task."""
    watches = [Watch(Timeouts()) for _ in range(5)]
    contexts = [watch.open(Fake(Source((1, b"data")), wake=road == "wake"), REQUEST) for watch in watches]
    for watch, context in zip(watches, contexts, strict=True):
        response = await context.__aenter__()
        assert await watch.read(response.chunks) == b"data"
    for context in (contexts.pop(2), contexts.pop(0), *contexts):
        await context.__aexit__(None, None, None)


async def test_a_failed_opening_leaves_no_alarm_behind(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=60))
    with pytest.raises(TransportError):
        async with watch.open(Fake(Source(), wake=road == "wake", headers_s=1, error=TransportError("x")), REQUEST):
            pass
    await anyio.sleep(1000)


async def test_a_cancelled_opening_leaves_no_alarm_behind(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=60))
    with anyio.move_on_after(5) as scope:
        async with watch.open(Fake(Source(), wake=road == "wake", headers_s=math.inf), REQUEST):
            pass
    assert scope.cancelled_caught
    await anyio.sleep(1000)


async def test_an_opening_that_takes_too_long_leaves_the_task_as_it_was(road: str) -> None:
    watch = Watch(Timeouts(first_event_s=60))
    with anyio.fail_after(100), pytest.raises(FirstEventTimeout):
        async with watch.open(Fake(Source(), wake=road == "wake", headers_s=math.inf), REQUEST):
            pass
    task = asyncio.current_task() if road == "wake" else None
    assert task is None or task.cancelling() == 0
    await anyio.sleep(1000)
