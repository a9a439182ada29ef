"""JSON as models write it, read piece by piece and written as strict JSON at once.

Contract: `Tokens` cuts text into tokens, `Writer` turns tokens into strict JSON. Both keep no more than what is still
undecided, so the cost is linear in the text, however it is cut, and what is written does not depend on the cuts.
Mended are: trailing commas, single quotes, unquoted keys, Python's literals, raw control characters and wrong escapes
in strings, and closing brackets that are missing at the end. Everything else is no JSON. No I/O; knows no tools.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from loomstream.wire.json import MAX_DEPTH

OPEN, CHUNK, CLOSE, WORD, BAD = "open", "chunk", "close", "word", "bad"
"""Kinds of tokens; any other is the punctuation mark itself. A chunk is a piece of a string, escaped as JSON wants."""

Token = tuple[str, str, int]
"""Kind, text, and the position behind it."""

_PUNCTUATION = frozenset("{}[],:=()")
_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[\w.+\-$]+")
_PLAIN = {'"': re.compile(r'[^"\\\x00-\x1f]+'), "'": re.compile(r"[^'\"\\\x00-\x1f]+")}
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", '"': '\\"', "\\": "\\\\"}
_ESCAPES = frozenset('"\\/bfnrt')
_HEX = frozenset("0123456789abcdefABCDEF")
_WHOLE_ESCAPE = len("\\u0000")
_BEHIND_STRING = frozenset(",:}])=")
_MOST_SPACE = 64
"""So much is looked past to see whether a single quote closes its string or is an apostrophe."""


def _escaped(text: str) -> str:
    return "".join(_SHORT.get(char) or (f"\\u{ord(char):04x}" if char < " " else char) for char in text)


class Tokens:
    """Cuts text into tokens; a string comes in chunks, as it is received."""

    __slots__ = ("_closing", "_escape", "_quote", "_word")

    def __init__(self) -> None:
        self._quote = ""
        self._escape = ""
        self._closing = ""
        """A single quote, and the space behind it, of which it is not known whether it closes the string."""
        self._word: list[str] = []

    @property
    def in_string(self) -> bool:
        """Whether a string is open for certain."""
        return bool(self._quote) and not self._closing

    def next(self, text: str, position: int) -> Token | None:
        """Give the next token from there, or None where the text is used up."""
        if self._quote:
            return self._in_string(text, position)
        if self._word:
            return self._in_word(text, position)
        position = _end(_SPACE, text, position)
        return None if position == len(text) else self._begun(text, position)

    def _begun(self, text: str, position: int) -> Token | None:
        char = text[position]
        if char in _PUNCTUATION:
            return char, char, position + 1
        if char in _PLAIN:
            self._quote = char
            return OPEN, char, position + 1
        return self._in_word(text, position) if _WORD.fullmatch(char) else (BAD, char, position + 1)

    def finish(self) -> Token | None:
        """Give the token that only the end of the text decides."""
        if self._closing:
            self._quote = self._closing = ""
            return CLOSE, "", 0
        word, self._word = "".join(self._word), []
        return (WORD, word, 0) if word else None

    def _in_word(self, text: str, position: int) -> Token | None:
        end = _end(_WORD, text, position)
        self._word.append(text[position:end])
        if end == len(text):
            return None
        word, self._word = "".join(self._word), []
        return WORD, word, end

    def _in_string(self, text: str, position: int) -> Token | None:
        if self._closing:
            return self._perhaps_closed(text, position)
        if self._escape:
            return self._in_escape(text, position)
        plain = _PLAIN[self._quote].match(text, position)
        if plain:
            return CHUNK, plain[0], plain.end()
        return None if position == len(text) else self._odd(text, position)

    def _odd(self, text: str, position: int) -> Token | None:
        """Take a character of a string that does not stand for itself."""
        char = text[position]
        if char == "\\":
            self._escape = char
            return self._in_escape(text, position + 1)
        if char != self._quote:
            return CHUNK, _escaped(char), position + 1
        if char == "'":
            self._closing = char
            return self._perhaps_closed(text, position + 1)
        self._quote = ""
        return CLOSE, "", position + 1

    def _in_escape(self, text: str, position: int) -> Token | None:
        while position < len(text):
            char, before = text[position], self._escape
            if before == "\\" and char == "u":
                self._escape, position = before + char, position + 1
                continue
            if before == "\\":
                self._escape = ""
                return _after_backslash(char, position)
            if char not in _HEX:
                self._escape = ""
                return CHUNK, "\\" + before, position
            self._escape, position = before + char, position + 1
            if len(self._escape) == _WHOLE_ESCAPE:
                whole, self._escape = self._escape, ""
                return CHUNK, whole, position
        return None

    def _perhaps_closed(self, text: str, position: int) -> Token | None:
        end = min(_end(_SPACE, text, position), position + _MOST_SPACE - len(self._closing))
        self._closing += text[position:end]
        if len(self._closing) < _MOST_SPACE:
            if end == len(text):
                return None
            if text[end] not in _BEHIND_STRING:
                apostrophe, self._closing = self._closing, ""
                return CHUNK, _escaped(apostrophe), end
        self._quote = self._closing = ""
        return CLOSE, "", end


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()


def _after_backslash(char: str, position: int) -> Token:
    if char in _ESCAPES:
        return CHUNK, "\\" + char, position + 1
    return (CHUNK, "'", position + 1) if char == "'" else (CHUNK, "\\\\", position)


# --- writing -------------------------------------------------------------------------------------

_KEY, _COLON, _VALUE, _ITEM, _NEXT = range(5)
"""What may come: a key or the end, a colon, a value, an item or the end, a comma or the end."""

_LITERALS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_CLOSERS = {"{": "}", "[": "]"}
_AFTER_COMMA = {"{": _KEY, "[": _ITEM}


class Writer:
    """Tokens of one value to strict JSON without spaces; `done` once the value is whole."""

    __slots__ = ("_comma", "_expected", "_in_key", "_open", "done")

    def __init__(self) -> None:
        self._open: list[str] = []
        self._expected = _VALUE
        self._comma = ""
        self._in_key = False
        self.done = False

    @property
    def depth(self) -> int:
        """How many arrays and objects are open."""
        return len(self._open)

    def take(self, kind: str, text: str) -> str | None:
        """Give what the token adds, None where it can be no JSON."""
        taker = self._takers.get(kind)
        return None if taker is None else taker(self, text)

    def finish(self) -> str | None:
        """Give the closing brackets that are missing, None where more than those is."""
        waits = self._expected in {_KEY, _ITEM} and not self._comma
        if not (waits or self._expected == _NEXT):
            return None
        return "".join(_CLOSERS[bracket] for bracket in reversed(self._open))

    def _began(self, piece: str) -> str:
        comma, self._comma = self._comma, ""
        return comma + piece

    def _chunk(self, text: str) -> str:
        return text

    def _opened_string(self, _: str) -> str | None:
        if self._expected not in {_KEY, _VALUE, _ITEM}:
            return None
        self._in_key = self._expected == _KEY
        return self._began('"')

    def _closed_string(self, _: str) -> str:
        self._ended(_COLON if self._in_key else _NEXT)
        return '"'

    def _ended(self, expected: int) -> None:
        self._expected = expected
        self.done = expected == _NEXT and not self._open

    def _separated(self, mark: str) -> str | None:
        if mark == ":":
            expected, self._expected = self._expected, _VALUE
            return mark if expected == _COLON else None
        if self._expected != _NEXT or not self._open:
            return None
        self._comma, self._expected = mark, _AFTER_COMMA[self._open[-1]]
        return ""

    def _word(self, word: str) -> str | None:
        if self._expected == _KEY:
            self._expected = _COLON
            return self._began(f'"{word}"')
        written = _LITERALS.get(word) or (word if _NUMBER.fullmatch(word) else None)
        if written is None or self._expected not in {_VALUE, _ITEM}:
            return None
        self._ended(_NEXT)
        return self._began(written)

    def _opened(self, bracket: str) -> str | None:
        if self._expected not in {_VALUE, _ITEM} or len(self._open) == MAX_DEPTH:
            return None
        self._open.append(bracket)
        self._expected = _AFTER_COMMA[bracket]
        return self._began(bracket)

    def _closed(self, bracket: str) -> str | None:
        if not self._open or _CLOSERS[self._open[-1]] != bracket:
            return None
        if self._expected not in {_NEXT, _AFTER_COMMA[self._open[-1]]}:
            return None
        self._open.pop()
        self._comma = ""
        self._ended(_NEXT)
        return bracket

    _takers: ClassVar[dict[str, Callable[[Writer, str], str | None]]] = {
        CHUNK: _chunk,
        OPEN: _opened_string,
        CLOSE: _closed_string,
        WORD: _word,
        **dict.fromkeys("{[", _opened),
        **dict.fromkeys("}]", _closed),
        **dict.fromkeys(",:", _separated),
    }


def mended(text: str) -> str | None:
    """Give a whole text as strict JSON, None where it is no value, or one with something behind it."""
    tokens, writer = Tokens(), Writer()
    pieces: list[str] = []
    position = 0
    while (token := tokens.next(text, position) or tokens.finish()) is not None:
        kind, value, end = token
        piece = None if writer.done else writer.take(kind, value)
        if piece is None:
            return None
        pieces.append(piece)
        position = end or len(text)
    rest = None if tokens.in_string else writer.finish()
    return None if rest is None else "".join(pieces) + rest
