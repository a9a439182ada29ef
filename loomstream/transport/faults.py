"""What an HTTP client raised, in our words.

Contract: `translate` maps any exception of httpx, httpcore, httpx2 or aiohttp by the phase in which it came, by class
*names* where phase is not enough (httpx2 is never imported), and by the system's errors in its chain. The result
has no cause and quotes no exception text but the system's: the originals carry the request, and with it the key.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Literal, cast

from msgspec import Struct

from loomstream.errors import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstEventTimeout,
    IdleTimeout,
    LimitExceeded,
    LoomstreamError,
    TLSFailed,
    UsageError,
)

Phase = Literal["connect", "headers", "body"]
"""`headers` may include connecting, where a client does not say which of the two it was doing."""

_CONNECT_TIMEOUTS = frozenset({"ConnectTimeout", "ConnectionTimeoutError", "PoolTimeout"})
_OTHER_TIMEOUTS = frozenset({"ReadTimeout", "WriteTimeout"})
_PROXY_REFUSED = frozenset({"ProxyError", "ClientHttpProxyError"})
_CONNECT_ERRORS = frozenset({"ConnectError", "ClientConnectorError"}) | _PROXY_REFUSED
_BAD_URLS = frozenset({"UnsupportedProtocol", "InvalidURL"})
_TLS_CUT = frozenset({"SSLEOFError", "SSLZeroReturnError"})
_KNOWN = frozenset(
    {
        *("TransportError", "NetworkError", "ProtocolError", "TimeoutException"),  # httpx, httpcore, h11
        *("ClientError", "HttpProcessingError"),  # aiohttp
        *("BrokenResourceError", "ClosedResourceError", "EndOfStream"),  # anyio, trio
        "OSError",
    }
)
"""What clients raise for the network's faults; the class of anything else is named, for it may be a fault of ours."""
_MAX_CHAIN = 20
_HEADERS_TOO_LARGE = 431

_CERTIFICATE_HINTS = {
    9: "check the clock of this machine",
    10: "the server's certificate must be renewed; check the clock of this machine too",
    18: "if you trust this authority, pass ca_bundle= or set SSL_CERT_FILE",
    19: "if you trust this authority, pass ca_bundle= or set SSL_CERT_FILE",
    20: "if you trust this authority, pass ca_bundle= or set SSL_CERT_FILE",
    21: "if you trust this authority, pass ca_bundle= or set SSL_CERT_FILE",
    62: "the base URL must name the host that the certificate was issued for",
    64: "the base URL must name the host that the certificate was issued for",
}
"""By OpenSSL's X509_V_ERR_* code."""


class Peer(Struct, frozen=True):
    """Whom we talk to; `proxy` is its URL without credentials, or empty."""

    host: str
    port: int
    proxy: str = ""

    @property
    def place(self) -> str:
        """The origin for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def first_hop(self) -> str:
        """What a connection is made to."""
        return f"the proxy {self.proxy}" if self.proxy else self.place


def translate(error: Exception, phase: Phase, peer: Peer) -> LoomstreamError:
    """Give the `LoomstreamError` for what a client raised; see the module's contract."""
    if isinstance(error, LoomstreamError):
        return error
    chain = tuple(_chain(error))
    names = _names(error)
    if names & _BAD_URLS:
        return ConfigError(f"the URL of {peer.place} cannot be used: check the base URL")
    timed_out = _timed_out(names, phase, error)
    if timed_out is not None:
        return timed_out(_TIMEOUT_MESSAGES[timed_out].format(peer=peer))
    if phase != "body":
        refused = _before_answer(chain, names, phase, peer)
        if refused is not None:
            return refused
    if _is_closed_client(error):
        return UsageError("the client that was passed as client= is closed: open a new one")
    return ConnectionLost(_LOST_MESSAGES[phase].format(peer=peer, why=_why(chain)))


_TIMEOUT_MESSAGES: dict[type[LoomstreamError], str] = {
    ConnectTimeout: "no connection to {peer.first_hop} within the limit: raise timeouts=Timeouts(connect_s=…)",
    FirstEventTimeout: "no answer from {peer.place} within your HTTP client's own read time-out",
    IdleTimeout: "no further bytes from {peer.place} within your HTTP client's own read time-out",
}

