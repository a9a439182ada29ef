"""How a turn of a chat appears on a terminal: markdown as it is written, reasoning folded, tools in a line each.

Contract: a printer (see `printers`) that also says when it wants to be called again. Everything from outside goes
through the terminal's filter. Knows no model and no conversation.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from rich.cells import cell_len, set_cell_size

from loomstream.agent import RunEvent, RunStop, TurnStart
from loomstream.cli.answer import Answer
from loomstream.cli.hints import in_our_words
from loomstream.cli.live_markdown import LiveMarkdown
from loomstream.cli.live_region import Region
from loomstream.cli.output import Channel
from loomstream.cli.printers import QUIET_NOTICES, line_beside, notice_label, print_statistics, untold
from loomstream.cli.terminal import one_line
from loomstream.events import (
    Notice,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    Start,
    TextDelta,
    TextStart,
    ToolCallEnd,
)

_TAIL = 400
"""So many characters of the reasoning are looked at for its line."""


class TerminalView:
    """See the module's contract."""

    def __init__(
        self,
        stream: TextIO,
        *,
        statistics_line: bool = True,
        told: set[str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._statistics_line = statistics_line
        self._told = set[str]() if told is None else told
        self._region = Region(stream)
        self._markdown = LiveMarkdown(stream, self._region, now=now)
        self._err = Channel("stderr")
        self._now = now
        self._hidden: set[int] = set()
        self._thinking_since_s: float | None = None
        self._tail = ""

    @property
    def due_s(self) -> float | None:
        """See `Printer`."""
        return self._markdown.due_s

    def refresh(self) -> None:
        """See `Printer`."""
        self._markdown.refresh()

    def show(self, event: RunEvent) -> None:
        """Show an event."""
        match event:
            case TextStart(index=index, choice=choice) | ReasoningStart(index=index, choice=choice) if choice:
                self._hidden.add(index)
            case TextDelta(index=index, text=text) if index not in self._hidden:
                self._fold()
                self._markdown.feed(text)
            case RefusalDelta(text=text, choice=0):
                self._fold()
                self._markdown.feed(text)
            case ReasoningDelta(index=index, text=text) if text and index not in self._hidden:
                self._think(text)
            case ReasoningEnd():
                self._fold()
            case TurnStart():
                self._hidden.clear()
            case Start(warnings=warnings):
                for warning in untold(warnings, self._told):
                    self._line(warning, "Warning: ")
            case Notice(kind=kind, detail=detail) if kind not in QUIET_NOTICES:
                self._line(in_our_words(detail), notice_label(kind))
            case _:
                self._mention(event)

    def _mention(self, event: RunEvent) -> None:
        match event:
            case ToolCallEnd(name=name, arguments=arguments):
                self._line(f"{name} {arguments}", "Tool: ")
            case RunStop(reason=reason, detail=detail) if detail and reason != "paused":
                self._line(detail, "Stopped: ")
            case _ if line := line_beside(event, file_is="/save keeps it"):
                self._line(line)
            case _:
                pass

    def finish(self, answer: Answer) -> None:
        """Show the figures."""
        self.abandon()
        print_statistics(answer, wanted=self._statistics_line, say=self._err.line)

    def abandon(self) -> None:
        """Leave what is shown as it is, and the cursor below."""
        self._fold()
        self._markdown.finish()

    def _line(self, text: str, label: str = "") -> None:
        self.abandon()
        self._err.line(text, label=label, color="yellow" if label else None)

    # --- reasoning -------------------------------------------------------------------------------

    def _think(self, text: str) -> None:
        if self._thinking_since_s is None:
            self._markdown.finish()
            self._thinking_since_s = self._now()
            self._tail = ""
        self._tail = (self._tail + text)[-_TAIL:]
        width = shutil.get_terminal_size().columns - 1
        words = one_line(self._tail)
        self._region.update([_dim(_last_cells(f"thinking: {words}", "thinking: … ", width))])

    def _fold(self) -> None:
        """Put one line in the place of the reasoning."""
        since_s, self._thinking_since_s = self._thinking_since_s, None
        if since_s is not None:
            self._region.update([_dim(f"thought for {self._now() - since_s:.1f} s; /reasoning shows what")])
            self._region.keep()


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m"


def _last_cells(text: str, beginning: str, width: int) -> str:
    """Give a text in one line of the terminal: its end, where it is too long."""
    if cell_len(text) <= width:
        return text
    kept = text[-max(0, width - len(beginning)) :] if width > len(beginning) else ""
    while cell_len(beginning + kept) > width and kept:
        kept = kept[1:]
    return set_cell_size(beginning + kept, min(width, cell_len(beginning + kept)))
