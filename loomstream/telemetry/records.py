"""A line of the audit log, and how such lines are read again.

Contract: `AuditRecord` is what one call left behind, as JSON on one line. Fields are only ever added, with a default; a
change of meaning raises `AUDIT_VERSION`. Reading is lenient: a line that is torn or foreign is counted, and costs no
other line. It writes nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Struct

from loomstream.events import Cost, Usage
from loomstream.messages import Message
from loomstream.middleware.ledger import Totals

AUDIT_VERSION = 1
"""Version of the records' JSON form."""

_MAX_EXPONENT = 20

Ending = Literal["whole", "failed", "cancelled", "abandoned"]
"""How a call ended: with its `Stop`, with an error, by a cancellation, or because whoever read it left."""


class AuditUsage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Token counts, in the convention of `loomstream.events.Usage`; `final` where no later figure was to come."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    final: bool = False


def sent_tokens(counts: Usage | AuditUsage | Totals) -> int:
    """Give all tokens that were sent: those read from and written to a cache among them."""
    return counts.input_tokens + counts.cache_read_tokens + counts.cache_write_tokens


class AuditAttempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try: what it was sent to, and `ok` or the name of the error class it ended with (empty: not known)."""

    provider: str = ""
    model: str = ""
    outcome: str = ""


class AuditRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of a model.

    - `id`: of this record. `began`: when its request was sent, in UTC. `who`: the request's `end_user_id`, else the
      name that the log was given, else the user of the operating system. `host`, `pid`: the process.
    - `provider`, `model`: who answered, as the answer says; `requested`: what the log was told, as `provider:model`.
      `request_id`, `response_id`: the provider's.
    - `tag`: what costs are told apart by; `metadata`: the request's labels.
    - `outcome`, `stop` (the stop reason), `error` (its class), `error_message` (in our own words, or with content),
      `status`: the HTTP status of a provider's error.
    - `usage`: None where none was told. `cost_usd`: None where the price is not known; `lower_usd` and `upper_usd`
      bound what may be billed; `cost_exact`: by the provider's own final count.
    - `attempts`: those that were given up, then the last one. `resets`: how often what was delivered became void.
    - `first_event_s`, `total_s`: from the request to the first content and to the end. `deltas`: how many events with
      content came, `text_chars`, `reasoning_chars`: their lengths, `tool_calls`: the tools that were called.
    - `prompt`, `system`, `answer`: only where content was asked for.
    """

    id: str
    began: dt.datetime
    outcome: Ending
    version: int = AUDIT_VERSION
    who: str = ""
    host: str = ""
    pid: int = 0
    provider: str = ""
    model: str = ""
    requested: str = ""
    request_id: str = ""
    response_id: str = ""
    tag: str = ""
    metadata: Mapping[str, str] = {}
    streamed: bool = True
    stop: str = ""
    error: str = ""
    error_message: str = ""
    status: int = 0
    usage: AuditUsage | None = None
    cost_usd: Decimal | None = None
    lower_usd: Decimal | None = None
    upper_usd: Decimal | None = None
    cost_exact: bool = False
    attempts: tuple[AuditAttempt, ...] = ()
    resets: int = 0
    first_event_s: float | None = None
    total_s: float = 0.0
    deltas: int = 0
    text_chars: int = 0
    reasoning_chars: int = 0
    tool_calls: tuple[str, ...] = ()
    system: str = ""
    prompt: tuple[Message, ...] = ()
    answer: Message | None = None

    @property
    def counted(self) -> Usage | None:
        """The token counts as an event, for `loomstream.middleware.cost.cost_of` and a `Ledger`."""
        return None if self.usage is None else Usage(**msgspec.structs.asdict(self.usage))

    @property
    def cost(self) -> Cost:
        """The cost as an event, for a `Ledger`."""
        return Cost(
            provider=self.provider,
            model=self.model,
            amount_usd=self.cost_usd,
            lower_usd=self.lower_usd,
            upper_usd=self.upper_usd,
            exact=self.cost_exact,
            attempts=max(1, len(self.attempts)),
        )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AuditRecord)


def encode_record(record: AuditRecord) -> bytes:
    """Give the record as one line of JSON, with its line end."""
    return _encoder.encode(record) + b"\n"


def decode_record(line: bytes) -> AuditRecord | None:
    """Give the record of a line; None where it is none (torn by a crash, or another program's)."""
    try:
        record = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if record.began.tzinfo is not None and all(map(_is_money, _amounts(record))) else None


def _amounts(record: AuditRecord) -> tuple[Decimal | None, ...]:
    return (record.cost_usd, record.lower_usd, record.upper_usd)


def _is_money(amount: Decimal | None) -> bool:
    """Refuse what would spoil every sum: infinities, NaN, and exponents that no bill has."""
    return amount is None or (amount.is_finite() and abs(amount.adjusted()) <= _MAX_EXPONENT)


class Reading:
    """The records among some lines; `skipped` counts the lines that are none, blank ones aside."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self.skipped = 0

    def __iter__(self) -> Iterator[AuditRecord]:
        for line in self._lines:
            record = decode_record(line)
            if record is not None:
                yield record
            elif line.strip():
                self.skipped += 1
