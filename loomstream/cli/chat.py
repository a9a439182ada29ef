"""`looms chat`: a conversation, turn by turn.

Contract: reads arguments and lines, hands them to the session, shows what comes. Connections and the embedded model are
closed before the command ends. What takes long to import is imported when it runs.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from loomstream.cli.config_option import config_option
from loomstream.cli.help import Teaching
from loomstream.cli.hints import with_hint
from loomstream.cli.interrupt import TERMINATIONS, EndsAtOnce
from loomstream.cli.model_options import (
    Connection,
    Typed,
    decided,
    open_model,
    read_connection,
    read_typed,
    request_options,
    to_another,
    where_options,
    who_options,
)
from loomstream.cli.output import Channel, complain, note, warn
from loomstream.cli.progress import FetchProgress
from loomstream.errors import LoomstreamError, UsageError

if TYPE_CHECKING:
    from loomstream.agent import Decision
    from loomstream.cli.chat_input import Lines
    from loomstream.cli.chat_session import Session
    from loomstream.cli.printers import Printer
    from loomstream.messages import Message, ToolCall
    from loomstream.model import Model

_NEEDED = ("anyio", "loomstream.agent", "loomstream.cli.chat_commands", "loomstream.model")
_ON_A_TERMINAL = "loomstream.cli.chat_view"
_EPILOG = """\b
Examples:
  looms chat
  looms chat -m anthropic:claude-sonnet-4-5-20250929 --system "Be brief"
  looms chat --tools weather.py            asks before each call; --yes does not
  looms chat --continue                    goes on where the last chat ended
  printf 'My name is Ada.\\nWhat is my name?\\n' | looms chat

In the chat /help lists the commands: /model PROVIDER:MODEL, /attach FILE, /undo, /retry, /usage, /save FILE, and more.
Ctrl-C stops an answer and the bill, Ctrl-D ends the chat.
"""


class _Form(Struct, frozen=True, kw_only=True):
    """What was typed about the chat itself."""

    json: bool
    plain: bool
    yes: bool
    no_save: bool
    stats: bool
    goes_on: bool
    tool_file: str | None


@click.command(cls=Teaching, epilog=_EPILOG)
@who_options
@click.option("--continue", "-c", "goes_on", is_flag=True, help="Go on where the last chat ended.")
@click.option("--no-save", is_flag=True, help="Do not keep this conversation for --continue.")
@click.option("--yes", "-y", is_flag=True, help="Run tools without asking before each call.")
@click.option("--plain", is_flag=True, help="Show the text as it comes: no markdown, nothing written again.")
@click.option("--json", is_flag=True, help="Print one JSON object for each answer.")
@click.option("--stats/--no-stats", default=True, help="A line of figures after each answer, on standard error.")
@where_options
@config_option
@click.pass_context
def chat(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 (click's parameters)
    """Talk with a model, turn by turn.

    What you type is a message, what begins with / a command: /help lists them. Piped in, each line is a message.

    Without --provider and --model the one provider that has a key answers, else a small model on this machine, which
    is fetched once.
    """
    form = _Form(**{name: options[name] for name in _Form.__struct_fields__})
    connection, stdin_is_taken = read_connection(context, options)
    if stdin_is_taken and not sys.stdin.isatty():
        msg = "standard input can hold the key or the messages, not both"
        raise click.UsageError(msg)
    decided(connection)  # what is wrong about the options is said before anything is loaded
    with EndsAtOnce():
        for name in _NEEDED:
            importlib.import_module(name)
    _talk(form, read_typed(options), connection, options["attached"])


def _talk(form: _Form, typed: Typed, connection: Connection, attached: tuple[str, ...]) -> None:
    from loomstream.cli.chat_input import Lines  # noqa: PLC0415 (see the module's contract)
    from loomstream.cli.chat_session import Session  # noqa: PLC0415 (the same)
    from loomstream.cli.tool_file import load_tools  # noqa: PLC0415 (the same)
    from loomstream.files import attachment  # noqa: PLC0415 (the same)

    lines = Lines()
    with FetchProgress() as progress:

        def connect(spec: str | None) -> Model:
            wanted = connection if spec is None else to_another(connection, spec)
            try:
                return open_model(wanted, decided(wanted), progress)
            except click.UsageError as error:
                raise UsageError(error.format_message()) from None

        with Session(
            connect,
            request_options(typed),
            tools=[] if form.tool_file is None else load_tools(form.tool_file),
            ask_user=_Asker(lines) if lines.is_terminal else None,
            allow_all=form.yes,
        ) as session:
            session.conversation.attached += [attachment(path) for path in attached]
            _take_up(session, form)
            _Chat(session, form, lines).run()


def _take_up(session: Session, form: _Form) -> None:
    from loomstream.cli import chat_store  # noqa: PLC0415 (see the module's contract)

    path = chat_store.last_conversation()
    if not form.goes_on:
        return
    if not path.exists():
        msg = f"there is no conversation to go on with: {path} holds the last one, once there was one"
        raise UsageError(msg)
    typed_system = session.conversation.system
    session.conversation.load(chat_store.read(path))
    session.conversation.system = typed_system or session.conversation.system
    note(f"going on after {len(session.conversation.messages)} messages; /history shows them, /clear begins anew")


class _Asker:
    """Asks whether a call may run."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __call__(self, call: ToolCall) -> tuple[Decision, bool]:
        """Give the decision, and whether it holds for all calls of the tool."""
        from loomstream.agent import Allow, Deny  # noqa: PLC0415 (see the module's contract)

        Channel("stderr").line(f"{call.name} {call.arguments}", label="May this run? ", color="yellow")
        said = self._lines.ask("[y]es, [a]lways, [n]o, or why not: ")
        match said.lower():
            case "y" | "yes":
                return Allow(), False
            case "a" | "always":
                return Allow(), True
            case "" | "n" | "no":
                return Deny("the user said no"), False
            case _:
                return Deny(said), False


