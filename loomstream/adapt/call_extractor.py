"""Calls of tools in a text that is being received, told from the text around them.

Contract: `feed` takes the text in pieces and tells a `Sink` of text and calls in their order; what it tells does not
depend on how the text is cut. Text is held back only while it may still become a marker or a call. What looks like a
call and is none is text, unchanged. Linear: no character is looked at more often than a constant. Once a call has
begun it is not taken back. White space that stands alone beside calls is no text. Knows no events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from loomstream.adapt.call_markers import ANY_MARKER, BARE, BEGINNING_OF_ONE, FENCE, LONGEST, MARKERS, TAGGED, Marker
from loomstream.adapt.call_reader import DirectReader, ObjectReader, Reader, Sink, Status
from loomstream.adapt.call_xml import TaggedReader

_MOST_HEAD = 256
"""No more characters stand between a marker and its call, or between two calls."""

_SPACE = re.compile(r"\s*")
_LITTER = re.compile(r"[\s;,\]}]*")
_NO_JSON = "its arguments are no JSON"
_UNREADABLE = "the model wrote what looks like a tool call and cannot be read as one: it is left in the text"

Texts = Mapping[str, frozenset[str]]
_NO_TEXTS: Texts = {}


class Extractor:
    """Reads one text; `tools` are the names of the tools, and whether each needs arguments.

    `texts` are, by tool, the names of the parameters that may be texts: where no quotes tell.
    """

    def __init__(self, sink: Sink, tools: Mapping[str, bool], texts: Texts = _NO_TEXTS) -> None:
        self._sink = sink
        self._tools = tools
        self._texts = texts
        self._text: str = ""
        self._position: int = 0
        self._step: Callable[[], None] = self._in_text
        self._space: list[str] = []
        """White space of which it is not known whether it is text."""
        self._fresh = True
        """Nothing but white space has come: an object may be a call."""
        self._quiet = True
        """No text has come since the beginning, or since a call."""
        self._line_start = True
        self._in_fence = False
        self._marker: Marker = BARE
        self._head: str = ""
        self._raw: list[str] = []
        """The text of what may be a call."""
        self._reader: Reader | TaggedReader | None = None
        self._called = False
        self._warned = False

    @property
    def idle(self) -> bool:
        """Whether nothing is held back that the end of the answer would decide."""
        return self._step == self._in_text

    def feed(self, text: str) -> None:
        """Take more of the text."""
        self._text, self._position = text, 0
        if self._head and self._step == self._in_text:
            self._put_back()
        while self._position < len(self._text):
            self._step()
        self._text = ""

    def finish(self, *, cut: bool) -> None:
        """Take the end of the text; `cut` says that the model would have gone on."""
        if self._reader is not None:
            self._finish_call(self._reader, cut=cut)
        held, self._head = self._head, ""
        if self._step != self._after or _LITTER.fullmatch(held) is None:
            self._give("".join(self._raw) + held)
        self._raw = []
        self._give_space()
        self._step = self._in_text

    def _finish_call(self, reader: Reader | TaggedReader, *, cut: bool) -> None:
        self._reader = None
        if reader.status is Status.BROKEN:
            self._sink.arguments(self._head)
            self._head = ""
            self._sink.end(_NO_JSON)
            return
        reader.finish(cut=cut)
        if reader.begun:
            self._began()
        else:
            self._warn()

    def _warn(self) -> None:
        """Tell, once, of what has a marker and cannot be read."""
        if self._marker.explicit and not self._warned:
            self._warned = True
            self._sink.warn(_UNREADABLE)

    def release(self) -> None:
        """Give what is held back: an error ends the answer."""
        held, self._head = self._head, ""
        if self._reader is not None and self._reader.begun:
            self._sink.arguments(held)
            return
        self._give("".join(self._raw) + held)
        self._raw = []
        self._give_space()

    def _give_space(self) -> None:
        """Give white space that came alone, where there was no call."""
        if self._space and not self._called:
            self._sink.text("".join(self._space))
        self._space = []

    # --- text ------------------------------------------------------------------------------------

    def _in_text(self) -> None:
        if self._fresh and self._may_be_bare():
            return
        text, position = self._text, self._position
        found = ANY_MARKER.search(text, position)
        if found is None:
            tail = BEGINNING_OF_ONE.search(text, max(position, len(text) - LONGEST))
            end = len(text) if tail is None else tail.start()
            self._give(text[position:end])
            self._head = text[end:]
            self._position = len(text)
            return
        self._give(text[position : found.start()])
        self._position = found.end()
        marker = MARKERS[found[0]]
        if marker is FENCE and (not self._line_start or self._in_fence):
            self._in_fence = self._in_fence and not self._line_start
            self._give(found[0])
            return
        self._open(marker)

    def _may_be_bare(self) -> bool:
        """Take white space, and an opening bracket that may be a call's."""
        end = _end_of_space(self._text, self._position)
        if end > self._position:
            self._give(self._text[self._position : end])
            self._position = end
        if end == len(self._text):
            return True
        self._fresh = False
        if self._text[end] in "{[":
            self._open(BARE)
            return True
        return False

    def _give(self, text: str) -> None:
        """Give text; white space waits beside calls until there is more."""
        if not text:
            return
        self._line_start = text[-1] == "\n"
        if self._quiet:
            if text.isspace():
                self._space.append(text)
                return
            text, self._space = "".join(self._space) + text, []
            self._quiet = False
        self._sink.text(text)

    def _put_back(self) -> None:
        """Go on with the text at what was held back of it."""
        self._text = self._head + self._text[self._position :]
        self._head, self._position = "", 0

    # --- what may be a call ----------------------------------------------------------------------

    def _open(self, marker: Marker) -> None:
        self._marker, self._raw, self._step = marker, [marker.text], self._in_head

    def _in_head(self) -> None:
        head = self._head + self._text[self._position : self._position + _MOST_HEAD - len(self._head)]
        for known in self._marker.heads:
            match = known.whole.match(head)
            if match is not None and self._read(match, head):
                return
        if len(head) < _MOST_HEAD and any(known.partial.fullmatch(head) for known in self._marker.heads):
            self._head, self._position = head, len(self._text)
            return
        self._to_text()

    def _read(self, match: re.Match[str], head: str) -> bool:
        """Begin to read the call behind its head; give False where it is none."""
        groups = match.groupdict()
        name, python = groups.get("name") or "", groups.get("python") or ""
        known = name in self._tools
        if (python and not (python.startswith(".call") or known)) or (self._marker is TAGGED and not known):
            return False
        self._position += match.end() - len(self._head)
        self._head = ""
        self._raw.append(head[: match.end()])
        if groups.get("tag"):
            self._began()
            self._reader = TaggedReader(self._sink, name, self._texts.get(name, frozenset()))
        elif name:
            self._began()
            self._reader = DirectReader(self._sink, name, python=bool(python))
        else:
            self._reader = ObjectReader(self._sink, self._tools, marked=self._marker.explicit)
        self._step = self._in_call
        return True

    def _began(self) -> None:
        """Forget the text of what is a call, and the white space before it."""
        self._raw, self._space = [], []
        self._called = self._quiet = True

    def _in_call(self) -> None:
        reader = self._reader
        if reader is None:
            return
        begun, began_at = reader.begun, self._position
        self._position = reader.feed(self._text, began_at)
        if reader.begun:
            if not begun:
                self._began()
        else:
            self._raw.append(self._text[began_at : self._position])
        match reader.status:
            case Status.DONE:
                self._reader, self._step = None, self._after
            case Status.REJECTED:
                self._reader = None
                self._reject()
            case Status.BROKEN:
                self._step = self._breaking
            case Status.READING:
                pass

    def _reject(self) -> None:
        """Give what was read as text."""
        self._warn()
        self._to_text()

    def _to_text(self) -> None:
        """Go on in the text, with what was held back of it."""
        self._in_fence = self._in_fence or self._marker is FENCE
        self._fresh = False
        self._give("".join(self._raw))
        self._raw, self._step = [], self._in_text
        if self._head:
            self._put_back()

    # --- behind a call ---------------------------------------------------------------------------

    def _after(self) -> None:
        marker = self._marker
        held = self._head + self._text[self._position : self._position + _MOST_HEAD - len(self._head)]
        again = marker.again.match(held) if marker.again is not None else None
        if again is not None:
            self._position += again.end() - len(self._head)
            self._head, self._raw = "", [again[0]]
            self._reader = ObjectReader(self._sink, self._tools, marked=marker.explicit)
            self._step = self._in_call
            return
        close = marker.close.match(held) if marker.close is not None else None
        if close is not None:
            self._position += close.end() - len(self._head)
            self._head, self._step = "", self._in_text
            self._line_start = True
            return
        if len(held) < _MOST_HEAD and marker.after.fullmatch(held):
            self._head, self._position = held, len(self._text)
            return
        self._marker = BARE  # the fence, if it was one, is over
        self._to_text()

    def _breaking(self) -> None:
        """Look whether what does not fit is what closes the call: then only brackets are missing."""
        closer, reader = self._marker.closer, self._reader
        held = self._head + self._text[self._position : self._position + len(closer) - len(self._head)]
        if reader is None or not held or not closer.startswith(held):
            self._step = self._broken
            if self._head:
                self._put_back()
        elif held == closer:
            self._position += len(closer) - len(self._head)
            self._over("" if reader.mend() else _NO_JSON)
        else:
            self._head, self._position = held, len(self._text)

    def _broken(self) -> None:
        """Pass on the rest of arguments that cannot be mended, up to what closes the call."""
        if self._head:
            self._put_back()
        closer, text, position = self._marker.closer, self._text, self._position
        end = text.find(closer, position) if closer else -1
        if end < 0:
            kept = len(text) - _overlap(text[max(position, len(text) - LONGEST) :], closer)
            self._head, self._position = text[kept:], len(text)
            self._sink.arguments(text[position:kept])
            return
        self._sink.arguments(text[position:end])
        self._position = end + len(closer)
        self._over(_NO_JSON)

    def _over(self, fault: str) -> None:
        self._sink.end(fault)
        self._reader, self._head, self._step = None, "", self._in_text
        self._line_start = True


def _end_of_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()


def _overlap(text: str, closer: str) -> int:
    """Give how much of the closer the text ends with."""
    return next((length for length in range(len(closer) - 1, 0, -1) if text.endswith(closer[:length])), 0)
