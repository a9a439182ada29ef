"""The pytest plugin of the live tests: they run only where `-m` names them, and stop at a sum of money.

    pytest -m live --max-cost-usd 0.50

Contract: each answer is charged with the most that it may have cost; where no price is known, with
`--unknown-cost-usd`. Once the cap is reached no further answer is asked for: the tests that remain are skipped and say
why. An answer that is under way is not broken off, so the last one may go beyond the cap.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

import pytest

from loomstream.events import Cost

pytest.register_assert_rewrite("live_suite")

MARKER = "live"
LEDGER = pytest.StashKey["Ledger"]()


class Ledger:
    """What the answers of a session cost so far, in US dollars, and how much they may."""

    def __init__(self, cap_usd: Decimal, unknown_usd: Decimal) -> None:
        self.cap_usd = cap_usd
        self.unknown_usd = unknown_usd
        self.spent_usd = Decimal(0)
        self.answers = 0
        self.unknown = 0

    def charge(self, cost: Cost) -> None:
        """Count an answer, whole or broken, with the most that it may have cost."""
        self.answers += 1
        if cost.upper_usd is not None:
            self.spent_usd += cost.upper_usd
            return
        self.unknown += 1
        self.spent_usd += max(self.unknown_usd, cost.amount_usd or Decimal(0))

    def stop_at_the_cap(self) -> None:
        """Skip the test where the cap is reached."""
        if self.spent_usd >= self.cap_usd:
            pytest.skip(f"NOT TESTED: the cap is reached; {self}; to test it: --max-cost-usd")

    def __str__(self) -> str:
        guessed = f", {self.unknown} of unknown price as {self.unknown_usd} each" if self.unknown else ""
        return f"{self.spent_usd.normalize():f} of {self.cap_usd} USD counted for {self.answers} answers{guessed}"


def _usd(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        msg = f"{text!r} is no amount of US dollars: write it as 0.50"
        raise pytest.UsageError(msg) from None
    if not amount.is_finite() or amount < 0:
        msg = f"{text!r} is no amount of US dollars: it must be 0 or more"
        raise pytest.UsageError(msg)
    return amount


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("live", "tests that ask real providers (-m live)")
    group.addoption(
        "--max-cost-usd", type=_usd, default=Decimal("0.50"), help="stop when this much is spent (default: 0.50)"
    )
    group.addoption(
        "--unknown-cost-usd",
        type=_usd,
        default=Decimal("0.01"),
        help="what an answer of unknown price counts as (default: 0.01)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger(config.option.max_cost_usd, config.option.unknown_cost_usd)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Nothing that costs money runs unless it is named: not by a path, and not by `-m 'not peer'`."""
    if MARKER in re.findall(r"\w+", config.option.markexpr):
        return
    live = [item for item in items if item.get_closest_marker(MARKER)]
    if live:
        config.hook.pytest_deselected(items=live)
        items[:] = [item for item in items if not item.get_closest_marker(MARKER)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ledger = config.stash[LEDGER]
    if ledger.answers:
        terminalreporter.section("the cost of the live tests")
        terminalreporter.write_line(str(ledger))


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """Give what the session may spend and has spent."""
    return request.config.stash[LEDGER]
