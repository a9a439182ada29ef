"""The how-to's programs on caching, pacing, looking on, costs and recordings print what stands under them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HOW_TO = (Path(__file__).parents[2] / "docs" / "how-to" / "middleware.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", HOW_TO, re.DOTALL))
NAMES = ("cached.py", "smoothed.py", "tapped.py", "shouted.py", "booked.py", "replayed.py")


def shown(name: str) -> list[str]:
    """Give the lines that stand under the program's command."""
    _, _, after = HOW_TO.partition(f"    $ python {name}\n")
    lines: list[str] = []
    for line in after.splitlines():
        if not line.startswith("    "):
            break
        lines.append(line.strip())
    return lines


@pytest.mark.parametrize("name", NAMES)
def test_the_program_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    for file, text in PROGRAMS.items():
        (tmp_path / file).write_text(text, "utf-8")
    done = subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == shown(name) != []
