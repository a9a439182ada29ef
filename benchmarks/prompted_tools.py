"""`python -m benchmarks.prompted_tools`: calls are read from text in linear time, whatever they are made of.

Contract: one answer of 1 MB, a character each delta, beside ten of 100 KB, in turn, in one process; the cheapest of the
rounds is the figure, for other processes can only add to it. Linear is a ratio of 1; the bar is 3. A missed bar is
reported, not an error.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import count

import msgspec

from loomstream.adapt.called_events import CalledEvents
from loomstream.events import Start, Stop, TextDelta, TextEnd, TextStart

LARGE, PARTS, BAR = 1_000_000, 10, 3.0

_CALL = '<tool_call>\n{"name": "store", "arguments": %s}\n</tool_call>'
_RECORD = '{"name": "item \\u00e9\\n", "price": 12.5, "tags": ["a", "b"], "sold": true}'


def one_text(size: int) -> str:
    """Give a call with one long text."""
    return _CALL % ('{"text": "' + "x" * size + '"}')


def records(size: int) -> str:
    """Give a call with many short values."""
    return _CALL % ('{"items": [' + ", ".join([_RECORD] * (size // (len(_RECORD) + 2))) + "]}")


def broken(size: int) -> str:
    """Give a call whose arguments stop being JSON at their beginning."""
    return _CALL % ("{!" + "x" * size + "}")


def many_calls(size: int) -> str:
    """Give many short calls with text between them."""
    one = "Next.\n" + _CALL % '{"a": 1}'
    return one * (size // len(one))


def no_calls(size: int) -> str:
    """Give text that might become a call at each character."""
    return "<" * size


def read(text: str, piece: int = 1) -> None:
    """Read an answer as it is received, so many characters each delta."""
    stage = CalledEvents({"store": False}, (f"call_{number}" for number in count()))
    for event in (Start(), TextStart(0)):
        stage.feed(event)
    for position in range(0, len(text), piece):
        stage.feed(TextDelta(0, text[position : position + piece]))
    for event in (TextEnd(0), Stop("end_turn")):
        stage.feed(event)


def ratio(make: Callable[[int], str], *, size: int, rounds: int) -> tuple[float, float]:
    """Give the seconds that one large answer takes, and how many times those of its tenths together that is."""
    large, small = make(size), make(size // PARTS)
    of_large = min(_seconds([large]) for _ in range(rounds))
    of_small = min(_seconds([small] * PARTS) for _ in range(rounds))
    return of_large, of_large / of_small


def _seconds(texts: list[str]) -> float:
    began = time.process_time()
    for text in texts:
        read(text)
    return time.process_time() - began


def main(arguments: list[str] | None = None) -> int:
    """Print the table; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompted_tools", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small answers: that it runs, not what it costs")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    size, rounds = (10_000, 1) if options.quick else (LARGE, 3)
    figures: list[dict[str, object]] = []
    for make in (one_text, records, broken, many_calls, no_calls):
        seconds, times = ratio(make, size=size, rounds=rounds)
        figures.append({"text": make.__name__, "s": seconds, "ratio": times, "holds": times <= BAR})
    if options.json:
        print(msgspec.json.encode(figures).decode())
        return 0
    print(f"| answer | {size:,} characters, s | ratio to {PARTS} x {size // PARTS:,} | bar of {BAR:g} |")
    print("|---|---|---|---|")
    for figure in figures:
        bar = "holds" if figure["holds"] else "missed"
        print(f"| {figure['text']} | {figure['s']:.2f} | {figure['ratio']:.2f} | {bar} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
