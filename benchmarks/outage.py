"""`python -m benchmarks.outage`: how many requests an outage of 60 s makes of the calls of 1,000 clients.

Contract: one event loop with a virtual clock, so that the figures are the same on every machine and come as fast as
they can be reckoned. Each client makes a call, waits, and makes the next one, all at their own moments. A provider
answers in `ANSWER_S`; while it is down it refuses in `REFUSAL_S`. Requests are counted where they reach it. Nothing
here is a measure of time that passes.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio

from loomstream.errors import LoomstreamError, Overloaded
from loomstream.events import Event
from loomstream.handler import Handler, Middleware, compose
from loomstream.messages import Request
from loomstream.middleware.circuit_breaker import circuit_breaker
from loomstream.middleware.retry import RetryBudget, retry
from loomstream.testing import scripted_model, text_events
from loomstream.testing.clock import VirtualClockLoop

BAR = 1.2
"""Within the outage the default retries may make no more requests of a call than this."""
CLIENTS = 1_000
PAUSE_S = 10.0
"""Between two calls of a client, at random up to twice as long."""
BEGIN_S, OUTAGE_S, AFTER_S = 60.0, 60.0, 60.0
ANSWER_S, REFUSAL_S = 1.0, 0.05
_REFUSAL = "no capacity"


class Figures(NamedTuple):
    """What came of one stack of middleware.

    `calls` and `requests` are those made while the provider was down; `busiest` is the most requests of a second while
    it was, and in the minute after it, `usual` the mean before it. `failed_before` and `failed_after` are shares of the
    calls that were made when it was up.
    """

    calls: int
    requests: int
    usual: float
    busiest: int
    busiest_after: int
    failed_before: float
    failed_after: float

    @property
    def amplification(self) -> float:
        """The requests for each call while it was down."""
        return self.requests / self.calls


class _Provider:
    """Answers, and for a while does not."""

    def __init__(self) -> None:
        self.by_second: Counter[int] = Counter()

    @asynccontextmanager
    async def __call__(self, request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        """Answer one request."""
        del request
        self.by_second[int(anyio.current_time())] += 1
        yield self._answer(is_down=is_down(anyio.current_time()))

    async def _answer(self, *, is_down: bool) -> AsyncGenerator[Event]:
        await anyio.sleep(REFUSAL_S if is_down else ANSWER_S)
        if is_down:
            raise Overloaded(_REFUSAL, status=529)
        for event in text_events("Hello"):
            yield event

    def between(self, begin_s: float, end_s: float) -> list[int]:
        """Give the requests of each second."""
        return [self.by_second[second] for second in range(int(begin_s), int(end_s))]


def is_down(now_s: float) -> bool:
    """Say whether the provider is down at that time."""
    return BEGIN_S <= now_s < BEGIN_S + OUTAGE_S


STACKS: dict[str, Callable[[], tuple[Middleware, ...]]] = {
    "no retries": tuple,
    "retry() as it comes": lambda: (retry(),),
    "retry() without a budget": lambda: (retry(budget=RetryBudget(free=1e9)),),
    "retry(), circuit_breaker()": lambda: (retry(), circuit_breaker()),
}
"""What is compared; each is shared by all clients, as the middleware of one model is."""


async def _client(handler: Handler, chance: random.Random, ends: dict[str, list[bool]], pause_s: float) -> None:
    model = scripted_model([], middleware=[lambda _: handler])
    while anyio.current_time() < BEGIN_S + OUTAGE_S + AFTER_S:
        await anyio.sleep(chance.uniform(0, 2 * pause_s))
        began_s = anyio.current_time()
        when = "while" if is_down(began_s) else "before" if began_s < BEGIN_S else "after"
        try:
            await model.complete("hi")
        except LoomstreamError:
            ends[when].append(False)
        else:
            ends[when].append(True)


async def _simulate(layers: tuple[Middleware, ...], clients: int, pause_s: float, seed: int) -> Figures:
    provider = _Provider()
    handler = compose(provider, *layers)
    ends: dict[str, list[bool]] = {"before": [], "while": [], "after": []}
    random.seed(seed)  # for the waits of the retries
    async with anyio.create_task_group() as group:
        for number in range(clients):
            chance = random.Random(seed * clients + number)  # noqa: S311 (no cryptography)
            group.start_soon(_client, handler, chance, ends, pause_s)
    over_s = BEGIN_S + OUTAGE_S
    requests = provider.between(BEGIN_S, over_s)
    usual = provider.between(pause_s, BEGIN_S)
    return Figures(
        calls=len(ends["while"]),
        requests=sum(requests),
        usual=sum(usual) / len(usual),
        busiest=max(requests),
        busiest_after=max(provider.between(over_s, over_s + AFTER_S)),
        failed_before=_share_of_failed(ends["before"]),
        failed_after=_share_of_failed(ends["after"]),
    )


def _share_of_failed(ends: list[bool]) -> float:
    return ends.count(False) / max(1, len(ends))


def simulate(name: str, *, clients: int = CLIENTS, pause_s: float = PAUSE_S, seed: int = 1) -> Figures:
    """Give the figures of one of `STACKS`."""
    return anyio.run(
        _simulate, STACKS[name](), clients, pause_s, seed, backend_options={"loop_factory": VirtualClockLoop}
    )


_WIDTHS = (8, 10, 10, 11, 10, 14)


def table(figures: dict[str, Figures]) -> str:
    """Give the table."""
    titles = ("calls", "requests", "per call", "busiest s", "after it", "failed after")
    head = f"{'middleware':<28}" + "".join(f"{title:>{width}}" for title, width in zip(titles, _WIDTHS, strict=True))
    lines = [head, "-" * len(head)]
    for name, one in figures.items():
        lines.append(
            f"{name:<28}{one.calls:>8}{one.requests:>10}{one.amplification:>10.3f}{one.busiest:>11}"
            f"{one.busiest_after:>10}{one.failed_after:>14.1%}"
        )
    usual = next(iter(figures.values())).usual
    return "\n".join([*lines, "", f"before the outage: {usual:.0f} requests a second; bar: {BAR} requests per call"])


def main(arguments: list[str] | None = None) -> int:
    """Simulate and print; give the exit code: 1 where the default retries pass the bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--pause", type=float, default=PAUSE_S, metavar="S", help="seconds between a client's calls")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    figures = {
        name: simulate(name, clients=options.clients, pause_s=options.pause, seed=options.seed) for name in STACKS
    }
    print(table(figures))
    return 0 if figures["retry() as it comes"].amplification <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
