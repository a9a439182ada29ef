"""A table on standard output: columns as wide as they need, no frame, one line a row.

Contract: what comes from outside appears without control sequences. Nothing is cut: on a terminal that is too narrow
cells are folded, between words where they have any; elsewhere, as in a pipe, a row is always one line.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Container, Iterator, Sequence
from itertools import zip_longest

from loomstream.cli.output import Channel
from loomstream.cli.terminal import one_line

_GAP = "  "
_LONGEST_WORD = 12
"""A longer word may be folded where its row does not fit."""


def draw(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Container[int] = ()) -> None:
    """Write a table; the columns whose numbers are in `right` are aligned to the right."""
    cells = [tuple(titles), *(tuple(map(one_line, row)) for row in rows)]
    room = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
    widths = fitted(cells, room)
    channel = Channel("stdout")
    for number, row in enumerate(cells):
        for line in lines_of(row, widths, right):
            channel.write(line + "\n", dim=number == 0)


def fitted(cells: Sequence[Sequence[str]], room: int | None) -> list[int]:
    """Give the columns' widths: what they need, or less where `room` is less.

    First the columns give room that can be folded between words, then those of long words; who has most gives first.
    What does not fit even so is left to the terminal.
    """
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if room is None:
        return widths
    room -= len(_GAP) * (sum(map(bool, widths)) - 1)
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    for least in (words, [min(_LONGEST_WORD, longest) for longest in words]):
        _shrink(widths, least, room)
    return widths


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    """Take from the widths until their sum is `room`, or nobody has more than the least."""
    while sum(widths) > room:
        spare = [width - fewest for width, fewest in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            return
        widths[spare.index(max(spare))] -= 1


def lines_of(row: Sequence[str], widths: Sequence[int], right: Container[int]) -> Iterator[str]:
    """Give the lines of a row; a column without anything in it takes no room."""
    folded = [_folded(cell, width) for cell, width in zip(row, widths, strict=True)]
    for pieces in zip_longest(*folded, fillvalue=""):
        padded = (
            piece.rjust(width) if column in right else piece.ljust(width)
            for column, (piece, width) in enumerate(zip(pieces, widths, strict=True))
            if width
        )
        yield _GAP.join(padded).rstrip()


def _folded(cell: str, width: int) -> list[str]:
    return [cell] if len(cell) <= width else textwrap.wrap(cell, width, break_on_hyphens=False)
