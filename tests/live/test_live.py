"""The live suite against the providers themselves: `pytest -m live`; docs/how-to/live-tests.md."""

from __future__ import annotations

import pytest
from live_sites import live_sites
from live_suite import Site, Suite, choose_sites

pytestmark = [pytest.mark.live, pytest.mark.anyio, pytest.mark.timeout(180)]

SITES = live_sites()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    choose_sites(metafunc, {name: site.able for name, site in SITES.items()})


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough for what costs money; both see the same suite on loopback."""
    return "asyncio"


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    return SITES[request.param].site()


class TestLive(Suite):
    """Every provider of the table whose credentials are found."""
