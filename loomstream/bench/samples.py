"""What a benchmark measured, as values that can be saved, read again and compared.

Contract: a `Report` survives a round trip through JSON; every sample says whether its model was simulated.
"""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from loomstream.errors import ConfigError

FORMAT = 1
Kind = Literal["live", "local", "simulated"]


class Sample(Struct, frozen=True, kw_only=True):
    """One answer. Times are seconds from the moment it was asked for; None for what did not happen.

    `cold`: it opened its connection. `stamps_s` are the times of the events that carried content. `error` is the
    error's class, empty for a whole answer; `truncated` where the stream ended before its end.
    """

    number: int
    cold: bool
    began_s: float
    first_event_s: float | None = None
    first_text_s: float | None = None
    total_s: float | None = None
    stamps_s: tuple[float, ...] = ()
    events: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: Decimal | None = None
    stop: str = ""
    error: str = ""
    message: str = ""
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """Whether the answer is whole."""
        return not self.error

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """The times between events that carried content."""
        return tuple(after - before for before, after in zip(self.stamps_s, self.stamps_s[1:], strict=False))

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens a second from the first content on; the first token counts for the wait before it."""
        if not self.ok or not self.output_tokens or len(self.stamps_s) < 2:  # noqa: PLR2004 (a span has two ends)
            return None
        span_s = self.stamps_s[-1] - self.stamps_s[0]
        return (self.output_tokens - 1) / span_s if span_s > 0 else None


class Row(Struct, frozen=True, kw_only=True):
    """The samples of one spec. `failure` says why there is none: no key, an unknown model."""

    spec: str
    kind: Kind
    provider: str = ""
    model: str = ""
    samples: tuple[Sample, ...] = ()
    failure: str = ""

    @property
    def label(self) -> str:
        """The spec, with what it is where it is not a provider's own service."""
        return self.spec if self.kind == "live" else f"{self.spec} [{self.kind}]"

    @property
    def counted(self) -> tuple[Sample, ...]:
        """The whole answers on warm connections, or on cold ones where there are no others."""
        whole = tuple(sample for sample in self.samples if sample.ok)
        return tuple(sample for sample in whole if not sample.cold) or whole


class Report(Struct, frozen=True, kw_only=True):
    """A benchmark. `overhead_us` is what measuring added to an event, measured in the same process."""

    rows: tuple[Row, ...]
    prompt: str
    max_tokens: int
    runs: int
    concurrency: int
    cold: bool
    made_at: str
    version: str
    overhead_us: float
    format: int = FORMAT

    @property
    def is_simulated(self) -> bool:
        """Whether any row is no measurement of a provider."""
        return any(row.kind == "simulated" for row in self.rows)


def save(report: Report, path: str | os.PathLike[str]) -> None:
    """Write a report as JSON."""
    write_text(path, msgspec.json.format(msgspec.json.encode(report).decode()) + "\n")


def load(path: str | os.PathLike[str]) -> Report:
    """Read a saved report; `ConfigError` where the file cannot be read or is none."""
    try:
        report = msgspec.json.decode(Path(path).read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        msg = f"{os.fspath(path)} is no saved benchmark: {error}; `looms bench … --save FILE` writes one"
        raise ConfigError(msg) from error
    if report.format != FORMAT:
        msg = f"{os.fspath(path)} has format {report.format}, and this version reads {FORMAT}: measure again"
        raise ConfigError(msg)
    return report


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of a report; `ConfigError` where that is not possible."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{os.fspath(path)} cannot be written: {error.strerror or error}"
        raise ConfigError(msg) from error
