"""Circuit breaker: a provider that fails again and again is left alone for a while.

Contract: only what the provider did counts (`FAULTS`): not a refused key or request, not a consumer that leaves, not a
limit of yours. While the circuit is open every call fails at once with `CircuitOpen`, which failover and balance take
as any other failure. Then some calls are let through as probes: the first one that ends well closes the circuit, one
that fails opens it again; where one takes longer than the circuit was open, others go beside it. The state is shared by
all calls of one middleware; nothing runs in the background.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal

import anyio

from loomstream.errors import (
    CircuitOpen,
    ConfigError,
    ConnectTimeout,
    FirstEventTimeout,
    IdleTimeout,
    LoomstreamError,
    Overloaded,
    ServerFault,
    StreamTruncated,
    TransportError,
    WireError,
)
from loomstream.events import Event, Stop
from loomstream.handler import Handler, Middleware, NextBatch
from loomstream.messages import Request
from loomstream.middleware.layer import Layer
from loomstream.numerals import is_number, is_whole

FAULTS: tuple[type[LoomstreamError], ...] = (
    Overloaded,
    ServerFault,
    TransportError,
    ConnectTimeout,
    FirstEventTimeout,
    IdleTimeout,
    WireError,
    StreamTruncated,
)
"""What counts as a failure of the provider."""

State = Literal["closed", "open", "half_open"]


class Circuit:
    """The state of a circuit; share one among the middleware of models that fail together.

    It opens after `failures` faults within `window_s` seconds, stays open for `open_s`, and then lets `probes` calls
    through at a time. `clock` gives seconds that never go back (default: the event loop's). Raises `ConfigError` for a
    value that is not above 0.
    """

    def __init__(
        self,
        failures: int = 5,
        *,
        window_s: float = 60.0,
        open_s: float = 30.0,
        probes: int = 1,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        for name, value in {"failures": failures, "probes": probes}.items():
            if not (is_whole(value) and value > 0):
                msg = f"Circuit({name}={value!r}): give a whole number above 0"
                raise ConfigError(msg)
        for name, value in {"window_s": window_s, "open_s": open_s}.items():
            if not (is_number(value) and value > 0):
                msg = f"Circuit({name}={value!r}): give a number of seconds above 0"
                raise ConfigError(msg)
        self._failures = failures
        self._window_s = window_s
        self._open_s = open_s
        self._most_probes = probes
        self._faults_s: deque[float] = deque(maxlen=failures)
        self._opened_s: float | None = None
        self._probing = 0
        self._probed_s = 0.0
        """When the last probe began."""
        self._clock = clock

    @property
    def state(self) -> State:
        """`closed`: calls pass; `open`: they fail at once; `half_open`: a few of them pass."""
        if self._opened_s is None:
            return "closed"
        return "open" if self._clock() < self._opened_s + self._open_s else "half_open"

    def enter(self) -> bool:
        """Let a call through, and say whether it is a probe. Raises `CircuitOpen`."""
        if self._opened_s is None:
            return False
        now_s = self._clock()
        left_s = self._opened_s + self._open_s - now_s
        # a probe may be read slowly, or not at all: that says nothing of the provider, so it is not waited for long
        awaited = self._probing >= self._most_probes and now_s < self._probed_s + self._open_s
        if left_s > 0 or awaited:
            raise _refused(left_s, self._failures)
        self._probing += 1
        self._probed_s = now_s
        return True

    def leave(self, *, probe: bool, ended: Literal["well", "fault", "neither"]) -> None:
        """Take note of how a call ended."""
        if probe:
            self._probing -= 1
        if ended == "fault":
            self._fault(probe=probe and self._opened_s is not None)  # one that others have overtaken decides nothing
        elif ended == "well" and (probe or self._opened_s is None):
            self._opened_s = None
            if probe:
                self._faults_s.clear()

    def _fault(self, *, probe: bool) -> None:
        now_s = self._clock()
        self._faults_s.append(now_s)
        recent = len(self._faults_s) == self._failures and now_s - self._faults_s[0] <= self._window_s
        if probe or (self._opened_s is None and recent):
            self._opened_s = now_s


def _refused(left_s: float, failures: int) -> CircuitOpen:
    if left_s > 0:
        msg = f"the circuit is open after {failures} failures: not sent; it is tried again in {left_s:.3g} s"
        return CircuitOpen(msg, retry_after_s=left_s)
    return CircuitOpen("the circuit is half open and its probe is on the way: not sent", retry_after_s=1.0)


def circuit_breaker(circuit: Circuit | None = None) -> Middleware:
    """Give the middleware that guards a handler by a circuit (default: one of its own). Raises `ConfigError`."""
    if not isinstance(circuit, Circuit | None):  # pyright: ignore[reportUnnecessaryIsInstance] (no types)
        msg = f"circuit_breaker(circuit={circuit!r}): give a Circuit, as in circuit_breaker(Circuit(failures=5))"
        raise ConfigError(msg)
    guard = circuit or Circuit()

    def wrap(handler: Handler) -> Handler:
        def guarded(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            return _Guarded(guard, handler, request)

        return guarded

    return wrap


class _Guarded(Layer):
    """One call."""

    __slots__ = ("_circuit", "_entered", "_probe", "_whole")

    def __init__(self, circuit: Circuit, handler: Handler, request: Request) -> None:
        super().__init__(handler, request)
        self._circuit = circuit
        self._entered = False
        self._probe = False
        self._whole = False

    async def next_batch(self) -> list[Event]:
        try:
            events = await (self.inner or await self._open())()
        except StopAsyncIteration:
            self._ended("well" if self._whole else "fault")
            raise
        except FAULTS:
            self._ended("fault")
            raise
        self._whole = self._whole or events[-1].__class__ is Stop
        return events

    async def _open(self) -> NextBatch:
        if not self._entered:
            self._probe = self._circuit.enter()
            self._entered = True
        return await self.open_inner()

    async def released(self) -> None:
        self._ended("well" if self._whole else "neither")

    def _ended(self, ended: Literal["well", "fault", "neither"]) -> None:
        if self._entered:
            self._entered = False
            self._circuit.leave(probe=self._probe, ended=ended)
