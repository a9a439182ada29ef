"""Two providers, and a third as the last resort: the first that begins to answer is the answer. Runs offline."""

import asyncio

import loomstream as ls
from loomstream import joined
from loomstream.testing import Recording, replay_model, scripted_model, text_events

SIGN_IN = Recording([b"<html>Sign in to the network</html>"], 200, {"content-type": "text/html"})
BUSY = Recording([b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'], 529)


async def main() -> None:
    """Print who failed, why, and who answers."""
    # in their place: joined.failover("openai:gpt-4o", "anthropic:claude-sonnet-4-5", "local"); each retries first
    first = replay_model("openai", SIGN_IN, model="gpt-4o", middleware=())
    second = replay_model("anthropic", BUSY, model="claude-sonnet-4-5", middleware=())
    last_resort = scripted_model(text_events("Hello from", " this machine."))
    async with (
        joined.failover(first, second, last_resort) as model,
        model.stream("Say hello") as stream,
    ):
        async for event in stream:
            match event:
                case ls.Notice(kind=kind, detail=detail):
                    print(f"{kind}: {detail}")
                case ls.TextDelta(text=text):
                    print("text:", text)
                case _:
                    pass
    print("answered by", stream.response.provider)


asyncio.run(main())
