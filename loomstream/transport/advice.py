"""What to do about a time limit that passed: the key that sets it, and a value to try.

Contract: words only, the same for each place that enforces a limit.
"""

from __future__ import annotations

import math

_ROUND_S = 30


def longer(name: str, limit_s: float) -> str:
    """Give how to raise a limit of `Timeouts`, as the end of a sentence: twice as much, in round seconds."""
    twice_s = limit_s * 2
    value = f"{math.ceil(twice_s / _ROUND_S) * _ROUND_S if twice_s > _ROUND_S else twice_s:g}"
    return f"set timeout_seconds: {value} under llm: in looms.yaml, or pass timeouts=Timeouts({name}={value})"
