"""The programs of the pages on telemetry and on the audit log run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from quiet import QUIET

from loomstream.telemetry.audit_log import lines_of
from loomstream.telemetry.records import Reading

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGES = "".join((HOW_TO / name).read_text("utf-8") for name in ("middleware.md", "telemetry.md", "audit-log.md"))
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGES, re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def output(folder: Path, name: str) -> list[str]:
    command = [sys.executable, name]
    done = subprocess.run(command, cwd=folder, env=QUIET, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_collector_gets_the_span(folder: Path) -> None:
    lines = output(folder, "traced.py")
    assert lines[0] == "chat demo"
    assert '   gen_ai.provider.name string_value: "openai-compatible"' in lines
    assert '   loomstream.outcome string_value: "whole"' in lines


def test_hawk_gets_the_spans(folder: Path) -> None:
    first, *_, last = output(folder, "told.py")
    assert first == "/v1/traces {"
    assert last == "5 sent, 0 dropped"


def test_the_log_is_kept_and_read_again(folder: Path) -> None:
    assert output(folder, "audited.py") == []
    records = list(Reading(lines_of(folder / "calls.jsonl")))
    assert [(record.who, record.tag, record.outcome) for record in records] == [
        ("ann", "red", "whole"),
        ("bob", "blue", "whole"),
        ("bob", "red", "whole"),
        ("eve", "", "abandoned"),
    ]
    assert len(output(folder, "read_again.py")) == 4
