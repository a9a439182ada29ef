"""The end of what a terminal shows, while it still changes: some lines that can be written again.

Contract: one write an update, of the lines from the first one that differs; lines that have left the screen at its top
stay as they are. Between two calls the cursor stands at the beginning of the line below. Lines come ready: styled, free
of control sequences from outside, no wider than the terminal.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO


class Region:
    """See the module's contract."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: list[str] = []

    def update(self, lines: Sequence[str]) -> None:
        """Show these lines in the place of those of the last update."""
        shown = self._shown
        first = next((at for at, pair in enumerate(zip(shown, lines, strict=False)) if pair[0] != pair[1]), None)
        if first is None:
            first = min(len(shown), len(lines))
            if len(shown) == len(lines):
                return
        first = max(first, len(shown) - (shutil.get_terminal_size().lines - 1))
        up = len(shown) - first
        text = (f"\x1b[{up}A" if up else "") + "".join(f"\x1b[K{line}\n" for line in lines[first:])
        self._stream.write(text + ("\x1b[J" if len(lines) < len(shown) else ""))
        self._stream.flush()
        self._shown = list(lines)

    def keep(self) -> None:
        """Leave what is shown as it is; the next update begins below."""
        self._shown = []
