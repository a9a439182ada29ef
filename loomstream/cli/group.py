"""The group `looms`: names the commands, imports the one that is called, and makes every end a quiet one.

Contract: whatever a command raises becomes one sentence on standard error and an exit code; no traceback, unless
`LOOMSTREAM_TRACEBACK` is set. Knows of the commands their names and homes only.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, cast

import click

from loomstream.cli.exit_codes import CLOSED_PIPE, INTERRUPTED, MEANINGS, OTHER, TERMINATED, exit_code
from loomstream.cli.help import Teaching, examples
from loomstream.cli.hints import usage_hint, with_hint
from loomstream.cli.interrupt import TERMINATIONS, EndsAtOnce
from loomstream.cli.output import complain
from loomstream.cli.terminal import TerminalFilter
from loomstream.errors import LoomstreamError

TRACEBACK_VARIABLE = "LOOMSTREAM_TRACEBACK"
"""The environment variable that adds the traceback to an error."""

_COMPLETION_VARIABLE = "_LOOMS_COMPLETE"
_COMMANDS = {
    "ask": ("loomstream.cli.ask:ask", "Ask a model; its answer streams to standard output."),
    "bench": ("loomstream.cli.bench:bench", "Measure models side by side: latency, throughput, cost."),
    "chat": ("loomstream.cli.chat:chat", "Talk with a model, turn by turn; with tools, files and other models."),
    "completion": ("loomstream.cli.completion:completion", "Print what makes a shell complete commands and models."),
    "cost": ("loomstream.cli.cost:cost", "Estimate a prompt's cost over models; price past calls again."),
    "config": ("loomstream.cli.config:config", "Settings in looms.yaml, and keys in the system's keyring."),
    "decode": ("loomstream.cli.decode:decode", "Turn a captured response body into events, as JSON lines."),
    "doctor": ("loomstream.cli.doctor:doctor", "Find out what keeps a model from answering, and what to do."),
    "log": ("loomstream.cli.log:log", "Show the calls of an audit log: which, what they cost, the greatest."),
    "models": ("loomstream.cli.models:models", "Search the models: windows, abilities, prices; `models update`."),
    "providers": ("loomstream.cli.providers:providers", "List the providers, and whether each is usable now."),
    "simulate": ("loomstream.cli.simulate:simulate", "Serve every provider's wire on this machine, with faults."),
    "ui": ("loomstream.cli.ui:ui", "Chat with any configured provider in the browser."),
}
_EPILOG = examples(
    'looms ask "Write a haiku about rivers"',
    "looms config init        who answers, from now on",
    "looms doctor             what is missing, and what to do",
    "looms chat --help        every command has examples",
)


class Looms(Teaching, click.Group):
    """A group that loads its commands when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Give the commands' names."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (the same)
        """Import a command, or give None."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name][0].split(":")
        with EndsAtOnce():
            return cast("click.Command", getattr(importlib.import_module(module), name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; say which are alike where there is none."""
        name = args[0]
        if name in _COMMANDS or name.startswith("-") or ctx.resilient_parsing:  # a shell that completes a line
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(name, _COMMANDS, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(_COMMANDS)}"
        return ctx.fail(f"there is no command {name!r}: {hint}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (the same)
        """Write the commands with their summaries, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def format_exit_codes(self, formatter: click.HelpFormatter) -> None:
        """Write what the exit codes mean."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(f"{code:>3}", meaning) for code, meaning in MEANINGS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002, FBT001, FBT002 (the same)
        windows_expand_args: bool = True,  # noqa: ARG002, FBT001, FBT002 (the same)
        **extra: Any,  # noqa: ANN401 (the same)
    ) -> NoReturn:
        """Run a command and exit with its code."""
        name = prog_name or "looms"
        _use_our_completion()
        self._main_shell_completion(extra, name, complete_var or _COMPLETION_VARIABLE)
        _replace_what_cannot_be_encoded()
        with _terminate_like_interrupt() as was_terminated:
            try:
                code = self._end_of(list(sys.argv[1:] if args is None else args), name, extra)
            except BrokenPipeError:
                code = CLOSED_PIPE
            except KeyboardInterrupt:
                code = TERMINATED if was_terminated else INTERRUPTED
            _drop_what_cannot_be_written()
        sys.exit(code)

    def _end_of(self, arguments: list[str], name: str, extra: dict[str, Any]) -> int:
        context: click.Context | None = None
        try:
            with self.make_context(name, arguments, **extra) as context:
                self.invoke(context)
            _flush()
        except click.exceptions.Exit as end:
            return end.exit_code
        except click.Abort:
            raise KeyboardInterrupt from None
        except click.ClickException as error:
            _show(error, _command(context))
            return error.exit_code
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 (the last line of defence: no traceback reaches a user unasked)
            return _report(error, _command(context))
        return 0


def _use_our_completion() -> None:
    if _COMPLETION_VARIABLE in os.environ:
        from loomstream.cli.completion import register  # noqa: PLC0415 (only where a shell asks)

        register()


def _command(context: click.Context | None) -> str | None:
    return None if context is None else context.invoked_subcommand


def _show(error: click.ClickException, command: str | None) -> None:
    """Show click's own words, without the control sequences of an argument that they quote."""
    text = io.StringIO()
    error.show(file=text)
    hint = usage_hint(error.format_message(), command)
    shown = text.getvalue().rstrip("\n") + (f" ({hint})" if hint else "")
    click.echo(TerminalFilter().feed(shown), err=True)


def _report(error: Exception, command: str | None) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    match error:
        case LoomstreamError():
            complain(with_hint(error, command))
            return exit_code(error)
        case OSError():
            where = f" ({error.filename})" if error.filename else ""
            complain(f"the operating system says: {error.strerror or error}{where}")
        case _:
            complain(
                f"unexpected {type(error).__name__}: {error}; this is a fault in loomstream, please report it with the "
                f"traceback that {TRACEBACK_VARIABLE}=1 adds"
            )
    return OTHER


def _replace_what_cannot_be_encoded() -> None:
    """Let a terminal that is not UTF-8 show a question mark instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _flush() -> None:
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where the descriptor is closed
        stream.flush()


def _drop_what_cannot_be_written() -> None:
    """Point what is broken at nothing, so that what is still buffered does not fail again at the interpreter's exit."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


@contextmanager
def _terminate_like_interrupt() -> Generator[list[int]]:
    """Make SIGTERM close everything on the road that Ctrl-C takes; the list is filled when it came."""
    came = TERMINATIONS
    came.clear()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):  # the event loop's own, while one runs
            handler(signal.SIGINT, frame)
        else:  # Ctrl-C is ignored, as in a shell's background job
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(cls=Looms, name="looms", epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="loomstream", prog_name="loomstream", message="%(prog)s %(version)s")
def looms() -> None:
    """One typed event stream for every LLM provider.

    Without a key or any configuration, `looms ask "Write a haiku about rivers"` is answered by a small model that runs
    on this machine.
    """
