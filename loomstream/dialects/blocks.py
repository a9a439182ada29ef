"""What every translator needs: open blocks, their indexes, their order law.

Contract: `Blocks` gives out indexes in the order of opening, opens a block with its first delta and closes each once;
`Sealer` keeps the law of the lists that a translator gives. They know no wire.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw as RawJSON

from loomstream.errors import Failure, LimitExceeded
from loomstream.events import (
    Event,
    Notice,
    Opaque,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from loomstream.wire.json import CARRIER_MARK, SURROGATE_OFFSET, Reader, carrier, is_object

MAX_BLOCKS = 4096
"""More content blocks than this in one answer end the stream with `LimitExceeded`."""

MAX_TOOL_ARGUMENTS_CHARS = 8 * 1024 * 1024
"""A tool call's arguments longer than this end the stream with `LimitExceeded`."""


class OpenBlock:
    """A text, reasoning or tool-call block that has opened and not yet closed."""

    __slots__ = ("arguments", "id", "index", "kind", "length", "name", "opaque")

    def __init__(self, kind: str, index: int, id: str = "", name: str = "") -> None:  # noqa: A002 (the field's name)
        self.kind = kind
        self.index = index
        self.id = id
        self.name = name
        self.arguments: list[str] = []
        self.length = 0
        self.opaque: list[Opaque] = []


class Blocks:
    """The blocks of one stream. Methods append to the list they are given."""

    __slots__ = ("next_index", "open")

    def __init__(self) -> None:
        self.next_index = 0
        self.open: dict[int, OpenBlock] = {}

    def claim(self, out: list[Event | Failure]) -> int:
        """Give the next free index; fail where there are too many blocks."""
        index = self.next_index
        self.next_index = index + 1
        if index == MAX_BLOCKS:
            out.append(Failure(LimitExceeded(f"the answer has more than {MAX_BLOCKS} content blocks")))
        return index

    def open_text(self, out: list[Event | Failure], choice: int = 0) -> OpenBlock:
        """Open a block of text."""
        block = self._open("text", out)
        out.append(TextStart(block.index, choice))
        return block

    def open_reasoning(self, out: list[Event | Failure], choice: int = 0) -> OpenBlock:
        """Open a block of reasoning."""
        block = self._open("reasoning", out)
        out.append(ReasoningStart(block.index, choice))
        return block

    def open_tool_call(self, out: list[Event | Failure], id: str, name: str, choice: int = 0) -> OpenBlock:  # noqa: A002
        """Open a tool call. An empty id is replaced by one made from the index."""
        block = self._open("tool_call", out)
        block.id = id or f"call_{block.index}"
        block.name = name
        out.append(ToolCallStart(block.index, block.id, name, choice))
        return block

    def _open(self, kind: str, out: list[Event | Failure]) -> OpenBlock:
        block = OpenBlock(kind, self.claim(out))
        self.open[block.index] = block
        return block

    def arguments(self, out: list[Event | Failure], block: OpenBlock, piece: str) -> None:
        """Add a piece of a tool call's arguments."""
        if not piece:
            return
        block.arguments.append(piece)
        block.length += len(piece)
        if block.length > MAX_TOOL_ARGUMENTS_CHARS:
            msg = f"the arguments of tool call {block.id!r} are longer than {MAX_TOOL_ARGUMENTS_CHARS} characters"
            out.append(Failure(LimitExceeded(msg)))
            return
        out.append(ToolCallDelta(block.index, piece))

    def close(self, out: list[Event | Failure], block: OpenBlock, *, cut: bool = False) -> None:
        """Close a block; closing it again does nothing. `cut`: it did not end by itself."""
        if self.open.pop(block.index, None) is None:
            return
        if block.kind == "text":
            out.append(TextEnd(block.index))
        elif block.kind == "reasoning":
            out.append(ReasoningEnd(block.index, tuple(block.opaque)))
        else:
            arguments = "".join(block.arguments) or "{}"
            if not arguments.strip():
                arguments = "{}"
            executable = is_object(arguments) and not (cut and block.length == 0)
            out.append(
                ToolCallEnd(block.index, block.id, block.name, arguments, tuple(block.opaque), executable=executable)
            )


def _code(surrogate: int) -> str:
    """Give the second code point of its carrier."""
    return chr(surrogate + SURROGATE_OFFSET)


_CARRIED = re.compile(
    f"{CARRIER_MARK}([{_code(0xD800)}-{_code(0xDBFF)}])"
    f"{CARRIER_MARK}([{_code(0xDC00)}-{_code(0xDFFF)}])"
    f"|{CARRIER_MARK}[{_code(0xD800)}-{_code(0xDFFF)}]"
)
_CARRIER_CHARS = len(carrier(0xD800))
_HIGH_AT_END = re.compile(f"{CARRIER_MARK}[{_code(0xD800)}-{_code(0xDBFF)}]\\Z")