_LOST_MESSAGES: dict[Phase, str] = {
    "connect": "the connection to {peer.first_hop} broke before the request was sent{why}",
    "headers": "{peer.place} ended the connection or answered with something that is not HTTP{why}",
    "body": "the connection to {peer.place} was cut before the answer was whole{why}",
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give the error and what it came from, groups included, at most `_MAX_CHAIN` of them."""
    pending: list[BaseException] = [error]
    for _ in range(_MAX_CHAIN):
        if not pending:
            return
        current = pending.pop(0)
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(cast("BaseExceptionGroup[BaseException]", current).exceptions)
        origin = current.__cause__ or current.__context__
        if origin is not None:
            pending.append(origin)


def _names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _timed_out(names: set[str], phase: Phase, error: Exception) -> type[LoomstreamError] | None:
    if names & _CONNECT_TIMEOUTS:
        return ConnectTimeout
    if names & _OTHER_TIMEOUTS:
        return IdleTimeout if phase == "body" else FirstEventTimeout
    if phase == "connect" and isinstance(error, TimeoutError) and error.errno is None:
        return ConnectTimeout
    return None


def _before_answer(
    chain: tuple[BaseException, ...], names: set[str], phase: Phase, peer: Peer
) -> LoomstreamError | None:
    tls = next((error for error in reversed(chain) if "SSLError" in _names(error)), None)  # aiohttp's wrapper says less
    if tls is not None and not _names(tls) & _TLS_CUT:
        return TLSFailed(f"TLS to {peer.place} failed: {_tls_reason(tls)}")
    if any(_is_header_bomb(error) for error in chain):
        return LimitExceeded(f"the headers of the answer from {peer.place} are too large")
    if phase == "connect" or names & _CONNECT_ERRORS:
        return _not_connected(chain, names, peer)
    return None


def _tls_reason(error: BaseException) -> str:
    verify: object = getattr(error, "verify_message", "")
    if verify:
        hint = _CERTIFICATE_HINTS.get(getattr(error, "verify_code", 0), "")
        return f"{verify}{f'; {hint}' if hint else ''}"
    reason = str(getattr(error, "reason", "") or "handshake failed").replace("_", " ").lower()
    if reason == "wrong version number":
        return f"{reason}; the server does not speak TLS on this port: should the URL begin with http://?"
    return reason


def _is_header_bomb(error: BaseException) -> bool:
    """Know aiohttp's two messages and h11's status hint."""
    return (
        "LineTooLong" in _names(error)
        or "Too many headers" in str(getattr(error, "message", ""))
        or getattr(error, "error_status_hint", None) == _HEADERS_TOO_LARGE
    )


def _not_connected(chain: tuple[BaseException, ...], names: set[str], peer: Peer) -> ConnectFailed:
    if names & _PROXY_REFUSED:
        return proxy_refused(peer, _proxy_status(chain[0]))
    if any(isinstance(error, socket.gaierror) for error in chain):
        unknown = f"the proxy {peer.proxy}" if peer.proxy else repr(peer.host)
        return ConnectFailed(f"no address found for {unknown}: check the base URL and the network")
    if any(isinstance(error, ConnectionRefusedError) for error in chain):
        return ConnectFailed(f"connection refused by {peer.first_hop}: is the server running?")
    return ConnectFailed(f"no connection to {peer.first_hop}{_why(chain)}")


def proxy_refused(peer: Peer, status: str) -> ConnectFailed:
    """Give the error for a proxy that said no; `status` is its answer."""
    who = f"the proxy {peer.proxy}" if peer.proxy else "your client's proxy"
    hint = ": put user and password into the proxy's URL" if status.startswith("407") else ""
    return ConnectFailed(f"{who} refused to connect to {peer.place} ({status or 'no reason given'}){hint}")


def _proxy_status(error: BaseException) -> str:
    """Give the proxy's status line: aiohttp has it in attributes, httpcore in the text."""
    status: object = getattr(error, "status", None)
    return f"{status} {getattr(error, 'message', '')}" if isinstance(status, int) else str(error)


def _why(chain: tuple[BaseException, ...]) -> str:
    """Quote the system's own words, which hold nothing of the request; name an error's class where it is unknown."""
    if any(_names(error) & _TLS_CUT for error in chain):
        return " (the peer hung up on TLS)"
    for error in chain:
        if isinstance(error, OSError) and isinstance(error.strerror, str) and error.errno is not None:
            return f" ({error.strerror})"
    return "" if _names(chain[0]) & _KNOWN else f" ({type(chain[0]).__name__})"


def _is_closed_client(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and "client has been closed" in str(error)
