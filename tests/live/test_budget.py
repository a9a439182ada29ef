"""What the live tests may spend."""

from __future__ import annotations

from decimal import Decimal

import pytest
from live_budget import Ledger, _usd

from loomstream.events import Cost


def cost(amount: str | None, upper: str | None = None) -> Cost:
    return Cost(
        provider="p",
        model="m",
        amount_usd=None if amount is None else Decimal(amount),
        upper_usd=None if upper is None else Decimal(upper),
    )


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Decimal("0.05"), Decimal("0.01"))


CHARGED = {
    "a known price": (cost("0.002", "0.002"), "0.002", 0),
    "what a broken answer may have cost": (cost("0.002", "0.03"), "0.03", 0),
    "free": (cost("0", "0"), "0", 0),
    "an unknown price": (cost(None), "0.01", 1),
    "no upper bound": (cost("0.002"), "0.01", 1),
    "no upper bound, and more than the estimate": (cost("0.04"), "0.04", 1),
}


@pytest.mark.parametrize("case", CHARGED)
def test_an_answer_is_charged_with_the_most_it_may_have_cost(ledger: Ledger, case: str) -> None:
    charged, spent, unknown = CHARGED[case]
    ledger.charge(charged)
    assert (ledger.spent_usd, ledger.unknown, ledger.answers) == (Decimal(spent), unknown, 1)


def test_the_cap_skips_and_says_so(ledger: Ledger) -> None:
    ledger.charge(cost("0.04", "0.04"))
    ledger.stop_at_the_cap()
    ledger.charge(cost(None))
    words = r"cap is reached; 0\.05 of 0\.05 USD counted for 2 answers, 1 of unknown price as 0\.01 each.*max-cost-usd"
    with pytest.raises(pytest.skip.Exception, match=words):
        ledger.stop_at_the_cap()


def test_no_money_is_no_answer() -> None:
    with pytest.raises(pytest.skip.Exception):
        Ledger(Decimal(0), Decimal(0)).stop_at_the_cap()


@pytest.mark.parametrize("text", ["", "a lot", "NaN", "Infinity", "-1"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(pytest.UsageError, match="no amount of US dollars"):
        _usd(text)
