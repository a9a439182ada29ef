"""An agent with two tools: the model asks, they run, it answers.

Runs offline on a scripted model, and with `--local` on the embedded one, which is small: it calls what it must, and
answers as it can.
"""

import asyncio

from which_model import model_for

import loomstream as ls
from loomstream import agent
from loomstream.testing import text_events, tool_call_events

LIMITS = agent.RunLimits(turns=4)


async def get_weather(city: str) -> str:
    """Give the current weather of a city."""
    return f"4 °C and light rain in {city}"


def to_fahrenheit(celsius: float) -> float:
    """Convert a temperature."""
    return celsius * 9 / 5 + 32


async def main() -> None:
    """Print what comes, then what it came to."""
    chosen = model_for(
        tool_call_events("get_weather", '{"city":', ' "Oslo"}'),
        tool_call_events("to_fahrenheit", '{"celsius": 4}', id="call_1"),
        text_events("It is 39 °F", " in Oslo."),
    )
    question = "How warm is it in Oslo, in Fahrenheit?"
    tools = [get_weather, to_fahrenheit]
    async with chosen as model, agent.run(model, question, tools, tool_choice="any", limits=LIMITS) as run:
        async for event in run:
            match event:
                case ls.TextDelta(text=text):
                    print("text:  ", text)
                case ls.ToolCallEnd(name=name, arguments=arguments):
                    print("call:  ", name, arguments)
                case agent.ToolResultEvent(name=name, outcome=outcome):
                    print("result:", name, outcome, event.text)
                case _:
                    pass
    print(run.ended, "after", run.turns, "turns and", run.calls, "calls,", len(run.messages), "messages")


asyncio.run(main())
