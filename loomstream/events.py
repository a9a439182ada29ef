"""What can arrive: the typed, provider-neutral events of a stream.

Contract: every event is an immutable value that survives a round trip through JSON (`encode`,
`decode`) and never holds a lone surrogate. Indexes count content blocks over all choices of one epoch,
from 0, in the order in which they opened. Fields are only ever added, with a default; a change of
meaning raises `SCHEMA_VERSION`, which every `Start` carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import compress
from typing import Literal

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.errors import Attempt

SCHEMA_VERSION = 1
"""Version of the events' JSON form."""

NULL = RawJSON(b"null")

StopReason = Literal[
    "end_turn",
    "max_tokens",
    "tool_use",
    "stop_sequence",
    "content_filter",
    "refusal",
    "pause",
    "context_window",
    "other",
]
"""Why a model stopped, in one vocabulary for every provider."""

NoticeKind = Literal["retry", "failover", "reset", "resume", "hedge", "route", "heartbeat", "cache", "warning"]
"""What a `Notice` announces."""


class Opaque(Struct, frozen=True):
    """A value that only its issuer can read and that must go back to it byte for byte.

    `kind` is the dialect's name for it (`signature`, `redacted`, `encrypted`, `details`), `issuer`
    the provider that made it, `data` the exact text (for `details`: the JSON text).
    """

    issuer: str
    kind: str
    data: str
    id: str = ""


class Limits(Struct, frozen=True, kw_only=True):
    """Rate limits as the response's headers told them; None where a header was absent.

    `reset_*_s` are seconds from the moment the headers arrived.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None


_SHOWN_CHARS = 60


def _shown(value: object) -> str:
    """Give a field for `repr`; of raw JSON its beginning."""
    if not isinstance(value, RawJSON):
        return repr(value)
    text = bytes(value).decode()
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


class EventBase(Struct, frozen=True, tag_field="type"):
    """The base of every event; `type` in JSON is the event's name in snake case."""

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"


class Start(EventBase, frozen=True, tag="start"):
    """The provider has accepted the request and begins to answer.

    `warnings` lists what the provider could not honour of the request: never dropped silently.
    """

    provider: str = ""
    model: str = ""
    response_id: str = ""
    request_id: str = ""
    limits: Limits | None = None
    warnings: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION


class TextStart(EventBase, frozen=True, tag="text_start", gc=False):
    """A block of text opens."""

    index: int
    choice: int = 0


class TextDelta(EventBase, frozen=True, tag="text_delta", gc=False):
    """More text of an open block; never empty."""

    index: int
    text: str


class TextEnd(EventBase, frozen=True, tag="text_end", gc=False):
    """A block of text is closed."""

    index: int


class ReasoningStart(EventBase, frozen=True, tag="reasoning_start", gc=False):
    """A block of reasoning (thinking) opens."""

    index: int
    choice: int = 0


class ReasoningDelta(EventBase, frozen=True, tag="reasoning_delta", gc=False):
    """More reasoning text of an open block; never empty."""

    index: int
    text: str


class ReasoningEnd(EventBase, frozen=True, tag="reasoning_end"):
    """A block of reasoning is closed; `opaque` holds its signatures or encrypted content."""

    index: int
    opaque: tuple[Opaque, ...] = ()


class ToolCallStart(EventBase, frozen=True, tag="tool_call_start", gc=False):
    """The model begins to call one of your tools.

    `id` is the provider's, or one made here where it sends none.
    """

    index: int
    id: str
    name: str
    choice: int = 0


class ToolCallDelta(EventBase, frozen=True, tag="tool_call_delta", gc=False):
    """More of the call's arguments, as a piece of JSON text; never empty."""

    index: int
    arguments: str


class ToolCallEnd(EventBase, frozen=True, tag="tool_call_end"):
    """The call is whole: `arguments` is all of its JSON text, `{}` where the provider sent none.

    `executable` is False where the arguments are cut or no JSON object: then the text is kept as it
    came, and the tool must not be run with it.
    """

    index: int
    id: str
    name: str
    arguments: str
    opaque: tuple[Opaque, ...] = ()
    executable: bool = True


class RefusalDelta(EventBase, frozen=True, tag="refusal_delta", gc=False):
    """The model declines, in its own words. A refusal opens with its first delta and has no end event."""

    index: int
    text: str
    choice: int = 0


class Citation(EventBase, frozen=True, tag="citation"):
    """A source for the text block `index` (which may be closed already).

    `start` and `end` are the provider's own offsets (their unit is in `raw`), `raw` is the citation as it came.
    """

    index: int
    kind: str = ""
    url: str = ""
    title: str = ""
    cited_text: str = ""
    start: int | None = None
    end: int | None = None
    raw: RawJSON = NULL


