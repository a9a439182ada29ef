"""The channel between the loop and its reader."""

from __future__ import annotations

import anyio
import pytest

from loomstream.agent.channel import Channel

pytestmark = pytest.mark.anyio


async def test_items_come_in_order_then_none() -> None:
    channel: Channel[int] = Channel(10)
    for number in range(3):
        channel.push(number)
    channel.close()
    assert [await channel.get() for _ in range(4)] == [0, 1, 2, None]


async def test_a_writer_waits_for_room() -> None:
    channel: Channel[int] = Channel(2)
    stood: list[int] = []

    async def write() -> None:
        for number in range(10):
            channel.push(number)
            await channel.room()
            stood.append(number)
        channel.close()

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await anyio.sleep(1)
        assert stood == [0]
        assert await channel.get() == 0
        await anyio.sleep(1)
        assert stood == [0, 1]
        assert [await channel.get() for _ in range(10)] == [*range(1, 10), None]


async def test_a_reader_waits_and_a_cancelled_one_loses_nothing() -> None:
    channel: Channel[int] = Channel(2)
    with anyio.move_on_after(1) as scope:
        await channel.get()
    assert scope.cancelled_caught
    channel.push(7)
    assert await channel.get() == 7


async def test_closing_wakes_the_reader() -> None:
    channel: Channel[int] = Channel(2)
    got: list[int | None] = []

    async def take() -> None:
        got.append(await channel.get())

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        await anyio.sleep(1)
        channel.close()
    assert got == [None]
