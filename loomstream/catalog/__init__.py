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
3. A fine-tuned model of OpenAI, `ft:BASE:ORGANIZATION:NAME:ID`, stands for `ft:BASE`, by rule 1 too: that is what the
   use of any model tuned from it costs. Where there is no such row it stands for nothing: never for the base.
4. A provider whose models are all alike (those on your own machine) has one row for any model, `*`.

What `configure` and `override` were given is laid over what was found.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
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
from loomstream.catalog.names import GLOBAL, plain_names, tuned_names
from loomstream.catalog.said import Change, Unfit, change
from loomstream.errors import ConfigError
from loomstream.providers.config_file import own_file

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
    "configure",
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
_Changes = Mapping[tuple[str, str], Change]
_of_program: dict[str, _Changes] = {}
_of_files: dict[str, _Changes] = {}
"""What `override` and `configure` were given, by source; of files the latest is the last."""

_laying = Lock()


class _Laid:
    """What of it counts, by provider and model. It never changes: another one takes its place.

    Caches are keyed by it, so that what a thread found under the one before can never be taken for an answer now.
    """

    __slots__ = ("changes",)

    def __init__(self, changes: _Changes) -> None:
        self.changes = changes


_laid = [_Laid({})]
"""The one that counts now."""


def entries(provider: str = "") -> tuple[Entry, ...]:
    """Give every row, or those of one provider, in the order of the file, with what the user says of them.

    Behind them stand the models that only the user speaks of. To read all of them takes some 40 ms: on the way of a
    request `look_up` reads the one that is needed. Raises `ConfigError` where a row of the user's file cannot be read.
    """
    known = current()
    try:
        found = tuple(known.entries_of(provider) if provider else known)
    except ValueError as error:
        msg = f"{user_file()}: {error}: run `looms models update`, or delete it"
        raise ConfigError(msg) from error
    laid = _laid[0]
    listed = {(entry.provider, entry.model) for entry in found} if laid.changes else set[tuple[str, str]]()
    said = (_with_overrides(entry, entry.model, laid) for entry in found)
    return (*said, *_said_alone(provider, listed, laid))


def as_of() -> date:
    """Give the day of which the data are."""
    return current().as_of


def look_up(provider: str, model: str) -> Entry | None:
    """Give the entry of a model, or None where it is not known; the module says which names stand for which."""
    return _looked_up(provider, model, _laid[0])


@lru_cache(maxsize=1024)  # asked several times for each request; the rows never change
def _looked_up(provider: str, model: str, laid: _Laid) -> Entry | None:
    found = _read(provider, model) if model != ANY_MODEL else None
    found = found or _by_rule(provider, model)
    if found is None:
        anything = _read(provider, ANY_MODEL)
        found = None if anything is None else msgspec.structs.replace(anything, model=model)
    if not laid.changes:
        return found
    if found is None and (provider, model) in laid.changes:
        found = Entry(provider=provider, model=model, as_of=as_of(), source="")
    return None if found is None else _with_overrides(found, model, laid)


