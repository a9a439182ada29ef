import os
import subprocess
import sys

import pytest

from loomstream.cli.progress import FetchProgress


def test_without_a_terminal_it_says_once_what_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    with FetchProgress() as progress:
        for done in (0, 50_000_000, 93_000_000):
            progress(done, 93_000_000)
    assert capsys.readouterr().err == "fetching the embedded model (93 MB), once\n"


def test_nothing_is_said_where_nothing_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    with FetchProgress():
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has no pseudo-terminals")
def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    program = (
        "from loomstream.cli.progress import FetchProgress\n"
        "try:\n    with FetchProgress() as show:\n        show(1, 2_000_000)\n        raise KeyboardInterrupt\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
    )
    ours, theirs = os.openpty()
    env = os.environ | {"TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", program], stderr=theirs, stdout=subprocess.PIPE, env=env, check=True)
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    assert "fetching the embedded model" in seen
    assert "\x1b[?25h" in seen  # the cursor is shown again
    assert done.stdout == b"interrupted\n"
