"""Shows on standard error what is sent: for who looks into a provider's wire, by a variable alone.

Contract: a `Transport` around another one, which changes nothing of what passes. A request is shown before it is sent:
its method and address, its headers and its body, and nothing that could drive a terminal. Credentials are masked as in
a recording, and with them whatever variables hold that are named as keys, tokens or secrets. Prompts are in it, for
that is what was asked for. `LOOM_DEBUG_BEDROCK=1` is the seed's variable, for which the seed system prints to standard
output; every provider has one (`LOOM_DEBUG_` and its name), and what is piped stays clean.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from loomstream.transport import ByteResponse, Transport
from loomstream.wire import WireRequest

_NO = frozenset(("", "0", "false", "no", "off"))


def variable_of(provider: str) -> str:
    """Give the variable that has a provider's requests shown.

    >>> variable_of("azure-openai")
    'LOOM_DEBUG_AZURE_OPENAI'
    """
    return "LOOM_DEBUG_" + re.sub(r"\W", "_", provider).upper()


def is_asked_for(provider: str, environ: Mapping[str, str]) -> bool:
    """Say whether a provider's requests are to be shown; 0, false, no and off say no."""
    return environ.get(variable_of(provider), "").strip().lower() not in _NO


class ShownTransport:
    """Shows each request of a provider on standard error, then hands it on to `transport`."""

    def __init__(self, transport: Transport, provider: str) -> None:
        self._transport = transport
        self._provider = provider

    def open(
        self, wire_request: WireRequest, *, connect_s: float | None = None
    ) -> AbstractAsyncContextManager[ByteResponse]:
        """See `Transport.open`."""
        _write(_shown(wire_request, variable_of(self._provider)))
        return self._transport.open(wire_request, connect_s=connect_s)

    async def prepare(self, url: str) -> None:
        """See `Transport.prepare`."""
        await self._transport.prepare(url)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await self._transport.aclose()


def _shown(asked: WireRequest, variable: str) -> str:
    from loomstream.transport.record import SECRET_HEADER, masked_request  # noqa: PLC0415 (only where it is asked for)

    known = [value.strip() for name, value in os.environ.items() if SECRET_HEADER.search(name)]
    request = masked_request(asked, known)
    lines = [f"{variable}: {request.method} {request.url}"]
    lines += [f"  {name}: {value}" for name, value in request.headers.items()]
    lines += [f"  {line}" for line in request.body.splitlines()]
    return "".join(f"{_printable(line)}\n" for line in lines)


def _printable(line: str) -> str:
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)


def _write(text: str) -> None:
    if sys.stderr is None:  # a program without a console has none
        return
    with contextlib.suppress(OSError, ValueError):  # it is closed, or nobody reads it: that stops no request
        sys.stderr.write(text)
        sys.stderr.flush()
