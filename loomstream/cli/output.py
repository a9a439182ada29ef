"""The two channels of a command: standard output for the answer, standard error for everything about it.

Contract: what was written is out when the call returns. On a terminal, text from outside is filtered (see `terminal`);
in a pipe or a file it stays as it came. JSON is UTF-8 whatever the locale says. A stream that the caller of the program
has closed takes everything and keeps nothing.
"""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO

import click

from loomstream.cli.terminal import TerminalFilter, escape_json, one_line


class Channel:
    """A standard stream that knows whether its line is ended."""

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self._stream: TextIO | None = getattr(sys, name)
        self.is_terminal = self._stream is not None and self._stream.isatty()
        self._filter = TerminalFilter() if self.is_terminal else None
        self.styles = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        """Whether colours are wanted here: `NO_COLOR` and a dumb terminal take none, nor any other style."""
        self.line_is_open = False

    def write(self, text: str, *, dim: bool = False) -> None:
        """Write a piece of text that came from outside."""
        shown = text if self._filter is None else self._filter.feed(text)
        if self._stream is None or not shown:
            return
        self.line_is_open = not shown.endswith("\n")
        self._stream.write(click.style(shown, dim=True) if dim and self.styles else shown)
        self._stream.flush()

    def end_line(self) -> None:
        """End the line, if one is open."""
        if self.line_is_open:
            self.write("\n")

    def line(self, text: str, *, label: str = "", color: str | None = None) -> None:
        """Write a message of our own on a line of its own; dim where no label is given."""
        if self._stream is None:
            return
        self.end_line()
        text = one_line(text)
        if self.styles:
            text = f"{click.style(label, fg=color, bold=True)}{text}" if label else click.style(text, dim=True)
        else:
            text = label + text
        self._stream.write(text + "\n")
        self._stream.flush()


def write_json_line(line: bytes) -> None:
    """Write a line of JSON (without its end) to standard output."""
    stream = sys.stdout
    if stream is None:
        return
    line = escape_json(line) if stream.isatty() else line
    if hasattr(stream, "buffer"):
        stream.buffer.write(line + b"\n")
    else:  # a replaced stream without bytes below, as under some test runners
        stream.write(line.decode() + "\n")
    stream.flush()


def complain(message: str) -> None:
    """Say what went wrong, in one line on standard error."""
    Channel("stderr").line(message, label="Error: ", color="red")


def warn(message: str) -> None:
    """Say what may be wrong, in one line on standard error."""
    Channel("stderr").line(message, label="Warning: ", color="yellow")


def note(message: str) -> None:
    """Say something that is good to know, in one line on standard error."""
    Channel("stderr").line(message)
