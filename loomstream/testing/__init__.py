"""Fakes for tests of code that uses loomstream: public, and what loomstream's own tests use.

    from loomstream.testing import scripted_model, text_events

    model = scripted_model(text_events("Hello"))

Contract: no network, no mocks, deterministic; runs on asyncio and trio. `check_order` holds any event stream to the
order law.
"""

from __future__ import annotations

from loomstream.testing.builders import text_events, tool_call_events
from loomstream.testing.order import OrderViolation, check_order
from loomstream.testing.replay import Recording, ReplayTransport, replay_model
from loomstream.testing.scripted import Pause, Script, scripted_model

__all__ = (
    "OrderViolation",
    "Pause",
    "Recording",
    "ReplayTransport",
    "Script",
    "check_order",
    "replay_model",
    "scripted_model",
    "text_events",
    "tool_call_events",
)
