"""`looms config`: the group of the commands about `looms.yaml` and the keyring.

Contract: names the commands and imports the one that is called.
"""

from __future__ import annotations

import importlib
from typing import cast

import click

from loomstream.cli.help import Teaching, examples

_COMMANDS = {
    "init": ("loomstream.cli.config_init:init", "Write a first looms.yaml."),
    "show": ("loomstream.cli.config_values:show", "Show every setting that is set, and where it comes from."),
    "get": ("loomstream.cli.config_values:get", "Print one setting, and where it comes from."),
    "set": ("loomstream.cli.config_values:set_", "Write one setting into looms.yaml; comments stay."),
    "unset": ("loomstream.cli.config_values:unset", "Take one setting out of looms.yaml; comments stay."),
    "validate": ("loomstream.cli.config_values:validate", "Check a configuration file."),
    "set-key": ("loomstream.cli.config_keys:set_key", "Store a key in the system's keyring."),
    "get-key": ("loomstream.cli.config_keys:get_key", "Show where a key comes from, and its first and last letters."),
    "list-keys": ("loomstream.cli.config_keys:list_keys", "List all keys, and where each one comes from."),
    "delete-key": ("loomstream.cli.config_keys:delete_key", "Delete a key from the system's keyring."),
}


class Commands(Teaching, click.Group):
    """A group that loads its commands when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Give the commands' names."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (the same)
        """Import a command, or give None."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name][0].split(":")
        return cast("click.Command", getattr(importlib.import_module(module), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (the same)
        """Write the commands with their summaries, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


_EPILOG = examples(
    "looms config init                        a first configuration",
    "looms config set-key anthropic_api_key   its key",
    "looms doctor                             does it work?",
)


@click.group(cls=Commands, epilog=_EPILOG)
def config() -> None:
    """Settings (looms.yaml) and keys (the system's keyring)."""