class TokenLogprob(Struct, frozen=True, gc=False):
    """How probable a token was: its natural logarithm, and the likeliest tokens in its place with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Logprobs(EventBase, frozen=True, tag="logprobs"):
    """Token probabilities of the text block `index` (which may be closed already), in the order of its tokens."""

    index: int
    tokens: tuple[TokenLogprob, ...]


class File(EventBase, frozen=True, tag="file"):
    """The model made a file (an image, audio): `data` are its bytes, or `url` / `id` say where it is."""

    index: int
    media_type: str = ""
    data: bytes = b""
    url: str = ""
    id: str = ""
    choice: int = 0
    raw: RawJSON = NULL


class ServerToolCall(EventBase, frozen=True, tag="server_tool_call"):
    """The provider itself runs a tool; nothing to do for you. `raw` is the block as it came."""

    index: int
    id: str
    name: str
    arguments: str = "{}"
    choice: int = 0
    raw: RawJSON = NULL


class ServerToolResult(EventBase, frozen=True, tag="server_tool_result"):
    """The result of a tool that the provider ran; `content` is the provider's own JSON."""

    index: int
    tool_call_id: str
    name: str
    content: RawJSON = NULL
    is_error: bool = False
    choice: int = 0
    raw: RawJSON = NULL


class Usage(EventBase, frozen=True, tag="usage", kw_only=True, gc=False):
    """Token counts so far: cumulative, the last one wins, never negative.

    One convention whatever the wire says: `input_tokens` excludes cache reads and writes,
    `output_tokens` includes reasoning, `cache_write_tokens` includes `cache_write_1h_tokens`.
    `final` is True where no later figure will come; `raw` is the provider's own object.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    final: bool = False
    raw: RawJSON = NULL


class Cost(EventBase, frozen=True, tag="cost", kw_only=True, gc=False):
    """What the call cost so far, in US dollars.

    `amount_usd` is None where the price is not known; then the bounds are None too. `exact` is True
    where it was computed from the provider's own final usage. `lower_usd` and `upper_usd` bound what may be billed.
    """

    provider: str
    model: str
    amount_usd: Decimal | None = None
    lower_usd: Decimal | None = None
    upper_usd: Decimal | None = None
    exact: bool = False
    attempts: int = 1


class Stop(EventBase, frozen=True, tag="stop", gc=False):
    """The answer is whole: the dialect's terminal marker was seen. `raw` is the provider's own reason."""

    reason: StopReason
    raw: str = ""


class Notice(EventBase, frozen=True, tag="notice", gc=False, omit_defaults=True):
    """Something happened that a user of the stream may want to know; never an error.

    `reset`: what was delivered is void, a new `Start` follows. `resume`: the answer goes on after a
    break, without a second `Start`. `route`: which model was chosen, and why. `heartbeat`: still waiting. `cache`: the
    answer is one that was given before, or is shared with another call. `may_be_billed`: an attempt that is given up
    here may have cost something. `attempt`: which one that is, and the error that it ended with.
    """

    kind: NoticeKind
    detail: str = ""
    may_be_billed: bool = False
    attempt: Attempt | None = None


class Unknown(EventBase, frozen=True, tag="unknown", gc=False):
    """A frame that this version does not know, kept as it came."""

    name: str
    data: str


class Raw(EventBase, frozen=True, tag="raw", gc=False):
    """A frame as it came, before its events; only where `raw_events` was asked for."""

    name: str
    data: str


Event = (
    Start
    | TextStart
    | TextDelta
    | TextEnd
    | ReasoningStart
    | ReasoningDelta
    | ReasoningEnd
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | RefusalDelta
    | Citation
    | Logprobs
    | File
    | ServerToolCall
    | ServerToolResult
    | Usage
    | Cost
    | Stop
    | Notice
    | Unknown
    | Raw
)
"""Any event."""

CONTENT_EVENTS: tuple[type[EventBase], ...] = (
    TextDelta,
    ReasoningDelta,
    ToolCallStart,
    ToolCallDelta,
    RefusalDelta,
    Citation,
    File,
    ServerToolCall,
    ServerToolResult,
)
"""Events that carry content: the first one handed to the consumer commits the attempt, and they alone are progress."""


def places_of(kinds: frozenset[type], events: Sequence[object]) -> Iterator[int]:
    """Give where in a list events of some kinds stand; those of other kinds cost next to nothing."""
    return compress(range(len(events)), map(kinds.__contains__, map(type, events)))


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """Give the event as one line of JSON, without the line end."""
    return _encoder.encode(event)


def decode(data: bytes | str) -> Event:
    """Give the event that `encode` wrote.

    Raises `msgspec.ValidationError` (a ValueError) where the JSON is no event of this schema version.
    """
    try:
        return _decoder.decode(data)
    except RecursionError:
        msg = "this is no event: it nests too deep"
        raise msgspec.ValidationError(msg) from None
