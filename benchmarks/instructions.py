"""`python -m benchmarks.instructions`: the same in instructions, which other work on the machine does not change.

Contract: valgrind counts what a client's own process executes, the kernel left out. Each figure is the difference of a
long run and a short one, so that starting counts for nothing. It repeats to about 0.1 %, in µs it would not by 20; but
instructions are no time, so a bar is never judged by it. Needs valgrind.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

from benchmarks.client import CLIENTS
from benchmarks.runner import ROOT, BenchmarkError, environment, server

_COLLECTED = re.compile(r"Collected : (\d+)")
_LIMIT_S = 600
_VALGRIND = shutil.which("valgrind") or ""


class Counted(NamedTuple):
    """A kind of `benchmarks.child`, the server's path for it, and two sizes as (events, streams)."""

    kind: str
    path: str
    short: tuple[int, int]
    long: tuple[int, int]

    @property
    def units(self) -> int:
        """How many more requests, or events, the long run has."""
        if self.kind == "request":
            return self.long[1] - self.short[1]
        return self.long[0] * self.long[1] - self.short[0] * self.short[1]


KINDS = {
    "request": Counted("request", "burst/{events}/1", (3, 50), (3, 250)),
    "at-once": Counted("at_once", "burst/{events}/64", (2_000, 1), (6_000, 1)),
    "paced": Counted("paced", "paced/{events}/{streams}/60000", (5, 20), (45, 20)),
}
"""Fewer streams and longer pauses than in `benchmarks.measures`: under valgrind all is some fifty times slower."""


def thousands(name: str, client: str, dialect: str = "") -> float:
    """Give a client's thousand instructions for a request, or for an event. Raises `BenchmarkError`."""
    counted = KINDS[name]
    _run(counted, client, counted.short, dialect, tool="none")  # whatever is to be compiled is compiled now
    few, many = (_run(counted, client, size, dialect) for size in (counted.short, counted.long))
    return (many - few) / counted.units / 1e3


def _run(counted: Counted, client: str, size: tuple[int, int], dialect: str, tool: str = "callgrind") -> int:
    events, streams = size
    with server() as port:
        path = counted.path.format(events=events, streams=streams) + ("/" + dialect if dialect else "")
        job = {
            "kind": counted.kind,
            "client": f"{client} ({dialect})" if dialect else client,
            "base_url": f"http://127.0.0.1:{port}/{path}/v1",
            "events": events,
            "streams": streams,
        }
        options = ["--callgrind-out-file=/dev/null"] if tool == "callgrind" else []
        ended = subprocess.run(
            [
                _VALGRIND,
                f"--tool={tool}",
                *options,
                sys.executable,
                "-m",
                "benchmarks.child",
                json.dumps(job),
            ],
            cwd=ROOT,
            env=environment() | {"PYTHONHASHSEED": "0"},
            input="\n",
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    found = _COLLECTED.search(ended.stderr)
    if ended.returncode or (found is None and tool == "callgrind"):
        msg = f"{client}, {counted.kind}: {(ended.stderr.strip() or 'no output').splitlines()[-1]}"
        raise BenchmarkError(msg)
    return 0 if found is None else int(found[1])


def main(arguments: list[str] | None = None) -> int:
    """Count and print; give the exit code: 1 where a figure could not be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=["request", "at-once"])
    parser.add_argument("--clients", nargs="+", default=["bare", "loomstream"])
    dialects = sorted(name.partition("(")[2][:-1] for name in CLIENTS if name.startswith("bare ("))
    parser.add_argument("--dialect", default="", choices=["", *dialects], help="for at-once: another wire")
    options = parser.parse_args(arguments)
    if not _VALGRIND:
        print("valgrind is missing: install it, or measure time with `python -m benchmarks`", file=sys.stderr)
        return 1
    for name in options.only:
        for client in options.clients:
            try:
                print(f"{name:<10}{client:<14}{thousands(name, client, options.dialect):>10.1f} thousand", flush=True)
            except BenchmarkError as error:
                print(f"no figure for {error}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
