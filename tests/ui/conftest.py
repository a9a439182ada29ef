"""Every test of streams in `loomstream.ui` runs on a virtual clock, on both event loops."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loomstream.testing.clock import virtual_clock_backends

sys.path.insert(0, str(Path(__file__).parent))  # what the tests share stands beside them, and they are no package


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]
