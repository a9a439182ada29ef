"""That the benchmark of calls in text runs and says what it measured; never how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from quiet import QUIET

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_gives_a_ratio_for_each_kind_of_answer() -> None:
    command = [sys.executable, "-m", "benchmarks.prompted_tools", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=QUIET, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert [figure["text"] for figure in figures] == ["one_text", "records", "broken", "many_calls", "no_calls"]
    assert all(figure["s"] > 0 and figure["ratio"] > 0 for figure in figures)
