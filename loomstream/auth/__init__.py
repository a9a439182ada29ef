"""Authentication schemes: from a credential to the headers of a wire request.

Contract: a scheme is an async function from a `WireRequest` and a `Secret` to a `WireRequest`; the
secret stays wrapped until the transport writes it. Schemes know no provider.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from loomstream.wire import Secret, WireRequest

Scheme = Callable[[WireRequest, Secret], Awaitable[WireRequest]]
"""Adds a credential to a wire request."""


def _with_header(wire_request: WireRequest, name: str, value: Secret) -> WireRequest:
    return msgspec.structs.replace(wire_request, headers={**wire_request.headers, name: value})


async def bearer(wire_request: WireRequest, secret: Secret) -> WireRequest:
    """Send the credential as `Authorization: Bearer …` (RFC 6750)."""
    return _with_header(wire_request, "authorization", Secret(f"Bearer {secret.reveal()}"))


async def x_api_key(wire_request: WireRequest, secret: Secret) -> WireRequest:
    """Send the credential as `x-api-key` (Anthropic)."""
    return _with_header(wire_request, "x-api-key", secret)


async def none(wire_request: WireRequest, secret: Secret) -> WireRequest:  # noqa: ARG001 (the scheme's signature)
    """Send no credential."""
    return wire_request


SCHEMES: dict[str, Scheme] = {"bearer": bearer, "x-api-key": x_api_key, "none": none}
"""The schemes that a provider's row may name."""
