"""One call of a tool, read from text as it is received.

Contract: `feed` takes text from a position and gives the position up to which it is used; `status` says what became of
the call. Until its `Sink` was told that it begins, it may be `REJECTED`: then it was no call, and its text is text.
Afterwards it ends, by `DONE`, or as `BROKEN` where the arguments stop being JSON: its owner ends that one, from the
character that does not fit. Linear in the text, however it is cut. Knows no markers, no events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol

from loomstream.adapt.loose_json import BAD, CHUNK, OPEN, WORD, Tokens, Writer, mended
from loomstream.wire.json import loads

NAME_KEYS = frozenset({"name", "function", "tool", "tool_name", "function_name"})
"""Keys under which models write a tool's name."""

ARGUMENT_KEYS = frozenset({"arguments", "parameters", "args", "input"})
"""Keys under which they write its arguments."""

_SIDE_KEYS = frozenset({"type", "id", "call_id"})
"""Keys that may stand beside them where nothing but the shape shows that it is a call."""

_NOTHING = frozenset({"null", "None"})
_ONE_CHARACTER = frozenset({*"{}[],:=()", BAD, OPEN})


class Status(Enum):
    """What has become of a call."""

    READING = "reading"
    DONE = "done"
    REJECTED = "rejected"
    BROKEN = "broken"


class Sink(Protocol):
    """Is told of text and calls, in the order in which they stand."""

    def text(self, piece: str) -> None:
        """Take text that belongs to no call."""
        ...

    def begin(self, name: str) -> None:
        """Take the beginning of a call."""
        ...

    def arguments(self, piece: str) -> None:
        """Take a piece of its arguments' JSON text."""
        ...

    def end(self, fault: str = "") -> None:
        """Take its end; `fault` says why it must not be run."""
        ...

    def warn(self, detail: str) -> None:
        """Take what the user may want to know."""
        ...


