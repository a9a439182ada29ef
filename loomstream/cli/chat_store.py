"""Where conversations are kept: files of JSON that nobody else may read.

Contract: a file is written whole or not at all. The last conversation is `chat.json` in `$LOOM_DATA_DIR` (default
`~/.loom`). What the operating system refuses comes out as `UsageError`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from loomstream.errors import UsageError


def last_conversation() -> Path:
    """Give the file of the last conversation."""
    folder = os.environ.get("LOOM_DATA_DIR", "").strip() or "~/.loom"
    return Path(folder).expanduser() / "chat.json"


def write(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read. Raises `UsageError` where that is not possible."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        raise _refused(path, "written", error) from error


def read(path: Path) -> bytes:
    """Give what a file holds. Raises `UsageError` where it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise _refused(path, "read", error) from error


def _refused(path: Path, what: str, error: Exception) -> UsageError:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return UsageError(f"{path} cannot be {what}: {reason}")
