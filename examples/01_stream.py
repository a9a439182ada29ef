"""Stream an answer and look at its events. Runs offline on replayed bytes; with a key, use `ls.connect("openai")`."""

import asyncio

import loomstream as ls
from loomstream.testing import replay_model

ANSWER = (
    b'data: {"id":"1","model":"demo","choices":[{"index":0,"delta":{"content":"Because air scatters "}}]}\n\n'
    b'data: {"id":"1","model":"demo","choices":[{"index":0,"delta":{"content":"blue light most."}}]}\n\n'
    b'data: {"id":"1","model":"demo","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}\n\n'
    b"data: [DONE]\n\n"
)


async def main() -> None:
    """Print each event as it comes, then what they fold to."""
    async with replay_model("openai", ANSWER, model="gpt-4o") as model:
        async with model.stream("Why is the sky blue?") as stream:
            async for event in stream:
                match event:
                    case ls.TextDelta(text=text):
                        print("text: ", text)
                    case ls.Usage(input_tokens=read, output_tokens=written):
                        print("usage:", read, "in,", written, "out")
                    case ls.Stop(reason=reason):
                        print("stop: ", reason)
                    case _:
                        print("      ", type(event).__name__)
        print("whole:", stream.response.text)


asyncio.run(main())
