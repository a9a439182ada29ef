"""The order law of an event stream, as a validator.

The law: notices, then `Start`; each block opens, grows and closes once; indexes are unique within an epoch and given
out in order; nothing after `Stop`; before `Stop` every block is closed; exactly one `Stop`, or one error and no `Stop`;
no `Usage` after a final one. A `reset` notice begins a new epoch. `Raw` and `Unknown` may stand anywhere before `Stop`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from loomstream.events import (
    Citation,
    Event,
    File,
    Logprobs,
    Notice,
    Raw,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    ServerToolCall,
    ServerToolResult,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Unknown,
    Usage,
    encode,
)
from loomstream.events import decode as decode_event


class OrderViolation(AssertionError):
    """An event stream broke the order law; the message says at which event and how."""


_OPENS: dict[type[object], str] = {TextStart: "text", ReasoningStart: "reasoning", ToolCallStart: "tool_call"}
_GROWS: dict[type[object], str] = {TextDelta: "text", ReasoningDelta: "reasoning", ToolCallDelta: "tool_call"}
_CLOSES: dict[type[object], str] = {TextEnd: "text", ReasoningEnd: "reasoning", ToolCallEnd: "tool_call"}


class _Law:
    def __init__(self) -> None:
        self.position = -1
        self.stopped = False
        self._new_epoch()

    def _new_epoch(self) -> None:
        self.started = False
        self.counted = False
        self.next_index = 0
        self.open: dict[int, str] = {}
        self.seen: dict[int, str] = {}
        self.pieces: dict[int, list[str]] = {}
        self.calls: dict[int, tuple[str, str]] = {}

    def fail(self, event: Event, why: str) -> NoReturn:
        msg = f"event {self.position} ({event!r}): {why}"
        raise OrderViolation(msg)

    def take(self, event: Event) -> None:
        self.position += 1
        if self.stopped:
            self.fail(event, "comes after Stop")
        if not _survives(event):
            self.fail(event, "does not survive a round trip through JSON")
        if isinstance(event, Notice | Raw | Unknown):
            if isinstance(event, Notice) and event.kind == "reset":
                self._new_epoch()
            return
        if isinstance(event, Start):
            if self.started:
                self.fail(event, "is a second Start without a reset")
            self.started = True
            return
        if not self.started:
            self.fail(event, "comes before Start")
        self._content(event)

    def _content(self, event: Event) -> None:
        match event:
            case Usage():
                self._counts(event)
            case Stop():
                if self.open:
                    self.fail(event, f"comes while blocks are open: {self.open}")
                self.stopped = True
            case TextStart() | ReasoningStart() | ToolCallStart():
                self._new_index(event, event.index, _OPENS[event.__class__])
                self.open[event.index] = _OPENS[event.__class__]
                self.pieces[event.index] = []
                if isinstance(event, ToolCallStart):
                    self.calls[event.index] = (event.id, event.name)
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                self._grow(event, event.arguments if isinstance(event, ToolCallDelta) else event.text)
            case TextEnd() | ReasoningEnd() | ToolCallEnd():
                self._close(event)
            case _:
                self._single(event)

    def _single(self, event: Event) -> None:
        """Check what has no start and end of its own."""
        match event:
            case RefusalDelta(index=index, text=text):
                if self.seen.get(index) != "refusal":
                    self._new_index(event, index, "refusal")
                if not text:
                    self.fail(event, "is empty")
            case Citation(index=index) | Logprobs(index=index) if self.seen.get(index) != "text":
                self.fail(event, "belongs to no text block")
            case File() | ServerToolCall() | ServerToolResult():
                self._new_index(event, event.index, "whole")
            case _:
                pass

    def _counts(self, event: Usage) -> None:
        if self.counted:
            self.fail(event, "comes after a final Usage")
        self.counted = event.final
        counts = (event.input_tokens, event.output_tokens, event.cache_read_tokens, event.cache_write_tokens)
        if min(*counts, event.reasoning_tokens, event.cache_write_1h_tokens) < 0:
            self.fail(event, "holds a negative count")

    def _new_index(self, event: Event, index: int, kind: str) -> None:
        if index != self.next_index:
            self.fail(event, f"has index {index}; the next free one is {self.next_index}")
        self.next_index += 1
        self.seen[index] = kind

    def _grow(self, event: TextDelta | ReasoningDelta | ToolCallDelta, piece: str) -> None:
        if self.open.get(event.index) != _GROWS[event.__class__]:
            self.fail(event, "grows a block that is not open")
        if not piece:
            self.fail(event, "is empty")
        self.pieces[event.index].append(piece)

    def _close(self, event: TextEnd | ReasoningEnd | ToolCallEnd) -> None:
        if self.open.pop(event.index, None) != _CLOSES[event.__class__]:
            self.fail(event, "closes a block that is not open")
        if isinstance(event, ToolCallEnd):
            pieces = "".join(self.pieces[event.index])
            if event.arguments != (pieces if pieces.strip() else "{}"):
                self.fail(event, f"its arguments are not the sum of its deltas: {pieces!r}")
            if (event.id, event.name) != self.calls[event.index]:
                self.fail(event, f"its id or name is not that of its start: {self.calls[event.index]}")


def _survives(event: Event) -> bool:
    try:
        return decode_event(encode(event)) == event
    except (ValueError, TypeError):  # a lone surrogate, or a value of another type than the field's
        return False


def check_order(events: Iterable[Event], *, complete: bool = True) -> None:
    """Raise `OrderViolation` where the events break the order law.

    `complete` says that the stream ended without an error: then there must be exactly one `Stop`, else none.
    """
    law = _Law()
    for event in events:
        law.take(event)
    if complete != law.stopped:
        what = "ended after {} events without a Stop" if complete else "ended in an error after {} events with a Stop"
        raise OrderViolation("the stream " + what.format(law.position + 1))
