"""Where conversations are kept: files of JSON that nobody else may read.

Contract: a file is written whole or not at all; of a device, which may never end, so much is read and no more. The last
conversation is `chat.json` in `$LOOM_DATA_DIR` (default `~/.loom`). What the operating system refuses comes out as
`UsageError`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from loomstream.errors import UsageError
from loomstream.providers.config_file import own_file
from loomstream.whole_file import write_whole

_MOST_BYTES = 256 * 1024 * 1024
"""What is larger is no conversation: a provider takes a tenth of it."""


def last_conversation() -> Path:
    """Give the file of the last conversation."""
    return own_file("chat.json")


def write(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read. Raises `UsageError` where that is not possible."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, data)
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        raise _refused(path, "written", error) from error


def read(path: Path) -> bytes:
    """Give what a file holds. Raises `UsageError` where it cannot be read, or is too large."""
    try:
        with path.open("rb") as file:
            is_plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(-1 if is_plain else _MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _refused(path, "read", error) from error
    if len(data) > _MOST_BYTES:
        msg = f"{path} is larger than {_MOST_BYTES >> 20} MiB: this is no conversation"
        raise UsageError(msg)
    return data


def _refused(path: Path, what: str, error: Exception) -> UsageError:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return UsageError(f"{path} cannot be {what}: {reason}")
