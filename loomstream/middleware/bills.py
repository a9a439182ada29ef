"""What hosts and gateways say that a call costs, read from a usage as it came on the wire.

Contract: pure; lenient, for a mistyped bill is no bill. It knows no price of its own and no host by name.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeVar

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.errors import Failure
from loomstream.events import NULL, Usage
from loomstream.wire.json import Reader

_ZERO = Decimal(0)
_T = TypeVar("_T")


class _Bill(Struct):
    cost: RawJSON = NULL
    cost_in_usd_ticks: RawJSON = NULL
    is_byok: RawJSON = NULL
    cost_details: RawJSON = NULL


class _Total(Struct):
    total_cost: RawJSON = NULL
    usd: RawJSON = NULL


class _Details(Struct):
    upstream_inference_cost: RawJSON = NULL


class _Billed(Struct):
    billed_units: RawJSON = NULL


_billed = Reader(msgspec.json.Decoder(_Billed))
_units = Reader(msgspec.json.Decoder(dict[str, RawJSON]))
_bill = Reader(msgspec.json.Decoder(_Bill))
_total = Reader(msgspec.json.Decoder(_Total))
_details = Reader(msgspec.json.Decoder(_Details))
_number = Reader(msgspec.json.Decoder(Decimal))

_MAX_EXPONENT = 20
"""Numbers beyond this are no bill, and would overflow in arithmetic."""


def reported_cost(usage: Usage) -> Decimal | None:
    """Give what a gateway says it charged, in US dollars; None where the usage says nothing of it.

    Read from `usage.raw`, as seen on recorded streams: `cost` as a number or a string of one (OpenRouter, LiteLLM,
    Vercel), or as an object with `total_cost` (Perplexity) or `usd` (Venice); `cost_in_usd_ticks` (xAI: 10,000,000,000
    to the dollar). With your own key at OpenRouter (`is_byok`) the upstream's bill is added.
    """
    data = bytes(usage.raw)
    bill = _read(_bill, data) if data.find(b'"cost') >= 0 else None  # `in` takes bytes for a number first, and fails
    if bill is None:
        return None
    for read in (_charged, _itemised, _ticks):
        amount = read(bill)
        if amount is not None:
            return amount
    return None


def billed_usage(usage: Usage) -> Usage | None:
    """Give the token counts that a host charges for, where `usage.raw` says that they are not the model's.

    Read from `billed_units` (Cohere), whose counts know no cache. None where it charges for something else than whole
    tokens, which no price per token tells.
    """
    data = bytes(usage.raw)
    bill = _read(_billed, data) if data.find(b'"billed_units"') >= 0 else None
    units = None if bill is None else _read(_units, bytes(bill.billed_units))
    if units is None:
        return usage
    counts = {name: _money(raw) for name, raw in units.items() if bytes(raw) != b"null"}
    tokens = [counts.pop(name, _ZERO) for name in ("input_tokens", "output_tokens")]
    if any(counts.values()) or any(count is None or count % 1 for count in (*tokens, *counts.values())):
        return None
    sent, received = (int(count or 0) for count in tokens)
    return msgspec.structs.replace(
        usage,
        input_tokens=sent,
        output_tokens=received,
        cache_read_tokens=0,
        cache_write_tokens=0,
        cache_write_1h_tokens=0,
    )


def _charged(bill: _Bill) -> Decimal | None:
    charged = _money(bill.cost)
    if charged is None or bytes(bill.is_byok) != b"true":
        return charged
    details = _read(_details, bytes(bill.cost_details))
    upstream = None if details is None else _money(details.upstream_inference_cost)
    return None if upstream is None else charged + upstream


def _itemised(bill: _Bill) -> Decimal | None:
    total = _read(_total, bytes(bill.cost))
    if total is None:
        return None
    amount = _money(total.total_cost)
    return _money(total.usd) if amount is None else amount


def _ticks(bill: _Bill) -> Decimal | None:
    ticks = _money(bill.cost_in_usd_ticks)
    return None if ticks is None else ticks.scaleb(-10)


def _money(raw: RawJSON) -> Decimal | None:
    number = _read(_number, bytes(raw))
    if number is None or not number.is_finite() or number < 0 or abs(number.adjusted()) > _MAX_EXPONENT:
        return None
    return number


def _read(reader: Reader[_T], data: bytes) -> _T | None:
    value = reader.read(data)
    return None if isinstance(value, Failure) else value


class _Served(Struct):
    service_tier: RawJSON = NULL
    serviceTier: RawJSON = NULL  # noqa: N815 (the wire's name)


_served = Reader(msgspec.json.Decoder(_Served))
_word = Reader(msgspec.json.Decoder(str))


def served_tier(usage: Usage) -> str | None:
    """Give the service tier that the usage says the call was served at; None where it does not say.

    Read from `service_tier` in `usage.raw` (Anthropic) and `serviceTier` (the form of Bedrock and Gemini).
    """
    data = bytes(usage.raw)
    found = _read(_served, data) if data.find(b'"service') >= 0 else None
    if found is None:
        return None
    return _read(_word, bytes(found.service_tier)) or _read(_word, bytes(found.serviceTier)) or None
