"""`looms providers`: what providers there are, and what of it works here and now.

Contract: shows where a key was found, never a key. Asks the keyring as `connect` would, and nobody else but for
`--check`. A package or an entry of `looms.yaml` that is broken is a line that says why.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from functools import partial
from string import Formatter
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec import Struct

from loomstream.cli.completion_values import providers as complete_providers
from loomstream.cli.config_option import config_option
from loomstream.cli.help import Teaching
from loomstream.cli.output import Channel, warn, write_json_line
from loomstream.cli.terminal import one_line
from loomstream.errors import ConfigError
from loomstream.providers import Listed, Provider, Setting, dialects_of, listing, look_up

if TYPE_CHECKING:
    from loomstream.config.settings import Settings
    from loomstream.doctor.reach import Reach

_FAILED = 1
_FOUND = ("environment ", "file ", "keyring ")
"""How the sources of a key begin."""
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_RUNTIME = "xllamacpp"
_LIBRARY_OF = {
    "aws": ("aiobotocore", "bedrock"),
    "azure": ("azure.identity", "azure"),
    "google": ("google.auth", "vertex"),
}
"""The schemes that find credentials of other kinds than a key, each with the library for that and its extra."""


class SettingRow(Struct, frozen=True, kw_only=True):
    """What is said of a setting; `source` is where its value comes from, empty where it has none."""

    name: str
    environment_variables: tuple[str, ...]
    default: str
    required: bool
    secret: bool
    source: str
    help: str


class Row(Struct, frozen=True, kw_only=True):
    """What is said of a provider.

    `usable` is None where it cannot be told without asking someone else. `source` is where its key comes from, `reason`
    why it is not usable, or what else there is to say, and `missing_variable` the one that makes it usable, where a
    variable can. `origin` is `built in`, `package NAME` or `file PATH`. `reachable` is None where nobody was asked, and
    `reached` says what came of asking.
    """

    name: str
    aliases: tuple[str, ...] = ()
    origin: str
    dialect: str = ""
    dialects: tuple[str, ...] = ()
    authentication: str = ""
    environment_variables: tuple[str, ...] = ()
    keyring_name: str = ""
    base_url: str = ""
    default_model: str = ""
    model_variables: tuple[str, ...] = ()
    settings: tuple[SettingRow, ...] = ()
    usable: bool | None
    source: str = ""
    reason: str = ""
    missing_variable: str = ""
    reachable: bool | None = None
    reached: str = ""


class _State(Struct, frozen=True):
    usable: bool | None
    source: str = ""
    reason: str = ""
    missing_variable: str = ""


_EPILOG = """\b
Examples:
  looms providers
  looms providers azure-openai        its settings and their variables
  looms providers --check             tries the keys that are found
