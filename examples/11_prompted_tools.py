"""Tools with a model that has none of its own: they go into the prompt, and the calls come out of the text.

Nothing in the code says so: what the model can do decides. Runs offline on a recorded answer, and with `--local` on
the embedded model; `ls.connect("ollama:gemma2:2b")` is as good.
"""

import asyncio
import json

from which_model import LOCAL

import loomstream as ls
from loomstream.testing import replay_model

WORDS = [
    "I look ",
    "it up.\n<tool",
    '_call>\n{"name": "get_weather", ',
    '"arguments": {"city": "Os',
    'lo"}}\n</tool',
    "_call>",
]


def recorded(words: list[str]) -> bytes:
    """Give an answer as a server streams it."""
    chunks: list[dict[str, object]] = [{"delta": {"content": word}} for word in words]
    chunks.append({"delta": {}, "finish_reason": "stop"})
    return b"".join(b"data: " + json.dumps({"choices": [chunk]}).encode() + b"\n\n" for chunk in chunks)


@ls.tool
async def get_weather(city: str) -> str:
    """Give the current weather of a city."""
    return f"4 °C in {city}"


async def main() -> None:
    """One turn: the text streams, the call arrives as from any other model."""
    async with (
        ls.connect("local", temperature=0) if LOCAL else replay_model("local", recorded(WORDS)) as model,
        model.stream("What is the weather in Oslo?", tools=[get_weather], tool_choice="any") as stream,
    ):
        async for event in stream:
            match event:
                case ls.Start(warnings=warnings):
                    print("warnings:", *warnings)
                case ls.TextDelta(text=text):
                    print("text:", repr(text))
                case ls.ToolCallEnd(name=name, arguments=arguments, executable=True):
                    print("call:", name, arguments)
                case _:
                    pass
        result = await get_weather.answer(stream.response.tool_calls[0])
    print("result:", result.content)


asyncio.run(main())
