"""The how-to's programs about several models run, and print what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HOW_TO = (Path(__file__).parents[2] / "docs" / "how-to" / "middleware.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", HOW_TO, re.DOTALL))


@pytest.mark.parametrize("name", ["joined_up.py", "compared.py", "routed.py", "resident.py"])
def test_it_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    for each in (name, "loopback.py"):
        (tmp_path / each).write_text(PROGRAMS[each], "utf-8")
    command = [sys.executable, name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    said = HOW_TO.split(f"    $ python {name}\n")[1].split("\n\n")[0]
    for line, expected in zip(done.stdout.splitlines(), said.splitlines(), strict=True):
        assert line.startswith(expected.strip().removesuffix("…"))
