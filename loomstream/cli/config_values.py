"""`looms config show | get | set | validate`: the settings of `looms.yaml`, with the layers above it.

Contract: prints what `loomstream.config` decides; secrets appear masked.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from loomstream.cli.completion_values import settings, values
from loomstream.cli.config_option import config_option
from loomstream.cli.help import Teaching, examples
from loomstream.cli.output import complain, note, warn, write_json_line
from loomstream.cli.terminal import one_line
from loomstream.config.known_keys import masked
from loomstream.config.load import load
from loomstream.config.settings import ModelEntry, Settings, Value
from loomstream.config.table import SETTINGS, row_of
from loomstream.errors import ConfigError, LoomstreamError
from loomstream.providers.config_file import FILE_NAME, data_folder, distrust, find_file
from loomstream.transport.record import without_keys
from loomstream.wire import Secret

_FAILED = 1
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+(?=@)|(?<=[?&]key=)[^&\s]+|(?<=api[-_]key=)[^&\s]+|(?<=token=)[^&\s]+")
"""Where an address may hold a key, though none is taken from there."""


class ValueRow(Struct, frozen=True, kw_only=True):
    """A setting as it is shown; `value` is masked where it is secret, `where` a variable or `FILE:LINE`."""

    path: str
    value: object
    layer: str
    where: str


def target_file(*, to_write: bool = False) -> Path:
    """Give the file that commands work on: the one that counts, else `~/.loom/looms.yaml`.

    Raises `ConfigError` where it is `to_write` and a link that was merely found in the working folder.
    """
    found = find_file()
    if to_write and found is not None and not found.own and found.path.is_symlink():
        how = distrust(found.owner, "it cannot have another file written by a link;")
        msg = f"{found.path}: {how}"
        raise ConfigError(msg)
    return Path(data_folder(os.environ, sys.platform)) / FILE_NAME if found is None else found.path


def _row(settings: Settings, path: str) -> ValueRow:
    origin = settings.origin(path)
    return ValueRow(path=row_of(path).path, value=_shown(settings.value(path)), layer=origin.layer, where=origin.where)


def _said(entry: ModelEntry) -> ValueRow:
    """Give what `models:` says of a model as a row."""
    return ValueRow(path=f"models.{entry.provider}:{entry.model}", value=entry.change, layer="file", where=entry.where)


def _shown(value: Value) -> object:
    if isinstance(value, Secret):
        return masked(value)
    if isinstance(value, Mapping):  # headers: any of them may hold a key
        return {name: masked(inner if isinstance(inner, Secret) else Secret(inner)) for name, inner in value.items()}
    return without_keys(_CREDENTIALS.sub("***", value)) if isinstance(value, str) else value


def _text(value: object) -> str:
    if isinstance(value, str):
        return one_line(value)
    return msgspec.json.encode(value).decode()


def _came_from(row: ValueRow) -> str:
    return f"{row.layer} {row.where}".strip()


@click.command(cls=Teaching, epilog=examples("looms config show", "looms config show --all --json"))
@click.option("--all", "everything", is_flag=True, help="Also what nobody set, with its default.")
@click.option("--json", is_flag=True, help="Print a JSON list of objects.")
@config_option
def show(*, everything: bool, json: bool) -> None:
    """Show every setting that is set, and where it comes from.

    The order is: option, LOOM_... variable, looms.yaml, the vendor's variable, default. Secrets are masked.
    """
    settings = load()
    paths = [row.path for row in SETTINGS] if everything else list(settings.origins)
    rows = [_row(settings, path) for path in paths]
    if json:
        write_json_line(msgspec.json.encode([*rows, *map(_said, settings.models)]))
        return
    for row in rows:
        click.echo(f"{row.path}: {_text(row.value)}  # {one_line(_came_from(row))}")
    for entry in settings.providers:
        click.echo(f"providers: {one_line(entry.name)}  # {one_line(entry.error or entry.where)}")
    for model in settings.models:
        click.echo(f"models: {one_line(f'{model.provider}:{model.model}')}  # {one_line(model.where)}")
    note(f"read: {settings.file or 'no configuration file (looms config init writes one)'}")
    for warning in settings.warnings:
        warn(warning)


@click.command(
    cls=Teaching, epilog=examples("looms config get llm.provider", "looms config get llm.temperature --json")
)
@click.argument("path", metavar="SETTING", shell_complete=settings)
@click.option("--json", is_flag=True, help="Print a JSON object.")
@config_option
@click.pass_context
def get(context: click.Context, *, path: str, json: bool) -> None:
    """Print one setting, such as llm.temperature; where it comes from is said on standard error.

    The exit code is 1 where it is not set and has no default.
    """
    row = _row(load(), path)
    if json:
        write_json_line(msgspec.json.encode(row))
    elif row.value is not None:
        click.echo(f"{row.path}: {_text(row.value)}")
        note(f"from: {_came_from(row)}")
    else:
        complain(f"{row.path} is not set, and has no default: looms config set {row.path} VALUE")
    if row.value is None:
        context.exit(_FAILED)


@click.command(
    "set",
    cls=Teaching,
    context_settings={"ignore_unknown_options": True},  # -1 is a value, though mostly not an allowed one
    epilog=examples("looms config set llm.provider anthropic", "looms config set llm.temperature 0"),
)
@click.argument("path", metavar="SETTING", shell_complete=settings)
@click.argument("value", shell_complete=values)
@config_option
def set_(*, path: str, value: str) -> None:
    """Write one setting into looms.yaml, such as llm.temperature.

    Comments and order stay. The file is made where there is none. Secrets are refused: see `looms config set-key`.
    """
    from loomstream.config.edit import set_value  # noqa: PLC0415 (not for --help)

    file = target_file(to_write=True)
    is_new = not file.exists()
    now = set_value(file, path, value)
    click.echo(f"{row_of(path).path}: {_text(_shown(now))}")
    note(f"{'made' if is_new else 'changed'}: {file}")
    origin = load(file).origin(path)
    if origin.layer == "environment" and origin.where in row_of(path).environment:
        warn(f"the variable {origin.where} is set, and wins over the file")


@click.command(cls=Teaching, epilog=examples("looms config unset llm.temperature"))
@click.argument("path", metavar="SETTING", shell_complete=settings)
@config_option
@click.pass_context
def unset(context: click.Context, *, path: str) -> None:
    """Take one setting out of looms.yaml, such as llm.temperature, and print what holds now.

    Comments and order stay. The exit code is 1 where the file does not say it. What still sets it elsewhere is named.
    """
    from loomstream.config.unset import unset_value  # noqa: PLC0415 (not for --help)

    file = target_file(to_write=True)
    was_there = unset_value(file, path)
    row = _row(load(file), path)
    if was_there:
        click.echo(f"{row.path}: {_text(row.value)}")
        note(f"changed: {file}")
    else:
        complain(f"{file} does not say {row.path}: nothing is changed")
    if row.value is not None:
        note(f"from: {_came_from(row)}")
    if row.layer not in ("default", "file", "") and row.value is not None:
        warn(f"{_came_from(row)} still sets it")
    if not was_there:
        context.exit(_FAILED)


@click.command(cls=Teaching, epilog=examples("looms config validate", "looms config validate ./looms.yaml --json"))
@click.argument("file", required=False, type=click.Path())
@click.option("--json", is_flag=True, help="Print a JSON object.")
@config_option
@click.pass_context
def validate(context: click.Context, *, file: str | None, json: bool) -> None:
    """Check a configuration file (default: the one that counts); the exit code is 1 where something is wrong.

    Variables are left out of account. Errors name the file, the line, the column and the setting.
    """
    path = Path(file) if file is not None else target_file()
    problems, warnings = _checked(path)
    if file is None and not os.path.lexists(path):
        problems = [f"there is no configuration file at {path} or elsewhere: looms config init writes one"]
    if json:
        found = {"file": str(path), "valid": not problems, "problems": problems, "warnings": warnings}
        write_json_line(msgspec.json.encode(found))
    else:
        for warning in warnings:
            warn(warning)
        for problem in problems:
            complain(problem)
        if not problems:
            click.echo(f"{one_line(str(path))}: valid")
    if problems:
        context.exit(_FAILED)


def _checked(path: Path) -> tuple[list[str], list[str]]:
    try:
        settings = load(path, environ={})
    except LoomstreamError as error:
        return [str(error)], []
    broken = [entry.error for entry in settings.providers if entry.error]
    return broken, list(settings.warnings)
