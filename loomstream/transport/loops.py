"""Which event loop runs.

Contract: asyncio's loop, or None under trio, also where trio runs as a guest of asyncio's.
"""

from __future__ import annotations

import asyncio
import sys


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give asyncio's running loop, None under trio. Raises `RuntimeError` where neither runs."""
    if "trio" in sys.modules:
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None and sniffio.current_async_library() == "trio":
            return None
    return asyncio.get_running_loop()
