"""Ledger: what calls have cost in all, by tag, provider and model; and what one of them is counted as.

Contract: exact sums of `Decimal`s. Each call, or attempt, adds its bounds; where a bound is not known the sum has none.
Adding waits for nothing, so that one ledger serves all streams of a thread. It knows no price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Context, Decimal
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from loomstream.events import Cost, Usage

_ZERO = Decimal(0)
_EXACT = Context(prec=100)


class Totals(Struct, frozen=True, kw_only=True):
    """Sums over some calls.

    `amount_usd` is the sum of what is known; `unknown` of the `calls` had a price that is not. The bill is between
    `lower_usd` and `upper_usd`, which is None where it has no bound that is known. `exact` where all calls' costs were.
    """

    calls: int = 0
    unknown: int = 0
    amount_usd: Decimal = _ZERO
    lower_usd: Decimal = _ZERO
    upper_usd: Decimal | None = _ZERO
    exact: bool = True
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def plus(self, cost: Cost, usage: Usage | None) -> Totals:
        """Give the sums with another call's."""
        upper = None if self.upper_usd is None or cost.upper_usd is None else _EXACT.add(self.upper_usd, cost.upper_usd)
        counted = usage or _NO_USAGE
        return replace(
            self,
            calls=self.calls + 1,
            unknown=self.unknown + (cost.amount_usd is None),
            amount_usd=_EXACT.add(self.amount_usd, cost.amount_usd or _ZERO),
            lower_usd=_EXACT.add(self.lower_usd, cost.lower_usd or _ZERO),
            upper_usd=upper,
            exact=self.exact and cost.exact,
            **{name: getattr(self, name) + getattr(counted, name) for name in _COUNTS},
        )

    def joined(self, other: Totals) -> Totals:
        """Give the sums of both."""
        both = (
            None if self.upper_usd is None or other.upper_usd is None else _EXACT.add(self.upper_usd, other.upper_usd)
        )
        return Totals(
            calls=self.calls + other.calls,
            unknown=self.unknown + other.unknown,
            amount_usd=_EXACT.add(self.amount_usd, other.amount_usd),
            lower_usd=_EXACT.add(self.lower_usd, other.lower_usd),
            upper_usd=both,
            exact=self.exact and other.exact,
            **{name: getattr(self, name) + getattr(other, name) for name in _COUNTS},
        )


_NO_USAGE = Usage()
_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_NOTHING = Totals()


class Line(NamedTuple):
    """What the sums of a ledger are kept by."""

    tag: str
    provider: str
    model: str


class Ledger:
    """Sums of costs; pass it to `cost`, which adds each stream at its end, however that came."""

    def __init__(self) -> None:
        self._lines: dict[Line, Totals] = {}

    def add(self, cost: Cost, usage: Usage | None = None, *, tag: str = "") -> None:
        """Add what a call cost."""
        line = Line(tag, cost.provider, cost.model)
        self._lines[line] = self._lines.get(line, _NOTHING).plus(cost, usage)

    @property
    def lines(self) -> Mapping[Line, Totals]:
        """The sums by tag, provider and model together."""
        return MappingProxyType(self._lines)

    @property
    def total(self) -> Totals:
        """The sums over everything."""
        return _sum(self._lines.values())

    def by_tag(self) -> dict[str, Totals]:
        """Give the sums of each tag."""
        return self._by(lambda line: line.tag)

    def by_provider(self) -> dict[str, Totals]:
        """Give the sums of each provider."""
        return self._by(lambda line: line.provider)

    def by_model(self) -> dict[str, Totals]:
        """Give the sums of each model, as `provider:model`."""
        return self._by(lambda line: f"{line.provider}:{line.model}")

    def _by(self, name_of: Callable[[Line], str]) -> dict[str, Totals]:
        sums: dict[str, Totals] = {}
        for line, totals in self._lines.items():
            name = name_of(line)
            sums[name] = sums.get(name, _NOTHING).joined(totals)
        return sums


def _sum(many: Iterable[Totals]) -> Totals:
    total = _NOTHING
    for totals in many:
        total = total.joined(totals)
    return total
