"""The goldens: bytes, meta and expected events of one stream each, and how a case is run.

A case is `<dialect>/<name>.bin` (the response body), `.meta.toml` (what the response's head said, and the error that
ends it, if one does) and `.events.jsonl` (the events that come before the end or the error, one a line). To write a
golden, write the first two by hand, run `python tests/streams/regold.py NAME`, and read what it wrote.
"""

from __future__ import annotations

import itertools
import re
import struct
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import loomstream
from loomstream.errors import LoomstreamError
from loomstream.events import Event
from loomstream.events import decode as decode_event

HERE = Path(__file__).parent
AWS_EVENT_STREAM = "application/vnd.amazon.eventstream"
_LINE_END = re.compile(rb"(?:\r\n|\n|\r)")


class Case(NamedTuple):
    """One golden."""

    path: Path
    meta: dict[str, object]

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"

    @property
    def body(self) -> bytes:
        return self.path.read_bytes()

    @property
    def status(self) -> int:
        return int(str(self.meta.get("status", 200)))

    @property
    def error(self) -> str:
        return str(self.meta.get("error", ""))

    def ends(self) -> list[int]:
        """Give the positions behind each line, or behind each message of an AWS event stream."""
        if self.meta["content_type"] == AWS_EVENT_STREAM:
            return _message_ends(self.body)
        return [match.end() for match in _LINE_END.finditer(self.body)]

    @property
    def events_path(self) -> Path:
        return self.path.with_suffix(".events.jsonl")

    def expected(self) -> list[Event]:
        return [decode_event(line) for line in self.events_path.read_bytes().splitlines()]


def _message_ends(body: bytes) -> list[int]:
    ends = [0]
    while ends[-1] + 4 <= len(body) and (length := struct.unpack_from(">I", body, ends[-1])[0]):
        ends.append(ends[-1] + length)
    return [end for end in itertools.islice(ends, 1, None) if end <= len(body)]


class Outcome(NamedTuple):
    """What a run gave: the events, and the name of the error that ended it (empty where none did)."""

    events: list[Event]
    error: str
    message: str = ""


def load() -> list[Case]:
    """Give every golden there is."""
    metas = sorted(HERE.glob("*/*.meta.toml"))
    return [
        Case(path.with_name(path.name.removesuffix(".meta.toml") + ".bin"), tomllib.loads(path.read_text("utf-8")))
        for path in metas
    ]


def run(case: Case, chunks: Iterable[bytes]) -> Outcome:
    """Decode the chunks as the case's response; any error but a LoomstreamError goes through."""
    events: list[Event] = []
    try:
        _collect(case, chunks, events)
    except LoomstreamError as error:
        return Outcome(events, type(error).__name__, str(error))
    return Outcome(events, "")


def _collect(case: Case, chunks: Iterable[bytes], events: list[Event]) -> None:
    meta = case.meta
    headers = meta.get("headers", {})
    assert isinstance(headers, dict)
    for event in loomstream.decode(
        str(meta["provider"]),
        chunks,
        dialect=str(meta["dialect"]),
        content_type=str(meta["content_type"]),
        status=case.status,
        headers=headers,
        model=str(meta.get("model", "asked-model")),
    ):
        events.append(event)  # noqa: PERF402 (what came before an error must be kept)
