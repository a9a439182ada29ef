"""An agent that may spend so much a day for each user, and stops in the middle of an answer. Runs offline."""

import asyncio

import loomstream as ls
from loomstream import agent
from loomstream.errors import BudgetExceeded
from loomstream.middleware.budget import Alert, budget
from loomstream.middleware.cost import cost
from loomstream.testing import scripted_model, text_events, tool_call_events

spent: list[Alert] = []


async def search(query: str) -> str:
    """Search the archive."""
    return f"{query}: three letters and a map"


async def main() -> None:
    """Let it work until its budget is used up; print what it did."""
    purse = budget(
        "openai", "gpt-4o", limit_usd="0.003", per="day", tag=lambda request: request.end_user_id,
        alerts=(0.5, 0.8), on_alert=spent.append,
    )  # fmt: skip
    long_report = text_events(*["The map shows an island. "] * 100, provider="openai", model="gpt-4o")
    model = scripted_model(  # in its place: connect("openai:gpt-4o", middleware=[…])
        tool_call_events("search", '{"query": "the lost harbour"}', provider="openai", model="gpt-4o"),
        tool_call_events("search", '{"query": "its map"}', id="call_1", provider="openai", model="gpt-4o"),
        long_report,
        middleware=[cost("openai", "gpt-4o"), purse],
        end_user_id="ann",
    )
    limits = agent.RunLimits(turns=10, time_s=60)
    async with agent.run(model, "Find the lost harbour and report.", [search], limits=limits) as run:
        try:
            async for event in run:
                match event:
                    case agent.ToolResultEvent(name=name):
                        print(f"{name}: {event.text}")
                    case ls.Notice(kind="warning", detail=detail):
                        print(f"warning: {detail}")
                    case _:
                        pass
        except BudgetExceeded as error:
            said = error.partial.text if error.partial else ""
            print(f"stopped after {len(said)} characters of the report: {error}")
    print(f"alerts at {', '.join(f'{alert.part:.0%}' for alert in spent)} of ${spent[0].limit}")


asyncio.run(main())
