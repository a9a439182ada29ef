"""Limits of a run, and the counts that they are held against.

Contract: plain values and pure functions. A limit on money or tokens that cannot be kept, because the provider sends no
usage or the price is not known, is an error and not passed over.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from loomstream.agent.events import EndReason
from loomstream.errors import BudgetExceeded, RequestError
from loomstream.events import Cost, Usage


class RunLimits(Struct, frozen=True, kw_only=True):
    """What a run may use; None is no limit. A run that reaches one ends with its name as the reason.

    - `turns`: answers of the model (default 50).
    - `calls`: calls of tools; those beyond it are not run, and the model is not asked again.
    - `tokens`: of all turns, in and out, those read from and written to a cache included.
    - `cost_usd`: US dollars, a `Decimal`, of all turns as far as they were billed.
    - `time_s`: seconds since the first event was asked for, time in which you do not read included; what is under way
      then is cancelled.

    Tokens and cost are looked at after each turn, and within one wherever the provider tells them; those of an answer
    that became void (`Notice("reset")`) count. A turn whose price is not known makes `cost_usd` impossible to keep:
    `BudgetExceeded` before the next one, whatever the others cost.

    Raises `RequestError` for a limit that is not above 0.
    """

    turns: int | None = 50
    calls: int | None = None
    tokens: int | None = None
    cost_usd: Decimal | None = None
    time_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value: object = getattr(self, name)
            kinds, words = _KINDS[name]
            # a comparison with NaN is false, and one with a signalling NaN an error
            usable = isinstance(value, kinds) and not isinstance(value, bool) and not _is_nan(value) and value > 0
            if value is not None and not usable:
                msg = f"RunLimits({name}={value!r}): give {words} above 0, or None for no limit"
                raise RequestError(msg)


_WHOLE = (int,), "a whole number"
_KINDS: dict[str, tuple[tuple[type[int | float | Decimal], ...], str]] = {
    "turns": _WHOLE,
    "calls": _WHOLE,
    "tokens": _WHOLE,
    "cost_usd": ((Decimal, int), "US dollars as a decimal.Decimal, as in Decimal('0.50'),"),
    "time_s": ((int, float), "seconds"),
}


def _is_nan(value: float | Decimal) -> bool:
    return value.is_nan() if isinstance(value, Decimal) else value != value  # noqa: PLR0124 (NaN alone is not itself)


class Reached(NamedTuple):
    """The limit that was reached, and words on it."""

    reason: EndReason
    detail: str


NOTHING = Cost(provider="", model="", amount_usd=Decimal(0), lower_usd=Decimal(0), upper_usd=Decimal(0), attempts=0)
"""What a run costs before it begins."""


class Tally(Struct, frozen=True, kw_only=True):
    """What a run has used so far. `usage` is None before any came; `unpriced` is the first model of unknown price."""

    turns: int = 0
    calls: int = 0
    usage: Usage | None = None
    cost: Cost = NOTHING
    time_s: float = 0.0
    unpriced: str = ""

    def plus(self, usage: Usage | None, cost: Cost) -> Tally:
        """Give the counts with those of one more answer."""
        unpriced = self.unpriced or (f"{cost.provider}:{cost.model}" if cost.amount_usd is None else "")
        return replace(self, usage=add_usage(self.usage, usage), cost=add_cost(self.cost, cost), unpriced=unpriced)

    @property
    def tokens(self) -> int:
        """All tokens."""
        used = self.usage
        if used is None:
            return 0
        return used.input_tokens + used.output_tokens + used.cache_read_tokens + used.cache_write_tokens


def add_usage(total: Usage | None, usage: Usage | None) -> Usage | None:
    """Give the sum of two usages."""
    if total is None or usage is None:
        return usage if total is None else total
    return Usage(
        input_tokens=total.input_tokens + usage.input_tokens,
        output_tokens=total.output_tokens + usage.output_tokens,
        cache_read_tokens=total.cache_read_tokens + usage.cache_read_tokens,
        cache_write_tokens=total.cache_write_tokens + usage.cache_write_tokens,
        cache_write_1h_tokens=total.cache_write_1h_tokens + usage.cache_write_1h_tokens,
        reasoning_tokens=total.reasoning_tokens + usage.reasoning_tokens,
        final=total.final and usage.final,
    )


def add_cost(total: Cost, cost: Cost) -> Cost:
    """Give the sum of two costs, None where one is not known; the second's provider and model stand for both."""
    return replace(
        cost,
        amount_usd=_sum(total.amount_usd, cost.amount_usd),
        lower_usd=_sum(total.lower_usd, cost.lower_usd),
        upper_usd=_sum(total.upper_usd, cost.upper_usd),
        exact=cost.exact and (total.exact or not total.attempts),
        attempts=total.attempts + cost.attempts,
    )


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other


def spent(limits: RunLimits, tally: Tally) -> Reached | None:
    """Give the limit on tokens or money that was reached."""
    if limits.tokens is not None and tally.tokens >= limits.tokens:
        return Reached("tokens", f"{tally.tokens} tokens were used; the limit is {limits.tokens}")
    amount = tally.cost.amount_usd
    if limits.cost_usd is not None and amount is not None and amount >= limits.cost_usd:
        return Reached("cost", f"{amount:f} USD were spent; the limit is {limits.cost_usd:f}")
    return None


def reached(limits: RunLimits, tally: Tally) -> Reached | None:
    """Give the limit that forbids another turn.

    Raises `BudgetExceeded` where a limit on tokens or money cannot be kept.
    """
    if limits.calls is not None and tally.calls > limits.calls:
        return Reached("calls", f"the model made {tally.calls} calls; the limit is {limits.calls}")
    if limits.turns is not None and tally.turns >= limits.turns:
        return Reached("turns", f"{tally.turns} turns were taken; the limit is {limits.turns}")
    if tally.turns:
        _check_known(limits, tally)
    return spent(limits, tally)


def _check_known(limits: RunLimits, tally: Tally) -> None:
    if limits.tokens is not None and tally.usage is None:
        msg = "RunLimits(tokens=…) cannot be kept: the provider sends no usage; limit turns or time_s"
        raise BudgetExceeded(msg)
    if limits.cost_usd is not None and tally.cost.amount_usd is None:
        named = tally.unpriced or f"{tally.cost.provider}:{tally.cost.model}"
        msg = f"RunLimits(cost_usd=…) cannot be kept: the price of {named} is not known; limit tokens"
        raise BudgetExceeded(msg)
