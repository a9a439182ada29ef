"""Events as bytes for browsers: server-sent events with ids, newline JSON, the AI SDK's UI message stream.

Contract: pure. An encoder belongs to one stream and is told everything in order: each event with its number (from 1),
then the end or the error, which has the next number. It gives the bytes of that one thing, empty where the format has
no word for it. What it gives depends on nothing but what it was told, so a reader that comes back is served by a new
encoder that was told the same. An answer without a `stop` always ends in an error: a cut one is never taken for whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Protocol

import msgspec
from msgspec import Struct

from loomstream.agent.events import RunEvent
from loomstream.errors import LoomstreamError
from loomstream.errors import Timeout as ProviderTimeout

Headers = Sequence[tuple[str, str]]
Format = Literal["sse", "ndjson", "ai-sdk"]
"""`sse`: server-sent events, for `EventSource`. `ndjson`: a line of JSON each. `ai-sdk`: Vercel's UI message stream."""


class Problem(Struct, frozen=True, kw_only=True, tag="error", tag_field="type"):
    """An error as JSON: `error` is the name of its class, `message` says what happened and what to do."""

    error: str
    message: str
    retry_safety: str = "no"
    retry_after_s: float | None = None


Describe = Callable[[LoomstreamError], Problem]
"""What readers are told of an error."""


def describe(error: LoomstreamError) -> Problem:
    """Tell all of an error: for readers who may see how the server is set up."""
    return Problem(
        error=type(error).__name__,
        message=str(error),
        retry_safety=error.retry_safety,
        retry_after_s=error.retry_after_s,
    )


def describe_kind(error: LoomstreamError) -> Problem:
    """Tell the kind of an error alone: for readers who are strangers. Messages may name models, limits, settings."""
    late = isinstance(error, ProviderTimeout)
    return Problem(
        error=type(error).__name__,
        message="the model did not answer in time" if late else "the answer could not be completed",
        retry_safety=error.retry_safety,
        retry_after_s=error.retry_after_s,
    )


class Encoder(Protocol):
    """One stream in one format; see the module's contract."""

    headers: ClassVar[Headers]
    """Of the response, its content type among them."""
    opening: ClassVar[bytes]
    """What stands before everything else; empty in most formats."""
    heartbeat: ClassVar[bytes]
    """What keeps an idle connection open and means nothing; empty where the format has no such thing."""
    is_stateful: ClassVar[bool]
    """Whether it must be told the stream from its beginning."""

    def event(self, number: int, event: RunEvent) -> bytes:
        """Give an event's bytes."""
        ...

    def end(self, number: int) -> bytes:
        """Give what says that nothing follows."""
        ...

    def error(self, number: int, error: LoomstreamError) -> bytes:
        """Give what says that the stream failed, and that nothing follows."""
        ...


_json = msgspec.json.Encoder()
_NO_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
_STREAMED: Headers = (("cache-control", "no-store"), ("x-accel-buffering", "no"))
"""No cache may keep it, and nginx must not hold it back."""


def one_line(value: object) -> bytes:
    """Give a value as JSON without a line end: raw JSON of a provider may stand in it as it came, indented."""
    data = _json.encode(value)
    if b"\n" in data or b"\r" in data:
        return data.translate(_NO_LINE_ENDS)  # in JSON, only white space
    return data


_END = b'{"type":"end"}'


class SSEEncoder:
    """`id` is the event's number, `data` its JSON; the last one is `{"type":"end"}` or `{"type":"error",…}`.

    As https://html.spec.whatwg.org/multipage/server-sent-events.html says: a client that lost the connection comes back
    with `Last-Event-ID`.
    """

    headers: ClassVar[Headers] = (("content-type", "text/event-stream; charset=utf-8"), *_STREAMED)
    opening: ClassVar[bytes] = b"retry: 1000\n\n"  # a lost client comes back after a second; browsers wait three
    heartbeat: ClassVar[bytes] = b":\n\n"
    is_stateful: ClassVar[bool] = False

    def __init__(self, describe: Describe = describe) -> None:
        self._describe = describe

    def event(self, number: int, event: RunEvent) -> bytes:
        """Give an event's bytes."""
        return b"id: %d\ndata: %b\n\n" % (number, one_line(event))

    def end(self, number: int) -> bytes:
        """Give the end."""
        return b"id: %d\ndata: %b\n\n" % (number, _END)

    def error(self, number: int, error: LoomstreamError) -> bytes:
        """Give the error."""
        return b"id: %d\ndata: %b\n\n" % (number, one_line(self._describe(error)))


class NDJSONEncoder:
    """A line of JSON each, with its number in `seq`; `loomstream.events.decode` reads the events among them."""

    headers: ClassVar[Headers] = (("content-type", "application/x-ndjson"), *_STREAMED)
    opening: ClassVar[bytes] = b""
    heartbeat: ClassVar[bytes] = b"\n"
    is_stateful: ClassVar[bool] = False

    def __init__(self, describe: Describe = describe) -> None:
        self._describe = describe

    def event(self, number: int, event: RunEvent) -> bytes:
        """Give an event's line."""
        return _numbered(number, one_line(event))

    def end(self, number: int) -> bytes:
        """Give the end."""
        return _numbered(number, _END)

    def error(self, number: int, error: LoomstreamError) -> bytes:
        """Give the error."""
        return _numbered(number, one_line(self._describe(error)))


def _numbered(number: int, data: bytes) -> bytes:
    return b'{"seq":%d,%b\n' % (number, data[1:])
