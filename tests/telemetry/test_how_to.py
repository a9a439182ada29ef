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
    first, *attributes = output(folder, "traced.py")
    assert first.startswith("chat gpt-4o, kind 3, status 0, ")
    told = dict(line.strip().split(": ", 1) for line in attributes)
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.usage.output_tokens"] == "6"
    assert (told["loomstream.outcome"], told["loomstream.cost_usd"]) == ("whole", "6.25e-05")
    assert not any("tide" in line or "What is in?" in line for line in attributes)


def test_hawk_gets_the_spans(folder: Path) -> None:
    first, *lines, last = output(folder, "told.py")
    assert first == "/v1/traces {"
    assert '  "llm.cost.usd": 6.25e-05,' in lines
    assert "metric.llm.tokens.output 6" in lines
    assert not any("tide" in line or "What is in?" in line for line in lines)
    assert last == "9 sent, 0 dropped"


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
