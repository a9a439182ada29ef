"""A virtual clock: time limits and pauses are tested without waiting.

    @pytest.fixture(params=virtual_clock_backends())
    def anyio_backend(request): return request.param

Contract: where every task waits, time jumps to the next timer; real I/O that is ready comes first, but no thread is
waited for: a limit on its work may pass at once. On asyncio it is an event loop, on trio its own mock clock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class _JumpingSelector(selectors.DefaultSelector):
    """Where nothing is ready, time passes at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        self.now_s += max(timeout, 0.0)
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time passes only where every task waits for it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # asyncio's own: what is due so soon is due now. Its nanosecond vanishes in the times of a long virtual day,
        # and a timer that is due would then never ring.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Give the virtual time in seconds; it begins at 0."""
        return self._jumping.now_s


def virtual_clock_backends() -> list[tuple[str, Mapping[str, Any]]]:
    """Give what the `anyio_backend` fixture may return for a virtual clock: asyncio, and trio where installed."""
    backends: list[tuple[str, Mapping[str, Any]]] = [("asyncio", {"loop_factory": VirtualClockLoop})]
    try:
        from trio.testing import MockClock  # noqa: PLC0415 (trio is optional)
    except ImportError:
        return backends
    return [*backends, ("trio", {"clock": MockClock(autojump_threshold=0)})]
