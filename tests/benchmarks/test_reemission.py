"""That the benchmark of re-emission runs and tells; never how long anything took."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the benchmarks are no part of the installed package

from benchmarks.reemission import FORMATS, QUICK, Figure, Size, measure, table


def test_it_measures() -> None:
    printed = table(QUICK, measure(QUICK, formats=["ai-sdk"]))
    assert "| read |" in printed
    assert "| read, sent on as ai-sdk |" in printed


def test_a_missed_bar_is_said() -> None:
    figures = {"read": Figure(10.0), **dict.fromkeys(FORMATS, Figure(20.0, 1.0)), "ndjson": Figure(31.0, 1.0)}
    lines = table(Size(200, 50, 1), figures).splitlines()
    assert [("MISSED" in line) for line in lines if "sent on as" in line] == [False, True, False]
