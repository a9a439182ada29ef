"""The file of an audit log: whole lines are appended to it, and it is rotated.

Contract: a line is one `write` in append mode, so that processes can share a file; a line that a crash has torn is
ended by the next one. The file is opened for each line, so that nobody goes on writing into one that another process
has put aside, and nothing is open between two calls. What is put aside keeps its lines and gets a name with the moment,
`calls-20261122T101530.123456Z-4711.jsonl`; nothing is ever overwritten. Files are readable by their owner alone.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from loomstream.errors import ConfigError
from loomstream.numerals import is_number
from loomstream.providers.config_file import own_file
from loomstream.telemetry.records import AuditRecord, decode_record, encode_record

AUDIT_FILE = "audit.jsonl"
MAX_BYTES = 64 * 1024 * 1024
"""A file that is this large is put aside."""

_MODE = 0o600
_FOLDER_MODE = 0o700
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_LONGEST_FIRST_LINE = 1024 * 1024


def default_path() -> Path:
    """Give `audit.jsonl` in `$LOOM_DATA_DIR` (default `~/.loom`)."""
    return own_file(AUDIT_FILE)


class AuditLog:
    """Appends records to a file; safe to use from several threads and processes.

    The file is put aside when it has `max_bytes`, or when its first record is `max_age_s` old (None: never for that
    reason); `keep` is how many of those that were put aside stay (None: all). `sync` waits for the disk at each record:
    without it a record outlives the process, with it a power cut. `clock` gives seconds since 1970.

    Raises `ConfigError` for a limit that is not above 0, and for a file that cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        max_age_s: float | None = None,
        keep: int | None = None,
        sync: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, limit in (("max_bytes", max_bytes), ("max_age_s", max_age_s), ("keep", keep)):
            if limit is not None and not (is_number(limit, infinite=True) and limit > 0):
                msg = f"AuditLog({name}={limit!r}): give a number above 0"
                raise ConfigError(msg)
        self.path = default_path() if path is None else Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._keep = keep
        self._sync = sync
        self._clock = clock
        self._lock = threading.Lock()
        self._first: tuple[int, float] | None = None
        """The file that the age was looked up of, and when its first record was made."""
        self._prepare()

    def _prepare(self) -> None:
        try:
            self.path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            descriptor = os.open(self.path, _FLAGS, _MODE)
            try:
                if hasattr(os, "fchmod") and stat.S_ISREG(os.fstat(descriptor).st_mode):  # never a device or a pipe
                    os.fchmod(descriptor, _MODE)
            finally:
                os.close(descriptor)
        except OSError as error:
            msg = f"the audit log {self.path} cannot be written: {error.strerror or error}"
            raise ConfigError(msg) from None

    def write(self, record: AuditRecord) -> None:
        """Append a record. Raises `OSError` where the file cannot be written, or takes only a part of the line."""
        line = encode_record(record)
        with self._lock:
            descriptor = self._open()
            try:
                self._append(descriptor, line)
            finally:
                os.close(descriptor)

    def _open(self) -> int:
        """Give the file to append to; one that is due is put aside before."""
        descriptor = os.open(self.path, _FLAGS, _MODE)
        state = os.fstat(descriptor)
        if not state.st_size or not self._is_due(descriptor, state):
            return descriptor
        os.close(descriptor)
        self._put_aside(state)
        return os.open(self.path, _FLAGS, _MODE)

    def _append(self, descriptor: int, line: bytes) -> None:
        size = os.fstat(descriptor).st_size
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":
                line = b"\n" + line  # a crash has torn the last line; it must not tear this one too
        written = os.write(descriptor, line)
        if written != len(line):
            msg = f"only {written} of {len(line)} bytes could be written to {self.path}"
            raise OSError(msg)
        if self._sync:
            os.fsync(descriptor)

    def _is_due(self, descriptor: int, state: os.stat_result) -> bool:
        if state.st_size >= self._max_bytes:
            return True
        if self._max_age_s is None:
            return False
        if self._first is None or self._first[0] != state.st_ino:
            os.lseek(descriptor, 0, os.SEEK_SET)
            line, _, _ = os.read(descriptor, _LONGEST_FIRST_LINE).partition(b"\n")
            record = decode_record(line)
            self._first = (state.st_ino, state.st_mtime if record is None else record.began.timestamp())
        return self._clock() - self._first[1] >= self._max_age_s

    def _put_aside(self, state: os.stat_result) -> None:
        now = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
        name = f"{self.path.stem}-{now:%Y%m%dT%H%M%S.%fZ}-{os.getpid()}{self.path.suffix}"
        target = self.path.with_name(name)
        try:
            if not target.exists() and self.path.stat().st_ino == state.st_ino:  # else another process was faster
                self.path.rename(target)
        except FileNotFoundError:
            return
        for old in put_aside(self.path)[: -self._keep] if self._keep else ():
            old.unlink(missing_ok=True)


def put_aside(path: Path) -> list[Path]:
    """Give the files of a log that were put aside, the oldest first."""
    named = re.compile(rf"{re.escape(path.stem)}-\d{{8}}T\d{{6}}\.\d{{6}}Z-\d+{re.escape(path.suffix)}")
    if not path.parent.is_dir():
        return []
    return sorted(each for each in path.parent.iterdir() if named.fullmatch(each.name))


def files_of(path: Path) -> list[Path]:
    """Give all files of a log, the oldest first; empty where there is none."""
    return [*put_aside(path), *([path] if path.is_file() else [])]


def lines_of(path: Path) -> Iterator[bytes]:
    """Give the lines of all files of a log, the oldest first. Raises `OSError` where one cannot be read."""
    for each in files_of(path):
        yield from _whole_lines(each)


def follow(path: Path, wait: Callable[[], None]) -> Iterator[bytes | None]:
    """Give the lines of all files of a log, the oldest first, and then those that are added, for ever.

    Where there is nothing more for now it gives None, and then calls `wait`. A file that is put aside is read to its
    end before the new one. Raises `OSError` where a file cannot be read.
    """
    read: set[str] = set()
    while True:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            yield from _put_aside_since(path, None, read)
            yield None
            wait()
            continue
        with file:  # open before it is looked what was put aside: so none slips through between the two
            yield from _put_aside_since(path, file, read)
            yield from _followed(file, path, wait)
            read.update(each.name for each in put_aside(path) if _is_at(each, file))


def _put_aside_since(path: Path, file: BinaryIO | None, read: set[str]) -> Iterator[bytes]:
    """Give the lines of what was put aside and not yet read, but for `file`, which is read by itself; note them."""
    for each in put_aside(path):
        if each.name not in read and (file is None or not _is_at(each, file)):
            yield from _whole_lines(each)
            read.add(each.name)


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _followed(file: BinaryIO, path: Path, wait: Callable[[], None]) -> Iterator[bytes | None]:
    """Give the lines of a file until another one stands in its place."""
    begun = b""
    while True:
        replaced = not _is_at(path, file)
        for piece in file:
            begun += piece
            if begun.endswith(b"\n"):
                yield begun
                begun = b""
        if replaced:
            return
        yield None
        wait()


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
