"""Newer data for the user: what `looms models update` does.

Contract: the file is checked whole before it takes its place, and takes it at once: whoever reads meanwhile has the old
one or the new one. It asks no host.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import NamedTuple

from loomstream import catalog
from loomstream.catalog import generate, stored
from loomstream.errors import ConfigError
from loomstream.whole_file import write_whole

_MOST_BYTES = 64 * 1024 * 1024


class Updated(NamedTuple):
    """What an update did: where the file is, of which day it is, and how many models it has."""

    path: Path
    as_of: date
    models: int
    new: int
    changed: int
    """How many models have another price than before."""


def update(file: Path | None = None, *, today: date | None = None) -> Updated:
    """Write the user's file from a file of the same form, or from the genai-prices that is installed.

    Raises `ConfigError` for a file that cannot be read or is no catalog, where genai-prices is needed and absent or of
    a form that is not known, and where the user's file cannot be written.
    """
    base = _sound()
    before = {(entry.provider, entry.model): entry.price for entry in base}
    data = _read(file) if file is not None else _made(base, today)
    try:
        found = stored.decode(data, every_row=True)
    except ValueError as error:
        msg = f"{file or 'what was made'} is no catalog of models: {error}"
        raise ConfigError(msg) from error
    path = catalog.user_file()
    _replace(path, data)
    catalog.refresh()
    after = {(entry.provider, entry.model): entry.price for entry in found}
    changed = [key for key, price in after.items() if key in before and before[key] != price]
    return Updated(path, found.as_of, len(after), len(after.keys() - before.keys()), len(changed))


def _sound() -> stored.Catalog:
    """Give the data that count now; a file of the user's that is broken does not stand in the way of a new one."""
    try:
        catalog.entries()
    except ConfigError:
        return catalog.shipped()
    return catalog.current()


def _made(base: stored.Catalog, today: date | None) -> bytes:
    return generate.make(generate.installed(today=today), generate.by_hand(), base).data


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        msg = f"{file} cannot be read: {error.strerror or error}"
        raise ConfigError(msg) from error
    if len(data) > _MOST_BYTES:
        msg = f"{file} is larger than {_MOST_BYTES} bytes: that is no catalog of models"
        raise ConfigError(msg)
    return data


def _replace(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise ConfigError(msg) from error
