"""Markdown that is still being written: cut into blocks that are finished and one that is open.

Contract: pure. `feed` takes text however it is cut and gives the blocks that it finished; `open` is the rest, which may
still become anything. A block is what can be rendered alone: a paragraph, a heading, a fence, a table, one item of a
list with what belongs to it. Nothing but empty lines is lost. No block is much longer than `MOST_OPEN` characters: one
that grows longer is cut, a fence into two fences. Linear in the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_OPEN = 4000
"""Rendering begins again with each piece of the open block, so that this bounds what a piece costs."""

_FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,})(?P<info>[^`\n]*)$")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_ALONE = re.compile(r" {0,3}(?:#{1,6}[ \t].*|(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")


class Block(NamedTuple):
    """A piece of markdown that is rendered alone; `joined` says that no empty line stands before it."""

    text: str
    joined: bool = False


class Blocks:
    """See the module's contract."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        """The whole lines of the open block."""
        self._length = 0
        self._tail: list[str] = []
        """The pieces of the line that is not whole."""
        self._tail_length = 0
        self._fence = ""
        """What closes the fence that is open, and with which it opened."""
        self._opened_by = ""
        self._blank = False
        self._in_list = False
        self._joined = False

    @property
    def open(self) -> Block:
        """The block that is open; empty where none is."""
        text = "".join((*self._lines, *self._tail))
        return Block(text, self._joined)

    def feed(self, text: str) -> list[Block]:
        """Take text, give the blocks that it finished."""
        finished: list[Block] = []
        for line in text.splitlines(keepends=True) if "\n" in text else [text]:
            for start in range(0, len(line), MOST_OPEN):
                self._add_to_tail(line[start : start + MOST_OPEN], finished)
        return finished

    def _add_to_tail(self, piece: str, finished: list[Block]) -> None:
        self._tail.append(piece)
        self._tail_length += len(piece)
        if piece.endswith("\n"):
            whole = "".join(self._tail)
            self._tail, self._tail_length = [], 0
            self._take(whole, finished)
        elif self._tail_length > MOST_OPEN:
            self._cut_line(finished)

    def finish(self) -> list[Block]:
        """Give what is open as the last block."""
        finished: list[Block] = []
        if self._tail:
            whole = "".join(self._tail)
            self._tail, self._tail_length = [], 0
            self._take(whole, finished)
        self._end(finished)
        self._fence, self._in_list, self._joined = "", False, False
        return finished

    # --- lines -----------------------------------------------------------------------------------

    def _take(self, line: str, finished: list[Block]) -> None:
        bare = line.rstrip("\n")
        if self._fence:
            self._take_in_fence(line, bare, finished)
        elif not bare.strip():
            self._blank = True
            self._add(line)
            if not self._in_list:
                self._end(finished)
        else:
            self._take_text(line, bare, finished)
        if self._length > MOST_OPEN:
            self._cut(finished)

    def _take_text(self, line: str, bare: str, finished: list[Block]) -> None:
        is_item = _ITEM.match(bare) is not None
        if self._in_list and (is_item or (self._blank and not bare.startswith((" ", "\t")))):
            self._end(finished)
            self._joined = is_item
            self._in_list = is_item
        elif is_item and not self._in_list:
            self._end(finished)
            self._in_list = True
        self._blank = False
        fence = _FENCE.match(bare.lstrip(" ") if self._in_list else bare)
        if fence is not None:
            if not self._in_list:
                self._end(finished)
            self._fence, self._opened_by = fence["mark"], bare
            self._add(line)
        elif not self._in_list and _ALONE.match(bare) and not self._is_underline(bare):
            self._end(finished)
            self._add(line)
            self._end(finished)
        else:
            self._add(line)

    def _is_underline(self, bare: str) -> bool:
        """Say whether dashes make a heading of the line above them."""
        return bool(self._lines) and set(bare.strip()) == {"-"}

    def _take_in_fence(self, line: str, bare: str, finished: list[Block]) -> None:
        self._add(line)
        closing = bare.strip()
        if closing.startswith(self._fence) and not closing.strip(self._fence[0]):
            self._fence = ""
            if not self._in_list:
                self._end(finished)

    # --- blocks ----------------------------------------------------------------------------------

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._length += len(line)

    def _end(self, finished: list[Block]) -> None:
        text = "".join(self._lines)
        self._lines, self._length, self._blank = [], 0, False
        if text.strip():
            finished.append(Block(text, self._joined))
            self._joined = False

    def _cut(self, finished: list[Block]) -> None:
        """End a block that has grown too long; a fence goes on as another one."""
        fence, opened_by = self._fence, self._opened_by
        if fence:
            self._lines.append(fence)
        self._end(finished)
        self._joined = True
        if fence:
            self._add(opened_by + "\n")

    def _cut_line(self, finished: list[Block]) -> None:
        """End a line that has grown too long at its last space."""
        line = "".join(self._tail)
        head, _, rest = line.rpartition(" ")
        if not head.strip():
            head, rest = line, ""
        self._tail, self._tail_length = ([rest] if rest else []), len(rest)
        self._take(head + "\n", finished)
        if self._lines:
            self._cut(finished)