class Reader:
    """What both forms share: tokens, and what happens where one does not fit."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._tokens = Tokens()
        self._writer = Writer()
        self._whole = False
        """All of the arguments has come."""
        self._spoiled = False
        """What came last fits nowhere."""
        self._fault = ""
        self.begun = False
        self.status = Status.READING

    def feed(self, text: str, position: int) -> int:
        """Take text from there; give the position behind what is used."""
        next_token = self._tokens.next
        while (token := next_token(text, position)) is not None:
            kind, value, end = token
            if not self._take(kind, value):
                return self._refused(kind, value, end)
            position = end
            if self.status is Status.DONE:
                return position
        return len(text)

    def finish(self, *, cut: bool) -> None:
        """Take the end of the answer; `cut` says that the model would have gone on."""
        token = self._tokens.finish()
        fits = token is None or self._take(token[0], token[1])
        if self.status is not Status.READING:
            return
        if not self._could_end():
            self.status = Status.REJECTED
            return
        if not self.begun:
            self._begin()
        closing = self._closing()
        closing = None if cut or not fits or self._tokens.in_string else closing
        if closing:
            self._sink.arguments(closing)
        self._fault = self._fault or ("" if closing is not None else "its arguments are cut")
        self._end()

    def mend(self) -> bool:
        """Close the arguments, of a call that broke where only brackets may be missing; say whether that was all."""
        closing = None if self._spoiled else self._closing()
        if closing:
            self._sink.arguments(closing)
        return closing is not None

    def _take(self, kind: str, value: str) -> bool:
        raise NotImplementedError

    def _could_end(self) -> bool:
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _closing(self) -> str | None:
        """Give what the arguments lack at their end, None where that cannot be known."""
        return "" if self._whole else self._writer.finish()

    def _end(self) -> None:
        self.status = Status.DONE
        self._sink.end(self._fault)

    def _refused(self, kind: str, value: str, end: int) -> int:
        if self.begun and self._whole:
            self._end()
        elif self.begun:
            self.status = Status.BROKEN
            if kind not in _ONE_CHARACTER:
                self._spoiled = True
                self._sink.arguments(value)
        else:
            self.status = Status.REJECTED
        return end - 1 if kind in _ONE_CHARACTER else end


class DirectReader(Reader):
    """A call whose name is known: its arguments, as an object or (`python`) as `key=value, …)`."""

    def __init__(self, sink: Sink, name: str, *, python: bool) -> None:
        super().__init__(sink)
        self._python = python
        self.begun = True
        sink.begin(name)
        if python:
            self._take("{", "{")

    def _take(self, kind: str, value: str) -> bool:
        if self._python and self._writer.depth == 1 and kind in _AS_OBJECT:
            kind = value = _AS_OBJECT[kind]
        piece = self._writer.take(kind, value)
        if piece is None:
            return False
        if piece:
            self._sink.arguments(piece)
        if self._writer.done:
            self._whole = True
            self._end()
        return True

    def _could_end(self) -> bool:
        return True

    def _begin(self) -> None:
        return


_AS_OBJECT = {"=": ":", ")": "}", ":": BAD, "}": BAD}
"""How the marks of a call in Python read as those of an object."""


class ObjectReader(Reader):
    """A call as an object: `{"name": …, "arguments": {…}}` and its kin; its keys may come in any order.

    `tools` are the names that are known, and whether each needs arguments; `marked` says that a marker stands before
    it: then a name that is not known, and other keys, are a call as well.
    """

    def __init__(self, sink: Sink, tools: Mapping[str, bool], *, marked: bool) -> None:
        super().__init__(sink)
        self._tools = tools
        self._marked = marked
        self._name = ""
        self._key = ""
        self._string: list[str] = []
        self._early: list[str] = []
        """Arguments that came before the name."""
        self._side = Writer()
        self._nested = 0
        self._at: Callable[[str, str], bool] = self._object

    def _take(self, kind: str, value: str) -> bool:
        return self._at(kind, value)

    # --- the object and its keys -----------------------------------------------------------------

    def _object(self, kind: str, value: str) -> bool:  # noqa: ARG002 (one signature)
        self._at = self._any_key
        return kind == "{"

    def _any_key(self, kind: str, value: str) -> bool:
        if kind == OPEN:
            self._string, self._at = [], self._key_text
            return True
        if kind == WORD:
            return self._named(value)
        return kind == "}" and self._closed()

    def _key_text(self, kind: str, value: str) -> bool:
        if kind == CHUNK:
            self._string.append(value)
            return True
        return self._named(self._text())

    def _named(self, key: str) -> bool:
        self._key, self._at = key, self._colon
        return self.begun or self._marked or key in NAME_KEYS or key in ARGUMENT_KEYS or key in _SIDE_KEYS

    def _colon(self, kind: str, value: str) -> bool:  # noqa: ARG002 (one signature)
        self._at = self._value
        return kind == ":"

    def _next(self, kind: str, value: str) -> bool:  # noqa: ARG002 (one signature)
        if kind == ",":
            self._at = self._any_key
            return True
        return kind == "}" and self._closed()

    def _closed(self) -> bool:
        """Close an object; where it is the outer one, the call is whole."""
        if self._nested:
            self._nested -= 1
            self._at = self._next
            return True
        if not self._name or (not self._whole and not self._marked and self._tools.get(self._name, True)):
            return False
        if not self.begun:
            self._begin()
        self._end()
        return True

    def _text(self) -> str:
        text = loads(f'"{"".join(self._string)}"'.encode())
        return text if isinstance(text, str) else ""

    # --- values ----------------------------------------------------------------------------------

    def _value(self, kind: str, value: str) -> bool:
        if self._key in NAME_KEYS and not self._name:
            return self._name_value(kind)
        if self._key in ARGUMENT_KEYS and not self._whole:
            return self._arguments_value(kind, value)
        self._side, self._at = Writer(), self._skipped
        return self._skipped(kind, value)

    def _skipped(self, kind: str, value: str) -> bool:
        fits = self._side.take(kind, value) is not None
        if self._side.done:
            self._at = self._next
        return fits

    def _name_value(self, kind: str) -> bool:
        if kind == OPEN:
            self._string, self._at = [], self._name_text
            return True
        self._nested += 1
        self._at = self._any_key
        return self._key == "function" and kind == "{"

    def _name_text(self, kind: str, value: str) -> bool:
        if kind == CHUNK:
            self._string.append(value)
            return True
        self._name, self._at = self._text().strip(), self._next
        if not self._name or not (self._marked or self._name in self._tools):
            return False
        if self._early:
            self._begin()
        return True

    # --- arguments -------------------------------------------------------------------------------

    def _arguments_value(self, kind: str, value: str) -> bool:
        if kind == WORD and value in _NOTHING:
            self._whole, self._at = True, self._next
            return True
        if kind not in {"{", OPEN}:
            return False
        if self._name:
            self._begin()
        if kind == OPEN:
            self._string, self._at = [], self._arguments_text
            return True
        self._at = self._arguments
        return self._arguments(kind, value)

    def _arguments(self, kind: str, value: str) -> bool:
        piece = self._writer.take(kind, value)
        if piece is None:
            return False
        self._give(piece)
        if self._writer.done:
            self._whole, self._at = True, self._next
        return True

    def _arguments_text(self, kind: str, value: str) -> bool:
        """Read arguments that are written as a string: JSON in JSON, which is mended as a whole."""
        if kind == CHUNK:
            self._string.append(value)
            return True
        text = self._text()
        written = mended(text)
        if written is None:
            self._fault = "its arguments are no JSON"
        self._give(text if written is None else written)
        self._whole, self._at = True, self._next
        return True

    def _give(self, piece: str) -> None:
        if not self.begun:
            self._early.append(piece)
        elif piece:
            self._sink.arguments(piece)

    def _begin(self) -> None:
        self.begun = True
        self._sink.begin(self._name)
        early, self._early = "".join(self._early), []
        if early:
            self._sink.arguments(early)

    def _could_end(self) -> bool:
        return self.begun or (bool(self._name) and (self._marked or self._whole))

    def _closing(self) -> str | None:
        if self._at == self._arguments_text:  # its pieces waited for the end: they are kept as they came
            self._give(self._text())
        return super()._closing() if self._whole or self._at == self._arguments else None