def end_of_life(provider: str, model: str, now_s: float | None = None) -> str:
    """Say when the provider takes (or took) the model away, and what to ask instead.

    Empty where it does not, or not within `NOTICE_DAYS`. `now_s` is a time in seconds since 1970 (default: now). The
    day is told in the same words before it and after it: it is a date in a source, and hosts grant delays.
    """
    return _end_of_life(provider, model, int(time() if now_s is None else now_s) // _DAY_S, _laid[0])


@lru_cache(maxsize=1024)  # asked for each request
def _end_of_life(provider: str, model: str, day: int, laid: _Laid) -> str:
    entry = _looked_up(provider, model, laid)
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
    for name in (*plain_names(model), *tuned_names(model)):
        if (found := _read(provider, name)) is not None:
            return found
    name = GLOBAL.sub("", model)
    worldwide = _read(provider, name) if name != model else None
    return None if worldwide is None else msgspec.structs.replace(worldwide, model=model, price=None)


# --- what the user says --------------------------------------------------------------------------


def override(models: Mapping[str, Mapping[str, object]], *, source: str = "your program") -> None:
    """Lay what a program says of models over the catalog, for this process; it replaces what was laid before.

    `models` is by `provider:model`; each says fields of `Entry` (`context_tokens`, `vision`, `deprecated_on`, …) and of
    `Rates` (`input`, `output`, … in US dollars per million tokens, in the place of the whole price): those of
    `loomstream.catalog.said.FIELDS`. A model that the catalog does not know becomes known. It wins over `models:` of a
    configuration. `source` is what the entries name as their source.

    Raises `ConfigError` for a key that names no model, an unknown field, a value that it cannot have, and a price
    without `input` and `output`; it names the place as `models.KEY.FIELD`.
    """
    changes = {_key(key): _checked(f"models.{key}", said) for key, said in models.items()}
    with _laying:
        _of_program.clear()
        _of_program[source] = changes
        _lay()


def configure(file: str, models: _Changes) -> None:
    """Lay what a configuration says of models, by provider and model, over the catalog, for this process.

    It takes the place of what the same file said before. Where several files speak of one model, the one that was laid
    last counts; `connect`, and the commands that read a configuration, lay what theirs says.
    """
    with _laying:
        if not models and file not in _of_files:
            return
        if models and _of_files.get(file) == models and next(reversed(_of_files)) == file:
            return
        _of_files.pop(file, None)
        if models:
            _of_files[file] = dict(models)
        _lay()


def _lay() -> None:
    """Put together what counts, the strongest last, and put it in the place of what counted before."""
    laid: dict[tuple[str, str], Change] = {}
    for source, models in (*_of_files.items(), *_of_program.items()):
        for key, said in models.items():
            laid[key] = {**laid.get(key, {}), "source": source, **said}
    _laid[0] = _Laid(laid)
    _forget()


def _forget() -> None:
    """Forget what was looked up."""
    _looked_up.cache_clear()
    _end_of_life.cache_clear()


def _key(key: str) -> tuple[str, str]:
    provider, _, model = key.partition(":")
    if not provider or not model:
        msg = f"models.{key}: write the provider and the model, as in `openai:gpt-4o`"
        raise ConfigError(msg)
    return provider, model


def _checked(place: str, said: Mapping[str, object]) -> Change:
    if not isinstance(said, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (callers without types)
        msg = f"{place}: give fields and values, not {type(said).__name__}"
        raise ConfigError(msg)
    try:
        return change(said)
    except Unfit as error:
        problem = f"{place}.{error.field}: {error}" if error.field else f"{place}: {error}"
    raise ConfigError(problem)


def _with_overrides(entry: Entry, asked: str, laid: _Laid) -> Entry:
    said = laid.changes.get((entry.provider, asked)) or laid.changes.get((entry.provider, entry.model))
    return entry if said is None else msgspec.structs.replace(entry, **said)


def _said_alone(provider: str, listed: set[tuple[str, str]], laid: _Laid) -> list[Entry]:
    """Give the models that have no row of their own, of which something is said."""
    keys = [key for key in laid.changes if key not in listed and provider in ("", key[0])]
    found = [(key[1], _looked_up(*key, laid)) for key in keys]
    return [msgspec.structs.replace(entry, model=model, aliases=()) for model, entry in found if entry is not None]


# --- the files -----------------------------------------------------------------------------------


def user_file() -> Path:
    """Give the file that `looms models update` writes: `models.json` in `$LOOM_DATA_DIR` (default `~/.loom`)."""
    return own_file("models.json")


def refresh() -> None:
    """Forget what was read, so that the next look-up reads the files anew."""
    current.cache_clear()
    _forget()


@cache
def current() -> stored.Catalog:
    """Give the user's data where they are at least as new as ours."""
    ours = shipped()
    path = user_file()
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        _log.warning("%s is no plain file, and is not read: delete it", path)
        return ours
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
