"""How fast the simulator answers: the time to the first frame, the gaps, and how both scatter.

Contract: values and pure functions; the same seed and number of a request give the same times.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

from msgspec import Struct

from loomstream.numerals import is_number
from loomstream.testing.wires.answers import Sent

_TAIL = 1.6449
"""So many standard deviations above the median lies the 95th percentile of a normal distribution."""


class Pace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The latency of a simulated provider; the default is none at all.

    `first_s` passes before the first byte, headers included, `gap_s` before each further frame that adds content
    (0.02 s are 50 tokens a second). `jitter` scatters each gap and `spread` a whole request: each is the standard
    deviation of the time's natural logarithm, around the time as the median.
    """

    first_s: float = 0.0
    gap_s: float = 0.0
    jitter: float = 0.0
    spread: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                msg = f"Pace({name}={value!r}): give a number that is not negative"
                raise ValueError(msg)

    def waits(self, sent: Iterable[Sent], *, seed: int = 0, number: int = 0) -> list[float]:
        """Give the seconds before each frame, for the request of this number (from 0)."""
        scatter = random.Random(f"{seed}:{number}")  # noqa: S311 (no secret)
        whole = _scattered(scatter, 1.0, self.spread)
        waits: list[float] = []
        for position, frame in enumerate(sent):
            gap = _scattered(scatter, self.gap_s, self.jitter) if frame.is_delta else 0.0
            waits.append(whole * (self.first_s if position == 0 else gap))
        return waits


def _scattered(scatter: random.Random, median: float, deviation: float) -> float:
    return median * math.exp(scatter.gauss(0.0, deviation)) if deviation else median


def typical(p50_s: float, p95_s: float, *, tokens: int = 1000, first_share: float = 0.15) -> Pace:
    """Give the pace at which an answer of so many tokens takes these seconds, as median and 95th percentile."""
    return Pace(
        first_s=p50_s * first_share,
        gap_s=p50_s * (1 - first_share) / tokens,
        spread=math.log(p95_s / p50_s) / _TAIL,
    )


# Invented round figures: the middle of what the providers' guide of the first release called typical for 500 tokens in
# and 1,000 out. They make plots and time limits look like life; they say nothing about a provider.
TYPICAL: dict[str, Pace] = {
    "anthropic": typical(3, 7),
    "bedrock": typical(2.5, 6),
    "ollama": typical(1.5, 4),
    "openai": typical(3, 7),
    "azure-openai": typical(3, 7),
    "mistral": typical(3, 7),
    "gemini": typical(3, 7),
    "huggingface": typical(3.5, 8.5),
}
"""Paces by provider, for demonstrations and tests of time limits; no measurement."""
ANY = typical(3, 7)
"""The pace of a provider that `TYPICAL` does not name."""


def typical_pace(provider: str) -> Pace:
    """Give the made-up pace of a provider."""
    return TYPICAL.get(provider, ANY)
