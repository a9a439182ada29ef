"""The vendors' own clients live in an environment of their own: their dependencies are not ours.

`LOOMSTREAM_SDKS` names that environment's Python; without it this one is tried.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

PYTHON = os.environ.get("LOOMSTREAM_SDKS", sys.executable)
REMEDY = "make an environment with `pip install '.[sdks]'` and name its python in LOOMSTREAM_SDKS"
Run = Callable[[str, str], str]


@pytest.fixture
def run_sdk(skip_loudly: Callable[[str, str], None]) -> Run:
    """Run a script with an SDK; give what it printed."""

    def run(module: str, script: str) -> str:
        guarded = f"import sys\ntry:\n    import {module}\nexcept ImportError:\n    sys.exit(77)\n{script}"
        done = subprocess.run(
            [PYTHON, "-W", "ignore", "-c", guarded], capture_output=True, text=True, timeout=50, check=False
        )
        if done.returncode == 77:
            skip_loudly(f"the SDK {module}", REMEDY)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
