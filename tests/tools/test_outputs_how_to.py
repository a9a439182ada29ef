"""The how-to's program and the example run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to" / "structured-output.md"
EXAMPLE = ROOT / "examples" / "10_live_objects.py"


def output_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", *command], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_the_program_runs() -> None:
    found = re.search(r"```python\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    assert found
    assert output_of("-c", found[1]).splitlines() == [
        "10",
        "{'title': 'Pan'}",
        "{'title': 'Pancakes', 'steps': [{'do': 'Mix'}]}",
        "{'title': 'Pancakes', 'steps': [{'do': 'Mix', 'minutes': 10}]}",
        "{'title': 'Pancakes', 'steps': [{'do': 'Mix', 'minutes': 10}]}",
        "Pancakes",
    ]


def test_the_example_runs() -> None:
    lines = output_of(str(EXAMPLE)).splitlines()
    assert lines[0] == "Pan []"
    assert lines[-3:-1] == ["whole: 15 minutes", "['a', 'b']"]
    assert "does not fit" in lines[-1]
