"""A stream as the body of an HTTP response, for any ASGI server; `loomstream.ui.starlette` wraps it.

Contract: `respond` sends the whole response, and returns when the stream is over or the client is gone; then nothing of
it is left open. A client that vanishes, or takes nothing for too long, ends its reader; a stream that only it read is
closed with it: nobody pays for an answer that nobody reads. A stream that cannot be resumed is never begun for a client
that comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import anyio

from loomstream.errors import LoomstreamError, UsageError
from loomstream.middleware.store import loop_time
from loomstream.ui.ai_sdk import AISDKEncoder
from loomstream.ui.broadcast import Broadcast, Reader, Source
from loomstream.ui.formats import Describe, Encoder, Format, NDJSONEncoder, SSEEncoder, describe

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEARTBEAT_S = 15.0
"""An idle connection is kept open by a comment each so many seconds; many proxies close one after 60."""
_MAX_ID_CHARS = 18
"""A longer number is nobody's event."""

FORMATS: Mapping[Format, Callable[[Describe], Encoder]] = {
    "sse": SSEEncoder,
    "ndjson": NDJSONEncoder,
    "ai-sdk": AISDKEncoder,
}


def encoder(format: Format, describe: Describe = describe) -> Encoder:  # noqa: A002 (the word for it)
    """Give an encoder for one stream. Raises `UsageError` for an unknown format."""
    make = FORMATS.get(format)
    if make is None:
        msg = f"format={format!r}: there are {', '.join(FORMATS)}"
        raise UsageError(msg)
    return make(describe)


async def respond(  # noqa: PLR0913 (an ASGI call has three, the rest is keyword-only)
    scope: Scope,
    receive: Receive,
    send: Send,
    source: Source | Broadcast,
    *,
    format: Format = "sse",  # noqa: A002 (the word for it)
    headers: Sequence[tuple[str, str]] = (),
    heartbeat_s: float = HEARTBEAT_S,
    describe: Describe = describe,
) -> None:
    """Send a stream, or another reader's view of a broadcast, as the response to an ASGI request.

    A broadcast is resumed behind the request's `Last-Event-ID`. The status is 204 where nothing follows it any more, or
    a plain stream would have to begin anew (an `EventSource` stops asking then), 400 where it is no number of this
    stream, 410 where the log has let go of it. Everything that goes wrong later stands in the body, as its last item.
    """
    making = encoder(format, describe)
    last_id = _last_event_id(scope)
    broadcast = source if isinstance(source, Broadcast) else None
    refusal = _refusal(broadcast, last_id, making)
    if refusal is not None:
        await _refuse(send, *refusal)
        return
    sending = _Sending(send, making, heartbeat_s, [*making.headers, *headers])
    own = None if broadcast is not None else Broadcast(cast("Source", source), replay=0)
    reader = (broadcast or cast("Broadcast", own)).reader(after=0 if making.is_stateful else int(last_id or 0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
        tasks.start_soon(_until_lost, reader, tasks.cancel_scope)
        async with reader:
            if own is not None:
                tasks.start_soon(own.run)
            tasks.start_soon(sending.keep_open, tasks.cancel_scope)
            await sending.send_all(reader, int(last_id or 0))
        tasks.cancel_scope.cancel()
    if sending.failure is not None:
        raise sending.failure


class _Sending:
    """Sends what a reader reads."""

    def __init__(self, send: Send, encoder: Encoder, heartbeat_s: float, headers: Sequence[tuple[str, str]]) -> None:
        self._send = send
        self._encoder = encoder
        self._heartbeat_s = heartbeat_s
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._busy = True
        """Whether something is being sent; until the headers are, nothing else may be."""
        self._beat: anyio.Event | None = None
        """Set when the heartbeat that is being sent is out."""
        self._sent_s = loop_time()
        self.failure: Exception | None = None
        """What the server raised, other than that the client is gone; raised outside of any task group."""

    async def send_all(self, reader: Reader, after: int) -> None:
        with self._until_it_fails():
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await self._body(self._encoder.opening, more=True)  # the headers go out now, not with the first token
            await self._send_events(reader, after)

    async def keep_open(self, scope: anyio.CancelScope) -> None:
        """Send what means nothing whenever nothing was sent for a while; a time limit on each wait costs far more."""
        left_s = self._heartbeat_s
        with self._until_it_fails():
            while True:
                await anyio.sleep(left_s)
                left_s = self._sent_s + self._heartbeat_s - loop_time()
                if left_s <= 0:
                    left_s = self._heartbeat_s
                    if not self._busy:
                        self._beat = anyio.Event()
                        await self._body_now(self._encoder.heartbeat, more=True)
                        self._beat.set()
                        self._beat = None
        scope.cancel()

    @contextmanager
    def _until_it_fails(self) -> Generator[None]:
        try:
            yield
        except OSError:
            return  # the client is gone; servers say so in this way
        except Exception as error:  # noqa: BLE001 (the server's own fault, passed on as it is)
            self.failure = error

    async def _send_events(self, reader: Reader, after: int) -> None:
        try:
            while batch := await reader.next_batch():
                told = [self._encoder.event(number, event) for number, event in batch]
                data = b"".join(told[max(0, after + 1 - batch[0][0]) :])
                if data:
                    await self._body(data, more=True)
            last = self._encoder.end(reader.position + 1)
        except LoomstreamError as error:
            if reader.lost.is_set():
                raise OSError(str(error)) from None  # no end: the client may come back
            last = self._encoder.error(reader.position + 1, error)
        await self._body(last, more=False)

    async def _body(self, data: bytes, *, more: bool) -> None:
        if self._beat is not None:
            await self._beat.wait()
        self._busy = True
        await self._body_now(data, more=more)
        self._busy = False

    async def _body_now(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._sent_s = loop_time()


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            scope.cancel()
            return


async def _until_lost(reader: Reader, scope: anyio.CancelScope) -> None:
    await reader.lost.wait()
    scope.cancel()


def _last_event_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"last-event-id":
            return cast("bytes", value).decode("latin-1").strip() or None
    return None


_Refusal = tuple[int, str]
_NOTHING_FOLLOWS: _Refusal = (204, "")


def _refusal(broadcast: Broadcast | None, last_id: str | None, encoder: Encoder) -> _Refusal | None:
    """Give the status and the words with which a request is not served, or None."""
    if broadcast is None:
        return None if last_id is None else _NOTHING_FOLLOWS
    if last_id is not None and not (last_id.isascii() and last_id.isdigit() and len(last_id) <= _MAX_ID_CHARS):
        return 400, "Last-Event-ID is not the number of an event"
    return _refusal_after(broadcast, int(last_id or 0), encoder)


def _refusal_after(broadcast: Broadcast, after: int, encoder: Encoder) -> _Refusal | None:
    if broadcast.ended and after == broadcast.last + 1:
        return _NOTHING_FOLLOWS
    if after > broadcast.last:
        return 400, "Last-Event-ID is not of this stream"
    if after + 1 < broadcast.first or (encoder.is_stateful and broadcast.first > 1):
        return 410, f"the log begins at event {broadcast.first}"
    return None


async def _refuse(send: Send, status: int, words: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})
