"""One stream, several readers: nothing lost or repeated, nobody waited for too long, nothing paid for nobody."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import pytest
from held_models import HeldModel
from hypothesis import given, settings
from hypothesis import strategies as st

from loomstream import agent
from loomstream.errors import LimitExceeded, MiddlewareError, RateLimited, StreamCancelled, UsageError
from loomstream.events import Event, TextDelta
from loomstream.testing import Pause, scripted_model, text_events
from loomstream.ui import Broadcast, Hub, Reader

pytestmark = pytest.mark.anyio
ANSWER = text_events(*(f"{number} " for number in range(40)))


@asynccontextmanager
async def running(broadcast: Broadcast) -> AsyncGenerator[Broadcast]:
    """The broadcast runs beside the body, and is over when it ends."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broadcast.run)
        yield broadcast
        broadcast.stop()


async def read_all(reader: Reader) -> list[Event]:
    found: list[Any] = []
    async with reader:
        while batch := await reader.next_batch():
            assert [number for number, _ in batch] == list(range(batch[0][0], batch[0][0] + len(batch)))
            found += [event for _, event in batch]
    return found


async def settle(seconds: float = 0.01) -> None:
    """Let everybody do what can be done; the clock is virtual."""
    await anyio.sleep(seconds)


async def test_readers_at_their_own_pace_read_the_same() -> None:
    model = scripted_model(ANSWER)
    found: list[list[Event]] = []

    async def slow(broadcast: Broadcast) -> None:
        events: list[Any] = []
        async with broadcast.reader() as reader:
            while batch := await reader.next_batch():
                events += [event for _, event in batch]
                await anyio.sleep(3)
        found.append(events)

    async with running(Broadcast(model.stream("Hi"), window=5)) as broadcast, anyio.create_task_group() as tasks:
        tasks.start_soon(slow, broadcast)
        found.append(await read_all(broadcast.reader()))
    assert found == [ANSWER, ANSWER]
    assert len(model.requests) == 1


async def test_a_slow_reader_holds_the_stream_back() -> None:
    held = HeldModel()
    held.give(*ANSWER)
    async with running(Broadcast(held.stream(), window=8)) as broadcast, broadcast.reader() as reader:
        await settle()
        assert held.given == broadcast.last == 8
        assert [number for number, _ in await reader.next_batch()] == list(range(1, 9))
        await settle()
        assert broadcast.last == 16


async def test_one_that_takes_nothing_is_sent_away_and_the_others_go_on() -> None:
    model = scripted_model(ANSWER)
    async with running(Broadcast(model.stream("Hi"), window=8, patience_s=5)) as broadcast:
        async with broadcast.reader() as stuck:
            assert await read_all(broadcast.reader()) == ANSWER
            assert stuck.lost.is_set()
            with pytest.raises(StreamCancelled, match="took nothing for 5 s"):
                await stuck.next_batch()
        assert await read_all(broadcast.reader(after=stuck.position)) == ANSWER  # it comes back, and has it all


async def test_the_upstream_stops_with_its_last_reader() -> None:
    held = HeldModel()
    held.give(*ANSWER[:5])
    async with running(Broadcast(held.stream(), linger_s=2)) as broadcast:
        async with broadcast.reader() as one, broadcast.reader() as other:
            await one.next_batch()
            await other.next_batch()
        await settle(1)
        assert held.open_streams == 1  # it may be back in a moment
        async with broadcast.reader(after=5):
            await settle(10)
            assert held.open_streams == 1
        await settle(3)
        assert held.open_streams == 0
        with pytest.raises(StreamCancelled, match="last reader is gone"):
            await read_all(broadcast.reader())


async def test_it_goes_on_without_readers_where_that_is_asked_for() -> None:
    model = scripted_model([*ANSWER[:5], Pause(1000), *ANSWER[5:]])
    async with running(Broadcast(model.stream("Hi"), keep_going=True)) as broadcast:
        await settle(1001)
        assert broadcast.ended
        assert await read_all(broadcast.reader()) == ANSWER


