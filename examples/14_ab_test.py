"""A/B of two models by user, and a third that gets a copy of every call, compared by what it took. Runs offline."""

import asyncio
from collections import defaultdict

from loomstream import joined
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.experiment import Shadows
from loomstream.middleware.outcomes import Outcome
from loomstream.testing import Pause, scripted_model, text_events

told: dict[str, list[Outcome]] = defaultdict(list)


def observe(outcome: Outcome) -> None:
    """Keep how a call went; in a service this would go to a queue."""
    told[outcome.name].append(outcome)


async def main() -> None:
    """Ask for twenty users, then print what each model took."""
    # in their place: models, connect("openai:gpt-4o"), or specs
    now = Candidate("now", scripted_model([Pause(0.004), *text_events("Hello", ".")]).handler)
    perhaps = Candidate("perhaps", scripted_model([Pause(0.002), *text_events("Hi", ".")]).handler)
    unproven = Candidate("unproven", scripted_model([Pause(0.006), *text_events("Hey", ".")]).handler)
    split = joined.experiment(now, perhaps, name="greeting", observer=observe)
    async with Shadows(finish_s=5) as shadows:
        model = joined.shadow(split, unproven, observer=observe, shadows=shadows)
        for user in range(20):
            await model.complete("Greet me", end_user_id=f"user-{user}")
    for name in ("now", "perhaps", "unproven"):
        outcomes = told[name]
        times_s = [outcome.first_event_s for outcome in outcomes if outcome.first_event_s is not None]
        whole = sum(outcome.whole for outcome in outcomes)
        print(f"{name}: {len(outcomes)} calls, {whole} whole, first content after {sum(times_s) / len(times_s):.4f} s")


asyncio.run(main())
