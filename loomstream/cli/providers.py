"""`looms providers`: the table of providers, and what of it works here and now.

Contract: shows where a key was found, never a key. Asks the keyring as `connect` would.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys

import click
import msgspec
from msgspec import Struct

from loomstream.cli.output import write_json_line
from loomstream.providers import Provider, all_providers

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_RUNTIME = "xllamacpp"


class Row(Struct, frozen=True, kw_only=True):
    """What is said of a provider.

    `source` is where its key comes from, `reason` why it is not usable, or what else there is to say, and
    `missing_variable` the one that makes it usable, where a variable can.
    """

    name: str
    dialect: str
    authentication: str
    environment_variables: tuple[str, ...]
    keyring_name: str
    base_url: str
    default_model: str
    usable: bool
    source: str = ""
    reason: str = ""
    missing_variable: str = ""


class _State(Struct, frozen=True):
    usable: bool
    source: str = ""
    reason: str = ""
    missing_variable: str = ""


@click.command()
@click.option("--json", is_flag=True, help="Print a JSON list of objects.")
def providers(*, json: bool) -> None:
    """List the providers, and whether each is usable now."""
    rows = [_row(provider) for provider in all_providers()]
    if json:
        write_json_line(msgspec.json.encode(rows))
    elif sys.stdout is not None and sys.stdout.isatty():
        _draw(rows)
    else:
        click.echo("\n".join(_plain(rows)))


# --- what there is -------------------------------------------------------------------------------


def _row(provider: Provider) -> Row:
    base_url = _base_url(provider)
    state = _state(provider, base_url)
    return Row(
        name=provider.name,
        dialect=provider.dialect,
        authentication=provider.auth,
        environment_variables=provider.key_environment + provider.base_url_environment,
        keyring_name=provider.keyring,
        base_url=_CREDENTIALS.sub("", base_url),
        default_model=provider.default_model,
        usable=state.usable,
        source=state.source,
        reason=state.reason,
        missing_variable=state.missing_variable,
    )


def _base_url(provider: Provider) -> str:
    named = (os.environ.get(name, "").strip() for name in provider.base_url_environment)
    return next(filter(None, named), provider.base_url)


def _state(provider: Provider, base_url: str) -> _State:
    if provider.launch:
        return _state_of_launched()
    if not base_url:
        variable = provider.base_url_environment[-1]
        return _State(usable=False, reason=f"needs --base-url or {variable}", missing_variable=variable)
    if provider.auth == "none":
        return _State(usable=True, source="no key needed")
    return _state_of_key(provider)


def _state_of_key(provider: Provider) -> _State:
    from loomstream.config.keys import resolve_key_sync  # noqa: PLC0415 (not for --help)
    from loomstream.errors import ConfigError  # noqa: PLC0415 (the same)

    notes: list[str] = []
    try:
        found = resolve_key_sync(
            provider=provider.name,
            env_names=provider.key_environment,
            keyring_name=provider.keyring,
            notes=notes,
        )
    except ConfigError as error:
        return _State(usable=False, reason=str(error))
    if found is not None:
        return _State(usable=True, source=found.source)
    if not provider.needs_key:
        return _State(usable=True, source="no key needed")
    ways = [*provider.key_environment, *([f"keyring loom/{provider.keyring}"] if provider.keyring else [])]
    reason = "; ".join([f"no key in {' or '.join(ways)}", *notes])
    return _State(usable=False, reason=reason, missing_variable=provider.key_environment[-1])


def _state_of_launched() -> _State:
    from loomstream.errors import ConfigError  # noqa: PLC0415 (not for --help)
    from loomstream.local.model_file import SMOLLM2, choose_model, no_model_message  # noqa: PLC0415 (the same)

    if importlib.util.find_spec(_RUNTIME) is None:
        return _State(usable=False, reason="needs the extra `local`: pip install 'loomstream[local]'")
    try:
        found = choose_model(None, SMOLLM2)
    except ConfigError as error:
        return _State(usable=False, reason=str(error))
    reason = "" if found is not None else no_model_message(SMOLLM2)
    return _State(usable=True, source="runs on this machine", reason=reason)


# --- how it appears ------------------------------------------------------------------------------

_TITLES = ("provider", "usable", "default model", "key")
_MIN_COLUMNS, _MAX_COLUMNS = 72, 80
"""A narrower terminal breaks the lines itself: nothing is cut off."""


def _cells(row: Row) -> tuple[str, ...]:
    usable = "yes" if row.usable else "no"
    return row.name, usable, row.default_model or "-", _key(row)


def _key(row: Row) -> str:
    if row.missing_variable:
        return f"set {row.missing_variable}"
    return row.source.removeprefix("environment ") or row.reason


def _plain(rows: list[Row]) -> list[str]:
    table = [_TITLES, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_TITLES))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _draw(rows: list[Row]) -> None:
    from rich.console import Console  # noqa: PLC0415 (only on a terminal)
    from rich.table import Table  # noqa: PLC0415 (the same)
    from rich.text import Text  # noqa: PLC0415 (the same)

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    *names, last = _TITLES
    for name in names:
        table.add_column(name, no_wrap=True)
    table.add_column(last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style="" if row.usable else "dim") for cell in _cells(row)))
    width = min(max(Console().width, _MIN_COLUMNS), _MAX_COLUMNS)
    Console(width=width).print(table)
