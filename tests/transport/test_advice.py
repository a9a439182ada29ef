"""The words about a time limit that passed."""

from __future__ import annotations

import pytest

from loomstream.transport.advice import longer


@pytest.mark.parametrize(
    ("limit_s", "value"), [(60, "120"), (120, "240"), (7, "14"), (0.5, "1"), (17, "60"), (600, "1200")]
)
def test_a_value_to_try(limit_s: float, value: str) -> None:
    assert longer("idle_s", limit_s) == (
        f"set timeout_seconds: {value} under llm: in looms.yaml, or pass timeouts=Timeouts(idle_s={value})"
    )
