"""`python -m benchmarks latency`: how long an answer of 1,000 tokens to a prompt of 500 takes, provider by provider.

Contract: every row of the table of providers, on the simulator at a made-up pace: these rows are marked, and say
nothing about a provider. With `--live` also each provider whose key is in the environment, which costs money, up to
`--max-cost`. What `looms bench` adds to an event is measured beside them; the bar is 5 µs. A missed bar is reported,
not an error.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio

from benchmarks.measures import Measure
from benchmarks.runner import FLOOR, OURS, Figures, Outcome
from loomstream import bench
from loomstream.bench.page import notes, seconds
from loomstream.providers.table import TABLE

INPUT_TOKENS, OUTPUT_TOKENS, BAR_US = 500, 1_000, 5.0
TITLES = ("Provider", "Typical Latency", "P95 Latency", "What it is")


def simulated() -> list[str]:
    """Give the specs of every row, simulated."""
    return [f"simulated:{row.name}:{row.default_model or 'any'}" for row in TABLE if not row.launch]


def live(environment: Mapping[str, str]) -> list[str]:
    """Give the rows whose key is in the environment and that have a default model."""
    return [
        row.name
        for row in TABLE
        if row.default_model and not row.launch and any(environment.get(name) for name in row.key_environment)
    ]


def table(report: bench.Report) -> str:
    """Give the report in the columns of the providers' guide: total time as median and 95th percentile."""
    lines = [TITLES, tuple("-" * len(title) for title in TITLES)]
    for row in report.rows:
        figures = bench.summary(row)
        typical = None if figures.total is None else figures.total.value
        name = row.spec.removeprefix("simulated:").partition(":")[0]
        what = row.failure or f"{row.kind}, {figures.counted} answers"
        lines.append(
            (
                f"{name} [simulated]" if row.kind == "simulated" else name,
                seconds(typical),
                seconds(figures.total_p95_s),
                what,
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def overhead(report: bench.Report) -> str:
    """Say what measuring added, and whether the bar holds."""
    held = "holds" if report.overhead_us <= BAR_US else "MISSED"
    return f"looms bench adds {report.overhead_us:.2f} µs to an event; bar {BAR_US:g} µs: {held}"


def outcome(line: Measure, *, quick: bool, say: Callable[[str], None]) -> Outcome:
    """Give the line of the table of `python -m benchmarks`: what measuring adds to an event, beside an empty call."""
    size = line.quick if quick else line.default
    say(line.title)
    floor, ours = Figures(), Figures()
    for _ in range(size.rounds):
        floor.values.append(_empty_call_us(size.events))
        ours.values.append(bench.overhead_us(size.events))
        floor.ratios.append(1.0)
        ours.ratios.append(ours.values[-1] / floor.values[-1])
    return Outcome(line, size, {FLOOR: floor, OURS: ours})


def _empty_call_us(calls: int) -> float:
    def nothing(_: object) -> None: ...

    began = time.perf_counter()
    for _ in range(calls):
        nothing(None)
    return (time.perf_counter() - began) / calls * 1e6


def main(arguments: list[str]) -> int:
    """Measure, print; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks latency", description=__doc__)
    parser.add_argument("--live", action="store_true", help="also providers whose key is in the environment")
    parser.add_argument("--max-cost", default="1.00", metavar="USD", help="what --live may spend (1.00)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="answers of each (20)")
    parser.add_argument("--quick", action="store_true", help="no waits and short answers: that it runs")
    parser.add_argument("--html", metavar="FILE", help="also write the report as a page")
    options = parser.parse_args(arguments)
    specs = [*simulated(), *(live(os.environ) if options.live else [])]

    def say(progress: bench.Progress) -> None:
        print(f"{progress.done}/{progress.of} {progress.label}", file=sys.stderr)

    async def run() -> bench.Report:
        return await bench.measure(
            specs,
            runs=2 if options.quick else options.runs,
            concurrency=1 if options.quick else options.runs,
            input_tokens=INPUT_TOKENS,
            max_tokens=10 if options.quick else OUTPUT_TOKENS,
            max_cost_usd=options.max_cost if options.live else None,
            connections="cold",
            real_time=not options.quick,
            progress=say,
        )

    report = anyio.run(run)
    print(table(report), "", overhead(report), *notes(report), sep="\n")
    if options.html:
        Path(options.html).write_text(bench.html(report), encoding="utf-8")
    return 0
