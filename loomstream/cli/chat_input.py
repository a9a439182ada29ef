"""Lines of a chat: typed at a terminal, or piped in.

Contract: at a terminal, with the line editor where Python has one (its history lasts as long as the chat); else plain
lines. A line that ends in a backslash goes on in the next one. Ctrl-C gives up the line, the end of input is None.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

import click

from loomstream.cli.interrupt import TERMINATIONS

_CONTINUED = "\\"
_LOOK_S = 0.25


class Lines:
    """See the module's contract."""

    def __init__(self) -> None:
        self.from_terminal = sys.stdin is not None and sys.stdin.isatty()
        self.is_terminal = self.from_terminal and sys.stdout is not None and sys.stdout.isatty()
        """Whether somebody types, and sees what is written."""
        if self.is_terminal:
            _edit_lines()

    def read(self) -> str | None:
        """Give what the user says next, None at the end. `KeyboardInterrupt` passes where it means the program."""
        try:
            return self._read()
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not self.from_terminal or TERMINATIONS:
                raise
            click.echo(err=True)
            return ""

    def ask(self, question: str) -> str:
        """Ask the user something; the end of input and Ctrl-C are an empty answer."""
        try:
            return self._line(question).strip()
        except EOFError:
            return ""
        except KeyboardInterrupt:
            if TERMINATIONS:
                raise
            click.echo(err=True)
            return ""

    def _read(self) -> str:
        line = self._line("> ")
        parts: list[str] = []
        while line.endswith(_CONTINUED):
            parts.append(line.removesuffix(_CONTINUED))
            try:
                line = self._line(".. ")
            except EOFError:  # what was begun still counts; the next read finds the end again
                line = ""
        return "\n".join((*parts, line))

    def _line(self, prompt: str) -> str:
        if self.is_terminal:
            with _interrupts_are_seen():
                return _encodable(input(prompt))
        if self.from_terminal:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        line = "" if sys.stdin is None else sys.stdin.buffer.readline().decode("utf-8-sig", "replace")
        if not line:
            raise EOFError
        return line.rstrip("\r\n")


def _encodable(text: str) -> str:
    """Replace bytes that were no text, as in `standard_input`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextmanager
def _interrupts_are_seen() -> Generator[None]:
    """Have a waiting `input` look at the signals that came.

    Python's line editor looks only where its wait for a key is interrupted. A Ctrl-C that comes while it still draws
    the key before, or that another thread receives, would count at the next key at the earliest.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    try:  # a Ctrl-C may come between any two of these
        signal.signal(signal.SIGALRM, _look)
        signal.setitimer(signal.ITIMER_REAL, _LOOK_S, _LOOK_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)  # first: an alarm that nobody handles ends the process
        signal.signal(signal.SIGALRM, signal.SIG_IGN if handler is None else handler)  # None: it is not Python's


def _look(_number: int, _frame: object) -> None:
    """Do nothing: that a signal came has ended the wait."""


def _edit_lines() -> None:
    """Have `input` edit lines: importing the module is all that takes. Windows has an editor of its own."""
    if sys.platform != "win32":
        importlib.import_module("readline")
