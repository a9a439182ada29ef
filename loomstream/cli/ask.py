"""`looms ask`: one prompt, one answer.

Contract: reads arguments, connects, hands every event to a printer. The stream, the connections and the embedded model
are closed before the command ends, whatever ends it. anyio and `loomstream.model` are imported when it runs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from msgspec import Struct

from loomstream.cli.choice import Choice, Wishes, choose, unused_keys
from loomstream.cli.config_option import config_option
from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.key_options import KEY_FLAGS, key_options, read_keys
from loomstream.cli.output import note, warn
from loomstream.cli.progress import FetchProgress
from loomstream.cli.standard_input import read_prompt
from loomstream.errors import LoomstreamError
from loomstream.providers import look_up

if TYPE_CHECKING:
    from loomstream.cli.printers import Printer
    from loomstream.messages import RequestOptions, Timeouts
    from loomstream.model import Model
    from loomstream.stream import Stream

_SECONDS = click.FloatRange(min=0, min_open=True)
_NEEDED = ("anyio", "loomstream.cli.printers", "loomstream.model")
"""What takes long to import."""
_EPILOG = """\b
Examples:
  looms ask "Write a haiku about rivers"
  git diff | looms ask "Write a commit message" --model anthropic:claude-sonnet-4-5-20250929
  looms ask "Hello" --base-url http://127.0.0.1:8080/v1 --model my-model
  looms ask "Hello" --model ./model.gguf --events
  looms ask "Hello" --provider vertex-ai --set location=europe-west1
