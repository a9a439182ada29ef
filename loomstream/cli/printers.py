"""How an answer appears: as text, as JSON lines of events, or as one JSON object.

Contract: a printer gets every event as it comes and the `Answer` at the end, and writes; it decides nothing. Text is
out before the next event is awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from loomstream.agent import CallPending, RunEvent, RunStop, ToolResultEvent, TurnStart, encode
from loomstream.cli.answer import Answer, report, statistics
from loomstream.cli.hints import in_our_words
from loomstream.cli.output import Channel, note, write_json_line
from loomstream.events import (
    File,
    Notice,
    ReasoningDelta,
    ReasoningStart,
    RefusalDelta,
    ServerToolCall,
    Start,
    TextDelta,
    TextStart,
    ToolCallEnd,
)

QUIET_NOTICES = frozenset(("heartbeat",))
"""Notices that are not shown."""

_NOTICES = {
    "warning": "Warning: ",
    "retry": "Asking again: ",
    "failover": "Asking another model: ",
    "hedge": "Asking a second model: ",
    "reset": "What came so far is void: ",
    "resume": "The answer goes on: ",
}
"""What a notice means to whoever reads the answer; other kinds go by their own names."""


def untold(warnings: Iterable[str], told: set[str]) -> list[str]:
    """Give the warnings that were not told before, and note that now they are."""
    fresh = [warning for warning in dict.fromkeys(warnings) if warning not in told]
    told.update(fresh)
    return fresh


def notice_label(kind: str) -> str:
    """Give the words before a notice's own."""
    return _NOTICES.get(kind, f"{kind}: ")


_MOST_RESULT = 500
"""A tool may give a book; so many characters of it are shown."""


class Printer(Protocol):
    """See the module's contract."""

    @property
    def due_s(self) -> float | None:
        """In how many seconds `refresh` is to be called, where nothing comes until then; None: it need not be."""
        ...

    def refresh(self) -> None:
        """Show what waits to be shown."""
        ...

    def show(self, event: RunEvent) -> None:
        """Show an event."""
        ...

    def finish(self, answer: Answer) -> None:
        """Show what is to be shown at the end; called once, also after an error."""
        ...

    def abandon(self) -> None:
        """Leave the output tidy; called when nothing more is to be shown."""
        ...


def line_beside(event: RunEvent, *, file_is: str) -> str:
    """Give the line for what came that has no place in a text; empty for all else. `file_is` says where a file is."""
    match event:
        case ToolResultEvent():
            return _result_line(event)
        case ServerToolCall(name=name):
            return f"the provider runs its tool {name}"
        case File(media_type=media_type, url=url):
            return f"file {url or media_type}: {file_is}"
        case _:
            return ""


def _result_line(event: ToolResultEvent) -> str:
    outcome = "" if event.outcome == "ok" else f" {event.outcome.replace('_', ' ')}:"
    text = event.text if len(event.text) <= _MOST_RESULT else event.text[:_MOST_RESULT] + "…"
    return f"{event.name} →{outcome} {text}"


def print_statistics(answer: Answer, *, wanted: bool, say: Callable[[str], object] = note) -> None:
    """Say the figures of an answer in one line, where they are wanted and there are any."""
    line = statistics(answer) if wanted else ""
    if line:
        say(line)


class _AtOnce:
    """What shows everything when it comes."""

    @property
    def due_s(self) -> float | None:
        """Never."""
        return None

    def refresh(self) -> None:
        """Nothing waits."""


class EventsPrinter(_AtOnce):
    """One JSON line an event."""

    def __init__(self, *, statistics_line: bool) -> None:
        self._statistics_line = statistics_line

    def show(self, event: RunEvent) -> None:
        """Print an event's line."""
        write_json_line(encode(event))

    def finish(self, answer: Answer) -> None:
        """Print the statistics, if asked for."""
        print_statistics(answer, wanted=self._statistics_line)

    def abandon(self) -> None:
        """Every line is whole."""


class ReportPrinter(_AtOnce):
    """One JSON object at the end."""

    def __init__(self, *, statistics_line: bool) -> None:
        self._statistics_line = statistics_line

    def show(self, event: RunEvent) -> None:
        """Wait for the end."""

    def finish(self, answer: Answer) -> None:
        """Print the object."""
        write_json_line(msgspec.json.encode(report(answer)))
        print_statistics(answer, wanted=self._statistics_line)

    def abandon(self) -> None:
        """Nothing was begun."""


class TextPrinter(_AtOnce):
    """The text of the first choice on standard output; reasoning dimmed on standard error, where that is a terminal.

    `told` are the warnings that were shown before, and so are not shown again; those that are shown are added.
    """

    def __init__(self, *, statistics_line: bool, told: set[str] | None = None) -> None:
        self._statistics_line = statistics_line
        self._told = set[str]() if told is None else told
        self._out = Channel("stdout")
        self._err = Channel("stderr")
        self._hidden: set[int] = set()
        self._runs_tools = False

    def show(self, event: RunEvent) -> None:
        """Show what can be shown as text."""
        match event:
            case TextStart(index=index, choice=choice) | ReasoningStart(index=index, choice=choice) if choice:
                self._hidden.add(index)
            case TextDelta(index=index, text=text) if index not in self._hidden:
                self._answer(text)
            case RefusalDelta(text=text, choice=0):
                self._answer(text)
            case ReasoningDelta(index=index, text=text) if index not in self._hidden and self._err.is_terminal:
                self._end_answer_line()
                self._err.write(text, dim=True)
            case Start(warnings=warnings):
                for warning in untold(warnings, self._told):
                    self._line(warning, "Warning: ")
            case Notice(kind=kind, detail=detail) if kind not in QUIET_NOTICES:
                self._line(in_our_words(detail), notice_label(kind))
            case TurnStart():
                self._runs_tools = True
                self._hidden.clear()
            case _:
                self._mention(event)

    def _answer(self, text: str) -> None:
        self._err.end_line()
        self._out.write(text)

    def _end_answer_line(self) -> None:
        """End the answer's line, where the next line for standard error would appear on it."""
        if self._out.is_terminal:
            self._out.end_line()

    def _line(self, text: str, label: str = "") -> None:
        self._end_answer_line()
        self._err.line(text, label=label, color="yellow" if label else None)

    def _mention(self, event: RunEvent) -> None:
        """Say what came that has no place in a text."""
        match event:
            case ToolCallEnd(name=name, arguments=arguments):
                self._line(f"tool call{'' if self._runs_tools else ' (not run)'}: {name} {arguments}")
            case CallPending(call=call):
                self._line(f"{call.name} has no function here: it was not run")
            case RunStop(detail=detail) if detail:
                self._line(detail, "Stopped: ")
            case _ if line := line_beside(event, file_is="--json has it"):
                self._line(line)
            case _:
                pass

    def finish(self, answer: Answer) -> None:
        """End the answer's line, print the statistics."""
        self.abandon()
        print_statistics(answer, wanted=self._statistics_line, say=self._err.line)

    def abandon(self) -> None:
        """End the lines that are open."""
        self._err.end_line()
        self._out.end_line()
