"""The options of every command that asks a model: who answers, what is sent along, how long to wait.

Contract: reads arguments into values, and connects with them; decides nothing that `choice` does not. What is not typed
is not sent. `loomstream.model` is imported when something is to be connected to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from msgspec import Struct
from msgspec.structs import replace

from loomstream.cli.choice import Choice, Wishes, choose, unused_keys
from loomstream.cli.completion_values import models, providers
from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.key_options import KEY_FLAGS, key_options, read_keys
from loomstream.cli.output import note, warn
from loomstream.cli.progress import FetchProgress
from loomstream.config.settings import Settings
from loomstream.providers import is_known, look_up

if TYPE_CHECKING:
    from loomstream.messages import RequestOptions
    from loomstream.model import Model

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SECONDS = click.FloatRange(min=0, min_open=True)


class Connection(Struct, frozen=True, kw_only=True):
    """What was typed about who answers."""

    wishes: Wishes
    base_url: str | None = None
    dialect: str | None = None
    settings: Mapping[str, str] = {}
    allow_http: bool = False
    allow_custom_host: bool = False
    no_download: bool = False
    configuration: Settings = Settings()


class Typed(Struct, frozen=True, kw_only=True):
    """What was typed about the request."""

    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    timeout: float | None = None
    total_timeout: float | None = None


def _read_settings(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        name = name.strip()
        if not equals or not name:
            msg = f"{name!r} is no setting: write it as NAME=VALUE"
            raise click.BadParameter(msg, context, option)
        if name in settings:
            msg = f"{name} is given twice"
            raise click.BadParameter(msg, context, option)
        settings[name] = text.strip()
    return settings


_WHO = (
    click.option(
        "-p",
        "--provider",
        envvar="LOOM_LLM_PROVIDER",
        show_envvar=True,
        shell_complete=providers,
        help="See `looms providers`.",
    ),
    click.option(
        "-m",
        "--model",
        shell_complete=models,
        help="A model id, or PROVIDER:MODEL. A path that ends in .gguf runs that file on this machine.",
    ),
)
_WHERE = (
    click.option(
        "--base-url",
        metavar="URL",
        help="The provider's address; where nobody is chosen, that of an OpenAI-compatible server.",
    ),
    click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_read_settings,
        help="A setting of the provider (a region, a project); may be repeated. See `looms providers NAME`.",
    ),
    click.option("--dialect", metavar="NAME", help="One of the provider's wire protocols (default: its usual one)."),
    click.option("--allow-http", is_flag=True, help="Let plain http leave this machine: nothing is encrypted then."),
    click.option(
        "--allow-custom-host",
        is_flag=True,
        help="Let a key go where a looms.yaml found in this folder says; name the file with --config to trust it.",
    ),
    click.option("--no-download", is_flag=True, help="Do not fetch the embedded model."),
    key_options,
)
_WHAT = (
    click.option("-s", "--system", help="The system prompt."),
    click.option(
        "--max-tokens", type=click.IntRange(1, 1_000_000_000), metavar="N", help="At most so many tokens of output."
    ),
    click.option("--temperature", type=click.FloatRange(min=0, max=2), metavar="T", help="Not sent unless given."),
)
_FILES = (
    click.option(
        "-a",
        "--attach",
        "attached",
        metavar="FILE",
        multiple=True,
        type=click.Path(),
        help="An image, PDF, sound or text to send along: a path or an https address; may be repeated.",
    ),
)
_TOOLS = (
    click.option(
        "--tools",
        "tool_file",
        metavar="FILE.py",
        type=click.Path(dir_okay=False),
        help="A Python file whose functions the model may call. The file is run: use your own only.",
    ),
)
_HOW_LONG = (
    click.option(
        "--timeout",
        type=_SECONDS,
        metavar="S",
        help="Seconds without content before giving up (default: 60; 600 for an answer that is not streamed).",
    ),
    click.option("--total-timeout", type=_SECONDS, metavar="S", help="Seconds for the whole call (default: no limit)."),
)


def _adding(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[_Function], _Function]:
    def add(function: _Function) -> _Function:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return add


who_options = _adding(_WHO, _WHAT, _FILES, _TOOLS)
"""The first options of such a command: who answers, and what is sent."""
who_options_without_files = _adding(_WHO, _WHAT, _TOOLS)
"""The same, where nothing is attached on the command line."""
where_options = _adding(_HOW_LONG, _WHERE)
"""The last ones: time limits, addresses, keys."""


# --- what was typed ------------------------------------------------------------------------------


def read_connection(context: click.Context, options: Mapping[str, Any]) -> tuple[Connection, bool]:
    """Give what was typed about who answers, and whether a key was read from standard input."""
    with EndsAtOnce():
        from loomstream.configured.choice import configured_spec  # noqa: PLC0415 (`--help` does without)

    keys, stdin_is_taken = read_keys(options)
    from_environment = context.get_parameter_source("provider") is ParameterSource.ENVIRONMENT
    configuration = _configuration(options)
    wishes = Wishes(
        provider=None if from_environment else options["provider"],
        configured_provider=configured_spec(configuration),
        model=options["model"],
        base_url=options["base_url"],
        keys=keys,
    )
    rest = {name: options[name] for name in _OF_A_CONNECTION}
    return Connection(wishes=wishes, configuration=configuration, **rest), stdin_is_taken


_OF_A_CONNECTION = ("base_url", "dialect", "settings", "allow_http", "allow_custom_host", "no_download")
_OF_A_CALL = {"temperature": "temperature", "max_tokens": "max_tokens", "timeout": "timeout_seconds",
              "total_timeout": "total_timeout_seconds"}  # fmt: skip
"""Options that stand for a key of `llm:` in the configuration."""


def _configuration(options: Mapping[str, Any]) -> Settings:
    """Give the configuration, with what was typed in the place of what it says; tell what it warns of."""
    with EndsAtOnce():
        from loomstream.config.load import load  # noqa: PLC0415 (`--help` does without)

    configuration = load(overrides={f"llm.{key}": options.get(name) for name, key in _OF_A_CALL.items()})
    for warning in configuration.warnings:
        warn(warning)
    return configuration


def to_another(connection: Connection, spec: str) -> Connection:
    """Give the connection to another model; what was said of the first one's address is not for it."""
    keys = connection.wishes.keys
    wishes = Wishes(provider=spec, keys=keys) if is_known(spec) else Wishes(model=spec, keys=keys)
    return replace(connection, wishes=wishes, base_url=None, dialect=None, settings={})


