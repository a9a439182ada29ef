"""Writes a file whole or not at all.

Contract: whoever reads meanwhile has the old file or the new one, never a part; what fails leaves nothing behind. What
the operating system refuses comes out as `OSError`: the caller knows what the file is for, and says so.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_BEGINS, _ENDS = ".loomstream-", ".part"


def is_unfinished(name: str) -> bool:
    """Say whether a file of this name is one that `write_whole` is writing, or was."""
    return name.startswith(_BEGINS) and name.endswith(_ENDS)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 beside `path`, and put it in its place. Raises `OSError`, `ValueError` for a NUL."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_BEGINS, suffix=_ENDS)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
