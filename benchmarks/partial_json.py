"""`python -m benchmarks.partial_json`: partial objects take linear time, whatever they are made of.

Contract: one answer of 1 MB, a character each delta, beside ten of 100 KB, in turn, in one process; the cheapest of the
rounds is the figure, for other processes can only add to it. Linear is a ratio of 1; the bar is 3. What a consumer does
(it looks at the value after each delta) is part of it. A missed bar is reported, not an error.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from loomstream.accumulate import fold
from loomstream.events import Event, Start, Stop, TextDelta, TextEnd, TextStart
from loomstream.messages import Response
from loomstream.tools.outputs import Objects
from loomstream.tools.partial import PartialJSON

LARGE, PARTS, BAR = 1_000_000, 10, 3.0

_RECORD = '{"name": "item \\u00e9\\n", "price": 12.5, "tags": ["a", "b"], "sold": true}'


class Answer:
    """A stream of one text, a character each delta."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Event] = (TextDelta(0, char) for char in text)
        self._first: list[Event] = [TextStart(0), Start()]
        self.response: Response = fold([Start(), TextStart(0), TextDelta(0, text), TextEnd(0), Stop("end_turn")])

    async def __anext__(self) -> Event:
        """Give the next event."""
        if self._first:
            return self._first.pop()
        event = next(self._events, None)
        if event is None:
            raise StopAsyncIteration
        return event


def records(size: int) -> str:
    """Give JSON of many short values, of about that many characters."""
    return '{"items": [' + ", ".join([_RECORD] * (size // (len(_RECORD) + 2))) + "]}"


def one_text(size: int) -> str:
    """Give JSON of one long text."""
    return '{"text": "' + "x" * size + '"}'


def nested(size: int) -> str:
    """Give JSON of many objects within each other, closed and opened again."""
    one = '{"a": [' * 20 + "1" + "]}" * 20
    return '{"items": [' + ", ".join([one] * (size // (len(one) + 2))) + "]}"


def read(text: str) -> None:
    """Read with the reader alone."""
    reader = PartialJSON()
    for char in text:
        reader.feed(char)
        _ = reader.value
    reader.finish()


def iterate(text: str) -> None:
    """Read as `Stream.objects` does, the final check included."""

    async def run() -> None:
        async for partial in Objects(Answer(text), dict[str, Any]):
            _ = partial.value

    asyncio.run(run())


def ratio(work: Callable[[str], None], make: Callable[[int], str], *, size: int, rounds: int) -> tuple[float, float]:
    """Give the seconds that one large text takes, and how many times those of its tenths together that is."""
    large, small = make(size), make(size // PARTS)
    of_large = min(_seconds(work, [large]) for _ in range(rounds))
    of_small = min(_seconds(work, [small] * PARTS) for _ in range(rounds))
    return of_large, of_large / of_small


def _seconds(work: Callable[[str], None], texts: list[str]) -> float:
    began = time.process_time()
    for text in texts:
        work(text)
    return time.process_time() - began


def main(arguments: list[str] | None = None) -> int:
    """Print the table; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partial_json", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small texts: that it runs, not what it costs")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    size, rounds = (10_000, 1) if options.quick else (LARGE, 3)
    figures: list[dict[str, object]] = []
    for way in (read, iterate):
        for make in (records, one_text, nested):
            seconds, times = ratio(way, make, size=size, rounds=rounds)
            holds = times <= BAR
            figures.append({"way": way.__name__, "text": make.__name__, "s": seconds, "ratio": times, "holds": holds})
    if options.json:
        print(msgspec.json.encode(figures).decode())
        return 0
    print(f"| way | text | {size:,} characters, s | ratio to {PARTS} x {size // PARTS:,} | bar of {BAR:g} |")
    print("|---|---|---|---|---|")
    for figure in figures:
        bar = "holds" if figure["holds"] else "missed"
        print(f"| {figure['way']} | {figure['text']} | {figure['s']:.2f} | {figure['ratio']:.2f} | {bar} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
