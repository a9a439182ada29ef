"""The time that a test has taken, on whichever clock its event loop has."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest


@pytest.fixture
async def passed_s() -> Callable[[], float]:
    """Seconds since the test began, to the microsecond."""
    began_s = anyio.current_time()
    return lambda: round(anyio.current_time() - began_s, 6)
