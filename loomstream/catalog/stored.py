"""The catalog's file: one JSON object, of which only the rows that are asked for are read.

Contract: `decode` checks the outline and leaves the rows as they are; `Catalog.entry` reads one. `encode` writes a line
a row, so that two versions can be compared. A row says nothing twice: rates are lists, sources are numbers, and what is
not known is left out. It opens no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from loomstream.catalog.entry import Entry, Price, Rates, Tier, TieredRates, Tools

VERSION = 2
"""The form of the file."""

_FLAGS = {
    "s": "streaming",
    "p": "parallel_tools",
    "v": "vision",
    "r": "reasoning",
    "f": "prefill",
    "o": "structured_output",
}
"""The letters of `can` and `cannot`."""

_DEAREST, _DECIMALS = 1_000_000, 20
"""Rates beyond these are no prices, and would overflow in arithmetic."""

_Rates = tuple[Decimal | None, ...]
_Tiers = tuple[_Rates, ...]
"""The rates first, then those of each tier with the number of tokens that it begins above in front."""

_RATE_FIELDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An entry as it is stored. `replaces` is beside a price by hand: the mark of what a source stated then."""

    context: int | None = None
    output: int | None = None
    can: str = ""
    cannot: str = ""
    tools: Tools | None = None
    price: _Tiers = ()
    service: Mapping[str, _Tiers] = {}
    regions: Mapping[str, _Tiers] = {}
    free: bool = False
    ends: date | None = None
    successor: str | None = None
    as_of: date | None = None
    source: Annotated[int, Meta(ge=0)] = 0
    replaces: str = ""


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    as_of: date
    sources: tuple[str, ...]
    providers: Mapping[str, Mapping[str, Raw]]


_file_decoder = msgspec.json.Decoder(_File)
_row_decoder = msgspec.json.Decoder(Row)
_alias_decoder = msgspec.json.Decoder(str)
_encoder = msgspec.json.Encoder(decimal_format="number")


class Catalog:
    """A file that was read: the names of all models, and their entries when they are asked for."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self.as_of = file.as_of

    @property
    def providers(self) -> Mapping[str, Mapping[str, Raw]]:
        """By provider, the names that have a row or stand for one."""
        return self._file.providers

    def entry(self, provider: str, name: str) -> Entry | None:
        """Give the entry of exactly this name, or of the one that it stands for; its `aliases` are left out.

        Raises `ValueError` where its row cannot be read.
        """
        raw = self._file.providers.get(provider, {}).get(name)
        if raw is None:
            return None
        if not _is_alias(raw):
            return self._entry(provider, name, raw, ())
        meant = _alias_decoder.decode(raw)
        raw = self._file.providers[provider].get(meant)
        if raw is None:
            msg = f"{provider}:{name} stands for {meant!r}, which has no row"
            raise ValueError(msg)
        return self._entry(provider, meant, raw, ())

    def row(self, provider: str, name: str) -> Row | None:
        """Give what is stored of exactly this model; None for a name that stands for another."""
        raw = self._file.providers.get(provider, {}).get(name)
        return None if raw is None or _is_alias(raw) else _row_decoder.decode(raw)

    def __iter__(self) -> Iterator[Entry]:
        """Give all entries, with their aliases, in the order of the file."""
        for provider in self._file.providers:
            yield from self.entries_of(provider)

    def entries_of(self, provider: str) -> Iterator[Entry]:
        """Give the entries of one provider, with their aliases; none where it is not known."""
        names = self._file.providers.get(provider, {})
        aliases: dict[str, list[str]] = {}
        for name, raw in names.items():
            if _is_alias(raw):
                aliases.setdefault(_alias_decoder.decode(raw), []).append(name)
        for dangling in aliases.keys() - names.keys():
            msg = f"{provider}:{aliases[dangling][0]} stands for {dangling!r}, which has no row"
            raise ValueError(msg)
        for name, raw in names.items():
            if not _is_alias(raw):
                yield self._entry(provider, name, raw, tuple(aliases.get(name, ())))

    def _entry(self, provider: str, name: str, raw: Raw, aliases: tuple[str, ...]) -> Entry:
        try:
            return self._read(provider, name, _row_decoder.decode(raw), aliases)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            msg = f"the row of {provider}:{name} cannot be read ({error})"
            raise ValueError(msg) from error

    def _read(self, provider: str, name: str, row: Row, aliases: tuple[str, ...]) -> Entry:
        flags = {_FLAGS[letter]: True for letter in row.can} | {_FLAGS[letter]: False for letter in row.cannot}
        return Entry(
            provider=provider,
            model=name,
            aliases=aliases,
            context_tokens=row.context,
            max_output_tokens=row.output,
            tools=row.tools,
            price=_price(row),
            free=row.free,
            deprecated_on=row.ends,
            successor=row.successor,
            as_of=row.as_of or self._file.as_of,
            source=self._file.sources[row.source],
            **flags,
        )


def decode(data: bytes, *, every_row: bool = False) -> Catalog:
    """Give the catalog of a file; `every_row` reads and checks all of it at once.

    Raises `ValueError` (`msgspec.DecodeError` is one) for what is no catalog.
    """
    try:
        file = _file_decoder.decode(data)
    except RecursionError:
        msg = "it is nested too deeply"
        raise ValueError(msg) from None
    if file.version != VERSION:
        msg = f"its form is version {file.version}, and this release reads {VERSION}"
        raise ValueError(msg)
    catalog = Catalog(file)
    if every_row:
        for provider, names in catalog.providers.items():
            for name in names:
                catalog.entry(provider, name)
    return catalog


def encode(entries: Iterable[Entry], as_of: date, replaces: Mapping[tuple[str, str], str]) -> bytes:
    """Give the file of some entries; `replaces` marks those whose price was put in the place of a source's."""
    sources: dict[str, int] = {}
    providers: dict[str, list[str]] = {}
    for entry in entries:
        row = _row(entry, as_of, sources.setdefault(entry.source, len(sources)), replaces)
        lines = providers.setdefault(entry.provider, [])
        lines.append(f"{_text(entry.model)}:{_text(row)}")
        lines += [f"{_text(alias)}:{_text(entry.model)}" for alias in entry.aliases]
    listed = ",\n".join(f"{_text(name)}:{{\n" + ",\n".join(lines) + "\n}" for name, lines in providers.items())
    head = f'"version":{VERSION},"as_of":{_text(as_of)},\n"sources":[\n'
    head += ",\n".join(map(_text, sources)) + "\n],\n"
    return ("{" + head + '"providers":{\n' + listed + "\n}}\n").encode()


