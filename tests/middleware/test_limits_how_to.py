"""The how-to's programs run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "middleware.md"
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def output(folder: Path, name: str) -> list[str]:
    done = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_calls_go_out_one_after_the_other(folder: Path) -> None:
    lines = output(folder, "limited.py")
    assert [line[:25] for line in lines] == [f"{number}: There is a tide in it." for number in range(4)]


def test_the_budget_stops_the_answer(folder: Path) -> None:
    assert output(folder, "budgeted.py") == [
        "alert at 3 tokens",
        "stopped after: There is a tide ",
        "the budget of 5 tokens per call is used up: the answer was stopped where it would have passed it",
    ]


def test_the_attempt_is_timed(folder: Path) -> None:
    assert output(folder, "timed.py")[0].startswith("the attempt took longer than 0.18 s in all")


def test_a_refused_and_a_broken_call_end_well(folder: Path) -> None:
    assert output(folder, "steady.py") == [
        "retry try 1 failed (Overloaded",
        "reset the answer broke (ConnectionLost",
        "There is a tide in it. end_turn",
    ]
