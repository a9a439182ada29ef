"""What parent and child say to each other: one JSON line each way.

Contract: the parent writes `Settings` on the child's standard input and keeps it open; the child writes one `Ready`
or `Failed` on its standard output. The key travels here alone: never in an argument or an environment variable,
which other processes can read.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """How the child is to serve the model."""

    model_path: str
    model_name: str
    """The name under which the server lists the model."""
    api_key: str
    threads: int
    context_tokens: int
    """Per request; the server holds `context_tokens` times `parallel`."""
    parallel: int
    bundled: bool
    """The model is ours: use the sampling defaults that were chosen for it, and skip fitting it to the memory."""


class Ready(Struct, frozen=True, tag="ready"):
    """The server answers on 127.0.0.1 at this port."""

    port: int


class Failed(Struct, frozen=True, tag="failed"):
    """The server did not start: `import` (the runtime cannot be loaded) or `model` (the file cannot be served)."""

    what: Literal["import", "model"]
    detail: str


Report = Ready | Failed
"""The child's one answer."""