"""


class _Options(Struct, frozen=True, kw_only=True):
    """What was typed, less the prompt and the keys."""

    provider: str | None
    model: str | None
    system: str | None
    json: bool
    events: bool
    no_stream: bool
    max_tokens: int | None
    temperature: float | None
    base_url: str | None
    dialect: str | None
    settings: dict[str, str]
    timeout: float | None
    total_timeout: float | None
    stats: bool | None
    no_download: bool
    allow_http: bool


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


@click.command(epilog=_EPILOG)
@click.argument("prompt", required=False)
@click.option("-p", "--provider", envvar="LOOM_LLM_PROVIDER", show_envvar=True, help="See `looms providers`.")
@click.option(
    "-m",
    "--model",
    help="A model id, or PROVIDER:MODEL. A path that ends in .gguf runs that file on this machine.",
)
@click.option("-s", "--system", help="The system prompt.")
@click.option("--json", is_flag=True, help="Print one JSON object at the end, also after an error.")
@click.option("--events", is_flag=True, help="Print every event as a line of JSON.")
@click.option("--no-stream", is_flag=True, help="Ask the provider for the whole answer at once.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="At most so many tokens of output.")
@click.option("--temperature", type=click.FloatRange(min=0), metavar="T", help="Not sent unless given.")
@click.option("--base-url", metavar="URL", help="The provider's address; alone, that of an OpenAI-compatible server.")
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_read_settings,
    help="A setting of the provider (a region, a project); may be repeated. See `looms providers NAME`.",
)
@click.option("--dialect", metavar="NAME", help="One of the provider's wire protocols (default: its usual one).")
@click.option("--allow-http", is_flag=True, help="Let plain http leave this machine: nothing is encrypted then.")
@click.option(
    "--timeout",
    type=_SECONDS,
    metavar="S",
    help="Seconds without content before giving up (default: 60; 600 for an answer that is not streamed).",
)
@click.option("--total-timeout", type=_SECONDS, metavar="S", help="Seconds for the whole call (default: no limit).")
@click.option("--stats/--no-stats", default=None, help="A line of figures at the end, on standard error (text: on).")
@click.option("--no-download", is_flag=True, help="Do not fetch the embedded model.")
@config_option
@key_options
@click.pass_context
def ask(context: click.Context, /, prompt: str | None, **options: Any) -> None:  # noqa: ANN401 (click's parameters)
    """Ask a model; its answer streams to standard output.

    PROMPT may be -, or absent, to read it from standard input. With both, what is piped in follows PROMPT after an
    empty line.

    Without --provider and --model the one provider that has a key answers, else a small model on this machine, which
    is fetched once.
    """
    typed = _Options(**{name: options[name] for name in _Options.__struct_fields__})
    if typed.json and typed.events:
        msg = "--json and --events exclude each other"
        raise click.UsageError(msg)
    keys, stdin_is_taken = read_keys(options)
    text = read_prompt(prompt, taken=stdin_is_taken)
    configured = context.get_parameter_source("provider") is ParameterSource.ENVIRONMENT
    wishes = Wishes(
        provider=None if configured else typed.provider,
        configured_provider=typed.provider if configured else None,
        model=typed.model,
        base_url=typed.base_url,
        keys=keys,
    )
    choice = choose(wishes)
    for name in unused_keys(wishes, choice):
        warn(f"{KEY_FLAGS[name]} is not used: another provider answers")
    _answer(text, typed, choice)


def _answer(prompt: str, typed: _Options, choice: Choice) -> None:
    with EndsAtOnce():
        for name in _NEEDED:
            importlib.import_module(name)
    import anyio  # noqa: PLC0415 (see the module's contract)

    from loomstream.cli.answer import Answer  # noqa: PLC0415 (the same)

    printer = _printer(typed)

    async def run() -> LoomstreamError | None:
        async with model, model.stream(prompt, **_request_options(typed)) as stream:
            error = await _show(model, stream, printer)
            printer.finish(Answer(response=stream.response, timing=stream.timing, error=error))
        return error

    try:
        with FetchProgress() as progress:
            model = _connect(typed, choice, progress)
            failed = anyio.run(run)
    except LoomstreamError as error:  # no stream was begun
        printer.finish(Answer(error=error))
        raise
    finally:
        printer.abandon()
    if failed is not None:
        raise failed


async def _show(model: Model, stream: Stream, printer: Printer) -> LoomstreamError | None:
    """Show every event; give the error that ended them. What is slow only once is done before the clock runs."""
    try:
        await model.prepare()
        async for event in stream:
            printer.show(event)
    except LoomstreamError as error:
        return error
    return None


def _note_unused(choice: Choice) -> None:
    """Say that an entry of the configuration file is not what answers, where its name would let one think so."""
    from loomstream.providers import listing  # noqa: PLC0415 (see the module's contract)

    wanted = (choice.spec or "").partition(":")[0]
    for listed in listing():
        if listed.error and listed.name == wanted and listed.origin.startswith("file"):
            note(f"{listed.origin}: {listed.error}")


def _connect(typed: _Options, choice: Choice, progress: FetchProgress) -> Model:
    from loomstream.model import connect  # noqa: PLC0415 (see the module's contract)

    _note_unused(choice)
    if choice.spec and typed.settings:
        _warn_of_secrets(choice.spec, typed.settings)
    model = connect(
        choice.spec,
        api_key=choice.api_key,
        base_url=typed.base_url,
        dialect=typed.dialect,
        settings=typed.settings,
        model_path=choice.model_path,
        download=not typed.no_download,
        allow_http=typed.allow_http,
        progress=progress,
    )
    if choice.spec is None:
        note(f"{model.provider}:{model.model} answers (chosen by itself; --model PROVIDER:MODEL chooses another)")
    return model


def _warn_of_secrets(spec: str, settings: dict[str, str]) -> None:
    for setting in look_up(spec.partition(":")[0]).settings:
        if setting.keyring and setting.name in settings:
            ways = " or ".join([*setting.environment[-1:], f"the keyring (loom/{setting.keyring})"])
            warn(f"--set {setting.name}: other users of this machine can see arguments; better use {ways}")


def _printer(typed: _Options) -> Printer:
    from loomstream.cli.printers import EventsPrinter, ReportPrinter, TextPrinter  # noqa: PLC0415 (as above)

    kind = EventsPrinter if typed.events else ReportPrinter if typed.json else TextPrinter
    default = kind is TextPrinter
    return kind(statistics_line=default if typed.stats is None else typed.stats)


def _request_options(typed: _Options) -> RequestOptions:
    """Give what was typed; what was not is left to the provider."""
    options: RequestOptions = {"timeouts": _timeouts(typed)}
    if typed.system is not None:
        options["system"] = typed.system
    if typed.max_tokens is not None:
        options["max_tokens"] = typed.max_tokens
    if typed.temperature is not None:
        options["temperature"] = typed.temperature
    if typed.no_stream:
        options["stream"] = False
    return options


def _timeouts(typed: _Options) -> Timeouts:
    from loomstream.messages import Timeouts  # noqa: PLC0415 (see the module's contract)

    default = Timeouts()
    silence_s = typed.timeout
    return Timeouts(
        first_event_s=default.first_event_s if silence_s is None else silence_s,
        idle_s=default.idle_s if silence_s is None else silence_s,
        whole_s=default.whole_s if silence_s is None else silence_s,
        total_s=typed.total_timeout,
    )
