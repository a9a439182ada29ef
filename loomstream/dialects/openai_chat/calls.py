"""Tool calls of Chat Completions: pieces to whole calls.

What hosts really send: a call in pieces by index; whole calls without index; two parallel calls under one index; an
id repeated in every piece, or empty, or null; an empty name in continuations; arguments as a string, an object or
null. The index is a key, never a position.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects.blocks import Blocks, OpenBlock
from loomstream.dialects.fields import is_null
from loomstream.dialects.openai_chat.wire import Function, ToolCallPiece
from loomstream.errors import Failure
from loomstream.events import NULL, Event
from loomstream.wire.json import is_object

_Out = list[Event | Failure]
_LEGACY_KEY = -1


class _Call:
    """A call that is being put together; its block opens once the name is known."""

    __slots__ = ("block", "held", "id", "name", "scan")

    def __init__(self, id: str, name: str) -> None:  # noqa: A002 (the field's name)
        self.id = id
        self.name = name
        self.block: OpenBlock | None = None
        self.held: list[str] = []
        self.scan = _Scan()


class ToolCalls:
    """The tool calls of one choice."""

    __slots__ = (
        "_blocks",
        "_calls",
        "_choice",
        "_next_key",
        "count",
    )

    def __init__(self, blocks: Blocks, choice: int) -> None:
        self._blocks = blocks
        self._choice = choice
        self._calls: dict[int, _Call] = {}
        self._next_key = 0
        self.count = 0

    def piece(self, piece: ToolCallPiece, out: _Out) -> None:
        """Take a call, or a piece of one."""
        function = piece.function or _custom(piece.custom)
        id = "" if piece.id is None else str(piece.id)  # noqa: A001 (the field's name)
        name = function.name or ""
        key = self._key(piece.index, id, name)
        call = self._calls.get(key)
        if call is None or self._is_new(call, id, name):
            if call is not None:
                self._finish(call, out)
            call = self._calls[key] = _Call(id, name)
            self.count += 1
        call.id = call.id or id
        call.name = call.name or name
        self._grow(call, _arguments(function.arguments), out)

    def legacy(self, function: Function, out: _Out) -> None:
        """Take a piece of the one `function_call` of the older form."""
        if function.name or _arguments(function.arguments) or _LEGACY_KEY in self._calls:
            self.piece(ToolCallPiece(_LEGACY_KEY, None, function), out)

    def flush(self, out: _Out, *, cut: bool = False) -> None:
        """Open what was still without a name, and close every call."""
        for call in self._calls.values():
            self._finish(call, out, cut=cut)
        self._calls = {}

    def _finish(self, call: _Call, out: _Out, *, cut: bool = False) -> None:
        self._blocks.close(out, call.block or self._open(call, out), cut=cut)

    def _key(self, index: int | None, id: str, name: str) -> int:  # noqa: A002 (the field's name)
        if index is not None:
            self._next_key = max(self._next_key, index + 1)
            return index
        last = self._next_key - 1
        call = self._calls.get(last)
        if call is not None and not self._is_new(call, id, name):
            return last
        self._next_key += 1
        return self._next_key - 1

    def _is_new(self, call: _Call, id: str, name: str) -> bool:  # noqa: A002 (the field's name)
        """Say whether this piece begins another call under the key of an open one."""
        if id and call.id:
            return id != call.id
        if not name or not call.name:
            return False
        return call.scan.is_object(call.block.arguments if call.block else call.held)

    def _grow(self, call: _Call, arguments: str, out: _Out) -> None:
        if call.block is not None:
            self._blocks.arguments(out, call.block, arguments)
            return
        if arguments:
            call.held.append(arguments)
        if call.name:
            self._open(call, out)

    def _open(self, call: _Call, out: _Out) -> OpenBlock:
        block = call.block = self._blocks.open_tool_call(out, call.id, call.name, self._choice)
        for held in call.held:
            self._blocks.arguments(out, block, held)
        call.held = []
        return block


def _arguments(raw: RawJSON) -> str:
    if raw is NULL or is_null(raw):
        return ""
    text = bytes(raw).decode()
    return msgspec.json.decode(text, type=str) if text.startswith('"') else text


def _custom(raw: RawJSON) -> Function:
    """Read a custom tool call, whose input is text: it stands for the arguments as it came."""
    if raw is NULL or is_null(raw):
        return Function()
    try:
        custom = msgspec.json.decode(raw, type=_Custom)
    except msgspec.DecodeError:
        return Function()
    return Function(custom.name, msgspec.Raw(msgspec.json.encode(custom.input)))


class _Custom(msgspec.Struct):
    name: str = ""
    input: str = ""


_TOKEN = re.compile(r'\\.|["{}\\]', re.DOTALL)
_SPACE = " \t\r\n"


class _Scan:
    """Tells of growing arguments whether they are a whole JSON object.

    Each character is looked at once, and the whole is read once: where the braces first balance. What follows may be
    space alone.
    """

    __slots__ = ("_closed", "_depth", "_escaped", "_in_string", "_seen", "_verdict")

    def __init__(self) -> None:
        self._seen = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False
        """The next character is escaped."""
        self._closed = False
        self._verdict: bool | None = None
        """What reading the whole said; None while it was not read."""

    def is_object(self, pieces: list[str]) -> bool:
        """Look at the pieces that came since the last time."""
        for piece in pieces[self._seen :]:
            self._grow(piece)
        self._seen = len(pieces)
        if self._closed and self._verdict is None:
            self._verdict = is_object("".join(pieces))
        return self._verdict is True

    def _grow(self, piece: str) -> None:
        end = 0 if self._closed else self._end_of_object(piece)
        if self._closed and piece[end:].strip(_SPACE):
            self._verdict = False

    def _end_of_object(self, piece: str) -> int:
        start = 1 if self._escaped else 0
        self._escaped = False
        for match in _TOKEN.finditer(piece, start):
            match match[0]:
                case "\\":
                    self._escaped = True
                case '"':
                    self._in_string = not self._in_string
                case "{" if not self._in_string:
                    self._depth += 1
                case "}" if not self._in_string:
                    self._depth -= 1
                    if self._depth <= 0:
                        self._closed = True
                        return match.end()
                case _:
                    pass
        return len(piece)