class _Chat:
    """The lines of a chat, one after the other."""

    def __init__(self, session: Session, form: _Form, lines: Lines) -> None:
        self._session = session
        self._form = form
        self._lines = lines
        self._cannot_save = form.no_save
        self._told: set[str] = set()

    def run(self) -> None:
        """Go on until the end of input. In a pipe the first error ends it."""
        if self._lines.is_terminal:
            model = self._session.model
            note(f"{model.provider}:{model.model} · /help lists the commands, Ctrl-D ends")
        while (line := self._lines.read()) is not None:
            if line.strip() and not self._take_unless_interrupted(line):
                return
        if self._lines.is_terminal:
            sys.stdout.write("\n")

    def _take_unless_interrupted(self, line: str) -> bool:
        """Do what a line says. Ctrl-C before an answer begins or after its end, or amid a command, gives that up."""
        try:
            return self._take(line)
        except KeyboardInterrupt:
            if not self._lines.from_terminal or TERMINATIONS:
                raise
            click.echo(err=True)
            return True

    def _take(self, line: str) -> bool:
        """Do what a line says; say whether the chat goes on."""
        try:
            return self._command(line) if line.startswith("/") and not line.startswith("//") else self._say(line)
        except LoomstreamError as error:
            if not self._lines.from_terminal:
                raise
            complain(with_hint(error, "chat"))
            return True

    def _command(self, line: str) -> bool:
        from loomstream.cli.chat_commands import run_command  # noqa: PLC0415 (see the module's contract)

        said = run_command(self._session, line)
        err = Channel("stderr")
        for words in said.lines:
            err.write(words, dim=True)
            err.end_line()
        if said.again is not None:
            self._answer(said.again)
        return not said.ends

    def _say(self, line: str) -> bool:
        conversation = self._session.conversation
        self._answer(conversation.said(line[1:] if line.startswith("//") else line))
        return True

    def _answer(self, said: Message) -> None:
        printer = self._printer()
        try:
            answer = self._session.answer(said, printer)
        finally:
            printer.abandon()
        printer.finish(answer)
        self._save()
        if self._session.interrupted:
            self._after_interrupt()
        if answer.error is not None:
            raise answer.error

    def _after_interrupt(self) -> None:
        """Say what became of an answer that Ctrl-C stopped; where nobody types it means the program."""
        if not self._lines.from_terminal:
            raise KeyboardInterrupt
        note("stopped; what came is kept: /undo takes it back, /retry asks again")

    def _printer(self) -> Printer:
        from loomstream.cli.printers import ReportPrinter, TextPrinter  # noqa: PLC0415 (see the module's contract)

        if self._form.json:
            return ReportPrinter(statistics_line=False)
        styled = self._lines.is_terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
        if not styled or self._form.plain:
            return TextPrinter(statistics_line=self._form.stats, told=self._told)
        from loomstream.cli.chat_view import TerminalView  # noqa: PLC0415 (only on a terminal)

        return TerminalView(sys.stdout, statistics_line=self._form.stats, told=self._told)

    def _save(self) -> None:
        from loomstream.cli import chat_store  # noqa: PLC0415 (see the module's contract)

        if self._cannot_save:
            return
        try:
            chat_store.write(chat_store.last_conversation(), self._session.conversation.encode())
        except UsageError as error:
            self._cannot_save = True
            warn(f"this conversation is not kept for --continue: {error}")
