"""What the suite's own hooks promise: a skip names its remedy, and fails the session where none is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
SUITES = {
    "in a test": "def test_it(skip_loudly):\n    skip_loudly('the server', 'pip install server')\n",
    "in a module": "import pytest\npytest.skip('NOT TESTED: the server', allow_module_level=True)\n",
    "with others": "import pytest\ndef test_a(): pass\n@pytest.mark.skip(reason='the server')\ndef test_b(): pass\n",
}


def run(folder: Path, suite: str, **environment: str) -> subprocess.CompletedProcess[str]:
    for path in (CONFTEST, CONFTEST.with_name("live_budget.py")):
        (folder / path.name).write_text(path.read_text())
    (folder / "test_suite.py").write_text(suite)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", f"--rootdir={folder}", str(folder)],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "LOOMSTREAM_NO_SKIPS": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_a_skip_fails_a_session_that_allows_none(tmp_path: Path, suite: str) -> None:
    done = run(tmp_path, suite, LOOMSTREAM_NO_SKIPS="1")
    assert done.returncode == 1, done.stdout
    assert "LOOMSTREAM_NO_SKIPS=1 and 1 skipped" in done.stdout
    assert "test_suite.py" in done.stdout
    assert "the server" in done.stdout.split("and 1 skipped")[1]


def test_otherwise_a_skip_is_loud_and_passes(tmp_path: Path) -> None:
    done = run(tmp_path, SUITES["in a test"])
    assert done.returncode == 0, done.stdout
    assert "NOT TESTED: the server is missing; to test it: pip install server" in done.stdout


def test_without_a_skip_such_a_session_passes(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "import pytest\ndef test_it(): pass\n@pytest.mark.xfail\ndef test_x(): assert 0\n",
        LOOMSTREAM_NO_SKIPS="1",
    )
    assert done.returncode == 0, done.stdout


def test_a_failure_keeps_its_exit_code(tmp_path: Path) -> None:
    done = run(tmp_path, "import pytest\ndef test_it(): pytest.exit('stop', returncode=7)\n", LOOMSTREAM_NO_SKIPS="1")
    assert done.returncode == 7, done.stdout
