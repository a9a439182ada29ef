"""That the benchmark of partial objects runs and says what it measured; never how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from quiet import QUIET

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.partial_json", "--quick", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=QUIET, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_each_way_reads_each_text() -> None:
    figures = json.loads(run("--json"))
    assert [(figure["way"], figure["text"]) for figure in figures] == [
        (way, text) for way in ("read", "iterate") for text in ("records", "one_text", "nested")
    ]
    assert all(figure["ratio"] > 0 and isinstance(figure["holds"], bool) for figure in figures)


def test_the_table_has_a_line_for_each() -> None:
    assert len(run().splitlines()) == 2 + 6
