"""Fakes for tests of code that uses loomstream: public, and what loomstream's own tests use.

    from loomstream.testing import scripted_model, text_events

    model = scripted_model(text_events("Hello"))

Contract: no network, no mocks, deterministic; runs on asyncio and trio. `check_order` holds any event stream to the
order law, `conformance` a provider to everything that loomstream promises.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loomstream.testing.builders import text_events, tool_call_events
    from loomstream.testing.checks import ConformanceFailure, ConformanceReport, conformance
    from loomstream.testing.order import OrderViolation, check_order
    from loomstream.testing.replay import Recording, ReplayTransport, replay_model
    from loomstream.testing.scripted import Pause, Script, scripted_model

_HOME_OF = {
    "ConformanceFailure": "checks",
    "ConformanceReport": "checks",
    "OrderViolation": "order",
    "Pause": "scripted",
    "Recording": "replay",
    "ReplayTransport": "replay",
    "Script": "scripted",
    "check_order": "order",
    "conformance": "checks",
    "replay_model": "replay",
    "scripted_model": "scripted",
    "text_events": "builders",
    "tool_call_events": "builders",
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


def __getattr__(name: str) -> object:
    """Load a name on first use: the pytest plugin lives here, and is loaded by every session of its users."""
    module = _HOME_OF.get(name)
    if module is None:
        msg = f"module 'loomstream.testing' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"loomstream.testing.{module}"), name)
    globals()[name] = value
    return value
