"""Events of an answer whose tool calls stand in its text: the calls as calls, the rest as text.

Contract: an `EventStage`. Blocks are numbered anew, so that the order law holds; reasoning and all else pass as they
came. A block of text that ends within what may be a call waits for what follows: only then it is known whether the
answer was cut. Citations and token probabilities of text that became a call are left out. No request, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import msgspec

from loomstream.adapt.call_extractor import Extractor, Texts
from loomstream.events import (
    Citation,
    Event,
    File,
    Logprobs,
    Notice,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    ServerToolCall,
    ServerToolResult,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from loomstream.wire.json import is_object

_WHOLE = frozenset({"end_turn", "tool_use"})
"""Stop reasons after which a call that lacks a closing bracket was not cut, but forgotten to be closed."""

_CALLED = frozenset({"end_turn", "stop_sequence", "other"})
"""Stop reasons that are `tool_use` where calls were made."""

_Opening = ReasoningStart | ToolCallStart | RefusalDelta | File | ServerToolCall | ServerToolResult
_Open = ReasoningDelta | ReasoningEnd | ToolCallDelta | ToolCallEnd
_Beside = Citation | Logprobs


class CalledEvents:
    """Reads the calls of one answer; `ids` gives an id for each, `tools` and `texts` are the extractor's."""

    def __init__(self, tools: Mapping[str, bool], ids: Iterator[str], texts: Texts | None = None) -> None:
        self._tools = tools
        self._texts = texts or {}
        self.ids = ids
        self.out: list[Event] = []
        self._begin()

    def _begin(self) -> None:
        self._next = 0
        self._indexes: dict[int, int] = {}
        self._blocks: dict[int, _Block] = {}
        self._waiting: list[_Block] = []
        self.called = False

    def feed(self, event: Event) -> list[Event]:
        """Take an event, give what is known by now."""
        taker = self._takers.get(event.__class__)
        if taker is None:
            return [event]
        taker(self, event)
        out, self.out = self.out, []
        return out

    def flush(self) -> list[Event]:
        """Give what was held back as text."""
        for block in (*self._waiting, *self._blocks.values()):
            block.release()
        out, self.out = self.out, []
        return out

    def take_index(self) -> int:
        """Give the next free index."""
        index, self._next = self._next, self._next + 1
        return index

    def _text_start(self, event: TextStart) -> None:
        self._settle(event.choice)
        self._blocks[event.index] = _Block(self, self._tools, self._texts, event.choice)

    def _text_delta(self, event: TextDelta) -> None:
        self._blocks[event.index].feed(event.text)

    def _text_end(self, event: TextEnd) -> None:
        block = self._blocks[event.index]
        if block.idle:
            block.finish(cut=False)
        else:
            self._waiting.append(block)

    def _settle(self, choice: int) -> None:
        """End what waited: the answer goes on behind it, so a call in it was never closed."""
        for block in [waiting for waiting in self._waiting if waiting.choice == choice]:
            self._waiting.remove(block)
            block.finish(cut=True)

    def _opening(self, event: _Opening) -> None:
        if event.index not in self._indexes:
            self._settle(event.choice)
            self._indexes[event.index] = self.take_index()
        self._at(event, self._indexes[event.index])

    def _open(self, event: _Open) -> None:
        self._at(event, self._indexes[event.index])

    def _beside(self, event: _Beside) -> None:
        block = self._blocks.get(event.index)
        if block is not None and block.last >= 0:
            self._at(event, block.last)

    def _at(self, event: _Opening | _Open | _Beside, index: int) -> None:
        self.out.append(event if event.index == index else msgspec.structs.replace(event, index=index))

    def _notice(self, event: Notice) -> None:
        if event.kind == "reset":
            self._begin()
        self.out.append(event)

    def _stop(self, event: Stop) -> None:
        for block in self._waiting:
            block.finish(cut=event.reason not in _WHOLE)
        calls = self.called and event.reason in _CALLED
        self.out.append(Stop("tool_use", event.raw) if calls else event)

    _takers: ClassVar[dict[type[object], Callable[..., None]]] = {
        TextDelta: _text_delta,
        TextStart: _text_start,
        TextEnd: _text_end,
        Notice: _notice,
        Stop: _stop,
        **dict.fromkeys(
            (ReasoningStart, ToolCallStart, RefusalDelta, File, ServerToolCall, ServerToolResult), _opening
        ),
        **dict.fromkeys((ReasoningDelta, ReasoningEnd, ToolCallDelta, ToolCallEnd), _open),
        **dict.fromkeys((Citation, Logprobs), _beside),
    }


class _Block:
    """A block of text of the provider's: it becomes blocks of text and calls."""

    def __init__(self, answer: CalledEvents, tools: Mapping[str, bool], texts: Texts, choice: int) -> None:
        self.choice = choice
        self.last = -1
        """The text block that was opened last."""
        self._answer = answer
        self._extractor = Extractor(self, tools, texts)
        self._open = False
        self._texts: list[str] = []
        self._call = ToolCallStart(-1, "", "")
        self._pieces: list[str] = []
        self._arguments: list[str] = []

    @property
    def idle(self) -> bool:
        """Whether the end of the text decides nothing."""
        return self._extractor.idle

    def feed(self, text: str) -> None:
        """Take text; pieces that one delta brought leave as one."""
        self._extractor.feed(text)
        self._write()

    def finish(self, *, cut: bool) -> None:
        """Take the end of the block."""
        self._extractor.finish(cut=cut)
        self._write()
        self._close_text()

    def release(self) -> None:
        """Give what is held back."""
        self._extractor.release()
        self._write()

    # --- the sink of the extractor ---------------------------------------------------------------

    def text(self, piece: str) -> None:
        """Take text."""
        self._texts.append(piece)

    def begin(self, name: str) -> None:
        """Open a call."""
        self._write()
        self._close_text()
        self._answer.called = True
        self._call = ToolCallStart(self._answer.take_index(), next(self._answer.ids), name, self.choice)
        self._arguments = []
        self._answer.out.append(self._call)

    def arguments(self, piece: str) -> None:
        """Take a piece of its arguments."""
        if piece:
            self._pieces.append(piece)

    def end(self, fault: str = "") -> None:
        """Close the call."""
        self._write()
        call, text = self._call, "".join(self._arguments)
        arguments = text if text.strip() else "{}"
        if not fault and not is_object(arguments):
            fault = "its arguments are no JSON"
        self._answer.out.append(ToolCallEnd(call.index, call.id, call.name, arguments, executable=not fault))
        if fault:
            self.warn(f"the call of {call.name} ({call.id}) must not be run: {fault}")

    def warn(self, detail: str) -> None:
        """Tell the user."""
        self._answer.out.append(Notice("warning", detail))

    # --- events ----------------------------------------------------------------------------------

    def _write(self) -> None:
        out = self._answer.out
        if self._texts:
            if not self._open:
                self._open, self.last = True, self._answer.take_index()
                out.append(TextStart(self.last, self.choice))
            out.append(TextDelta(self.last, "".join(self._texts)))
            self._texts = []
        if self._pieces:
            piece = "".join(self._pieces)
            self._arguments.append(piece)
            out.append(ToolCallDelta(self._call.index, piece))
            self._pieces = []

    def _close_text(self) -> None:
        if self._open:
            self._open = False
            self._answer.out.append(TextEnd(self.last))
