"""The tests of the page on testing run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from quiet import QUIET

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "testing.md").read_text("utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))


def test_each_file_of_the_page_passes(tmp_path: Path) -> None:
    assert len(FILES) == PAGE.count("```python")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error"]
    done = subprocess.run(command, cwd=tmp_path, env=QUIET, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\n\d\d passed in ", done.stdout)
