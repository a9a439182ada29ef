"""`looms ask`: one prompt, one answer.

Contract: reads arguments, connects, hands every event to a printer. The stream, the connections and the embedded model
are closed before the command ends, whatever ends it. anyio and `loomstream.model` are imported when it runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from loomstream.cli.config_option import config_option
from loomstream.cli.help import Teaching
from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.model_options import (
    Connection,
    Typed,
    decided,
    open_model,
    read_connection,
    read_typed,
    request_options,
    where_options,
    who_options,
)
from loomstream.cli.progress import FetchProgress
from loomstream.cli.standard_input import read_prompt
from loomstream.errors import LoomstreamError

if TYPE_CHECKING:
    from loomstream.cli.answer import Answer
    from loomstream.cli.printers import Printer
    from loomstream.cli.tool_file import Tools
    from loomstream.messages import Prompt, RequestOptions
    from loomstream.model import Model

_NEEDED = ("anyio", "loomstream.agent", "loomstream.cli.printers", "loomstream.model")
"""What takes long to import."""
_EPILOG = """\b
Examples:
  looms ask "Write a haiku about rivers"
  git diff | looms ask "Write a commit message" --model openai:gpt-4o
  looms ask "What does this show?" --attach photo.png --attach notes.pdf
  looms ask "How warm is it in Oslo?" --tools weather.py
  looms ask "Name three rivers" --output-schema rivers.schema.json
  looms ask "Hello" -m openai-compatible:qwen --base-url http://host/v1
  looms ask "Hello" --model ./model.gguf --events
  looms ask "Hello" --provider vertex-ai --set location=europe-west1
  looms ask "Hello" --json | jq .response.cost.amount_usd
"""


class _Form(Struct, frozen=True, kw_only=True):
    """What was typed about the form of the answer."""

    json: bool
    events: bool
    no_stream: bool
    stats: bool | None
    tool_file: str | None
    output_schema: str | None


@click.command(cls=Teaching, epilog=_EPILOG)
@click.argument("prompt", required=False)
@who_options
@click.option(
    "--output-schema",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="A JSON Schema: the answer is JSON of that shape, or the exit code is not 0.",
)
@click.option("--json", is_flag=True, help="Print one JSON object at the end, also after an error.")
@click.option("--events", is_flag=True, help="Print every event as a line of JSON.")
@click.option("--no-stream", is_flag=True, help="Ask the provider for the whole answer at once.")
@click.option("--stats/--no-stats", default=None, help="A line of figures at the end, on standard error (text: on).")
@where_options
@config_option
@click.pass_context
def ask(context: click.Context, /, prompt: str | None, **options: Any) -> None:  # noqa: ANN401 (click's parameters)
    """Ask a model; its answer streams to standard output.

    PROMPT may be -, or absent, to read it from standard input. With both, what is piped in follows PROMPT after an
    empty line.

    Without --provider and --model the one provider that has a key answers, else a small model on this machine, which
    is fetched once.
    """
    form = _Form(**{name: options[name] for name in _Form.__struct_fields__})
    if form.json and form.events:
        msg = "--json and --events exclude each other"
        raise click.UsageError(msg)
    connection, stdin_is_taken = read_connection(context, options)
    text = read_prompt(prompt, taken=stdin_is_taken)
    _answer(_prompt(text, options["attached"]), form, read_typed(options), connection)


def _prompt(text: str, attached: tuple[str, ...]) -> Prompt:
    """Give the user's turn, with what is attached before the words about it."""
    if not attached:
        return text
    from loomstream.files import attachment  # noqa: PLC0415 (only where something is attached)
    from loomstream.messages import Message, Text  # noqa: PLC0415 (see the module's contract)

    return Message("user", (*(attachment(path) for path in attached), Text(text)))


def _answer(prompt: Prompt, form: _Form, typed: Typed, connection: Connection) -> None:
    choice = decided(connection)
    with EndsAtOnce():
        for name in _NEEDED:
            importlib.import_module(name)
    import anyio  # noqa: PLC0415 (see the module's contract)

    from loomstream.cli.answer import Answer, check_output  # noqa: PLC0415 (the same)

    printer = _printer(form)
    options = _request_options(form, typed)
    tools = _tools(form.tool_file)

    async def run() -> LoomstreamError | None:
        async with model:
            answer = await _asked(model, prompt, tools, options, printer.show)
        answer = check_output(answer) if "output" in options else answer
        printer.finish(answer)
        return answer.error

    try:
        with FetchProgress() as progress:
            model = open_model(connection, choice, progress)
            failed = anyio.run(run)
    except LoomstreamError as error:  # no stream was begun
        printer.finish(Answer(error=error))
        raise
    finally:
        printer.abandon()
    if failed is not None:
        raise failed


async def _asked(
    model: Model, prompt: Prompt, tools: Tools, options: RequestOptions, show: Callable[[Any], None]
) -> Answer:
    """Show every event; give the answer, with the error that ended it.

    What is slow only once is done before the clock runs.
    """
    from loomstream import agent  # noqa: PLC0415 (see the module's contract)
    from loomstream.cli.answer import Answer, Clock, unfinished  # noqa: PLC0415 (the same)

    error: LoomstreamError | None = None
    if tools:
        clock = Clock()
        async with agent.run(model, prompt, tools, **options) as run:
            try:
                await model.prepare()
                clock.begin()
                async for event in run:
                    clock.note(event)
                    show(event)
            except LoomstreamError as failure:
                error = failure
            clock.end()
            error = error or unfinished(run)
            return Answer(response=run.response, timing=clock.timing, error=error, usage=run.usage, cost=run.cost)
    async with model.stream(prompt, **options) as stream:
        try:
            await model.prepare()
            async for event in stream:
                show(event)
        except LoomstreamError as failure:
            error = failure
        return Answer(response=stream.response, timing=stream.timing, error=error)


def _tools(path: str | None) -> Tools:
    if path is None:
        return []
    from loomstream.cli.tool_file import load_tools  # noqa: PLC0415 (only where there are tools)

    return load_tools(path)


def _printer(form: _Form) -> Printer:
    from loomstream.cli.printers import EventsPrinter, ReportPrinter, TextPrinter  # noqa: PLC0415 (as above)

    kind = EventsPrinter if form.events else ReportPrinter if form.json else TextPrinter
    default = kind is TextPrinter
    return kind(statistics_line=default if form.stats is None else form.stats)


def _request_options(form: _Form, typed: Typed) -> RequestOptions:
    options = request_options(typed)
    if form.no_stream:
        options["stream"] = False
    if form.output_schema is not None:
        from loomstream.cli.schema_file import read_schema  # noqa: PLC0415 (only where a schema is given)

        options["output"] = read_schema(form.output_schema)
    return options