def read_typed(options: Mapping[str, Any]) -> Typed:
    """Give what was typed about the request."""
    return Typed(**{name: options[name] for name in Typed.__struct_fields__})


def decided(connection: Connection) -> Choice:
    """Give what to connect to, and warn of keys that nobody needs. Raises `click.UsageError` as `choose` does."""
    choice = choose(connection.wishes)
    for name in unused_keys(connection.wishes, choice):
        warn(f"{KEY_FLAGS[name]} is not used: another provider answers")
    return choice


def request_options(typed: Typed) -> RequestOptions:
    """Give what was typed; the time limits are in the configuration, what was not typed is left to it."""
    options: RequestOptions = {}
    if typed.system is not None:
        options["system"] = typed.system
    if typed.max_tokens is not None:
        options["max_tokens"] = typed.max_tokens
    if typed.temperature is not None:
        options["temperature"] = typed.temperature
    return options


# --- connecting ----------------------------------------------------------------------------------


def open_model(connection: Connection, choice: Choice, progress: FetchProgress) -> Model:
    """Connect, and say who answers where that was not said. Raises what `connect` raises."""
    from loomstream.model import connect  # noqa: PLC0415 (see the module's contract)

    _note_unused(choice)
    if choice.spec and connection.settings:
        _warn_of_secrets(choice.spec, connection.settings)
    model = connect(
        choice.spec,
        api_key=choice.api_key,
        base_url=connection.base_url,
        dialect=connection.dialect,
        settings=connection.settings,
        model_path=choice.model_path,
        download=not connection.no_download,
        allow_http=connection.allow_http,
        allow_custom_host=connection.allow_custom_host,
        config=connection.configuration,
        progress=progress,
    )
    if choice.spec is None:
        note(f"{model.provider}:{model.model} answers (chosen by itself; --model PROVIDER:MODEL chooses another)")
    return model


def _note_unused(choice: Choice) -> None:
    """Say that an entry of the configuration file is not what answers, where its name would let one think so."""
    from loomstream.providers import listing  # noqa: PLC0415 (see the module's contract)

    wanted = (choice.spec or "").partition(":")[0]
    for listed in listing():
        if listed.error and listed.name == wanted and listed.origin.startswith("file"):
            note(f"{listed.origin}: {listed.error}")


def _warn_of_secrets(spec: str, settings: Mapping[str, str]) -> None:
    for setting in look_up(spec.partition(":")[0]).settings:
        if setting.keyring and setting.name in settings:
            ways = " or ".join([*setting.environment[-1:], f"the keyring (loom/{setting.keyring})"])
            warn(f"--set {setting.name}: other users of this machine can see arguments; better use {ways}")
