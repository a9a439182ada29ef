"""`looms providers`: what providers there are, and what of it works here and now.

Contract: shows where a key was found, never a key. Asks the keyring as `connect` would, and nobody else. A package or
an entry of `looms.yaml` that is broken is a line that says why.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from string import Formatter

import click
import msgspec
from msgspec import Struct

from loomstream.cli.config_option import config_option
from loomstream.cli.output import warn, write_json_line
from loomstream.errors import ConfigError
from loomstream.providers import Listed, Provider, Setting, dialects_of, listing, look_up

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
    variable can. `origin` is `built in`, `package NAME` or `file PATH`.
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


class _State(Struct, frozen=True):
    usable: bool | None
    source: str = ""
    reason: str = ""
    missing_variable: str = ""


@click.command()
@click.argument("name", required=False)
@click.option("--json", is_flag=True, help="Print a JSON list of objects.")
@config_option
def providers(*, name: str | None, json: bool) -> None:
    """List the providers, and whether each is usable now.

    With NAME say everything about that one: its dialects, its settings, its variables.
    """
    rows = [_row(listed) for listed in _listed(name)]
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


def _row(listed: Listed) -> Row:
    provider = listed.row
    if provider is None:
        return Row(name=listed.name, origin=listed.origin, usable=False, reason=listed.error)
    base_url = _base_url(provider)
    state = _state(provider, base_url)
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
        default_model=_first(provider.model_environment) or provider.default_model,
        model_variables=provider.model_environment,
        settings=tuple(_setting(setting) for setting in provider.settings),
        usable=state.usable,
        source=state.source,
        reason=state.reason,
        missing_variable=state.missing_variable,
    )


def _setting(setting: Setting) -> SettingRow:
    named = next((name for name in setting.environment if os.environ.get(name, "").strip()), "")
    return SettingRow(
        name=setting.name,
        environment_variables=setting.environment,
        default=setting.default,
        required=setting.required,
        secret=bool(setting.keyring),
        source=f"environment {named}" if named else "default" if setting.default else "",
        help=setting.help,
    )


def _first(names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


def _usual(names: tuple[str, ...]) -> str:
    """Give the variable to name first: the vendor's own, where there is one."""
    return next((name for name in names if not name.startswith("LOOM_")), next(iter(names), ""))


def _base_url(provider: Provider) -> str:
    return _first(provider.base_url_environment) or provider.base_url


def _state(provider: Provider, base_url: str) -> _State:
    if provider.launch:
        return _state_of_launched()
    missing = _missing(provider, base_url)
    if missing is not None:
        return missing
    if provider.handler and (problem := _handler_problem(provider)):
        return _State(usable=False, reason=problem)
    if provider.auth == "none":
        return _State(usable=True, source="no key needed")
    return _state_of_key(provider)


def _missing(provider: Provider, base_url: str) -> _State | None:
    """Say what is missing beside a credential."""
    if not base_url and not provider.handler:
        variable = _usual(provider.base_url_environment)
        ways = " or ".join(filter(None, ("--base-url", variable)))
        return _State(usable=False, reason=f"needs {ways}", missing_variable=variable)
    named = {field for _, field, _, _ in Formatter().parse(base_url) if field} if "{" in base_url else set[str]()
    for setting in provider.settings:
        if (setting.required or setting.name in named) and not setting.default and not _first(setting.environment):
            if provider.auth in _LIBRARY_OF and not setting.required:
                continue  # the credentials may tell
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


def _state_of_key(provider: Provider) -> _State:
    from loomstream.config.keys import resolve_key_sync  # noqa: PLC0415 (not for --help)

    notes: list[str] = []
    places = [(provider.key_environment, provider.keyring)]
    places += [(setting.environment, setting.keyring) for setting in provider.settings if setting.keyring]
    for variables, keyring in places:
        try:
            found = resolve_key_sync(provider=provider.name, env_names=variables, keyring_name=keyring, notes=notes)
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
_SHORT_COLUMNS = 2
"""The first ones are never broken over two lines."""
_MODEL_COLUMNS = 26
"""What a model's name has where the terminal is narrow; longer ones are broken."""
_MIN_COLUMNS, _MAX_COLUMNS = 72, 120
"""A narrower terminal breaks the lines itself: nothing is cut off."""


_USABLE = {True: "yes", False: "no", None: "?"}


def _cells(row: Row) -> tuple[str, ...]:
    return row.name, _USABLE[row.usable], row.default_model or "-", _key(row)


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
    table = [_TITLES, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_TITLES))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _draw(rows: list[Row]) -> None:
    from rich.console import Console  # noqa: PLC0415 (only on a terminal)
    from rich.table import Table  # noqa: PLC0415 (the same)
    from rich.text import Text  # noqa: PLC0415 (the same)

    width = min(max(Console().width, _MIN_COLUMNS), _MAX_COLUMNS)
    widths = (None, None, None if width == _MAX_COLUMNS else _MODEL_COLUMNS, None)
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column, title in enumerate(_TITLES):
        table.add_column(title, no_wrap=column < _SHORT_COLUMNS, overflow="fold", width=widths[column])
    for row in rows:
        table.add_row(*(Text(cell, style="" if row.usable else "dim") for cell in _cells(row)))
    Console(width=width).print(table)
