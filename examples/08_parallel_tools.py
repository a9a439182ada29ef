"""Tools run beside the stream, in parallel, each with its time limit; the whole run has limits too.

Runs offline, and with `--local` on the embedded model.
"""

import asyncio
from typing import Literal

from which_model import model_for

import loomstream as ls
from loomstream import agent
from loomstream.testing import Pause, text_events

DELAYS_S = {"Oslo": 0.02, "Rome": 0.01, "Lima": 60.0}
"""How long the weather of each city takes."""
LIMITS = agent.RunLimits(turns=5, calls=10, time_s=30)


@ls.tool
async def get_weather(city: Literal["Oslo", "Rome", "Lima"]) -> str:
    """Give the current weather of a city."""
    await asyncio.sleep(DELAYS_S[city])
    return f"rain in {city}"


def three_calls() -> list[ls.Event | Pause]:
    """Give an answer that makes three calls and then goes on for a while."""
    events: list[ls.Event | Pause] = [ls.Start()]
    for index, city in enumerate(DELAYS_S):
        name, arguments = "get_weather", f'{{"city": "{city}"}}'
        events += [
            ls.ToolCallStart(index, f"call_{index}", name),
            ls.ToolCallDelta(index, arguments),
            ls.ToolCallEnd(index, f"call_{index}", name, arguments),
        ]
    return [*events, Pause(0.05), ls.Stop("tool_use")]


async def main() -> None:
    """Two results come before the stream has ended; the third tool is stopped at its limit."""
    chosen = model_for(three_calls(), text_events("It rains in Oslo and Rome; of Lima I know nothing."))
    question = "What is the weather in Oslo, Rome and Lima?"
    async with (
        chosen as model,
        agent.run(model, question, [get_weather], tool_choice="any", limits=LIMITS, parallel=3, tool_time_s=0.2) as run,
    ):
        async for event in run:
            match event:
                case agent.ToolResultEvent(outcome=outcome):
                    print(f"{outcome:>9}: {event.text}")
                case ls.Stop():
                    print("     stop: the stream of this turn has ended")
                case ls.TextDelta(text=text):
                    print("     text:", text)
                case _:
                    pass


asyncio.run(main())
