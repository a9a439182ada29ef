"""A stream that is cut is an error, and what was delivered is kept. Runs offline on replayed bytes."""

import asyncio

import loomstream as ls
from loomstream.testing import replay_model

CUT = b'data: {"id":"1","model":"demo","choices":[{"index":0,"delta":{"content":"The answer is for"}}]}\n\n'


async def main() -> None:
    """Show the error and its partial answer."""
    async with replay_model("openai", CUT) as model, model.stream("What is six by seven?") as stream:
        try:
            await stream.collect()
        except ls.StreamTruncated as error:
            print("error:  ", error)
            print("partial:", error.partial.text if error.partial else "")
            print("retry:  ", error.retry_safety)


asyncio.run(main())
