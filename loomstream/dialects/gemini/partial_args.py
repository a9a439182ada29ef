"""Arguments of a function call that come in pieces: values at paths, written on as the text of one JSON object.

Contract: pure; never raises. What `write` gave, with what `finish` gives at last, is a JSON object, provided that each
place is written once, arrays grow at their end, and nothing is added to what another path has left. What breaks this
cannot be said by adding text: from then on nothing is given, and the text stays unfinished.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling, on streamed arguments, and
`PartialArg` of https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/Content; paths are of RFC 9535.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.dialects.fields import is_null
from loomstream.events import NULL

_Path = tuple[str | int, ...]

_DEEPEST = 100
_STEP = re.compile(
    r"""\.([^.\[\]'"*\s]+) | \[(\d{1,9})\] | \['((?:[^'\\]|\\.)*+)'\] | \["((?:[^"\\]|\\.)*+)"\]""", re.VERBOSE
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)")
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_SURROGATES = range(0xD800, 0xE000)
_encode = msgspec.json.Encoder().encode


class PartialArg(Struct, gc=False):
    """A value, or a piece of a text, at a path."""

    jsonPath: str = ""  # noqa: N815 (the wire's name)
    stringValue: str | None = None  # noqa: N815 (the wire's name)
    numberValue: RawJSON = NULL  # noqa: N815 (the wire's name)
    boolValue: RawJSON = NULL  # noqa: N815 (the wire's name)
    nullValue: str | None = None  # noqa: N815 (the wire's name)
    willContinue: bool | None = None  # noqa: N815 (the wire's name)


class _Container:
    """An object or an array that is open: where it is, and what it holds."""

    __slots__ = ("count", "is_array", "keys", "path")

    def __init__(self, path: _Path, *, is_array: bool) -> None:
        self.path = path
        self.is_array = is_array
        self.count = 0
        self.keys: set[str | int] = set()

    def takes(self, step: str | int) -> bool:
        """Say whether this can be the next place in it."""
        if self.is_array:
            return step == self.count and isinstance(step, int)
        return isinstance(step, str) and step not in self.keys


class ArgumentWriter:
    """The text of one call's arguments, in pieces."""

    __slots__ = ("_open", "_text_at", "broken")

    def __init__(self) -> None:
        self._open: list[_Container] = []
        self._text_at: _Path | None = None
        """The place of the text that goes on."""
        self.broken = False
        """Whether something came that cannot be added."""

    def write(self, part: PartialArg) -> str:
        """Give the text that a piece adds."""
        path = _steps(part.jsonPath)
        if self.broken or path is None:
            self.broken = True
            return ""
        if self._text_at == path:
            return self._go_on(part)
        value = _value(part)
        place = None if value is None else self._place(path)
        if value is None or place is None:
            self.broken = True
            return ""
        self._text_at = path if value.startswith('"') and part.willContinue else None
        return place + (value[:-1] if self._text_at else value)

    def finish(self) -> str:
        """Give what closes the object; nothing where it was never opened, or is broken."""
        return "" if self.broken else self._end_text() + self._leave(0)

    def _go_on(self, part: PartialArg) -> str:
        if _is_set(part) and part.stringValue is None:
            self.broken = True
            return ""
        piece = _quoted(part.stringValue or "")[1:-1]
        return piece if part.willContinue else piece + self._end_text()

    def _end_text(self) -> str:
        closing = "" if self._text_at is None else '"'
        self._text_at = None
        return closing

    def _place(self, path: _Path) -> str | None:
        """Give what leads from the last place to this one, None where it cannot be reached."""
        text = self._end_text()
        if not self._open:
            self._open.append(_Container((), is_array=False))
            text += "{"
        while path[: len(self._open[-1].path)] != self._open[-1].path or len(self._open[-1].path) >= len(path):
            text += self._leave(len(self._open) - 1)
        while len(self._open) < len(path):
            entered = self._enter(path[len(self._open) - 1])
            if entered is None:
                return None
            child = _Container(path[: len(self._open)], is_array=isinstance(path[len(self._open)], int))
            self._open.append(child)
            text += entered + ("[" if child.is_array else "{")
        entered = self._enter(path[-1])
        return None if entered is None else text + entered

    def _enter(self, step: str | int) -> str | None:
        """Give what stands before the next value of the innermost container."""
        container = self._open[-1]
        if not container.takes(step):
            return None
        comma = "," if container.count else ""
        container.count += 1
        container.keys.add(step)
        return comma if isinstance(step, int) else f"{comma}{_quoted(step)}:"

    def _leave(self, depth: int) -> str:
        """Close the containers beyond this depth."""
        closing = "".join("]" if container.is_array else "}" for container in reversed(self._open[depth:]))
        del self._open[depth:]
        return closing


def _is_set(part: PartialArg) -> bool:
    values = (part.numberValue, part.boolValue)
    return part.stringValue is not None or part.nullValue is not None or not all(is_null(value) for value in values)


def _value(part: PartialArg) -> str | None:
    """Give a piece's value as JSON; a text that only says that it will go on is an empty one so far."""
    if part.stringValue is not None:
        return _quoted(part.stringValue)
    for raw in (part.numberValue, part.boolValue):
        if not is_null(raw):
            text = bytes(raw).decode().strip()
            return text if text[:1] not in {'"', "{", "["} else None
    if part.nullValue is not None:
        return "null"
    return '""' if part.willContinue else None


def _quoted(text: str) -> str:
    return _encode(text).decode()


def _steps(path: str) -> _Path | None:
    """Read a path: names and numbers from the root, which is an object; None where it is any other expression."""
    if not path.startswith("$"):
        return None
    steps: list[str | int] = []
    position = 1
    while position < len(path):
        found = _STEP.match(path, position)
        if found is None:
            return None
        name, number, single, double = found.groups()
        steps.append(
            int(number) if number is not None else name if name is not None else _plain(single or double or "")
        )
        position = found.end()
    return tuple(steps) if steps and isinstance(steps[0], str) and len(steps) <= _DEEPEST else None


def _plain(name: str) -> str:
    return _ESCAPE.sub(lambda found: _character(found[1]), name)


def _character(escape: str) -> str:
    if len(escape) == 1:
        return _ESCAPED.get(escape, escape)
    code = int(escape[1:], 16)
    return "\ufffd" if code in _SURROGATES else chr(code)