def _text(value: object) -> str:
    return _encoder.encode(value).decode()


def _row(entry: Entry, as_of: date, source: int, replaces: Mapping[tuple[str, str], str]) -> Row:
    known = entry.price
    return Row(
        context=entry.context_tokens,
        output=entry.max_output_tokens,
        can="".join(letter for letter, flag in _FLAGS.items() if getattr(entry, flag) is True),
        cannot="".join(letter for letter, flag in _FLAGS.items() if getattr(entry, flag) is False),
        tools=entry.tools,
        price=() if known is None else _listed(known),
        service={} if known is None else {name: _listed(rates) for name, rates in known.service_tiers.items()},
        regions={} if known is None else {name: _listed(rates) for name, rates in known.regions.items()},
        free=entry.free,
        ends=entry.deprecated_on,
        successor=entry.successor,
        as_of=None if entry.as_of == as_of else entry.as_of,
        source=source,
        replaces=replaces.get((entry.provider, entry.model), ""),
    )


def _is_alias(raw: Raw) -> bool:
    return bytes(raw).startswith(b'"')


def _listed(rates: TieredRates) -> _Tiers:
    return (_numbers(rates), *((Decimal(tier.above_tokens), *_numbers(tier)) for tier in rates.tiers))


def _numbers(rates: Rates) -> _Rates:
    numbers = [getattr(rates, field) for field in _RATE_FIELDS]
    while numbers[-1] is None:
        numbers.pop()
    return tuple(numbers)


def _price(row: Row) -> Price | None:
    if not row.price:
        return None
    fields, tiers = _read(row.price)
    return Price(
        tiers=tiers,
        service_tiers={name: _tiered(listed) for name, listed in row.service.items()},
        regions={name: _tiered(listed) for name, listed in row.regions.items()},
        **fields,
    )


def _tiered(listed: _Tiers) -> TieredRates:
    fields, tiers = _read(listed)
    return TieredRates(tiers=tiers, **fields)


def _read(listed: _Tiers) -> tuple[dict[str, Decimal], tuple[Tier, ...]]:
    tiers = tuple(Tier(above_tokens=int(above or 0), **_named(numbers)) for above, *numbers in listed[1:])
    return _named(listed[0]), tiers


def _named(numbers: Iterable[Decimal | None]) -> dict[str, Decimal]:
    """Give the rates by name; those that are not known are left out."""
    known = {field: number for field, number in zip(_RATE_FIELDS, numbers, strict=False) if number is not None}
    for number in known.values():
        if not (number.is_finite() and 0 <= number <= _DEAREST) or (number and number.adjusted() < -_DECIMALS):
            msg = f"{number} is no price of a million tokens"
            raise ValueError(msg)
    return known
