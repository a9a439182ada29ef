"""The how-to's program runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from quiet import QUIET

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "tools.md"


def test_the_program_runs() -> None:
    found = re.search(r"```python\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    assert found
    command = [sys.executable, "-X", "utf8", "-c", found[1]]
    done = subprocess.run(command, env=QUIET, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("It is 4 °C.\n", "", 0)
