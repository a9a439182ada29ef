"""Get an answer as a value of your type, and watch it while it grows.

Runs offline on a scripted model, and with `--local` on the embedded one.
"""

import asyncio
from dataclasses import dataclass, field

from which_model import model_for

import loomstream as ls
from loomstream.testing import scripted_model, text_events


@dataclass
class Step:
    """One step of a recipe."""

    do: str
    minutes: int


@dataclass
class Recipe:
    """A recipe for one dish."""

    title: str
    steps: list[Step] = field(default_factory=list[Step])


PIECES = (
    '{"title": "Pan',
    'cakes", "steps": [{"do": "Mix',
    ' the batter", "minutes": 1',
    '0}, {"do": "Fry", "minut',
    'es": 5}]}',
)


async def main() -> None:
    """Watch a recipe grow, then ask for one as a value."""
    chosen = model_for(text_events(*PIECES))  # in its place: ls.connect("openai:gpt-4o")
    async with chosen as model, model.stream("Write a short recipe for pancakes.", max_tokens=400) as stream:
        async for partial in stream.objects(Recipe):
            steps = partial.value.get("steps", [])
            print(partial.value.get("title", ""), [step.get("do", "") for step in steps])
            if partial.is_whole:
                print("whole:", sum(step.minutes for step in partial.final.steps), "minutes")

    # Without watching: an answer that does not fit is sent back once, with what is wrong about it.
    model = scripted_model(text_events('{"value": ["a", 2]}'), text_events('{"value": ["a", "b"]}'))
    print(await model.extract("Two letters, please.", list[str]))
    try:
        await scripted_model(text_events("Sorry!")).extract("Two letters, please.", list[str], repair=0)
    except ls.LoomstreamError as error:
        print(error)


asyncio.run(main())
