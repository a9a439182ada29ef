"""A table on standard output: columns as wide as they need, no frame, one line a row.

Contract: what comes from outside appears without control sequences. A line is never cut: a terminal breaks it itself.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from loomstream.cli.output import Channel
from loomstream.cli.terminal import one_line


def draw(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Container[int] = ()) -> None:
    """Write a table; the columns whose numbers are in `right` are aligned to the right."""
    cells = [tuple(titles), *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    channel = Channel("stdout")
    for number, row in enumerate(cells):
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        channel.write("  ".join(padded).rstrip() + "\n", dim=number == 0)
