"""A stream as a Starlette response; FastAPI takes it as it is. Needs the extra `serve`.

Contract: a thin shell around `loomstream.ui.asgi.respond`, which has the contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loomstream.errors import ConfigError
from loomstream.ui.asgi import HEARTBEAT_S, Receive, Scope, Send, encoder, respond
from loomstream.ui.broadcast import Broadcast, Source
from loomstream.ui.formats import Describe, Format, describe

try:
    from starlette.responses import Response
except ImportError as error:
    message = "loomstream.ui.starlette needs the extra `serve`: pip install 'loomstream[serve]'"
    raise ConfigError(message) from error


class EventResponse(Response):
    """Sends a stream, or a reader's view of a broadcast, as it comes."""

    def __init__(
        self,
        source: Source | Broadcast,
        *,
        format: Format = "sse",  # noqa: A002 (the word for it)
        headers: Mapping[str, str] | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        describe: Describe = describe,
    ) -> None:
        super().__init__()
        encoder(format)  # an unknown one is the caller's mistake, and shows here
        self._source = source
        self._format: Format = format
        self._extra: Sequence[tuple[str, str]] = list((headers or {}).items())
        self._heartbeat_s = heartbeat_s
        self._describe = describe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await respond(
            scope,
            receive,
            send,
            self._source,
            format=self._format,
            headers=self._extra,
            heartbeat_s=self._heartbeat_s,
            describe=self._describe,
        )
        if self.background is not None:
            await self.background()


def response(
    source: Source | Broadcast,
    *,
    format: Format = "sse",  # noqa: A002 (the word for it)
    headers: Mapping[str, str] | None = None,
    heartbeat_s: float = HEARTBEAT_S,
    describe: Describe = describe,
) -> EventResponse:
    """Give the response for a Starlette or FastAPI endpoint: `return ui.starlette.response(model.stream(prompt))`.

    `source` is a `Stream`, the `Run` of an agent, or a `Broadcast`, which several clients may read and resume. `format`
    is `sse`, `ndjson` or `ai-sdk`. `describe` says what clients are told of an error; `loomstream.ui.describe_kind`
    tells strangers the kind alone. Nothing is sent to the provider before the response is.

    Raises `UsageError` for an unknown format.
    """
    return EventResponse(source, format=format, headers=headers, heartbeat_s=heartbeat_s, describe=describe)
