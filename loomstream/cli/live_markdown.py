"""Markdown on a terminal while it is being written.

Contract: a block that is finished is rendered once and never again; the open one again at most every `REFRESH_S`, so
that an answer costs time in proportion to its length. What is rendered is filtered afterwards, since markdown can say
a control character in ways that a filter of its source does not see; links show their address and are no hyperlinks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.segment import Segment, Segments

from loomstream.cli.live_region import Region
from loomstream.cli.markdown import Block, Blocks
from loomstream.cli.terminal import TerminalFilter

REFRESH_S = 0.05
"""The open block is not rendered more often, in seconds."""


class _Heading(Heading):
    """A heading at the left: one in the middle would move with each letter that is added."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        self.text.justify = "left"
        yield self.text


class _Markdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "heading_open": _Heading}


class LiveMarkdown:
    """See the module's contract."""

    def __init__(self, stream: TextIO, region: Region, *, now: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, legacy_windows=False)
        self._region = region
        self._now = now
        self._blocks = Blocks()
        self._filter = TerminalFilter()
        self._began = False
        self._waits = False
        self._refreshed_s = -REFRESH_S

    def feed(self, text: str) -> None:
        """Show a piece of text that came from outside."""
        for block in self._blocks.feed(self._filter.feed(text)):
            self._finish(block)
        self._waits = True
        if self.due_s == 0:
            self.refresh()

    @property
    def due_s(self) -> float | None:
        """In how many seconds `refresh` is to be called; None where nothing waits to be shown."""
        return max(0.0, self._refreshed_s + REFRESH_S - self._now()) if self._waits else None

    def refresh(self) -> None:
        """Show the open block as it is now."""
        if not self._waits:
            return
        self._waits = False
        block = self._blocks.open
        self._region.update(self._lines(block) if block.text.strip() else [])
        self._refreshed_s = self._now()

    def finish(self) -> None:
        """Show all that has come; what is fed afterwards is another text."""
        for block in self._blocks.finish():
            self._finish(block)
        self._waits = False
        self._began = False

    def _finish(self, block: Block) -> None:
        self._region.update(self._lines(block))
        self._region.keep()
        self._began = True

    def _lines(self, block: Block) -> list[str]:
        apart = [""] if self._began and not block.joined else []
        return apart + self._rendered(block.text)

    def _rendered(self, text: str) -> list[str]:
        console = self._console
        lines = console.render_lines(_Markdown(text, code_theme="ansi_dark", hyperlinks=False), pad=False)
        clean = [[_clean(segment) for segment in line if not segment.control] for line in lines]
        with console.capture() as captured:
            console.print(Segments([segment for line in clean for segment in (*line, Segment.line())]), end="")
        written = captured.get().removesuffix("\n").split("\n")
        return _without_empty_ends([line.rstrip() for line in written], [_is_empty(line) for line in clean])


def _clean(segment: Segment) -> Segment:
    return Segment(TerminalFilter().feed(segment.text).replace("\n", ""), segment.style)


def _is_empty(line: list[Segment]) -> bool:
    return not "".join(segment.text for segment in line).strip()


def _without_empty_ends(lines: list[str], empty: list[bool]) -> list[str]:
    """Leave out the empty lines at both ends: which stand between blocks does not depend on what renders them."""
    start, end = 0, len(empty)
    while start < end and empty[start]:
        start += 1
    while end > start and empty[end - 1]:
        end -= 1
    return lines[start:end]
