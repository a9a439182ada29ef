"""What Ctrl-C does while nothing is open yet: it ends the process at once, and quietly.

Contract: imports next to nothing, so that it is in place before what takes long to import.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


TERMINATIONS: list[int] = []
"""The SIGTERMs that came: each raises KeyboardInterrupt as Ctrl-C does, but means the program and not an answer."""


class EndsAtOnce:
    """Import under this: an exception inside the import system is shown as a traceback, or swallowed.

    Where Ctrl-C is ignored, as in a shell's background job, or is handled by someone else, that stays so. Outside the
    main thread it does nothing.
    """

    def __init__(self) -> None:
        self._is_set = False

    def __enter__(self) -> None:
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        try:
            signal.signal(signal.SIGINT, _end)
        except ValueError:  # not the main thread: signals do not arrive here
            return
        self._is_set = True

    def __exit__(self, *_: object) -> None:
        if self._is_set:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: object) -> None:
    os._exit(INTERRUPTED)
