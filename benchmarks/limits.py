"""What the operating system allows: open files, memory in use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import resource

_STATM = Path("/proc/self/statm")


def raise_open_files() -> int:
    """Raise the limit of open files to the hard limit; give what it is now, 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def resident_bytes() -> int:
    """Give the memory that this process has in use; where only the peak is known, the peak.

    Raises `OSError` on Windows, whose figure needs a package of its own.
    """
    if _STATM.exists():
        return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        msg = "memory is not measured on Windows"
        raise OSError(msg)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
