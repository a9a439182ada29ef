"""Write a middleware: handler to handler. This one keeps a list of what every call said. Runs offline."""

import asyncio
from collections.abc import Iterable

import loomstream as ls
from loomstream.handler import Stage, stage
from loomstream.messages import Request
from loomstream.testing import scripted_model, text_events

said: list[str] = []


def listen(request: Request) -> Stage:
    """Make the per-event function of one stream."""
    prompt = request.messages[-1].text

    def step(event: ls.Event) -> Iterable[ls.Event]:
        if isinstance(event, ls.TextDelta):
            said.append(f"{prompt} -> {event.text}")
        return (event,)

    return step


async def main() -> None:
    """Run one call through it."""
    model = scripted_model(text_events("Hello", " there"), middleware=[stage(listen)])
    print((await model.complete("Greet me")).text)
    print(said)


asyncio.run(main())
