"""Shows how far the fetch of the embedded model has come: a bar on a terminal, one line elsewhere.

Contract: everything goes to standard error; rich is imported when a bar is to be drawn.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from loomstream.cli.output import note

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class FetchProgress:
    """A callback for `connect(progress=…)`, and a context that takes the bar away when it ends."""

    def __init__(self) -> None:
        self._announced = False
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, done: int, total: int | None) -> None:
        """Show that `done` of `total` bytes are here."""
        if not self._announced:
            self._announced = True
            self._begin(total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
        if done == total:
            self._stop()

    def _begin(self, total: int | None) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar, self._task = _draw(total)
        else:
            size = f" ({total / 1e6:.0f} MB)" if total else ""
            note(f"fetching the embedded model{size}, once")

    def _stop(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()


def _draw(total: int | None) -> tuple[Progress, TaskID]:
    from rich.console import Console  # noqa: PLC0415 (only where a bar is drawn)
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task("fetching the embedded model, once", total=total)
