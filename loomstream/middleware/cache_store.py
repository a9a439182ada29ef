"""Where answers are kept for `cache`: the `CacheStore` protocol, one in memory and one of files.

Contract: a key is an opaque name of hexadecimal digits, an answer the events of a whole one. What is older than
`ttl_s`, of another schema version, unreadable or changed is not there; where a limit is passed the answers that were
used longest ago go first. The clock is the wall's, because files outlive the process. It knows neither requests nor
prices.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio.to_thread
import msgspec
from anyio.lowlevel import RunVar
from msgspec import Raw as RawJSON
from msgspec import Struct

from loomstream.errors import ConfigError
from loomstream.events import SCHEMA_VERSION, Event
from loomstream.numerals import is_number
from loomstream.whole_file import is_unfinished, write_whole

_SUFFIX = ".answer.json"
_BETWEEN_LOOKS = 100
"""After so many answers were written the folder is looked through again: other processes may write there too."""
_THREADS = 8
_threads = RunVar[anyio.CapacityLimiter]("loomstream_cache_threads")
"""Threads of our own: those of anyio's pool may all be waiting for an answer."""
_UNFINISHED_S = 3_600.0
"""A file that has been in the making for so long was left by a process that ended."""


class CacheStore(Protocol):
    """Keeps answers; what `get` or `put` raises is told by a notice and costs nobody the answer.

    So is one that takes longer than 10 seconds, or than a quarter of what the call has left of its `total_s`: it is
    cancelled, and passed over.
    """

    async def get(self, key: str) -> Sequence[Event] | None:
        """Give the answer that is kept under a key, None where there is none."""
        ...

    async def put(self, key: str, events: Sequence[Event]) -> None:
        """Keep an answer, in the place of an older one."""
        ...


class _Limits(NamedTuple):
    entries: int
    size_bytes: int
    ttl_s: float
    clock: Callable[[], float]

    def is_old(self, stored_at_s: float) -> bool:
        """Say whether an answer is over its age; also one from the future, for which no age is known."""
        return not 0 <= self.clock() - stored_at_s < self.ttl_s


def _limits(what: str, entries: int, size_bytes: int, ttl_s: float | None, clock: Callable[[], float]) -> _Limits:
    at_most = is_number(entries) and is_number(size_bytes) and entries >= 1 and size_bytes >= 1
    if not (at_most and (ttl_s is None or (is_number(ttl_s, infinite=True) and ttl_s > 0))):
        given = f"max_entries={entries!r}, max_bytes={size_bytes!r}, ttl_s={ttl_s!r}"
        msg = f"{what}({given}): give numbers above 0; ttl_s=None keeps answers for any time"
        raise ConfigError(msg)
    return _Limits(entries, size_bytes, math.inf if ttl_s is None else ttl_s, clock)


class _Kept(Struct, frozen=True):
    """An answer as it is written down."""

    schema_version: int
    stored_at_s: float
    digest: str
    """Of the bytes of the events, by SHA-256."""
    events: RawJSON


_encoder = msgspec.json.Encoder()
_answers = msgspec.json.Decoder(_Kept)
_events = msgspec.json.Decoder(tuple[Event, ...])


class _InMemory(NamedTuple):
    stored_at_s: float
    size_bytes: int
    events: tuple[Event, ...]


