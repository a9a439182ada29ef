"""`--config PATH`: the configuration file, in the place of those that are looked for.

Contract: it stands for `$LOOM_CONFIG` while the command runs; whoever needs the file finds it there. `use_models` is
for the commands that read nothing of the file but what it says of models.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from loomstream.providers.config_file import CONFIG_VARIABLE

_Function = TypeVar("_Function", bound=Callable[..., Any])


def config_option(function: _Function) -> _Function:
    """Add the option to a command; it passes nothing to it."""
    add = click.option(
        "--config",
        metavar="PATH",
        envvar=CONFIG_VARIABLE,
        show_envvar=True,
        expose_value=False,
        is_eager=True,
        callback=_use,
        help="The configuration file (default: looms.yaml in ~/.loom, here, or /etc/loom).",
    )
    return add(function)


def _use(context: click.Context, option: click.Parameter, path: str | None) -> None:
    del option
    before = os.environ.get(CONFIG_VARIABLE)
    if path is None or path == before:
        return
    os.environ[CONFIG_VARIABLE] = path

    @context.call_on_close
    def restore() -> None:
        if before is None:
            os.environ.pop(CONFIG_VARIABLE, None)
        else:
            os.environ[CONFIG_VARIABLE] = before


def use_models() -> None:
    """Lay what the configuration says of models over the catalog. Raises `ConfigError` where it cannot be used."""
    from loomstream.config.load import load  # noqa: PLC0415 (not for --help)
    from loomstream.config.models import lay  # noqa: PLC0415 (as above)

    lay(load())
