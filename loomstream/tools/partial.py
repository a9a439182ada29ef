"""JSON read as it comes: the value so far, after each piece of its text.

Contract: sync, no I/O, no clock. `feed` takes time in proportion to its piece, whatever came before: nothing is read
twice, and nothing copied. The value grows in place. An open string is given as far as it came; a number, a literal and
a member's name are withheld until they are whole. What is no JSON raises `InvalidOutput` with its position; what came
before it stays. It knows no types: `loomstream.tools.outputs` does.
"""

from __future__ import annotations

import math
import re
from typing import Final, cast

from loomstream.errors import InvalidOutput
from loomstream.wire.json import MAX_DEPTH

LONGEST_NUMBER = 4300
"""More digits than these Python does not read at once (CPython's own limit)."""

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_TOKEN = re.compile(r"[-+.0-9A-Za-z]*")
_TOKEN_STARTS = frozenset("-0123456789tfn")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_LOW = re.compile(r"\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]{0,2})?)?)?")
"""A beginning of what may follow the first half of a character that is escaped in two."""
_FIRST_HALVES, _HALVES = range(0xD800, 0xDC00), range(0xD800, 0xE000)
_HEX = re.compile(r"[0-9a-fA-F]{0,4}")
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_ESCAPE_CHARS = len(r"\uXXXX")
_QUOTED_CHARS = 20
_REPLACEMENT = "\ufffd"

_Container = dict[str, object] | list[object]

# What is expected next, outside of strings and tokens. A first member or item may be none.
_VALUE, _FIRST_ITEM, _FIRST_NAME, _NAME, _COLON, _NEXT, _END = (
    "a value", "a value or ]", "a name or }", "a name", ":", ", or the end of what is open", "nothing more",
)  # fmt: skip


