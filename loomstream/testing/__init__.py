"""Fakes for tests of code that uses loomstream: public, and what loomstream's own tests use.

    from loomstream.testing import scripted_model, text_events

    model = scripted_model(text_events("Hello"))

Contract: no network, no mocks, deterministic; runs on asyncio and trio. `check_order` holds any event stream to the
order law, `conformance` a provider to everything that loomstream promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loomstream.lazy import lazy

if TYPE_CHECKING:
    from loomstream.testing.builders import text_events, tool_call_events
    from loomstream.testing.checks import ConformanceFailure, ConformanceReport, conformance
    from loomstream.testing.order import OrderViolation, check_order
    from loomstream.testing.replay import Recording, ReplayTransport, replay_model
    from loomstream.testing.scripted import Pause, Script, scripted_model

_HOMES = {
    "builders": ("text_events", "tool_call_events"),
    "checks": ("ConformanceFailure", "ConformanceReport", "conformance"),
    "order": ("OrderViolation", "check_order"),
    "replay": ("Recording", "ReplayTransport", "replay_model"),
    "scripted": ("Pause", "Script", "scripted_model"),
}

__all__ = (
    "ConformanceFailure",
    "ConformanceReport",
    "OrderViolation",
    "Pause",
    "Recording",
    "ReplayTransport",
    "Script",
    "check_order",
    "conformance",
    "replay_model",
    "scripted_model",
    "text_events",
    "tool_call_events",
)

if not TYPE_CHECKING:  # a checker would take any misspelt name for an object
    # Loaded on first use: the pytest plugin lives here, and is loaded by every session of its users.
    __getattr__ = lazy(globals(), _HOMES)
