"""How every command's `--help` is laid out: examples that can be copied, and where the exit codes stand.

Contract: a paragraph of an epilog that begins with click's mark for verbatim text keeps its lines. Where a line is a
command and a remark, with two spaces or more between them, the remarks go below their commands as soon as a line is
too long. A command is never broken, nor is a word at its hyphen, so that what is shown can be typed. Knows no command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

_VERBATIM = "\b\n"
_NO_BREAK_HYPHEN = "\u2011"
_REMARK = re.compile(r"(?P<indent> *)(?P<command>\S(?:.*?\S)?) {2,}(?P<remark>\S.*)")


class _Formatter(click.HelpFormatter):
    """Breaks no word at its hyphen: `--from-log` and `list-keys` stay whole."""

    def write_text(self, text: str) -> None:
        """Write a paragraph, wrapped."""
        super().write_text(_held(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of names and what they mean, each wrapped."""
        super().write_dl([(name, _held(text)) for name, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """Give what was written, with ordinary hyphens."""
        return super().getvalue().replace(_NO_BREAK_HYPHEN, "-")


class _Context(click.Context):
    formatter_class = _Formatter


class Teaching(click.Command):
    """A command whose help ends in its examples and in a word on exit codes."""

    context_class = _Context

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's)
        """Write the epilog, then where exit codes are explained."""
        for paragraph in (self.epilog or "").strip("\n").split("\n\n"):
            if paragraph:
                _write(paragraph, formatter)
        self.format_exit_codes(formatter)

    def format_exit_codes(self, formatter: click.HelpFormatter) -> None:
        """Write where exit codes are explained."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("Exit codes: 0 where all went well; `looms --help` lists them all.")


def examples(*lines: str) -> str:
    """Give the epilog that shows these: commands, each with a remark behind two spaces or more where it has one."""
    return "\n".join((f"{_VERBATIM}Examples:", *(f"  {line}" for line in lines)))


def _write(paragraph: str, formatter: click.HelpFormatter) -> None:
    formatter.write_paragraph()
    with formatter.indentation():
        if not paragraph.startswith(_VERBATIM):
            formatter.write_text(paragraph)
            return
        indent = " " * formatter.current_indent
        lines = [indent + line for line in paragraph.removeprefix(_VERBATIM).splitlines()]
        formatter.write("".join(f"{line}\n" for line in _fitted(lines, formatter.width)))


def _fitted(lines: list[str], width: int) -> list[str]:
    if max(map(len, lines)) <= width:
        return lines
    return [part for line in lines for part in _split(line)]


def _split(line: str) -> list[str]:
    found = _REMARK.fullmatch(line)
    if found is None:
        return [line]
    return [found["indent"] + found["command"], f"{found['indent']}    {found['remark']}"]


def _held(text: str) -> str:
    return text.replace("-", _NO_BREAK_HYPHEN)