def _join(match: re.Match[str]) -> str:
    if match.group(1) is None:
        return "\ufffd"
    high, low = ord(match.group(1)) - SURROGATE_OFFSET, ord(match.group(2)) - SURROGATE_OFFSET
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def heal(text: str) -> str:
    """Join carried surrogate pairs; what stays alone becomes U+FFFD."""
    return _CARRIED.sub(_join, text)


class SurrogateJoiner:
    """Joins the halves of a character that came in two deltas of one block.

    Only used on a stream whose reader has carried a surrogate; see `loomstream.wire.json`.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, str] = {}

    def join(self, events: list[Event | Failure]) -> list[Event | Failure]:
        """Give the events with whole characters only."""
        out: list[Event | Failure] = []
        for event in events:
            self._one(event, out)
        return out

    def _one(self, event: Event | Failure, out: list[Event | Failure]) -> None:
        match event:
            case TextDelta(index, text):
                self._delta(out, index, text, TextDelta)
            case ReasoningDelta(index, text):
                self._delta(out, index, text, ReasoningDelta)
            case ToolCallDelta(index, text):
                self._delta(out, index, text, ToolCallDelta)
            case RefusalDelta(index, text, choice):
                out.append(RefusalDelta(index, heal(text), choice))
            case TextEnd(index):
                self._flush(out, index, TextDelta)
                out.append(event)
            case ReasoningEnd(index, opaque):
                self._flush(out, index, ReasoningDelta)
                out.append(ReasoningEnd(index, _heal_opaque(opaque)))
            case ToolCallEnd(index, id, name, arguments, opaque, executable):
                self._flush(out, index, ToolCallDelta)
                whole = ToolCallEnd(index, heal(id), heal(name), heal(arguments), _heal_opaque(opaque), executable)
                out.append(whole)
            case _:
                out.append(_heal_fields(event))

    def _delta(
        self,
        out: list[Event | Failure],
        index: int,
        text: str,
        make: type[TextDelta | ReasoningDelta | ToolCallDelta],
    ) -> None:
        text = self._held.pop(index, "") + text
        high = _HIGH_AT_END.search(text, max(0, len(text) - _CARRIER_CHARS))
        if high is not None:
            self._held[index] = high[0]
            text = text[: high.start()]
        if text:
            out.append(make(index, heal(text)))

    def _flush(
        self, out: list[Event | Failure], index: int, make: type[TextDelta | ReasoningDelta | ToolCallDelta]
    ) -> None:
        if self._held.pop(index, ""):
            out.append(make(index, "\ufffd"))


def _heal_opaque(opaque: tuple[Opaque, ...]) -> tuple[Opaque, ...]:
    return tuple(msgspec.structs.replace(item, data=heal(item.data), id=heal(item.id)) for item in opaque)


def _heal_fields(event: Event | Failure) -> Event | Failure:
    if isinstance(event, Failure):
        return event
    changed: dict[str, str | RawJSON] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, str):
            changed[name] = heal(value)
        elif isinstance(value, RawJSON):
            changed[name] = RawJSON(heal(bytes(value).decode()).encode())
    return msgspec.structs.replace(event, **changed)


class Sealer:
    """Makes what a translator gives for a frame a list that keeps the law, whatever was appended to it.

    No event holds a carried surrogate, bytes that were replaced are announced once, nothing follows a failure.
    `over` is True once the stream has ended: by a failure, which is noted here, or as the translator says.
    """

    __slots__ = ("_announced", "_joiner", "over", "reader")

    def __init__(self, reader: Reader[Any]) -> None:
        self.reader = reader
        self.over = False
        self._joiner: SurrogateJoiner | None = None
        self._announced = False

    def begin_epoch(self) -> None:
        """Forget the halves of characters that the blocks of the epoch before left behind."""
        self._joiner = None

    def seal(self, events: list[Event | Failure]) -> list[Event | Failure]:
        """Give the events as they may leave the translator."""
        reader = self.reader
        if not (reader.carried or reader.replaced) and Failure not in map(type, events):
            return events
        if reader.carried:
            joiner = self._joiner = self._joiner or SurrogateJoiner()
            events = joiner.join(events)
        kinds = list(map(type, events))
        if Failure in kinds:
            del events[kinds.index(Failure) + 1 :]
            self.over = True
        if reader.replaced and not self._announced:
            self._announced = True
            events.insert(0, Notice("warning", _REPLACED))
        return events


_REPLACED = "the answer holds bytes that are no UTF-8: each reads as U+FFFD"
