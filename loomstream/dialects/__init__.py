"""Wire protocol families: modules of pure functions over values.

A dialect is a module with

    build_request(request, target) -> WireRequest
    warnings(request, target) -> tuple[str, ...]
    translator(target) -> Translator
    parse_response(body, target) -> list[Event | Failure]
    parse_error(status, headers, body, target) -> ProviderError

Contract: no I/O, no clock, no randomness; dialects do not know each other, nor any provider's name: what differs
between hosts is a named flag in `Quirks`. A translator never raises: a failure is the last item of
its list, after which it is finished. `finish` ends in `Failure(StreamTruncated)` unless the dialect's terminal marker
was seen. The non-streaming path gives events that fold to the same response as the stream's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from msgspec import Struct

from loomstream.errors import Failure, ProviderError
from loomstream.events import Event
from loomstream.messages import Request
from loomstream.wire import Frame, WireRequest


class Quirks(Struct, frozen=True, kw_only=True):
    """How a host departs from its dialect's plain form. Every flag's default is the plain form."""

    done_marker: bool = False
    """`[DONE]` without a finish reason is a whole answer too (OpenAI chat)."""
    stream_usage: bool = True
    """Ask for usage by `stream_options` (OpenAI chat); False where the host refuses the key."""
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The body's key for the limit on output tokens (OpenAI chat)."""
    seed_key: str = "seed"
    """The body's key for the sampling seed (OpenAI chat)."""
    system_role: Literal["system", "developer"] = "system"
    """The role of system turns (OpenAI chat)."""
    top_k: bool = False
    """The host takes `top_k`, which is no part of the plain form (OpenAI chat)."""
    needs_max_tokens: int | None = None
    """Sent as the limit on output tokens where the request has none, because the wire demands one."""


class Target(Struct, frozen=True, kw_only=True):
    """Where a request goes: provider, model, base URL without a trailing slash, and the host's quirks."""

    provider: str
    model: str
    base_url: str = ""
    quirks: Quirks = Quirks()


class Translator(Protocol):
    """Frames to events; one object per stream; see the module's contract."""

    def feed(self, frame: Frame) -> list[Event | Failure]:
        """Take a frame, give its events."""
        ...

    def finish(self) -> list[Event | Failure]:
        """Say that the body is over, give what was still to come."""
        ...


class Dialect(Protocol):
    """What a dialect's module offers."""

    def build_request(self, request: Request, target: Target) -> WireRequest:
        """Give the wire request; raise `Unsupported` or `RequestError` where it cannot be built."""
        ...

    def warnings(self, request: Request, target: Target) -> tuple[str, ...]:
        """Say what of the request this host cannot honour; it goes into `Start.warnings`."""
        ...

    def translator(self, target: Target) -> Translator:
        """Give a translator for one stream."""
        ...

    def parse_response(self, body: bytes, target: Target) -> list[Event | Failure]:
        """Give the events of a whole response body."""
        ...

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
        """Give the typed error of an error response."""
        ...
