"""Offer a function as a tool, run the calls that the model makes, and send the results back.

Runs offline on a scripted model.
"""

import asyncio

import loomstream as ls
from loomstream.testing import scripted_model, text_events, tool_call_events


@ls.tool
async def get_weather(city: str) -> str:
    """Give the current weather of a city."""
    print("tool:", city)
    return "4 °C, light rain"


async def main() -> None:
    """One turn with a tool call, one with its result."""
    model = scripted_model(
        tool_call_events("get_weather", '{"city":', ' "Oslo"}'),
        text_events("It is 4 °C in Oslo."),
    )
    conversation = [ls.user("What is the weather in Oslo?")]
    response = await model.complete(conversation, tools=[get_weather])
    conversation.append(response.message)
    conversation += [await get_weather.answer(call) for call in response.tool_calls]
    answer = await model.complete(conversation, tools=[get_weather])
    print("text:", answer.text)


asyncio.run(main())
