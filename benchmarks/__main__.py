"""`python -m benchmarks`: what loomstream costs beside the floor of this machine, in one run.

Contract: the table goes to standard output, progress to standard error. A missed bar is reported, not an error: the
exit code is 0, and 1 where a figure could not be had. `python -m benchmarks latency` is another table: how long answers
take, provider by provider (`benchmarks.latency`).
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks import latency, reemission
from benchmarks.client import PEERS
from benchmarks.limits import raise_open_files
from benchmarks.measures import MEASURES, Measure
from benchmarks.report import as_json, table
from benchmarks.runner import BenchmarkError, Outcome, installed, run

_NAMES = [measure.name for measure in MEASURES]
_SPARE_FILES = 200
_OWN = {"bench": latency.outcome, "re-emission": reemission.outcome}
"""Kinds of measures that have no client: what takes them."""


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write everything as JSON; - for standard output instead")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small counts: that it runs, not what it costs")
    size.add_argument("--full", action="store_true", help="also 10,000 open streams")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=_NAMES, help=f"of {', '.join(_NAMES)}")
    parser.add_argument("--peers", action="store_true", help="also other clients: pip install '.[peers]'")
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _chosen(options: argparse.Namespace) -> list[Measure]:
    measures = [measure for measure in MEASURES if not options.only or measure.name in options.only]
    return [measure for measure in measures if not measure.only_full or options.full or options.only]


def _peers(options: argparse.Namespace) -> list[str]:
    if not options.peers:
        return []
    for name in PEERS:
        if not installed(name):
            _say(f"{name} is not installed: pip install '.[peers]'")
    return [name for name in PEERS if installed(name)]


def _fits(measure: Measure, *, quick: bool) -> bool:
    """Say whether a measure's package is there, and the system lets a process have so many connections open."""
    if measure.needs and find_spec(measure.needs) is None:
        _say(f"{measure.title}: left out, {measure.needs} is not installed: pip install '.[{measure.extra}]'")
        return False
    wanted = (measure.quick if quick else measure.default).streams + _SPARE_FILES
    allowed = raise_open_files()
    if measure.kind == "many" and allowed < wanted:
        _say(f"{measure.title}: left out, {wanted} open files are needed and {allowed} are allowed: raise `ulimit -n`")
        return False
    return True


def _taken(measure: Measure, peers: list[str], *, quick: bool) -> Outcome:
    own = _OWN.get(measure.kind)
    if own is not None:
        return own(measure, quick=quick, say=_say)
    return run(measure, quick=quick, peers=peers if measure.peers else [], say=_say)


def main(arguments: list[str] | None = None) -> int:
    """Run the measures that were asked for; give the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["latency"]:
        return latency.main(arguments[1:])
    options = _arguments(arguments)
    peers = _peers(options)
    try:
        outcomes = [
            _taken(measure, peers, quick=options.quick)
            for measure in _chosen(options)
            if _fits(measure, quick=options.quick)
        ]
    except BenchmarkError as error:
        _say(f"no figure for {error}")
        return 1
    if options.json == "-":
        sys.stdout.buffer.write(as_json(outcomes) + b"\n")
        return 0
    if options.json:
        Path(options.json).write_bytes(as_json(outcomes) + b"\n")
    print(table(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
