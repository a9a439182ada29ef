"""`python -m benchmarks latency`: a marked row for each provider, in the guide's columns."""

from __future__ import annotations

import pytest

from benchmarks import latency
from benchmarks.__main__ import main
from loomstream.providers.table import TABLE


def test_every_row_of_the_table_is_there_and_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", "--quick"]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if "[simulated]" in line and line.startswith("|")]
    assert len(lines) == sum(not row.launch for row in TABLE)
    assert all("simulated, 2 answers" in line for line in lines), lines
    assert "| Provider | Typical Latency | P95 Latency |" in printed
    assert "looms bench adds" in printed
    assert "say nothing about a provider" in printed


def test_live_rows_are_those_with_a_key() -> None:
    assert latency.live({"MISTRAL_API_KEY": "x", "OPENAI_API_KEY": ""}) == ["mistral"]
