"""Every error that loomstream raises, and nothing else.

    LoomstreamError
    ├── ConfigError             you, before anything is sent
    │   ├── MissingKey
    │   ├── UnknownProvider
    │   └── UnknownModel
    ├── RequestError            you, while the request is built
    │   ├── Unsupported
    │   └── InvalidArguments
    ├── TransportError          the network
    │   ├── ConnectFailed
    │   ├── TLSFailed
    │   └── ConnectionLost
    ├── Timeout                 one of the stated time limits
    │   ├── ConnectTimeout
    │   ├── FirstEventTimeout
    │   ├── IdleTimeout
    │   └── DeadlineExceeded
    ├── WireError               the peer broke the framing or the schema
    │   ├── BadFrame
    │   ├── ChecksumMismatch
    │   ├── LimitExceeded
    │   ├── UnexpectedContent
    │   └── RedirectRefused
    ├── StreamTruncated         the stream ended before its terminal marker
    ├── ProviderError           the provider said no
    │   ├── AuthFailed
    │   ├── RateLimited
    │   ├── QuotaExhausted
    │   ├── Overloaded
    │   ├── BadRequest
    │   ├── ContextTooLong
    │   ├── ModelNotFound
    │   ├── ContentFiltered
    │   └── ServerFault
    ├── InvalidOutput           the answer is not of the type that was asked for
    ├── BudgetExceeded          your own limit on money or tokens
    ├── CircuitOpen             a breaker refuses to send
    ├── QueueFull               your own rate limit lets no further call wait
    ├── StreamCancelled         `Stream.cancel()` was called
    ├── MiddlewareError         a middleware or callback raised
    └── UsageError              the API was used in a way that cannot work

Contract: whatever bytes arrive, only these come out. `retry_safety` says whether sending the same
request again can do harm: `yes` (the provider did no work), `maybe` (it may have worked, and billed),
`no` (it would fail again, or must not be repeated). This module imports nothing of loomstream.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

if TYPE_CHECKING:
    from loomstream.events import Usage
    from loomstream.messages import Response

RetrySafety = Literal["yes", "no", "maybe"]
"""May the request be sent again? See the module's contract."""


class Attempt(NamedTuple):
    """One try at a request: what it was sent to and how it ended."""

    provider: str
    model: str
    outcome: str
    """`ok`, or the name of the error class."""
    retry_after_s: float | None = None