"""


@click.command(cls=Teaching, epilog=_EPILOG)
@click.argument("name", required=False, shell_complete=complete_providers)
@click.option("--check", is_flag=True, help="Connect to those that are usable, and try the key. Nothing is billed.")
@click.option("--live", is_flag=True, help="Have each of them answer a few words. This is billed.")
@click.option("--json", is_flag=True, help="Print a JSON list of objects.")
@config_option
@click.pass_context
def providers(context: click.Context, *, name: str | None, check: bool, live: bool, json: bool) -> None:
    """List the providers, and whether each is usable now.

    With NAME say everything about that one: its dialects, its settings, its variables. With --check the exit code is 1
    where one whose key was found cannot be reached, or refuses it.
    """
    settings = _settings()
    rows = [_row(listed, settings) for listed in _listed(name)]
    if check or live:
        rows = _checked(rows, settings, live=live)
    _print(rows, name, json=json)
    if any(row.reachable is False and row.source.startswith(_FOUND) for row in rows):
        context.exit(_FAILED)


def _print(rows: list[Row], name: str | None, *, json: bool) -> None:
    if json:
        write_json_line(msgspec.json.encode(rows))
    elif name is not None:
        click.echo("\n\n".join(_described(row) for row in rows))
    elif sys.stdout is not None and sys.stdout.isatty():
        _draw(rows)
    else:
        click.echo("\n".join(_plain(rows)))


def _listed(name: str | None) -> list[Listed]:
    """Give what is to be shown. A configuration file that cannot be read is no reason to show nothing."""
    try:
        found = listing()
    except ConfigError as error:
        warn(str(error))
        found = listing(with_file=False)
    if name is None:
        return found
    chosen = [listed for listed in found if name in (listed.name, *(listed.row.aliases if listed.row else ()))]
    return chosen or [Listed(name=name, origin="", row=look_up(name))]  # raises: it is unknown


# --- what there is -------------------------------------------------------------------------------


def _settings() -> Settings | None:
    """Give the configuration; one that cannot be read is no reason to show nothing (`_listed` warns of it)."""
    from loomstream.config.load import load  # noqa: PLC0415 (not for --help)

    try:
        return load()
    except ConfigError:
        return None


def _checked(rows: list[Row], settings: Settings | None, *, live: bool) -> list[Row]:
    """Ask those that are usable. Raises `ConfigError` where the configuration cannot be read."""
    import anyio  # noqa: PLC0415 (not for --help)

    from loomstream.config.load import load  # noqa: PLC0415 (the same)
    from loomstream.doctor.reach import reach_all  # noqa: PLC0415 (the same)

    settings = settings or load()  # raises what is wrong with it
    names = [row.name for row in rows if row.usable is not False]
    found = anyio.run(partial(reach_all, names, settings, live=live))
    return [_with_reach(row, found.get(row.name)) for row in rows]


def _with_reach(row: Row, reach: Reach | None) -> Row:
    if reach is None:
        return row
    return msgspec.structs.replace(row, reachable=reach.reachable, reached=one_line(reach.said))


def _row(listed: Listed, settings: Settings | None) -> Row:
    provider = listed.row
    if provider is None:
        return Row(name=listed.name, origin=listed.origin, usable=False, reason=listed.error)
    base_url = _base_url(provider, settings)
    state = _state(provider, base_url, settings)
    return Row(
        name=listed.name,
        aliases=tuple(name for name in (provider.name, *provider.aliases) if name != listed.name),
        origin=listed.origin,
        dialect="" if provider.handler else provider.dialect,
        dialects=() if provider.handler else dialects_of(provider),
        authentication=provider.auth,
        environment_variables=provider.key_environment + provider.base_url_environment,
        keyring_name=provider.keyring,
        base_url=_CREDENTIALS.sub("", base_url),
        default_model=_of_file(provider, "model", settings)[0]
        or _first(provider.model_environment)
        or provider.default_model,
        model_variables=provider.model_environment,
        settings=tuple(_setting(provider, setting, settings) for setting in provider.settings),
        usable=state.usable,
        source=state.source,
        reason=state.reason,
        missing_variable=state.missing_variable,
    )


def _of_file(provider: Provider, feeds: str, settings: Settings | None) -> tuple[str, str]:
    """Give what the file says of one of a provider's settings, and where; two empty texts where it says nothing."""
    from loomstream.config.table import fed_by  # noqa: PLC0415 (not for --help)

    fed = fed_by(provider.name, feeds)
    if settings is None or fed is None or settings.origin(fed.path).layer != "file":
        return "", ""
    value = settings.value(fed.path)
    return (value if isinstance(value, str) else ""), f"file {settings.origin(fed.path).where}"


def _setting(provider: Provider, setting: Setting, settings: Settings | None) -> SettingRow:
    named = next((name for name in setting.environment if os.environ.get(name, "").strip()), "")
    in_file = _of_file(provider, setting.name, settings)[1]
    elsewhere = f"environment {named}" if named else "default" if setting.default else ""
    return SettingRow(
        name=setting.name,
        environment_variables=setting.environment,
        default=setting.default,
        required=setting.required,
        secret=bool(setting.keyring),
        source=in_file or elsewhere,
        help=setting.help,
    )


