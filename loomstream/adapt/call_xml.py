"""A call whose arguments stand in tags, read from text as it is received.

    <function=get_weather><parameter=city>Oslo</parameter></function>

Contract: that of `call_reader`: `feed`, `finish`, `status`, the same `Sink`. A value is told when its tag closes. One
of a parameter that may be a text is that text, as it came but for one line end at each side; any other is the JSON that
it says, else text. Linear in the text, however it is cut.

Source: the chat template of Qwen3-Coder, https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

import msgspec

from loomstream.adapt.call_markers import beginnings
from loomstream.adapt.call_reader import Sink, Status
from loomstream.adapt.loose_json import mended

_TAG = re.compile(r"<parameter=(?P<key>[^<>\n]{1,128})>|</function>|(?P<over></tool_call>)")
_PART_OF_TAG = re.compile(r"<[^<>\n]{0,140}\Z")
_ENDS = ("</parameter>", "\n</function>")
_VALUE_ENDS = re.compile(rf"{_ENDS[0]}|(?P<over>{_ENDS[1]})")
_PART_OF_END = re.compile(rf"(?=[<\n]){beginnings(*_ENDS)}\Z")
_LONGEST_END = max(map(len, _ENDS))
_STRAY = "there is text between its parameters"
_CUT = "its arguments are cut"


class TaggedReader:
    """See the module's contract. `texts` are the names of the parameters that may be texts."""

    def __init__(self, sink: Sink, name: str, texts: AbstractSet[str]) -> None:
        self._sink = sink
        self._texts = texts
        self._tail = ""
        self._key: str | None = None
        self._value: list[str] = []
        self._keys = 0
        self._fault = ""
        self.begun = True
        self.status = Status.READING
        sink.begin(name)

    def feed(self, text: str, position: int) -> int:
        """Take text from there; give the position behind what is used."""
        held, self._tail = len(self._tail), self._tail + text if self._tail else text
        at = position
        while self.status is Status.READING:
            found = (_TAG if self._key is None else _VALUE_ENDS).search(self._tail, at)
            if found is None:
                self._hold(at)
                return len(text)
            self._between(self._tail[at : found.start()])
            at = found.end()
            self._take(found)
        self._tail = ""
        return at - held

    def finish(self, *, cut: bool) -> None:
        """Take the end of the answer; `cut` says that the model would have gone on."""
        self._between(self._tail)
        if cut or self._key is not None:
            self._fault = self._fault or _CUT
            self._done()
        else:
            self._close()

    def mend(self) -> bool:
        """Nothing is left to close: a call in tags does not break."""
        return True

    def _hold(self, at: int) -> None:
        """Keep what may be the beginning of a tag."""
        if self._key is None:
            part = _PART_OF_TAG.search(self._tail, at)
        else:
            part = _PART_OF_END.search(self._tail, max(at, len(self._tail) - _LONGEST_END))
        end = len(self._tail) if part is None else part.start()
        self._between(self._tail[at:end])
        self._tail = self._tail[end:]

    def _between(self, text: str) -> None:
        """Take text that is no tag: of a value, or out of place."""
        if self._key is not None:
            self._value.append(text)
        elif text.strip():
            self._fault = self._fault or _STRAY

    def _take(self, tag: re.Match[str]) -> None:
        key = tag.groupdict().get("key")
        if self._key is not None:
            self._tell(self._key, "".join(self._value))
            self._key, self._value = None, []
            if tag["over"]:
                self._close()
        elif key is not None:
            self._key = key.strip()
        else:
            self._close()

    def _tell(self, key: str, text: str) -> None:
        text = text.removeprefix("\n").removesuffix("\n")
        value = None if key in self._texts else mended(text.strip())
        written = _string(text) if value is None else value
        self._sink.arguments(f"{',' if self._keys else '{'}{_string(key)}:{written}")
        self._keys += 1

    def _close(self) -> None:
        self._sink.arguments("}" if self._keys else "{}")
        self._done()

    def _done(self) -> None:
        self.status = Status.DONE
        self._sink.end(self._fault)


def _string(text: str) -> str:
    return msgspec.json.encode(text).decode()
