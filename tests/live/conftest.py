"""Before each live test: are there credentials, and is there money left? One line of the summary for each provider."""

from __future__ import annotations

import pytest
from live_budget import LEDGER
from live_sites import live_sites


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip from here, not from a fixture: pytest then folds equal reasons into one line."""
    call = getattr(item, "callspec", None)
    if item.get_closest_marker("live") is None or call is None:
        return
    missing = live_sites()[call.params["site"]].missing()
    if missing:
        pytest.skip(missing)
    item.config.stash[LEDGER].stop_at_the_cap()
