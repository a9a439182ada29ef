"""`looms config set-key | get-key | list-keys | delete-key`: keys in the system's keyring.

Contract: no command takes a key as an argument. It is typed without an echo, or comes on standard input or a file
descriptor; it is shown masked, and whole at a terminal only, where that is asked for.
"""

from __future__ import annotations

import os
import sys

import click
import msgspec

from loomstream.cli.completion_values import keys
from loomstream.cli.config_option import config_option
from loomstream.cli.help import Teaching, examples
from loomstream.cli.output import note, warn, write_json_line
from loomstream.config.known_keys import KeyStatus, KnownKey, find_key, known_key, known_keys, masked, status
from loomstream.config.load import load
from loomstream.config.settings import Settings
from loomstream.errors import ConfigError
from loomstream.wire import Secret

_FAILED = 1
_EXAMPLES = examples(
    "looms config set-key anthropic_api_key",
    "pass show anthropic | looms config set-key anthropic_api_key",
    "looms config set-key gcp_credentials < service-account.json",
)
_MOST_BYTES = 64 * 1024
_json_option = click.option("--json", is_flag=True, help="Print JSON.")


def _settings() -> Settings | None:
    """Give the settings; a file that cannot be read is no reason to say nothing of keys."""
    try:
        return load()
    except ConfigError as error:
        warn(str(error))
        return None


# --- set-key -------------------------------------------------------------------------------------


@click.command("set-key", cls=Teaching, epilog=_EXAMPLES)
@click.argument("name", shell_complete=keys)
@click.option("--fd", type=click.IntRange(min=0), metavar="N", help="Read the key from file descriptor N.")
@_json_option
@config_option
def set_key(*, name: str, fd: int | None, json: bool) -> None:
    """Store a key in the system's keyring (service loom).

    It is asked for without an echo; piped in, it is read from standard input. `looms config list-keys` has the names.
    """
    from loomstream.config.keyring_store import set_key as store  # noqa: PLC0415 (not for --help)
    from loomstream.config.keys import checked  # noqa: PLC0415 (the same)

    key = known_key(name)
    value = checked(_entered(key, fd), source="as it was entered", is_header=key.is_header)
    kept = store(key.name, value, variable=key.variable)
    if json:
        write_json_line(msgspec.json.encode({"name": key.name, "stored": True, "keyring": kept}))
    else:
        click.echo(f"stored: {key.name} ({masked(value)}) in {kept}, service loom")
    set_by = next((variable for variable in key.variables if os.environ.get(variable, "").strip()), "")
    if set_by:
        warn(f"the variable {set_by} is set, and wins over the keyring")


def _entered(key: KnownKey, fd: int | None) -> Secret:
    """Give what was entered. Raises `click.UsageError` where that is nothing."""
    if fd is None and sys.stdin is not None and sys.stdin.isatty():
        value = Secret(click.prompt(f"Enter {key.name} (input hidden)", hide_input=True, err=True, default="",
                                    show_default=False))  # fmt: skip
    else:
        value = _from_stdin() if fd is None else _from_descriptor(fd)
    if not value.reveal().strip():
        msg = f"no key was entered: nothing is stored as {key.name}"
        raise click.UsageError(msg)
    return value


def _from_stdin() -> Secret:
    return Secret("") if sys.stdin is None else _decoded(sys.stdin.buffer.read(_MOST_BYTES + 1))


def _from_descriptor(descriptor: int) -> Secret:
    data = bytearray()
    try:
        while len(data) <= _MOST_BYTES and (piece := os.read(descriptor, _MOST_BYTES)):
            data += piece
    except OSError as error:
        msg = f"file descriptor {descriptor} cannot be read: {error.strerror}"
        raise click.UsageError(msg) from None
    return _decoded(bytes(data))


def _decoded(data: bytes) -> Secret:
    if len(data) > _MOST_BYTES:
        msg = f"more than {_MOST_BYTES // 1024} KiB were entered: this is no key"
        raise click.UsageError(msg)
    return Secret(data.decode("utf-8-sig", "replace"))