class MemoryCache:
    """The store of one process.

    At most `max_entries` answers of `max_bytes` in all (as JSON), none older than `ttl_s` seconds (default: an hour;
    None: of any age). A larger answer is not kept. `clock` gives seconds (default: the system's time).

    Raises `ConfigError` for a limit that is not above 0.
    """

    def __init__(
        self,
        *,
        max_entries: int = 1_000,
        max_bytes: int = 64 * 1024 * 1024,
        ttl_s: float | None = 3_600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = _limits("MemoryCache", max_entries, max_bytes, ttl_s, clock)
        self._kept: OrderedDict[str, _InMemory] = OrderedDict()
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str) -> Sequence[Event] | None:
        """See `CacheStore.get`."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._limits.is_old(kept.stored_at_s):
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.events

    async def put(self, key: str, events: Sequence[Event]) -> None:
        """See `CacheStore.put`."""
        answer = tuple(events)
        size_bytes = len(_encoder.encode(answer))
        self._drop(key)
        if size_bytes > self._limits.size_bytes:
            return
        self._kept[key] = _InMemory(self._limits.clock(), size_bytes, answer)
        self._size_bytes += size_bytes
        while len(self._kept) > self._limits.entries or self._size_bytes > self._limits.size_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._size_bytes -= gone.size_bytes


class _File(NamedTuple):
    used_at_s: float
    size_bytes: int
    path: str


class FileCache:
    """A store of one file for each answer in `folder`, which it makes: for its owner alone to read.

    Several processes may share it: a file is put in place whole, and one of which anything was changed is not there;
    but who may write into the folder may answer. The limits are those of `MemoryCache`, but where
    others write too they are passed for a while. The work is done in a thread.

    Raises `ConfigError` for a limit that is not above 0. `get` and `put` raise `OSError`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_entries: int = 10_000,
        max_bytes: int = 1024 * 1024 * 1024,
        ttl_s: float | None = 7 * 86_400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = _limits("FileCache", max_entries, max_bytes, ttl_s, clock)
        self._folder = Path(folder)
        self._left_entries = self._left_bytes = self._unlooked = 0
        """What may still be written before the folder must be looked through; at first nothing is known of it."""

    async def get(self, key: str) -> Sequence[Event] | None:
        """See `CacheStore.get`."""
        return await anyio.to_thread.run_sync(self._read, key, limiter=_limiter(), abandon_on_cancel=True)

    async def put(self, key: str, events: Sequence[Event]) -> None:
        """See `CacheStore.put`."""
        await anyio.to_thread.run_sync(self._write, key, tuple(events), limiter=_limiter(), abandon_on_cancel=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _read(self, key: str) -> Sequence[Event] | None:
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        kept = _decoded(data)
        events = None if kept is None or self._limits.is_old(kept.stored_at_s) else _events.decode(kept.events)
        with suppress(OSError):  # it may be another's to change, and another process may have removed it since
            path.unlink() if events is None else os.utime(path)
        return events

    def _write(self, key: str, events: tuple[Event, ...]) -> None:
        text = _encoder.encode(events)
        data = _encoder.encode(_Kept(SCHEMA_VERSION, self._limits.clock(), _digest(text), RawJSON(text)))
        if len(data) > self._limits.size_bytes:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._path(key), data)
        self._left_entries -= 1
        self._left_bytes -= len(data)
        self._unlooked -= 1
        if min(self._left_entries, self._left_bytes, self._unlooked) < 0:
            self._tidy()

    def _tidy(self) -> None:
        """Remove what is too old and what a process that ended left; then what was used longest ago, to the limits."""
        files: list[_File] = []
        for file in sorted(self._files(), reverse=True):
            if self._is_waste(file):
                _remove(file)
            elif file.path.endswith(_SUFFIX):
                files.append(file)
        size_bytes = sum(file.size_bytes for file in files)
        while files and (len(files) > self._limits.entries or size_bytes > self._limits.size_bytes):
            oldest = files.pop()
            size_bytes -= oldest.size_bytes
            _remove(oldest)
        self._left_entries = self._limits.entries - len(files)
        self._left_bytes = self._limits.size_bytes - size_bytes
        self._unlooked = _BETWEEN_LOOKS

    def _is_waste(self, file: _File) -> bool:
        unused_s = self._limits.clock() - file.used_at_s
        return unused_s > (self._limits.ttl_s if file.path.endswith(_SUFFIX) else _UNFINISHED_S)

    def _files(self) -> Iterator[_File]:
        with os.scandir(self._folder) as found:
            for item in found:
                if item.name.endswith(_SUFFIX) or is_unfinished(item.name):
                    with suppress(FileNotFoundError):  # another process may have removed it since
                        state = item.stat(follow_symlinks=False)
                        if stat.S_ISREG(state.st_mode):
                            yield _File(state.st_mtime, state.st_size, item.path)


def _remove(file: _File) -> None:
    with suppress(OSError):  # another process may have removed it since, or its owner may keep it: it is but waste
        Path(file.path).unlink()


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _threads.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _threads.set(limiter)
        return limiter


def _digest(events: bytes | RawJSON) -> str:
    return hashlib.sha256(events).hexdigest()


def _decoded(data: bytes) -> _Kept | None:
    """Give what a file holds; None where it is of another version, or was cut or changed."""
    try:
        kept = _answers.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    is_ours = kept.schema_version == SCHEMA_VERSION and kept.digest == _digest(kept.events)
    return kept if is_ours else None