async def test_a_stream_that_nobody_comes_for_is_not_paid_for() -> None:
    held = HeldModel()
    held.give(*ANSWER[:5])
    async with running(Broadcast(held.stream())) as broadcast:
        await settle(31)
        assert broadcast.ended
        assert held.open_streams == 0


async def test_stopping_closes_the_upstream_and_keeps_what_came() -> None:
    held = HeldModel()
    held.give(*ANSWER[:5])
    async with running(Broadcast(held.stream())) as broadcast, broadcast.reader() as reader:
        await reader.next_batch()
        broadcast.stop("enough")
        broadcast.stop("again")
        with pytest.raises(StreamCancelled, match="enough"):
            await reader.next_batch()
        assert held.open_streams == 0
        assert broadcast.response.text == "0 1 2 "
        assert not broadcast.response.complete


async def test_stopped_before_it_runs_it_asks_nobody() -> None:
    held = HeldModel()
    broadcast = Broadcast(held.stream())
    broadcast.stop("never mind")
    with pytest.raises(StreamCancelled, match="never mind"):
        await read_all(broadcast.reader())
    with pytest.raises(UsageError):
        await broadcast.run()
    assert held.requests == []


async def test_every_reader_gets_the_error_after_what_came() -> None:
    model = scripted_model([*ANSWER[:5], RateLimited("too many")])
    async with running(Broadcast(model.stream("Hi"))) as broadcast:
        for after in (0, 3, 5):
            numbers: list[int] = []
            async with broadcast.reader(after=after) as reader:
                with pytest.raises(RateLimited):  # noqa: PT012 (what comes before it counts)
                    while batch := await reader.next_batch():
                        numbers += [number for number, _ in batch]
            assert numbers == list(range(after + 1, 6))


async def test_a_foreign_error_is_a_typed_one() -> None:
    class Broken:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        def __aiter__(self) -> Self:
            return self

        async def __anext__(self) -> Event:
            msg = "boom"
            raise ValueError(msg)

    async with running(Broadcast(Broken())) as broadcast, broadcast.reader() as reader:
        with pytest.raises(MiddlewareError, match="ValueError: boom"):
            await reader.next_batch()


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    held = HeldModel()
    async with running(Broadcast(held.stream())) as broadcast, broadcast.reader() as reader:
        with anyio.move_on_after(1):
            await reader.next_batch()
        held.give(*ANSWER)
        held.end()
        found: list[Any] = []
        while batch := await reader.next_batch():
            found += [event for _, event in batch]
        assert found == ANSWER


async def test_the_log_is_bounded_and_says_so() -> None:
    model = scripted_model(text_events(*("x" * 100 for _ in range(1000))))
    async with running(Broadcast(model.stream("Hi"), replay=50)) as broadcast:
        assert len(await read_all(broadcast.reader())) == 1005
        assert 1005 - broadcast.first < 50 + 64
        with pytest.raises(UsageError, match=f"begins at event {broadcast.first}"):
            broadcast.reader(after=3)
        assert len(await read_all(broadcast.reader(after=1000))) == 5


async def test_the_log_is_bounded_in_bytes() -> None:
    model = scripted_model(text_events(*("x" * 10_000 for _ in range(100))))
    async with running(Broadcast(model.stream("Hi"), replay_bytes=50_000)) as broadcast:
        await read_all(broadcast.reader())
        assert broadcast.first > 90


@pytest.mark.parametrize("after", [-1, 9])
async def test_a_number_of_another_stream_is_refused(after: int) -> None:
    with pytest.raises(UsageError, match="not of this stream"):
        Broadcast(HeldModel().stream()).reader(after=after)


async def test_a_window_must_hold_an_event() -> None:
    with pytest.raises(UsageError, match="window"):
        Broadcast(HeldModel().stream(), window=0)


async def test_the_run_of_an_agent_is_broadcast_too() -> None:
    run = agent.run(scripted_model(ANSWER), "Hi")
    async with running(Broadcast(run)) as broadcast:
        kinds = [type(event).__name__ for event in await read_all(broadcast.reader())]
    assert (kinds[0], kinds[-1]) == ("TurnStart", "RunStop")


