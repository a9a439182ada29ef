"""The I/O seam: a wire request in, a response of bytes out.

Contract: `open` gives an async context manager of a `ByteResponse`, for any status. Leaving it closes
the response. It raises `TransportError`s, `Timeout`s and `ConfigError`s only (`LimitExceeded` and
`UnexpectedContent` for an answer that cannot be read). Redirects are not followed. Nothing outside this
package imports an HTTP client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from loomstream.wire import WireRequest


class ByteResponse(Struct, frozen=True):
    """A response whose body is still to be read.

    `headers` have lower-case names; a name that came twice has its values joined by a comma. `chunks` are the
    body's bytes after content decoding; whatever it raises is a `LoomstreamError`. `wake`, where there is one, makes
    a read that is waiting raise the given error at once, unless bytes have arrived for it: the cheap road for time
    limits. `at_end`, where there is one, says whether the body was read to its end, after which leaving the response
    waits for nothing. Both exist on asyncio only.
    `notices` say what the transport had to do again to get this answer.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    wake: Callable[[Exception], None] | None = None
    at_end: Callable[[], bool] | None = None
    notices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Give the status and the headers' names: a value may echo the key."""
        return f"<ByteResponse {self.status} {' '.join(self.headers)}>"


class Transport(Protocol):
    """Sends a wire request; see the module's contract."""

    def open(
        self, wire_request: WireRequest, *, connect_s: float | None = None
    ) -> AbstractAsyncContextManager[ByteResponse]:
        """Send the request, give the response once its headers are there.

        `connect_s` bounds name look-up, connection and TLS, in seconds; None means no limit. Raises `ConnectFailed`,
        `TLSFailed`, `ConnectTimeout`, `ConnectionLost` (after the request was sent).
        """
        ...

    async def prepare(self, url: str) -> None:
        """Load what a request to `url` needs; connects to nobody. Raises `ConfigError`."""
        ...

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        ...
