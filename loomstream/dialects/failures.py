"""The failures that every translator ends in where the bytes break its protocol.

Contract: pure; knows no provider and no dialect.
"""

from __future__ import annotations

from loomstream.dialects import Target
from loomstream.errors import BadFrame, Failure, LoomstreamError
from loomstream.wire.json import quote


def broken(error: LoomstreamError, target: Target) -> Failure:
    """Give the failure, with what is known of the target."""
    error.provider, error.model = target.provider, target.model
    return Failure(error)


def bad_frame(what: str, data: bytes, target: Target) -> Failure:
    """Give the failure for a frame that breaks the protocol."""
    return broken(BadFrame(f"{target.provider}: {what}: {quote(data)}"), target)