async def test_cancelling_the_task_that_runs_it_closes_the_stream() -> None:
    held = HeldModel()
    held.give(*ANSWER[:5])
    broadcast = Broadcast(held.stream())
    async with broadcast.reader() as reader:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broadcast.run)
            await reader.next_batch()
            tasks.cancel_scope.cancel()
        assert held.open_streams == 0
        with pytest.raises(StreamCancelled):
            await reader.next_batch()


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 30), max_size=8),
    window=st.integers(1, 12),
    replay=st.integers(0, 60),
    pauses=st.lists(st.integers(0, 44), max_size=4),
)
def test_who_comes_back_loses_and_repeats_nothing(cuts: list[int], window: int, replay: int, pauses: list[int]) -> None:
    """A reader is cut off again and again, a steady one keeps reading; the log may be shorter than the gap."""
    script: list[Any] = list(ANSWER)
    for place in sorted(pauses, reverse=True):
        script.insert(place, Pause(0))

    async def come_back(broadcast: Broadcast, found: list[Any]) -> None:
        position = 0
        for cut in [*cuts, None]:
            async with broadcast.reader(after=position) as reader:
                taken = 0
                while (cut is None or taken < cut) and (batch := await reader.next_batch()):
                    batch = batch if cut is None else batch[: cut - taken]
                    found += batch
                    taken += len(batch)
                    position = batch[-1][0]
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        found: list[Any] = []
        async with running(Broadcast(scripted_model(script).stream("Hi"), window=window, replay=replay)) as broadcast:
            steady = broadcast.reader()
            async with steady, anyio.create_task_group() as tasks:

                async def read_on() -> None:
                    while await steady.next_batch():
                        await anyio.lowlevel.checkpoint()

                tasks.start_soon(read_on)
                try:
                    await come_back(broadcast, found)
                except UsageError as error:
                    assert "not kept any more" in str(error)  # noqa: PT017 (said, not hidden)
                    assert replay < len(ANSWER)
                    found += list(enumerate(ANSWER, 1))[len(found) :]
        assert found == list(enumerate(ANSWER, 1))

    anyio.run(main)


# --- the hub -------------------------------------------------------------------------------------


async def test_a_hub_finds_streams_by_key_while_and_after_they_run() -> None:
    ended: list[str] = []
    async with Hub(keep_s=60) as hub:
        begun = hub.publish(
            "a", scripted_model(ANSWER).stream("Hi"), then=lambda done: ended.append(done.response.text)
        )
        assert hub.get("a") is begun
        assert await read_all(begun.reader()) == ANSWER
        await settle()
        assert ended == ["".join(event.text for event in ANSWER if isinstance(event, TextDelta))]
        again = hub.get("a")
        assert again is begun
        assert await read_all(again.reader(after=40)) == ANSWER[40:]
        await settle(61)
        assert hub.get("a") is None
        assert hub.get("b") is None


async def test_leaving_a_hub_stops_its_streams() -> None:
    held = HeldModel()
    held.give(*ANSWER[:3])
    async with Hub(keep_going=True) as hub:
        broadcast = hub.publish("a", held.stream())
        await settle()
        assert held.open_streams == 1
    assert held.open_streams == 0
    assert isinstance(broadcast.error, StreamCancelled)
    with pytest.raises(UsageError, match="enter the hub"):
        hub.publish("b", held.stream())


async def test_an_error_of_the_users_code_leaves_a_hub_as_it_is() -> None:
    held = HeldModel()
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012 (the hub's body is the point)
        async with Hub() as hub:
            hub.publish("a", held.stream())
            msg = "mine"
            raise ValueError(msg)
    assert held.open_streams == 0


async def test_a_hub_is_bounded() -> None:
    async with Hub(max_streams=2, keep_s=60) as hub:
        hub.publish("a", HeldModel().stream())
        hub.publish("b", HeldModel().stream())
        with pytest.raises(LimitExceeded, match="2 streams"):
            hub.publish("c", HeldModel().stream())
        with pytest.raises(UsageError, match="has the key 'a'"):
            hub.publish("a", HeldModel().stream())
