"""What a model's words may do to a terminal: nothing but be read.

Contract: pure. Text goes through piece by piece; the result does not depend on how it was cut. Escape sequences and
control characters (ECMA-48: C0, C1, CSI, and the strings that OSC, DCS, SOS, PM and APC open) are taken out, and so are
Unicode's invisible controls, which reorder what is seen (bidirectional) or hide in it (zero width). Tabs and line feeds
stay, and the two joiners (U+200C, U+200D), without which Persian, Indic scripts and emoji are misspelt.
"""

from __future__ import annotations

import re
from enum import Enum

_INVISIBLE = r"\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
_HARMFUL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_INVISIBLE}]")
_HARMFUL_IN_JSON = re.compile(rf"[\x7f-\x9f{_INVISIBLE}]")
_MAX_STRING = 256
"""A string sequence that is longer is no longer hidden, so that none can swallow the rest of an answer."""


class _In(Enum):
    TEXT = "text"
    ESCAPE = "after ESC"
    CONTROL = "inside a control sequence"
    STRING = "inside a string"
    STRING_ESCAPE = "after ESC inside a string"


_OPENED_BY_C1 = {"\x9b": _In.CONTROL} | dict.fromkeys("\x90\x98\x9d\x9e\x9f", _In.STRING)
_OPENED_AFTER_ESCAPE = {"[": _In.CONTROL} | dict.fromkeys("PX]^_", _In.STRING)
_STRING_ENDS = frozenset("\x07\x9c\n\x18\x1a")


class TerminalFilter:
    """Takes control sequences out of a text that comes in pieces."""

    def __init__(self) -> None:
        self._state = _In.TEXT
        self._length = 0

    def feed(self, text: str) -> str:
        """Take a piece of text, give what may be shown of it."""
        if self._state is _In.TEXT and not _HARMFUL.search(text):
            return text
        return "".join([character for character in text if self._shows(character)])

    def _shows(self, character: str) -> bool:
        match self._state:
            case _In.TEXT:
                return self._shows_in_text(character)
            case _In.ESCAPE:
                return self._shows_after_escape(character)
            case _In.CONTROL:
                return self._shows_in_control(character)
            case _In.STRING | _In.STRING_ESCAPE:
                return self._shows_in_string(character)

    def _shows_in_text(self, character: str) -> bool:
        if not _HARMFUL.match(character):
            return True
        self._state = _In.ESCAPE if character == "\x1b" else _OPENED_BY_C1.get(character, _In.TEXT)
        self._length = 0
        return False

    def _shows_after_escape(self, character: str) -> bool:
        if " " <= character <= "/":  # an intermediate character: the final one follows
            return False
        self._state = _OPENED_AFTER_ESCAPE.get(character, _In.TEXT)
        return not "0" <= character <= "~" and self._shows_in_text(character)

    def _shows_in_control(self, character: str) -> bool:
        if " " <= character <= "?":
            return False
        self._state = _In.TEXT
        return not "@" <= character <= "~" and self._shows_in_text(character)

    def _shows_in_string(self, character: str) -> bool:
        self._length += 1
        after_escape = self._state is _In.STRING_ESCAPE
        ended = character in _STRING_ENDS or self._length > _MAX_STRING or (after_escape and character == "\\")
        self._state = _In.TEXT if ended else _In.STRING_ESCAPE if character == "\x1b" else _In.STRING
        return character == "\n"


def one_line(text: str) -> str:
    """Give a text as one line without control sequences: for messages that may quote a provider."""
    return " ".join(TerminalFilter().feed(text).split())


def escape_json(line: bytes) -> bytes:
    """Escape what JSON leaves as it is (DEL, C1 and the invisible controls), in JSON text; its value is the same."""
    return _HARMFUL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()
