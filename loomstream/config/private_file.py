"""Writes files of the user's own: whole or not at all, and for nobody else to read.

Contract: a new file is made beside the old one (never through a link) and takes its place in one step. A new file has
the mode 0600, a new folder 0700; one that is there keeps its mode, less what lets others write it. Who reads a file to
write it anew holds the lock of its folder meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Generator
from pathlib import Path

from loomstream.errors import ConfigError

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_plain(path: Path) -> None:
    """Raise `ConfigError` for what is there and no plain file (a folder, a device, a pipe that nobody fills).

    Also for one that its owner has made read-only: who may replace a file need not be allowed to change it.
    """
    if not path.exists():
        return
    if not path.is_file():
        msg = f"{path} is no plain file, and is not written"
        raise ConfigError(msg)
    if not path.stat().st_mode & stat.S_IWUSR:
        msg = f"{path} is read-only, and is not written: run chmod u+w {path} first"
        raise ConfigError(msg)


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Keep others that ask for it from changing the file meanwhile; its folder is made where there is none.

    Windows, and file systems without locks, have none here: the last writer wins. Raises `OSError`.
    """
    folder = path.resolve().parent
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415 (not on Windows)

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # no locks there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which unlocks it


def write_private(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write a text; where `path` is a link, what it leads to. `mode` is for a file that is there too.

    Raises `ConfigError` for what is there and no plain file (a folder, a device) or read-only, and `OSError`.
    """
    path = path.resolve()
    check_plain(path)
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
    """Add to a text file those lines that it has not; give them. Its encoding and its line ends stay.

    Raises `ConfigError` for what is no plain file, or read-only, and `OSError`.
    """
    check_plain(path)
    data = path.read_bytes() if path.exists() else b""
    known = [line.strip() for line in data.splitlines()]
    missing = tuple(line for line in lines if line.encode() not in known)
    if missing:
        end = b"\r\n" if b"\r\n" in data else b"\n"
        gap = b"" if not data or data.endswith(b"\n") else end
        with path.open("ab") as file:
            file.write(gap + b"".join(line.encode() + end for line in missing))
    return missing
