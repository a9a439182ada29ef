"""How a request of our own gets to its server, and what leaves.

Contract: plain values that the lanes read; they open nothing. Only here and in the lanes are secrets revealed, so that
no representation shows a header or a body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from loomstream.transport.faults import Peer
from loomstream.transport.proxies import Proxy

if TYPE_CHECKING:
    import ssl

RECONNECTED = "the connection that was kept had died before the answer began: the request was sent again over a new one"
"""What a notice says of it."""


class Route(Struct, frozen=True):
    """To whom, through which proxy, and the TLS settings, None where nothing on the way needs them."""

    peer: Peer
    proxy: Proxy | None = None
    context: ssl.SSLContext | None = None


class Outgoing(Struct, frozen=True):
    """A request as it goes to the wire; `connect_s` bounds connecting, in seconds, None for no limit."""

    method: str
    url: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    connect_s: float | None
    route: Route

    def __repr__(self) -> str:
        return f"<Outgoing to {self.route.peer.place}>"
