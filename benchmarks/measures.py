"""What is measured: the table of measures, their sizes and their bars.

Contract: values. A bar is a ratio to the floor measured in the same run, or (`limit`) a value; nothing here runs.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.client import WIRE_CLIENTS


class Size(NamedTuple):
    """How much of it: text events of a stream, streams or requests, turns of a process, rounds of fresh processes."""

    events: int
    streams: int
    turns: int
    rounds: int


class Measure(NamedTuple):
    """One line of the table.

    `path` is the server's path, filled in with the size; `kind` is the function in `benchmarks.child`, or `import`, or
    what `benchmarks.__main__` names for it. `needs` is a package without which the line is left out, and `extra` ours
    that brings it.
    A process takes its turns one after the other with those of the other clients; the cheapest is its figure, because
    other processes can only add to it. The median of the rounds is shown.
    `settled` says whether each process first frees a large block, which spares the floor 20 µs a read; else its
    allocator is as a program finds it.
    `floor` and `ours` are names out of `benchmarks.client.CLIENTS`.
    """

    name: str
    title: str
    unit: str
    kind: str
    floor: str
    floor_title: str
    path: str
    default: Size
    quick: Size
    peer: Size
    bar: float | None = None
    limit: float | None = None
    only_full: bool = False
    ours: str = "loomstream"
    peers: bool = True
    needs: str = ""
    extra: str = ""
    settled: bool = True


_BARE = "asyncio socket, msgspec"


def _at_once(dialect: str) -> Measure:
    """Give the measure of a dialect against the floor of its own wire."""
    return Measure(
        name=f"at-once-{dialect}",
        title=f"the same over {dialect}",
        unit="µs",
        kind="at_once",
        floor=f"bare ({dialect})",
        floor_title=_BARE,
        path="burst/{events}/64/" + dialect,
        default=Size(20_000, 1, 8, 3),
        quick=Size(50, 1, 1, 1),
        peer=Size(0, 0, 0, 0),
        bar=3,
        ours=f"loomstream ({dialect})",
        peers=False,
    )


def _as_found(measure: Measure) -> Measure:
    """Give a measure against the floor as any program runs it, nothing done for its allocator."""
    return measure._replace(
        name=f"{measure.name}-as-found", title=f"{measure.title}, allocator as found", peers=False, settled=False
    )


_PACED = Measure(
    name="paced",
    title="CPU per event, 100 streams, one event per read",
    unit="µs",
    kind="paced",
    floor="bare",
    floor_title=_BARE,
    path="paced/{events}/{streams}/{gap_us}",
    default=Size(10, 100, 8, 4),
    quick=Size(5, 5, 1, 1),
    peer=Size(5, 100, 3, 1),
    bar=1.6,
)
_REQUEST = Measure(
    name="request",
    title="CPU per request, short answer, connection kept",
    unit="µs",
    kind="request",
    floor="bare",
    floor_title=_BARE,
    path="burst/3/1",
    default=Size(3, 100, 12, 4),
    quick=Size(3, 3, 1, 1),
    peer=Size(3, 50, 4, 1),
    bar=4,
)

MEASURES = (
    Measure(
        name="at-once",
        title="CPU per event, one stream sent at once",
        unit="µs",
        kind="at_once",
        floor="bare",
        floor_title=_BARE,
        path="burst/{events}/64",
        default=Size(20_000, 1, 12, 4),
        quick=Size(50, 1, 1, 1),
        peer=Size(1_000, 1, 4, 1),
        bar=3,
    ),
    *map(_at_once, WIRE_CLIENTS),
    _PACED,
    _as_found(_PACED),
    _REQUEST,
    _as_found(_REQUEST),
    Measure(
        name="import",
        title="import loomstream",
        unit="ms",
        kind="import",
        floor="bare",
        floor_title="import msgspec",
        path="",
        default=Size(0, 0, 1, 7),
        quick=Size(0, 0, 1, 1),
        peer=Size(0, 0, 1, 3),
        bar=2.5,
    ),
    Measure(
        name="memory",
        title="memory above import, 1,000 open streams",
        unit="MB",
        kind="memory",
        floor="aiohttp",
        floor_title="bare aiohttp",
        path="paced/1/1/0",
        default=Size(1, 1_000, 1, 2),
        quick=Size(1, 10, 1, 1),
        peer=Size(1, 1_000, 1, 1),
        bar=1.5,
    ),
    Measure(
        name="many",
        title="p99 loop lag, 10,000 open streams, 2,000 events/s",
        unit="ms",
        kind="many",
        floor="bare",
        floor_title=_BARE,
        path="paced/{events}/2/1000",
        default=Size(2, 10_000, 1, 1),
        quick=Size(2, 100, 1, 1),
        peer=Size(0, 0, 0, 0),
        limit=50,
        only_full=True,
        peers=False,
    ),
    Measure(
        name="bench",
        title="what `looms bench` adds to an event",
        unit="µs",
        kind="bench",
        floor="",
        floor_title="a call that does nothing",
        path="",
        default=Size(20_000, 1, 1, 5),
        quick=Size(50, 1, 1, 1),
        peer=Size(0, 0, 0, 0),
        limit=5,
        peers=False,
    ),
    Measure(
        name="re-emission",
        title="CPU per event, 200 streams sent on as SSE",
        unit="µs",
        kind="re-emission",
        floor="",
        floor_title="reading them",
        path="",
        default=Size(100, 200, 1, 2),
        quick=Size(3, 5, 1, 1),
        peer=Size(0, 0, 0, 0),
        bar=2,
        peers=False,
        needs="uvicorn",
        extra="serve",
    ),
)

GAP_US = 20_000
"""Between two paced events of one stream, in microseconds: long enough that none is read together with the next."""
PEER_GAP_US = 120_000
"""The same for peers: the slowest needs about 500 µs of CPU for each of the 100 streams' events."""

HEAVY = ("aiohttp", "anyio", "asyncio", "click", "httpx", "httpx2", "rich", "ssl", "trio")
"""Modules that `import loomstream` must not load."""
