"""The environment of a child process whose standard error is compared."""

from __future__ import annotations

import os

QUIET = {name: value for name, value in os.environ.items() if name not in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE")}
"""asyncio's debug mode tells of each slow step on standard error, and beside other work any step may be slow."""