def _first(names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


def _usual(names: tuple[str, ...]) -> str:
    """Give the variable to name first: the vendor's own, where there is one."""
    return next((name for name in names if not name.startswith("LOOM_")), next(iter(names), ""))


def _base_url(provider: Provider, settings: Settings | None) -> str:
    given = _of_file(provider, "base_url", settings)[0]
    return given or _first(provider.base_url_environment) or provider.base_url


def _state(provider: Provider, base_url: str, settings: Settings | None) -> _State:
    if provider.launch:
        return _state_of_launched()
    missing = _missing(provider, base_url, settings)
    if missing is not None:
        return missing
    if provider.handler and (problem := _handler_problem(provider)):
        return _State(usable=False, reason=problem)
    if provider.auth == "none":
        return _State(usable=True, source="no key needed")
    return _state_of_key(provider, settings)


def _missing(provider: Provider, base_url: str, settings: Settings | None) -> _State | None:
    """Say what is missing beside a credential."""
    if not base_url and not provider.handler:
        variable = _usual(provider.base_url_environment)
        ways = " or ".join(filter(None, ("--base-url", variable)))
        return _State(usable=False, reason=f"needs {ways}", missing_variable=variable)
    named = {field for _, field, _, _ in Formatter().parse(base_url) if field} if "{" in base_url else set[str]()
    for setting in provider.settings:
        if (setting.required or setting.name in named) and not setting.default and not _first(setting.environment):
            if _of_file(provider, setting.name, settings)[1]:
                continue
            if provider.auth in _LIBRARY_OF:
                continue  # the credentials may tell, or a key do without
            variable = _usual(setting.environment)
            ways = " or ".join(filter(None, (f"--set {setting.name}=…", variable)))
            return _State(usable=False, reason=f"needs {ways}", missing_variable=variable)
    return None


def _handler_problem(provider: Provider) -> str:
    from loomstream.endpoint import imported  # noqa: PLC0415 (not for --help)

    try:
        imported(provider, "handler", provider.handler)
    except ConfigError as error:
        return str(error)
    return ""


def _state_of_key(provider: Provider, settings: Settings | None) -> _State:
    from loomstream.config.known_keys import find_key, keys_of  # noqa: PLC0415 (not for --help)

    entry = None if settings is None else settings.entry(provider.name)
    if entry is not None and entry.secrets:
        return _State(usable=True, source=f"file {entry.where}")
    notes: list[str] = []
    for key in keys_of(provider):
        try:
            found = find_key(key, settings, notes)
        except ConfigError as error:
            return _State(usable=False, reason=str(error))
        if found is not None:
            return _State(usable=True, source=found.source)
    return _state_without_key(provider, notes)


def _state_without_key(provider: Provider, notes: list[str]) -> _State:
    ways = [*provider.key_environment, *([f"keyring loom/{provider.keyring}"] if provider.keyring else [])]
    reason = "; ".join([f"no key in {' or '.join(ways)}", *dict.fromkeys(notes)])
    if provider.auth in _LIBRARY_OF:
        library, extra = _LIBRARY_OF[provider.auth]
        if not _is_installed(library):
            reason += f"; other credentials need the extra `{extra}`: pip install 'loomstream[{extra}]'"
            return _State(usable=False, reason=reason, missing_variable=_usual(provider.key_environment))
        return _State(usable=None, source="looked for when it is used", reason=reason)
    if not provider.needs_key:
        return _State(usable=True, source="no key needed")
    return _State(usable=False, reason=reason, missing_variable=_usual(provider.key_environment))


def _is_installed(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ImportError:  # its parent is not there
        return False


def _state_of_launched() -> _State:
    from loomstream.local.model_file import SMOLLM2, choose_model, no_model_message  # noqa: PLC0415 (not for --help)

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
_REACHED = "reached"
_SHORT_COLUMNS = 2
"""The first ones are never broken over two lines."""
_MODEL_COLUMNS = 26
"""What a model's name has where the terminal is narrow; longer ones are broken."""
_MIN_COLUMNS, _MAX_COLUMNS = 72, 120
"""A narrower terminal breaks the lines itself: nothing is cut off."""


_USABLE = {True: "yes", False: "no", None: "?"}


def _cells(row: Row) -> tuple[str, ...]:
    return row.name, _USABLE[row.usable], row.default_model or "-", _key(row)


def _table(rows: list[Row]) -> list[tuple[str, ...]]:
    """Give the titles and the cells of each row, with what came of asking where anybody was asked."""
    if not any(row.reached for row in rows):
        return [_TITLES, *(_cells(row) for row in rows)]
    return [(*_TITLES, _REACHED), *((*_cells(row), row.reached or "-") for row in rows)]


def _key(row: Row) -> str:
    if row.missing_variable:
        return f"set {row.missing_variable}"
    return row.source.removeprefix("environment ") or row.reason


def _described(row: Row) -> str:
    """Give everything about a provider, a line each."""
    lines = {
        "also called": ", ".join(row.aliases),
        "origin": row.origin,
        "usable": f"{_USABLE[row.usable]}" + (f" ({row.reason})" if row.reason else ""),
        "dialects": ", ".join(row.dialects),
        "authentication": row.authentication,
        "credential": row.source,
        "variables": ", ".join(row.environment_variables),
        "keyring": f"loom/{row.keyring_name}" if row.keyring_name else "",
        "address": row.base_url,
        "reached": row.reached,
        "default model": " or ".join(filter(None, (row.default_model, *row.model_variables))),
    }
    shown = [f"  {label:<14}  {text}" for label, text in lines.items() if text]
    settings = [f"  --set {setting.name}=…  {_of_setting(setting)}" for setting in row.settings]
    return "\n".join([row.name, *shown, *settings])


def _of_setting(setting: SettingRow) -> str:
    said = [
        "required" if setting.required else "",
        "secret" if setting.secret else "",
        f"now from {setting.source}" if setting.source else "",
        f"default {setting.default}" if setting.default else "",
        " or ".join(setting.environment_variables),
        setting.help,
    ]
    return "; ".join(filter(None, said))


def _plain(rows: list[Row]) -> list[str]:
    table = _table(rows)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _draw(rows: list[Row]) -> None:
    from rich.console import Console  # noqa: PLC0415 (only on a terminal)
    from rich.table import Table  # noqa: PLC0415 (the same)
    from rich.text import Text  # noqa: PLC0415 (the same)

    width = min(max(Console().width, _MIN_COLUMNS), _MAX_COLUMNS)
    widths = (None, None, None if width == _MAX_COLUMNS else _MODEL_COLUMNS, None, None)
    titles, *cells = _table(rows)
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column, title in enumerate(titles):
        table.add_column(title, no_wrap=column < _SHORT_COLUMNS, overflow="fold", width=widths[column])
    for row, line in zip(rows, cells, strict=True):
        table.add_row(*(Text(cell, style="" if row.usable else "dim") for cell in line))
    Console(width=width, color_system="auto" if Channel("stdout").styles else None).print(table)