# --- get-key -------------------------------------------------------------------------------------


@click.command(
    "get-key",
    cls=Teaching,
    epilog=examples("looms config get-key anthropic_api_key", "looms config get-key anthropic_api_key --reveal"),
)
@click.argument("name", shell_complete=keys)
@click.option("--reveal", is_flag=True, help="Show the whole key; at a terminal only.")
@_json_option
@config_option
@click.pass_context
def get_key(context: click.Context, *, name: str, reveal: bool, json: bool) -> None:
    """Show the first and last letters of a key that is set, and where it comes from.

    It is looked for as a request would look: LOOM_... variable, looms.yaml, the vendor's variable, keyring. The exit
    code is 1 where it is nowhere.
    """
    key = known_key(name)
    if reveal and not (sys.stdout is not None and sys.stdout.isatty()):
        msg = "--reveal shows a key at a terminal only: what is piped or written to a file may be kept"
        raise click.UsageError(msg)
    notes: list[str] = []
    found = find_key(key, _settings(), notes)
    if found is None:
        _explain(key, notes)
        context.exit(_FAILED)
    shown = Secret(found.secret.reveal() if reveal else masked(found.secret))
    if json:
        report = {"name": key.name, "value": shown.reveal(), "source": found.source}
        write_json_line(msgspec.json.encode(report))
    else:
        click.echo(f"{key.name}: {shown.reveal()}")
        note(f"from: {found.source}")


def _explain(key: KnownKey, notes: list[str]) -> None:
    ways = [f"looms config set-key {key.name}", *([f"the variable {key.variable}"] if key.variable else [])]
    looked = [*key.variables, *([f"{key.path} of looms.yaml"] if key.path else []), f"keyring loom/{key.name}"]
    why = f" ({'; '.join(dict.fromkeys(notes))})" if notes else ""
    from loomstream.cli.output import complain  # noqa: PLC0415 (only here)

    complain(f"{key.name} is not set{why}: looked for in {', '.join(looked)}; set it with {' or '.join(ways)}")


# --- list-keys, delete-key -----------------------------------------------------------------------


@click.command("list-keys", cls=Teaching, epilog=examples("looms config list-keys", "looms config list-keys --json"))
@_json_option
@config_option
def list_keys(*, json: bool) -> None:
    """List all keys that can be set: whether each one is, and where it comes from. No key is shown."""
    settings = _settings()
    found = [status(key, settings) for key in known_keys()]
    if json:
        write_json_line(msgspec.json.encode(found))
        return
    width = max(len(each.name) for each in found)
    for each in found:
        click.echo(f"{each.name:<{width}}  {_said(each)}")
    for problem in dict.fromkeys(each.error for each in found if each.error):
        warn(problem)
    note("looms config set-key NAME stores one")


def _said(each: KeyStatus) -> str:
    beside = " (the keyring has one too)" if each.in_keyring and not each.source.startswith("keyring") else ""
    return f"set: {each.source}{beside}" if each.source else "-"


@click.command(
    "delete-key",
    cls=Teaching,
    epilog=examples("looms config delete-key anthropic_api_key", "looms config delete-key anthropic_api_key --yes"),
)
@click.argument("name", shell_complete=keys)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_json_option
@config_option
@click.pass_context
def delete_key(context: click.Context, *, name: str, yes: bool, json: bool) -> None:
    """Delete a key from the system's keyring; at a terminal it asks first. The exit code is 1 where there is none."""
    from loomstream.config.keyring_store import delete_key as delete  # noqa: PLC0415 (not for --help)

    key = known_key(name)
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm(f"Delete {key.name} from the keyring?", abort=True, err=True)
    deleted = delete(key.name, variable=key.variable)
    if json:
        write_json_line(msgspec.json.encode({"name": key.name, "deleted": deleted}))
    elif deleted:
        click.echo(f"deleted: {key.name}")
    else:
        note(f"the keyring has no {key.name}")
    if not deleted:
        context.exit(_FAILED)
