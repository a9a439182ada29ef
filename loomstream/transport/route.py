"""How a request of our own client gets to its server.

Contract: a plain value that the lanes read; it opens nothing.
"""

from __future__ import annotations

import ssl

from msgspec import Struct

from loomstream.transport.faults import Peer
from loomstream.transport.proxies import Proxy, Target


class Route(Struct, frozen=True):
    """Where a request goes, through which proxy, and the TLS settings, None where nothing on the way needs them."""

    target: Target
    proxy: Proxy | None = None
    context: ssl.SSLContext | None = None

    @property
    def peer(self) -> Peer:
        """The two ends for messages."""
        return Peer(self.target.host, self.target.port, "" if self.proxy is None else self.proxy.url)
