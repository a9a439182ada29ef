"""Models, what they can do and what they cost: dated, sourced data.

Contract: `look_up` gives the entry of a model or None, and never another model's. `price` turns token counts into
US dollars, exactly, or gives None where a price is not known. The data are read once, at the first look-up:
`data.json`, or `models.json` in the user's data folder where `looms models update` has written a newer one; of them
only the rows that are asked for. This module does no other I/O and knows no provider by name.

A model is found by its exact id (or an alias of the row), else by these rules, and by nothing else:

1. A dated or moving name stands for the id without its ending: `-2024-08-06`, `-20250929`, `-latest`. A snapshot
   that costs something else has a row of its own.
2. A cross-region inference profile of Amazon Bedrock (`us.`, `eu.`, `apac.`, `jp.`, `au.`) stands for the id without
   its beginning: both are charged at the regional rate. `global.` is cheaper for most models, so there a row without
   a `global.` row of its own gives what the model can do and no price.
3. A provider whose models are all alike (those on your own machine) has one row for any model, `*`.

What `override` was given is laid over what was found.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from time import time

import msgspec

from loomstream.catalog import stored
from loomstream.catalog.entry import (
    CAPABILITIES,
    STANDARD_TIERS,
    Entry,
    Price,
    Rates,
    Tier,
    TieredRates,
    Tools,
    price,
)
from loomstream.catalog.names import GLOBAL, plain_names
from loomstream.errors import ConfigError

__all__ = (
    "ANY_MODEL",
    "CAPABILITIES",
    "NOTICE_DAYS",
    "STANDARD_TIERS",
    "Entry",
    "Price",
    "Rates",
    "Tier",
    "TieredRates",
    "Tools",
    "as_of",
    "current",
    "end_of_life",
    "entries",
    "look_up",
    "override",
    "price",
    "refresh",
    "shipped",
    "user_file",
)

ANY_MODEL = "*"
"""The model of a row that holds for every model of its provider."""

NOTICE_DAYS = 60
"""So long before a model's last day a warning says so: what lies further ahead is often a day before which it stays."""

_DAY_S = 86_400
_log = logging.getLogger(__name__)
_overrides: dict[tuple[str, str], Mapping[str, object]] = {}
"""By provider and model, what the user says of it; `look_up` forgets what it knew when this changes."""


def entries(provider: str = "") -> tuple[Entry, ...]:
    """Give every row, or those of one provider, in the order of the file, with what the user says of them.

    To read all of them takes some 40 ms: on the way of a request `look_up` reads the one that is needed. Raises
    `ConfigError` where a row of the user's file cannot be read.
    """
    known = current()
    try:
        found = tuple(known.entries_of(provider) if provider else known)
    except ValueError as error:
        msg = f"{user_file()}: {error}: run `looms models update`, or delete it"
        raise ConfigError(msg) from error
    return tuple(_with_overrides(entry, entry.model) for entry in found)


def as_of() -> date:
    """Give the day of which the data are."""
    return current().as_of


@lru_cache(maxsize=1024)  # asked several times for each request; the rows never change
def look_up(provider: str, model: str) -> Entry | None:
    """Give the entry of a model, or None where it is not known; the module says which names stand for which."""
    found = _read(provider, model) if model != ANY_MODEL else None
    found = found or _by_rule(provider, model)
    if found is None:
        anything = _read(provider, ANY_MODEL)
        found = None if anything is None else msgspec.structs.replace(anything, model=model)
    if not _overrides:
        return found
    if found is None and (provider, model) in _overrides:
        found = Entry(provider=provider, model=model, as_of=as_of(), source="")
    return None if found is None else _with_overrides(found, model)


