"""Timeout: states time limits in the request; the stream's Watch enforces them where bytes are awaited.

Contract: costs nothing while events flow. A limit that the request sets itself wins over the middleware's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Literal

import msgspec

from loomstream.events import Event
from loomstream.handler import Handler, Middleware
from loomstream.messages import Request, Timeouts

Default = Literal["default"]
_UNSET = Timeouts()


def timeout(
    *,
    connect_s: float | Default | None = "default",
    first_event_s: float | Default | None = "default",
    idle_s: float | Default | None = "default",
    whole_s: float | Default | None = "default",
    total_s: float | Default | None = "default",
) -> Middleware:
    """Give the middleware that states these limits, in seconds; None switches one off.

    What each of them means, and its default, is in `loomstream.messages.Timeouts`. `total_s` is that of each attempt:
    where a retry is outermost, its waits count against the request's own `total_s` alone.

    Raises `RequestError` for a limit that is not above 0.
    """
    given = {
        "connect_s": connect_s,
        "first_event_s": first_event_s,
        "idle_s": idle_s,
        "whole_s": whole_s,
        "total_s": total_s,
    }
    stated = {name: limit_s for name, limit_s in given.items() if limit_s != "default"}
    msgspec.structs.replace(_UNSET, **stated)  # refuses what is no limit

    def wrap(handler: Handler) -> Handler:
        def limited(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return handler(msgspec.structs.replace(request, timeouts=_stated(request.timeouts, stated)))

        return limited if stated else handler

    return wrap


def _stated(own: Timeouts, stated: dict[str, float | None]) -> Timeouts:
    """Give the request's limits, with the stated ones in the place of those that it left at their defaults."""
    taken = {name: limit_s for name, limit_s in stated.items() if getattr(own, name) == getattr(_UNSET, name)}
    return msgspec.structs.replace(own, **taken)
