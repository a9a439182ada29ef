"""Whether a call may run: asked of a function, or said beforehand by names.

Contract: what cannot be asked is refused when the run is made; what a function raises or gives wrongly comes out typed.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import cast

from loomstream.agent.state import Allow, Decision, Deny, Pause
from loomstream.errors import LoomstreamError, MiddlewareError, RequestError, UsageError
from loomstream.kind_names import kind_of
from loomstream.messages import ToolCall
from loomstream.tools.schema import words_of

Approve = Callable[[ToolCall], Decision | bool | Awaitable[Decision | bool]] | Collection[str]
"""A function that is asked before a call runs, or the names of the tools whose calls pause the run."""

_ALLOWED, _DENIED, _PAUSED = Allow(), Deny(), Pause()


class Approval:
    """What is done with calls. Raises `UsageError` for what cannot be asked, `RequestError` for a name of no tool."""

    def __init__(self, approve: Approve | None, names: Collection[str]) -> None:
        self._ask = approve if callable(approve) else None
        self._pausing = frozenset[str]() if approve is None or callable(approve) else _names(approve, names)

    def known(self, name: str) -> Decision | None:
        """Give the decision on calls of a tool, None where a function must be asked."""
        if self._ask is not None:
            return None
        return _PAUSED if name in self._pausing else _ALLOWED

    async def ask(self, call: ToolCall) -> Decision:
        """Ask the function. Raises `MiddlewareError` for what it raises, `UsageError` where it gives no decision."""
        ask = self._ask
        if ask is None:
            return _ALLOWED
        try:
            given = ask(call)
            decision: object = await cast("Awaitable[object]", given) if inspect.isawaitable(given) else given
        except LoomstreamError:
            raise
        except Exception as error:
            msg = f"approve raised {type(error).__name__} for a call of {call.name}: {words_of(error)}"
            raise MiddlewareError(msg) from error
        return _decision(call, decision)


def _decision(call: ToolCall, given: object) -> Decision:
    if isinstance(given, bool):
        return _ALLOWED if given else _DENIED
    if isinstance(given, Decision):
        return given
    msg = (
        f"approve gave {kind_of(given)} for a call of {call.name}: give a bool, Allow(), Deny(…), Answer(…) or Pause()"
    )
    raise UsageError(msg)


def _names(approve: object, names: Collection[str]) -> frozenset[str]:
    if isinstance(approve, str) or not isinstance(approve, Collection):
        msg = f"approve is {kind_of(approve)}: give a function, or a set of tool names"
        raise UsageError(msg)
    given = list(cast("Collection[object]", approve))
    if not all(isinstance(name, str) for name in given):
        msg = f"approve is {approve!r}: give a function, or a set of tool names"
        raise UsageError(msg)
    pausing = frozenset(cast("list[str]", given))
    unknown = sorted(map(repr, pausing.difference(names)))
    if unknown:
        msg = f"approve names {', '.join(unknown)}, which is no tool of the run; there are {', '.join(names) or 'none'}"
        raise RequestError(msg)
    return pausing