class LoomstreamError(Exception):
    """The base of every error.

    `partial` is what was delivered before the error (a `Response`), `usage` the last usage seen,
    `committed` whether a content event had reached the consumer, `attempts` the tries so far. The
    stream sets these four on the way out; they are empty on an error that never passed a stream.
    """

    retry_safety: RetrySafety = "no"
    default_retry_safety: ClassVar[RetrySafety] = "no"

    def __init__(
        self,
        message: str = "",
        *,
        provider: str = "",
        model: str = "",
        request_id: str = "",
        retry_safety: RetrySafety | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.request_id = request_id
        self.retry_safety = self.default_retry_safety if retry_safety is None else retry_safety
        self.retry_after_s = retry_after_s
        self.attempts: tuple[Attempt, ...] = ()
        self.committed = False
        self.partial: Response | None = None
        self.usage: Usage | None = None

    @property
    def message(self) -> str:
        """What went wrong, where, and what to do about it."""
        return str(self)

    @property
    def last_attempt(self) -> Attempt:
        """The try that ended with this error."""
        if self.attempts:
            return self.attempts[-1]
        return Attempt(self.provider, self.model, type(self).__name__, self.retry_after_s)

    def redact(self, secret: str) -> Self:
        """Take a credential out of all that the peer's bytes went into, for it may echo what it was sent.

        A beginning of at least 8 characters goes too: a quotation may have cut the rest. A shorter credential stays,
        as it may be part of any word.
        """
        if len(secret) >= _LEAST_SECRET_CHARS:
            self.args = tuple(_without(value, secret) for value in self.args)
            for name in ("body", "code", "request_id"):
                if name in vars(self):
                    setattr(self, name, _without(getattr(self, name), secret))
        return self


_LEAST_SECRET_CHARS = 8
_GONE = "…"
_BACKSLASH = "\\"


def _without(value: object, secret: str) -> object:
    """Take out the secret, and any beginning of it; JSON may have put a backslash before a slash, a quotation two."""
    if not isinstance(value, str):
        return value
    text = value.replace(secret, _GONE)
    beginning = re.compile(
        "".join(rf"\\*{char}" if char == "/" else re.escape(char) for char in secret[:_LEAST_SECRET_CHARS])
    )
    kept, end = "", 0
    while found := beginning.search(text, end):
        kept += text[end : found.start()] + _GONE
        end = _end_of(text, found.end(), secret[_LEAST_SECRET_CHARS:])
    return kept + text[end:]


def _end_of(text: str, start: int, rest: str) -> int:
    """Give the position behind as much of the rest of a secret as stands in the text."""
    end = start
    for char in rest:
        position = end
        while char == "/" and text.startswith(_BACKSLASH, position):
            position += 1
        if not text.startswith(char, position):
            break
        end = position + 1
    return end


class ConfigError(LoomstreamError):
    """The configuration, a setting or an installed extra is missing or wrong."""


class MissingKey(ConfigError):
    """No credential was found for a provider that needs one."""


class UnknownProvider(ConfigError):
    """No provider of this name is known."""


class UnknownModel(ConfigError):
    """The provider has no default model and none was named."""


class RequestError(LoomstreamError):
    """The request cannot be built from the values given."""


class Unsupported(RequestError):
    """The provider or model cannot do what the request asks for."""


class InvalidArguments(RequestError):
    """A model called a tool with arguments that are no JSON, or not of the types that the tool takes."""


class TransportError(LoomstreamError):
    """The network failed."""

    default_retry_safety = "maybe"


class ConnectFailed(TransportError):
    """No connection was made: name look-up failed, refused, unreachable, or the proxy said no."""

    default_retry_safety = "yes"


class TLSFailed(TransportError):
    """The TLS handshake failed: the certificate is expired, for another host, or of an unknown authority."""

    default_retry_safety = "no"


class ConnectionLost(TransportError):
    """The connection broke after the request was sent and before the answer was whole."""


class Timeout(LoomstreamError):
    """A time limit passed."""

    default_retry_safety = "maybe"


class ConnectTimeout(Timeout):
    """No connection within the limit (name look-up and TLS included)."""

    default_retry_safety = "yes"


class FirstEventTimeout(Timeout):
    """No content event within the limit after the request was sent."""


class IdleTimeout(Timeout):
    """No further content event within the limit; comments and pings do not count as progress."""


class DeadlineExceeded(Timeout):
    """The total time limit passed."""

    default_retry_safety = "no"


class WireError(LoomstreamError):
    """The peer broke its framing, its schema or a size limit."""

    default_retry_safety = "maybe"


class BadFrame(WireError):
    """A frame cannot be read: malformed framing, malformed JSON, or content of the wrong type."""


class ChecksumMismatch(WireError):
    """A frame's checksum does not match its bytes."""


class LimitExceeded(WireError):
    """A size limit was passed: frame bytes, JSON depth, number of content blocks, error body."""

    default_retry_safety = "no"


class UnexpectedContent(WireError):
    """The answer is no stream of this provider: an HTML page, or another format."""


class RedirectRefused(WireError):
    """The server answered with a redirect; they are never followed."""

    default_retry_safety = "no"


class StreamTruncated(LoomstreamError):
    """The stream ended before its dialect's terminal marker: `partial` is not a whole answer."""

    default_retry_safety = "maybe"


class ProviderError(LoomstreamError):
    """The provider answered with an error.

    `status` is the HTTP status (200 for an error inside a stream), `code` the provider's own code or
    type, `body` the answer's text (at most 64 KiB).
    """

    default_retry_safety = "no"

    def __init__(  # noqa: PLR0913 (an error is a record; all but the message are keyword-only)
        self,
        message: str = "",
        *,
        status: int = 0,
        code: str = "",
        body: str = "",
        provider: str = "",
        model: str = "",
        request_id: str = "",
        retry_safety: RetrySafety | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(
            message,
            provider=provider,
            model=model,
            request_id=request_id,
            retry_safety=retry_safety,
            retry_after_s=retry_after_s,
        )
        self.status = status
        self.code = code
        self.body = body


class AuthFailed(ProviderError):
    """The credential was refused (HTTP 401, 403)."""


class RateLimited(ProviderError):
    """Too many requests or tokens in a short time (HTTP 429)."""

    default_retry_safety = "yes"


class QuotaExhausted(ProviderError):
    """The account's credit or spending limit is used up; waiting does not help."""


class Overloaded(ProviderError):
    """The provider has no capacity right now (HTTP 503, 529)."""

    default_retry_safety = "yes"


class BadRequest(ProviderError):
    """The provider refused the request as malformed or not allowed (HTTP 400, 413, 422)."""


class ContextTooLong(BadRequest):
    """The messages do not fit into the model's context window."""


class ModelNotFound(ProviderError):
    """The provider does not have this model, or this key may not use it (HTTP 404)."""


class ContentFiltered(ProviderError):
    """The provider's policy blocked the prompt or the answer."""


class ServerFault(ProviderError):
    """The provider failed (HTTP 5xx, or an error inside the stream)."""

    default_retry_safety = "maybe"


class InvalidOutput(LoomstreamError):
    """The answer is no JSON of the type that was asked for, or is none because it was cut or refused.

    `partial` is the answer: its `stop` says how it ended.
    """

    default_retry_safety = "maybe"


class BudgetExceeded(LoomstreamError):
    """A limit on money or tokens that you set was reached."""


class CircuitOpen(LoomstreamError):
    """A circuit breaker refuses to send to a provider that keeps failing."""

    default_retry_safety = "yes"


class QueueFull(LoomstreamError):
    """Your own rate limit lets no further call wait: too many do, or the wait would be too long. Nothing was sent."""

    default_retry_safety = "yes"


class StreamCancelled(LoomstreamError):
    """The stream was cancelled by `Stream.cancel()`."""


class MiddlewareError(LoomstreamError):
    """A middleware or callback raised; the original is the `__cause__`."""


class UsageError(LoomstreamError):
    """The API was used in a way that cannot work; the message says how to use it."""


class Failure(NamedTuple):
    """The last item of a list out of a decoder or translator: the error that ended it."""

    error: LoomstreamError
