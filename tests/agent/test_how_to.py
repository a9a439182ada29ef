"""The how-to's agent: at most 25 lines, and it runs as it stands there, on a scripted model in the place of yours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from quiet import QUIET

from loomstream import agent

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "agents.md"
SCRIPTED = """
from loomstream.testing import scripted_model, text_events, tool_call_events
from contextlib import nullcontext
import loomstream
loomstream.connect = lambda: nullcontext(
    scripted_model(
        tool_call_events("get_weather", '{"city": "Oslo"}'),
        tool_call_events("to_fahrenheit", '{"celsius": 4}'),
        text_events("It is ", "39 °F."),
    )
)
"""


def test_the_program_runs() -> None:
    found = re.search(r"```python\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    assert found
    assert len([line for line in found[1].splitlines() if line.strip()]) <= 25
    command = [sys.executable, "-X", "utf8", "-c", SCRIPTED + found[1]]
    done = subprocess.run(command, env=QUIET, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("It is 39 °F.", "", 0)


def test_every_outcome_and_every_end_is_told() -> None:
    page = HOW_TO.read_text("utf-8")
    for word in (*get_args(agent.Outcome), *get_args(agent.EndReason)):
        assert f"`{word}`" in page, word
