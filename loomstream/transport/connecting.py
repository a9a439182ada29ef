"""How long connecting took, told to whoever asked in this task.

Contract: only a new connection says something, so that a request over a kept one does nothing for it. The time is that
of name look-up, TCP and TLS, and of a proxy's CONNECT on asyncio; not of waiting for one of `max_connections`. A client
of yours tells nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

_watcher: ContextVar[Callable[[float], object] | None] = ContextVar("loomstream.connecting", default=None)


@contextmanager
def connections_told_to(watcher: Callable[[float], object]) -> Generator[None]:
    """Have `watcher` called with the seconds of each connection, or TLS handshake, made for a request in this task."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def timed_connection() -> Generator[None]:
    """Tell how long the body took, if somebody asked and nothing failed."""
    watcher = _watcher.get()
    began_s = time.perf_counter()
    yield
    if watcher is not None:
        watcher(time.perf_counter() - began_s)
