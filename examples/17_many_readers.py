"""One stream, two readers; one of them is cut off and comes back where it was. Runs offline."""

import asyncio

import anyio

import loomstream as ls
from loomstream import ui
from loomstream.testing import Pause, scripted_model, text_events

ANSWER = text_events("Rivers ", "carry ", "rain ", "back ", "to ", "the ", "sea.")


async def read(name: str, broadcast: ui.Broadcast, *, after: int = 0, at_most: int = 1000) -> int:
    """Print the text behind an event's number; give the number of the last event that was taken."""
    taken = after
    async with broadcast.reader(after=after) as reader:
        while taken - after < at_most and (batch := await reader.next_batch()):
            for number, event in batch[: at_most - (taken - after)]:
                taken = number
                if isinstance(event, ls.TextDelta):
                    print(f"{name} reads event {number}: {event.text}")
    return taken


async def cut_off(broadcast: ui.Broadcast) -> None:
    """Read a little, lose the connection, come back: a browser does this by its Last-Event-ID."""
    last = await read("the phone", broadcast, at_most=4)
    print(f"the phone is gone after event {last}")
    await read("the phone", broadcast, after=last)


async def main() -> None:
    """Ask once, let two read."""
    model = scripted_model([step for event in ANSWER for step in (event, Pause(0.01))])
    broadcast = ui.Broadcast(model.stream("What do rivers do?"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broadcast.run)
        tasks.start_soon(read, "the desk", broadcast)
        tasks.start_soon(cut_off, broadcast)
    print(f"asked {len(model.requests)} time: {broadcast.response.text}")


asyncio.run(main())
