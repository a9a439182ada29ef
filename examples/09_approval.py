"""A call that needs a decision pauses the run; it goes on later, from JSON, in another process too. Runs offline."""

import asyncio

from loomstream import agent
from loomstream.testing import scripted_model, text_events, tool_call_events


async def delete(path: str) -> str:
    """Delete a file."""
    return f"{path} is deleted"


async def ask() -> bytes:
    """Run up to the call, and give the state to be kept."""
    model = scripted_model(tool_call_events("delete", '{"path": "notes.txt"}'))
    async with agent.run(model, "Tidy up", [delete], approve={"delete"}) as run:
        await run.collect()
    print(run.ended, "at", [paused.call.arguments for paused in run.state.pending])
    return run.state.encode()


async def decide(kept: bytes) -> None:
    """Read the state, allow the call, and go on."""
    state = agent.RunState.decode(kept)
    decisions = {paused.call.id: agent.Allow() for paused in state.pending}
    model = scripted_model(text_events("I deleted your notes."))
    async with agent.resume(model, state, [delete], decisions) as run:
        async for event in run:
            if isinstance(event, agent.ToolResultEvent):
                print("result:", event.outcome, "-", event.text)
    print(run.ended, "after", run.turns, "turns:", run.response.text)


asyncio.run(decide(asyncio.run(ask())))