class PartialJSON:
    """Reads one JSON value, given in pieces; see the module's contract.

    `begun` says whether there is a `value` yet, `whole` whether it is closed.
    """

    __slots__ = (
        "_at", "_escape", "_expected", "_in_name", "_in_string", "_into", "_name", "_position", "_root", "_stack",
        "_token",
    )  # fmt: skip

    def __init__(self) -> None:
        self._root: list[object] = []
        """Holds the value, once there is one."""
        self._into: _Container = self._root
        """Where the next value goes; the innermost open container."""
        self._at: str | int = 0
        """Where in it the open string stands."""
        self._stack: list[_Container] = []
        self._expected = _VALUE
        self._in_string = False
        self._in_name = False
        self._name: list[str] = []
        self._escape = ""
        self._token: list[str] = []
        self._position = 0

    @property
    def begun(self) -> bool:
        """Whether a value has begun."""
        return bool(self._root)

    @property
    def whole(self) -> bool:
        """Whether the value is closed; only white space may follow it."""
        return self._expected is _END and not self._in_string

    @property
    def value(self) -> object:
        """The value as far as it came: it goes on to grow. None before it has `begun`."""
        return self._root[0] if self._root else None

    def feed(self, text: str) -> bool:
        """Take a piece of the text, say whether the value has grown. Raises `InvalidOutput` for what is no JSON."""
        at, end, grown = 0, len(text), False
        while at < end:
            if self._escape:
                at, more = self._escaped(text, at)
            elif self._in_string:
                at, more = self._characters(text, at)
            elif self._token:
                at, more = self._more_token(text, at)
            else:
                at, more = self._structure(text, at)
            grown = grown or more
        self._position += end
        return grown

    def finish(self) -> object:
        """Say that the text is over, give the whole value. Raises `InvalidOutput` where it is not closed."""
        if self._token:
            self._close_token("", 0)
        if not self.whole:
            missing = "the end of a string" if self._in_string else self._expected
            msg = f"the JSON ends at character {self._position}: expected {missing}"
            raise InvalidOutput(msg)
        return self._root[0]

    def _refuse(self, text: str, at: int, why: str = "") -> InvalidOutput:
        found = text[at : at + _QUOTED_CHARS]
        place = f"at character {self._position + at} ({found!r})"
        return InvalidOutput(f"this is no JSON {place}: {why or f'expected {self._expected}'}")

    # --- strings ---------------------------------------------------------------------------------

    def _characters(self, text: str, at: int) -> tuple[int, bool]:
        found = _PLAIN.match(text, at)
        stop = at if found is None else found.end()
        grown = stop > at and self._add(text[at:stop])
        if stop == len(text):
            return stop, grown
        if text[stop] == '"':
            self._close_string()
            return stop + 1, grown
        if text[stop] != "\\":
            raise self._refuse(text, stop, "a control character within a string")
        self._escape = "\\"
        return stop + 1, grown

    def _add(self, piece: str) -> bool:
        if self._in_name:
            self._name.append(piece)
            return False
        into, at = cast("dict[str | int, str | None]", self._into), self._at
        # The only reference to the string is the local one, so that CPython lets it grow where it stands.
        whole = cast("str", into[at])
        into[at] = None
        whole += piece
        into[at] = whole
        return True

    def _close_string(self) -> None:
        self._in_string = False
        if self._in_name:
            self._in_name = False
            self._expected = _COLON
        else:
            self._closed()

    def _escaped(self, text: str, at: int) -> tuple[int, bool]:
        """Take what belongs to an escape: of a character in two halves, both."""
        before = len(self._escape)
        pending = self._escape + text[at : at + 2 * _ESCAPE_CHARS - before]
        char, used = self._unescaped(pending, text, at)
        if not used:
            self._escape = pending
            return len(text), False
        self._escape = ""
        if used < before:  # what was held back was no second half: it is an escape of its own
            self._escape = pending[used:before]
            used = before
        return at + used - before, self._add(char)

    def _unescaped(self, pending: str, text: str, at: int) -> tuple[str, int]:
        """Give the character and the length of its escape, 0 where that is not all there."""
        kind = pending[1:2]
        if kind != "u":
            if kind and kind not in _ESCAPES:
                raise self._refuse(text, at, f"the escape {pending[:2]!r} is none")
            return _ESCAPES.get(kind, ""), 2 if kind else 0
        digits = pending[2:_ESCAPE_CHARS]
        if not _HEX.fullmatch(digits):
            raise self._refuse(text, at, f"the escape {pending[:_ESCAPE_CHARS]!r} is none")
        if len(digits) < _ESCAPE_CHARS - 2:
            return "", 0
        return _character(int(digits, base=16), pending[_ESCAPE_CHARS:])

    # --- numbers and literals --------------------------------------------------------------------

    def _more_token(self, text: str, at: int) -> tuple[int, bool]:
        found = _TOKEN.match(text, at)
        stop = at if found is None else found.end()
        if stop > at:
            self._token.append(text[at:stop])
        if len(self._token) > LONGEST_NUMBER:
            raise self._refuse(text, at, f"a number of more than {LONGEST_NUMBER} characters")
        if stop == len(text):
            return stop, False
        self._close_token(text, stop)
        return stop, True

    def _close_token(self, text: str, at: int) -> None:
        token = "".join(self._token)
        self._token = []
        if token in _LITERALS:
            self._put(_LITERALS[token])
        elif len(token) <= LONGEST_NUMBER and _NUMBER.fullmatch(token):
            number = int(token) if token.lstrip("-").isdigit() else float(token)
            if not math.isfinite(number):
                raise self._refuse(text, at, f"the number {token[:_QUOTED_CHARS]} before it is out of range")
            self._put(number)
        else:
            raise self._refuse(text, at, f"{token[:_QUOTED_CHARS]!r} before it is no number, nor true, false or null")
        self._closed()

    # --- everything between ----------------------------------------------------------------------

    def _structure(self, text: str, at: int) -> tuple[int, bool]:
        found = _SPACE.match(text, at)
        at = at if found is None else found.end()
        if at == len(text):
            return at, False
        char, expected = text[at], self._expected
        if expected is _VALUE or (expected is _FIRST_ITEM and char != "]"):
            return self._begin_value(text, at)
        if char == '"' and (expected is _NAME or expected is _FIRST_NAME):
            self._in_string = self._in_name = True
            self._name = []
        elif char == ":" and expected is _COLON:
            self._expected = _VALUE
        elif char == "," and expected is _NEXT:
            self._expected = _NAME if isinstance(self._into, dict) else _VALUE
        elif self._closes(char):
            self._into = self._stack.pop()
            self._closed()
        else:
            raise self._refuse(text, at)
        return at + 1, False

    def _closes(self, char: str) -> bool:
        if char == "}":
            return isinstance(self._into, dict) and self._expected in (_NEXT, _FIRST_NAME)
        return (
            char == "]"
            and bool(self._stack)
            and isinstance(self._into, list)
            and self._expected in (_NEXT, _FIRST_ITEM)
        )

    def _begin_value(self, text: str, at: int) -> tuple[int, bool]:
        char = text[at]
        if char == '"':
            self._put("")
            self._in_string = True
        elif char == "{":
            self._open({}, _FIRST_NAME)
        elif char == "[":
            self._open([], _FIRST_ITEM)
        elif char in _TOKEN_STARTS:
            self._token = [char]
            return at + 1, False
        else:
            raise self._refuse(text, at)
        return at + 1, True

    def _open(self, container: _Container, expected: str) -> None:
        if len(self._stack) >= MAX_DEPTH:
            msg = f"the JSON nests deeper than {MAX_DEPTH}"
            raise InvalidOutput(msg)
        self._put(container)
        self._stack.append(self._into)
        self._into = container
        self._expected = expected

    def _put(self, value: object) -> None:
        into = self._into
        if isinstance(into, dict):
            name = "".join(self._name)
            into[name] = value
            self._at = name
        else:
            into.append(value)
            self._at = len(into) - 1

    def _closed(self) -> None:
        self._expected = _NEXT if self._stack else _END


def _character(code: int, following: str) -> tuple[str, int]:
    """Give the character of an escape, and its length with the second half, where it has one; 0 while that is open.

    A half without the other one becomes U+FFFD, for no event and no text may hold one.
    """
    if code in _FIRST_HALVES and (not following or _LOW.fullmatch(following)):
        if len(following) < _ESCAPE_CHARS:
            return "", 0
        low = int(following[-4:], base=16)
        return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), 2 * _ESCAPE_CHARS
    return (_REPLACEMENT if code in _HALVES else chr(code)), _ESCAPE_CHARS
