"""1,000 prompts at once, held to a rate and so many side by side, with a progress bar. Runs offline."""

import asyncio
import time
from collections import Counter

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loomstream.errors import LoomstreamError, Overloaded
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.retry import retry
from loomstream.testing import Pause, Script, scripted_model, text_events

PROMPTS = 1_000
SIDE_BY_SIDE = 50


def answers() -> list[Script]:
    """Give what the model says; every hundredth time it is too busy, and is asked again."""
    answer = [Pause(0.01), *text_events("positive")]
    return [[Overloaded("busy", retry_after_s=0.01)] if number % 100 == 0 else answer for number in range(1, 1_100)]


async def main() -> None:
    """Classify all of them; print what came and how long it took."""
    # in its place: connect("openai:gpt-4o-mini", middleware=[retry(), rate_limit("openai", "gpt-4o-mini", …)])
    limits = rate_limit(requests_per_minute=120_000, burst=100, concurrency=SIDE_BY_SIDE, max_queue=PROMPTS)
    model = scripted_model(*answers(), middleware=[retry(), limits])
    came: Counter[str] = Counter()
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began_s = time.monotonic()
    with Progress(*bar) as progress:
        task = progress.add_task("classifying", total=PROMPTS)

        async def classify(number: int) -> None:
            try:
                response = await model.complete(f"Is review {number} positive? Answer in one word.", max_tokens=5)
                came[response.text] += 1
            except LoomstreamError as error:  # one that fails costs no other
                came[type(error).__name__] += 1
            progress.advance(task)

        async with asyncio.TaskGroup() as group:
            for number in range(PROMPTS):
                group.create_task(classify(number))
    passed_s = time.monotonic() - began_s
    print(f"{dict(came)} by {len(model.requests)} requests, at most {SIDE_BY_SIDE} at once, in {passed_s:.1f} s")


asyncio.run(main())
