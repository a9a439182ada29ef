"""What a benchmark measured, as values that can be saved, read again and compared.

Contract: a `Report` survives a round trip through JSON; every sample says whether its model was simulated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from loomstream.errors import ConfigError

FORMAT = 2
Kind = Literal["live", "embedded", "simulated"]
Connection = Literal["warm", "cold"]
Connections = Literal["warm", "cold", "both"]


class Sample(Struct, frozen=True, kw_only=True):
    """One answer. Times are seconds from the moment it was asked for; None for what did not happen.

    `cold`: it opened its connection. `connect_s` is how long that took (name look-up, TCP, TLS), 0 for a kept one; the
    times of events hold it. `number` is that of its round; 0 for one that warms up. `stamps_s` are the times of the
    events that carried content. `error` is the error's class, empty for a whole answer; `truncated` where the stream
    ended before its end. Of `input_tokens` the provider read `cached_tokens` from its cache.
    """

    number: int
    cold: bool
    began_s: float
    connect_s: float | None = None
    first_event_s: float | None = None
    first_text_s: float | None = None
    total_s: float | None = None
    stamps_s: tuple[float, ...] = ()
    events: int = 0
    input_tokens: int | None = None
    cached_tokens: int | None = None
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
    """The samples of one spec over warm or cold connections. `failure` says why there is none, such as no key."""

    spec: str
    kind: Kind
    connection: Connection = "warm"
    provider: str = ""
    model: str = ""
    samples: tuple[Sample, ...] = ()
    failure: str = ""

    @property
    def label(self) -> str:
        """The spec, with what was asked (live, embedded or simulated) and over which connections."""
        return f"{self.spec} [{self.kind}, {self.connection}]"

    @property
    def counted(self) -> tuple[Sample, ...]:
        """The whole answers, of a warm row those over kept connections, or what there is where there are none."""
        whole = tuple(sample for sample in self.samples if sample.ok)
        if self.connection == "cold":
            return whole
        measured = tuple(sample for sample in whole if sample.number)
        return tuple(sample for sample in measured if not sample.cold) or measured or whole


class Report(Struct, frozen=True, kw_only=True):
    """A benchmark. `overhead_us` is what measuring added to an event, measured in the same process.

    `input_tokens` is the size that was asked of the prompt, None where its text was given; each sample's is what the
    provider counted. `complete` is False where it was ended before its time.
    """

    rows: tuple[Row, ...]
    prompt: str
    max_tokens: int
    runs: int
    concurrency: int
    made_at: str
    version: str
    overhead_us: float
    connections: Connections = "warm"
    input_tokens: int | None = None
    complete: bool = True
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
    if not all(map(_is_time, _times_of(report))):
        msg = f"{os.fspath(path)} is no saved benchmark: a time in it is below 0, or longer than {_LONGEST_S:.0f} s"
        raise ConfigError(msg)
    return report


_LONGEST_S = 1e9
"""What is longer is no measurement, and overflows where figures are added up."""


def _is_time(figure: float) -> bool:
    return 0 <= figure <= _LONGEST_S


def _times_of(report: Report) -> Iterator[float]:
    for sample in (sample for row in report.rows for sample in row.samples):
        figures = (sample.began_s, sample.connect_s, sample.first_event_s, sample.first_text_s, sample.total_s)
        yield from (figure for figure in figures if figure is not None)
        yield from sample.stamps_s


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of a report; `ConfigError` where that is not possible."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{os.fspath(path)} cannot be written: {error.strerror or error}"
        raise ConfigError(msg) from error