def end_of_life(provider: str, model: str, now_s: float | None = None) -> str:
    """Say when the provider takes (or took) the model away, and what to ask instead.

    Empty where it does not, or not within `NOTICE_DAYS`. `now_s` is a time in seconds since 1970 (default: now). The
    day is told in the same words before it and after it: it is a date in a source, and hosts grant delays.
    """
    return _end_of_life(provider, model, int(time() if now_s is None else now_s) // _DAY_S)


@lru_cache(maxsize=1024)  # asked for each request
def _end_of_life(provider: str, model: str, day: int) -> str:
    entry = look_up(provider, model)
    if entry is None or entry.deprecated_on is None:
        return ""
    if entry.deprecated_on > date(1970, 1, 1) + timedelta(days=day + NOTICE_DAYS):
        return ""
    instead = f"; {provider} names {entry.successor} instead" if entry.successor else ""
    return f"{model} is deprecated: its last day at {provider} is {entry.deprecated_on}{instead}"


def _read(provider: str, name: str) -> Entry | None:
    try:
        return current().entry(provider, name)
    except ValueError as error:
        _log.warning("%s: %s: run `looms models update`, or delete it", user_file(), error)
        return shipped().entry(provider, name)


def _by_rule(provider: str, model: str) -> Entry | None:
    for name in plain_names(model):
        if (found := _read(provider, name)) is not None:
            return found
    name = GLOBAL.sub("", model)
    worldwide = _read(provider, name) if name != model else None
    return None if worldwide is None else msgspec.structs.replace(worldwide, model=model, price=None)


# --- what the user says --------------------------------------------------------------------------


_RATES = frozenset(Rates.__struct_fields__)
_FIELDS = _RATES | (frozenset(Entry.__struct_fields__) - {"provider", "model", "aliases", "price", "source", "as_of"})


def override(models: Mapping[str, Mapping[str, object]], *, source: str = "your configuration") -> None:
    """Lay what the user says of models over the catalog, for this process; it replaces what was laid before.

    `models` is by `provider:model`; each says fields of `Entry` (`context_tokens`, `vision`, `deprecated_on`, …) and of
    `Rates` (`input`, `output`, … in US dollars per million tokens, in the place of the whole price). A model that the
    catalog does not know becomes known. `source` is what the entries name as their source.

    Raises `ConfigError` for a key that names no model, an unknown field, a value of another type, a negative rate, and
    rates without `input` and `output`; it names the place as `models.KEY.FIELD`.
    """
    changes = {_key(key): _change(f"models.{key}", said, source) for key, said in models.items()}
    _overrides.clear()
    _overrides.update(changes)
    look_up.cache_clear()
    _end_of_life.cache_clear()


def _key(key: str) -> tuple[str, str]:
    provider, _, model = key.partition(":")
    if not provider or not model:
        msg = f"models.{key}: write the provider and the model, as in `openai:gpt-4o`"
        raise ConfigError(msg)
    return provider, model


def _change(place: str, said: Mapping[str, object], source: str) -> Mapping[str, object]:
    if not isinstance(said, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (it comes from a file)
        msg = f"{place}: give fields and values, not {type(said).__name__}"
        raise ConfigError(msg)
    for field in said:
        if field not in _FIELDS:
            msg = f"{place}.{field}: there is no such field; there are {', '.join(sorted(_FIELDS))}"
            raise ConfigError(msg)
    rates = {field: value for field, value in said.items() if field in _RATES}
    fields = {field: value for field, value in said.items() if field not in _RATES}
    blank = {"provider": "", "model": "", "as_of": date.min, "source": source}
    try:
        priced = {"price": msgspec.convert(rates, Price, strict=False)} if rates else {}
        entry = msgspec.convert(blank | fields, Entry, strict=False)
    except msgspec.ValidationError as error:
        msg = f"{place}: {error}"
        raise ConfigError(msg) from None
    if any(not rate.is_finite() or rate < 0 for each in priced.values() for rate in _numbers(each)):
        msg = f"{place}: a rate is in US dollars per million tokens, 0 or more"
        raise ConfigError(msg)
    return {"source": source, **{field: getattr(entry, field) for field in fields}, **priced}


def _numbers(known: Price) -> list[Decimal]:
    return [rate for field in _RATES if (rate := getattr(known, field)) is not None]


def _with_overrides(entry: Entry, asked: str) -> Entry:
    said = _overrides.get((entry.provider, asked)) or _overrides.get((entry.provider, entry.model))
    return entry if said is None else msgspec.structs.replace(entry, **said)


# --- the files -----------------------------------------------------------------------------------


def user_file() -> Path:
    """Give the file that `looms models update` writes: `models.json` in `$LOOM_DATA_DIR` (default `~/.loom`)."""
    folder = os.environ.get("LOOM_DATA_DIR", "").strip() or "~/.loom"
    return Path(os.path.expanduser(folder), "models.json")  # noqa: PTH111 (no error where there is no home)


def refresh() -> None:
    """Forget what was read, so that the next look-up reads the files anew."""
    current.cache_clear()
    look_up.cache_clear()
    _end_of_life.cache_clear()


@cache
def current() -> stored.Catalog:
    """Give the user's data where they are at least as new as ours."""
    ours = shipped()
    path = user_file()
    try:
        theirs = stored.decode(path.read_bytes())
    except OSError:
        return ours  # there is none
    except ValueError as error:
        _log.warning("%s is no catalog of models (%s): run `looms models update`, or delete it", path, error)
        return ours
    return theirs if theirs.as_of >= ours.as_of else ours


def shipped() -> stored.Catalog:
    """Give the data that came with this release. Raises `ConfigError` where they cannot be read."""
    try:
        data = Path(__file__).with_name("data.json").read_bytes()
    except OSError as error:
        msg = f"the model catalog cannot be read ({error.strerror or error}): reinstall loomstream"
        raise ConfigError(msg) from error
    return stored.decode(data)
