"""Writes files of the user's own: whole or not at all, and for nobody else to read.

Contract: a new file is made beside the old one (never through a link) and takes its place in one step. A new file has
the mode 0600, a new folder 0700; one that is there keeps its mode, less what lets others write it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def write_private(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write a text; where `path` is a link, what it leads to. `mode` is for a file that is there too.

    Raises `OSError`.
    """
    path = path.resolve()
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if mode is None:
        mode = stat.S_IMODE(path.stat().st_mode) & ~_OTHERS_WRITE if path.exists() else FILE_MODE
    made = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(made, flags, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        made.chmod(mode)
        made.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.unlink()
        raise


def add_lines(path: Path, lines: tuple[str, ...]) -> tuple[str, ...]:
    """Add to a text file those lines that it has not; give them. Raises `OSError`."""
    text = path.read_text("utf-8") if path.exists() else ""
    missing = tuple(line for line in lines if line not in text.splitlines())
    if missing:
        gap = "" if not text or text.endswith("\n") else "\n"
        path.write_text(text + gap + "\n".join(missing) + "\n", "utf-8")
    return missing
