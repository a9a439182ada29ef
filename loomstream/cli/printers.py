"""How an answer appears: as text, as JSON lines of events, or as one JSON object.

Contract: a printer gets every event as it comes and the `Answer` at the end, and writes; it decides nothing. Text is
out before the next event is awaited.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from loomstream.cli.answer import Answer, report, statistics
from loomstream.cli.output import Channel, note, write_json_line
from loomstream.events import (
    Event,
    EventBase,
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
    encode,
)

_QUIET_NOTICES = frozenset(("heartbeat",))


class Printer(Protocol):
    """See the module's contract."""

    def show(self, event: Event) -> None:
        """Show an event."""
        ...

    def finish(self, answer: Answer) -> None:
        """Show what is to be shown at the end; called once, also after an error."""
        ...

    def abandon(self) -> None:
        """Leave the output tidy; called when nothing more is to be shown."""
        ...


class EventsPrinter:
    """One JSON line an event."""

    def __init__(self, *, statistics_line: bool) -> None:
        self._statistics_line = statistics_line

    def show(self, event: Event) -> None:
        """Print an event's line."""
        write_json_line(encode(event))

    def finish(self, answer: Answer) -> None:
        """Print the statistics, if asked for."""
        _print_statistics(answer, wanted=self._statistics_line)

    def abandon(self) -> None:
        """Every line is whole."""


class ReportPrinter:
    """One JSON object at the end."""

    def __init__(self, *, statistics_line: bool) -> None:
        self._statistics_line = statistics_line

    def show(self, event: Event) -> None:
        """Wait for the end."""

    def finish(self, answer: Answer) -> None:
        """Print the object."""
        write_json_line(msgspec.json.encode(report(answer)))
        _print_statistics(answer, wanted=self._statistics_line)

    def abandon(self) -> None:
        """Nothing was begun."""


def _print_statistics(answer: Answer, *, wanted: bool) -> None:
    line = statistics(answer) if wanted else ""
    if line:
        note(line)


class TextPrinter:
    """The text of the first choice on standard output; reasoning dimmed on standard error, where that is a terminal."""

    def __init__(self, *, statistics_line: bool) -> None:
        self._statistics_line = statistics_line
        self._out = Channel("stdout")
        self._err = Channel("stderr")
        self._hidden: set[int] = set()

    def show(self, event: Event) -> None:
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
                for warning in warnings:
                    self._line(warning, "Warning: ")
            case Notice(kind=kind, detail=detail) if kind not in _QUIET_NOTICES:
                self._line(f"{kind}: {detail}" if detail else kind)
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

    def _mention(self, event: EventBase) -> None:
        """Say what came that has no place in a text."""
        match event:
            case ToolCallEnd(name=name, arguments=arguments):
                self._line(f"tool call (not run): {name} {arguments}")
            case ServerToolCall(name=name):
                self._line(f"the provider runs its tool {name}")
            case File(media_type=media_type, url=url):
                self._line(f"file {url or media_type}: --json has it")
            case _:
                pass

    def finish(self, answer: Answer) -> None:
        """End the answer's line, print the statistics."""
        self.abandon()
        line = statistics(answer) if self._statistics_line else ""
        if line:
            self._err.line(line)

    def abandon(self) -> None:
        """End the lines that are open."""
        self._err.end_line()
        self._out.end_line()
