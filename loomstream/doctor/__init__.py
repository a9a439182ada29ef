"""Finds out what keeps a model from answering on this machine, and says what to do about each thing.

Contract: a `Finding` names what was looked at, how it is, and the step that mends it; no key is in it. Nothing that a
provider bills is sent unless `live` says so, nothing at all where `offline` does. A check that fails is a finding,
never an error.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Status = Literal["ok", "warning", "problem", "skipped"]
"""How something is: `problem` keeps a model from answering, `warning` may."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at: its name, how it is, in words, and what to do (empty where nothing)."""

    name: str
    status: Status
    said: str
    fix: str = ""
