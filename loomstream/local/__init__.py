"""The embedded model: a real model on this machine, in a child process, that needs no key.

Contract: `launch` gives a base URL and a key; whoever launched a server closes it. Only `LoomstreamError`s come
out. This package knows no Model and no provider's row, and talks to nothing but the child's pipes: requests go
over HTTP through the ordinary pipeline. Names are loaded on first use, so that the child starts without anyio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loomstream.lazy import lazy

if TYPE_CHECKING:
    from loomstream.local.fetch import fetch_model
    from loomstream.local.model_file import SMOLLM2, ModelSource, cached_model
    from loomstream.local.process import LocalServer, launch

__all__ = ["DEMO_PROMPT", "SMOLLM2", "LocalServer", "ModelSource", "cached_model", "fetch_model", "launch"]

DEMO_PROMPT = "Write a four-line poem about a river."
"""A prompt that SmolLM2-135M answers well at the server's own sampling: of thirteen tried, the one whose answers were
on the subject, whole and free of loops at every seed; 40 to 75 tokens, one to two seconds on one core."""

_HOMES = {
    "fetch": ("fetch_model",),
    "model_file": ("SMOLLM2", "ModelSource", "cached_model"),
    "process": ("LocalServer", "launch"),
}

if not TYPE_CHECKING:  # a checker would take any misspelt name for an object
    __getattr__ = lazy(globals(), _HOMES)
