"""The benchmark of middleware runs and shows a row for each."""

from __future__ import annotations

import pytest

from benchmarks.middleware import main, rows


def test_each_middleware_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:22].strip() for line in lines[2 : 3 + len(rows())]] == ["(bare handler)", *rows()]
