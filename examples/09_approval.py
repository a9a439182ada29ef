"""A call that needs a decision pauses the run; it goes on later, from JSON, in another process too.

Runs offline, and with `--local` on the embedded model.
"""

import asyncio

from which_model import model_for

from loomstream import agent
from loomstream.testing import text_events, tool_call_events

LIMITS = agent.RunLimits(turns=3)


async def delete(path: str) -> str:
    """Delete a file."""
    return f"{path} is deleted"


async def ask() -> bytes:
    """Run up to the call, and give the state to be kept."""
    chosen = model_for(tool_call_events("delete", '{"path": "notes.txt"}'))
    asked = "Delete the file notes.txt"
    async with chosen as model, agent.run(model, asked, [delete], approve={"delete"}, tool_choice="any") as run:
        await run.collect()
    print(run.ended, "at", [paused.call.arguments for paused in run.state.pending])
    return run.state.encode()


async def decide(kept: bytes) -> None:
    """Read the state, allow the call, and go on."""
    state = agent.RunState.decode(kept)
    decisions = {paused.call.id: agent.Allow() for paused in state.pending}
    chosen = model_for(text_events("I deleted your notes."))
    async with chosen as model, agent.resume(model, state, [delete], decisions, limits=LIMITS) as run:
        async for event in run:
            if isinstance(event, agent.ToolResultEvent):
                print("result:", event.outcome, "-", event.text)
    print(run.ended, "after", run.turns, "turns:", run.response.text)


asyncio.run(decide(asyncio.run(ask())))
