"""Offer a tool, run the call that the model makes, and send the result back. Runs offline on a scripted model."""

import asyncio
import json

import loomstream as ls
from loomstream.testing import scripted_model, text_events, tool_call_events

WEATHER = ls.Tool(
    "get_weather",
    "Current weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


async def main() -> None:
    """One turn with a tool call, one with its result."""
    model = scripted_model(
        tool_call_events("get_weather", '{"city":', ' "Oslo"}'),
        text_events("It is 4 °C in Oslo."),
    )
    conversation = [ls.user("What is the weather in Oslo?")]
    async with model.stream(conversation, tools=[WEATHER]) as stream:
        response = await stream.collect()
    conversation.append(response.message)
    for call in response.tool_calls:
        if call.executable:
            city = json.loads(call.arguments)["city"]
            print("tool:", call.name, city)
            conversation.append(ls.tool_result(call, "4 °C, light rain"))
    answer = await model.complete(conversation, tools=[WEATHER])
    print("text:", answer.text)


asyncio.run(main())
