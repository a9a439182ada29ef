"""`looms config init`: asks a few questions, or takes options, and writes a first `looms.yaml`.

Contract: nothing is overwritten unasked, and without a terminal nothing is asked. The text of the file is made by
`loomstream.config.template`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from msgspec import Struct

from loomstream.cli.completion_values import models, providers
from loomstream.cli.config_option import config_option
from loomstream.cli.config_values import target_file
from loomstream.cli.help import Teaching
from loomstream.cli.output import note
from loomstream.config.known_keys import keys_of
from loomstream.config.template import IGNORED, choices, needed, new_file, questions
from loomstream.errors import ConfigError
from loomstream.providers import Provider, look_up
from loomstream.providers.table import BY_NAME

_EPILOG = """\b
Examples:
  looms config init                            asks at a terminal
  looms config init --provider anthropic --yes
  looms config init -p bedrock --set bedrock_region=us-west-2 --yes
"""


class _Wanted(Struct, frozen=True, kw_only=True):
    """What was typed."""

    provider: str | None
    settings: dict[str, str]
    force: bool
    gitignore: bool | None
    asks: bool


@click.command(cls=Teaching, epilog=_EPILOG)
@click.option(
    "-p", "--provider", metavar="NAME", shell_complete=providers, help="Who answers; asked for at a terminal."
)
@click.option("-m", "--model", metavar="MODEL", shell_complete=models, help="The model (default: the provider's).")
@click.option("--set", "settings", metavar="SETTING=VALUE", multiple=True, help="A setting, such as bedrock_region=…")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@click.option("--gitignore/--no-gitignore", default=None, help="Add the lines that keep keys out of a repository.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing; what is not given is left at its default.")
@config_option
def init(
    *,
    provider: str | None,
    model: str | None,
    settings: tuple[str, ...],
    force: bool,
    gitignore: bool | None,
    yes: bool,
) -> None:
    """Write a first looms.yaml, for you alone to read (mode 0600), into ~/.loom or to --config PATH.

    Every provider is offered; those that are not chosen stand in the file as comments. No key is written.
    """
    asks = not yes and sys.stdin is not None and sys.stdin.isatty()
    wanted = _Wanted(provider=provider, settings=_pairs(settings), force=force, gitignore=gitignore, asks=asks)
    file = target_file(to_write=True)
    _may_write(file, wanted)
    row = _provider(wanted)
    values = _values(row, model, wanted)
    _write(file, row, values)
    _ignore(Path.cwd(), wanted)
    _say_next(row, file)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name.strip() or not text.strip():
            msg = f"{name.strip()!r} is no setting: write it as SETTING=VALUE"
            raise click.UsageError(msg)
        pairs[f"llm.{name.strip().removeprefix('llm.')}"] = text.strip()
    return pairs


def _may_write(file: Path, wanted: _Wanted) -> None:
    if not file.exists() or wanted.force:
        return
    if not wanted.asks:
        msg = f"{file} is there already: add --force to overwrite it, or change it with looms config set"
        raise ConfigError(msg)
    click.confirm(f"{file} is there already. Overwrite it?", abort=True, err=True)


def _provider(wanted: _Wanted) -> Provider:
    if wanted.provider is not None:
        row = look_up(wanted.provider)
        if row.name not in BY_NAME:
            msg = f"{row.name} is not built in: write its entry by hand (docs/how-to/custom-providers.md)"
            raise ConfigError(msg)
        return row
    if not wanted.asks:
        return choices()[0]
    rows = choices()
    usual = rows[0].name
    for number, row in enumerate(rows, start=1):
        click.echo(f"  {number:>2}  {row.name}", err=True)
    names = {str(number): row for number, row in enumerate(rows, start=1)} | dict(BY_NAME)
    chosen = click.prompt("Provider (name or number)", default=usual, err=True, value_proc=str.strip)
    while chosen not in names:
        chosen = click.prompt(f"There is no {chosen!r}. Provider", default=usual, err=True, value_proc=str.strip)
    return names[chosen]


def _values(row: Provider, model: str | None, wanted: _Wanted) -> dict[str, str]:
    """Give the settings to write, by path: what was given, what is needed, the model."""
    values = dict(wanted.settings)
    rows = [each for each in questions(row) if each.feeds == "model" or each in needed(row)]
    for each in rows:
        if each.feeds == "model" and model is not None:
            values[each.path] = model
        elif each.path not in values and wanted.asks:
            default = str(each.default) if each.default is not None else None
            values[each.path] = click.prompt(f"{each.name} ({each.help})", default=default, err=True).strip()
        elif each.path not in values and each.default is not None:
            values[each.path] = str(each.default)
    missing = [each.name for each in needed(row) if not values.get(each.path)]
    for name in missing:
        note(f"{row.name} needs {name}: looms config set llm.{name} VALUE")
    return values


def _write(file: Path, row: Provider, values: dict[str, str]) -> None:
    from loomstream.config.edit import typed, write_new  # noqa: PLC0415 (not for --help)

    write_new(file, new_file(row, typed({path: text for path, text in values.items() if text})))
    click.echo(f"written: {file}")


def _ignore(folder: Path, wanted: _Wanted) -> None:
    from loomstream.config.private_file import add_lines  # noqa: PLC0415 (not for --help)

    add = wanted.gitignore
    if add is None and (folder / ".git").exists():
        if not wanted.asks:
            note(f"a .gitignore should have {', '.join(IGNORED)}: add --gitignore")
        else:
            add = click.confirm(f"Add {', '.join(IGNORED)} to .gitignore?", default=True, err=True)
    if add:
        added = add_lines(folder / ".gitignore", IGNORED)
        click.echo(f".gitignore: {_listed(added)}")


def _listed(added: tuple[str, ...]) -> str:
    return f"{', '.join(added)} added" if added else "has them already"


def _say_next(row: Provider, file: Path) -> None:
    key = next(keys_of(row), None)
    steps = [] if key is None else [f"looms config set-key {key.name}  (or set {key.variable})"]
    steps += ["looms doctor", "looms ask Hello"]
    note(f"next: {'; '.join(steps)}")
    note(f"other settings stand as comments in {file}")
