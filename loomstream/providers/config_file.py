"""Where a `looms.yaml` is looked for, which one counts, and whether it may be read at all.

Contract: `$LOOM_CONFIG`, else the first `looms.yaml` in `$LOOM_DATA_DIR` (default `~/.loom`), the working folder, the
machine's own folder. `places` is pure: the platform is an argument. A file that was merely found in the working folder
may come from anybody, and one of another user may be changed by them: neither is `own`. Only a plain file is opened,
and none that anybody may write.
"""

from __future__ import annotations

import functools
import ntpath
import os
import posixpath
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loomstream.errors import ConfigError

if TYPE_CHECKING:
    from loomstream.providers.yaml_file import Value

CONFIG_VARIABLE = "LOOM_CONFIG"
"""The variable that names the configuration file, in the place of all others."""

FILE_NAME = "looms.yaml"
DATA_VARIABLE = "LOOM_DATA_DIR"
_DATA = ".loom"
_WINDOWS = "win32"
_MAC = "darwin"
_PROGRAM_DATA = "C:\\ProgramData"

_NAME_IT = f"name the file (--config, or {CONFIG_VARIABLE}={FILE_NAME}), or move it to ~/.loom/{FILE_NAME}"
_MAKE_IT_YOURS = "make it yours (chown), or write one of your own"


class File(NamedTuple):
    """A configuration file; `own` says that its user put it there, as far as its place and its owner can tell.

    `owner` is another user of this machine to whom it belongs, where that is why it is not `own`.
    """

    path: Path
    own: bool
    owner: str = ""


def distrust(owner: str, instead: str) -> str:
    """Say why a file that is not its user's own may not say something, and what to do.

    `owner` is that of the `File`, `instead` what can be done beside.
    """
    if owner:
        return f"a {FILE_NAME} of another user ({owner}) may be changed by them: {instead} {_MAKE_IT_YOURS}"
    found = f"a {FILE_NAME} that was merely found in the working folder may come from others"
    return f"{found}: {instead} {_NAME_IT}"


class Place(NamedTuple):
    """A path at which a file is looked for, and whether one there is its user's own."""

    path: str
    own: bool


# --- where ---------------------------------------------------------------------------------------


def places(environ: Mapping[str, str], platform: str) -> tuple[Place, ...]:
    """Give the paths at which the file is looked for, in order; one that is named stands alone.

    `platform` is that of `sys.platform`. The machine's own folder is `loom` in `%PROGRAMDATA%` on Windows, and
    `/Library/Application Support/loom` before `/etc/loom` on macOS.
    """
    join = ntpath.join if platform == _WINDOWS else posixpath.join
    if named := environ.get(CONFIG_VARIABLE, "").strip():
        return (Place(_expanded(named, environ, platform), own=True),)
    folders = (
        (data_folder(environ, platform), True),
        (".", False),
        *((one, True) for one in _system(environ, platform)),
    )
    return tuple(Place(FILE_NAME if folder == "." else join(folder, FILE_NAME), own) for folder, own in folders)


def data_folder(environ: Mapping[str, str], platform: str) -> str:
    """Give the folder of this user's own files."""
    named = environ.get(DATA_VARIABLE, "").strip()
    join = ntpath.join if platform == _WINDOWS else posixpath.join
    return _expanded(named or join("~", _DATA), environ, platform)


def own_file(name: str) -> Path:
    """Give where a file of this user's own stands: in `$LOOM_DATA_DIR`, by default `~/.loom`."""
    return Path(data_folder(os.environ, sys.platform), name)


def _system(environ: Mapping[str, str], platform: str) -> tuple[str, ...]:
    if platform == _WINDOWS:
        return (ntpath.join(environ.get("PROGRAMDATA", "").strip() or _PROGRAM_DATA, "loom"),)
    return ("/Library/Application Support/loom", "/etc/loom") if platform == _MAC else ("/etc/loom",)


def _expanded(path: str, environ: Mapping[str, str], platform: str) -> str:
    """Give the path with the home folder in the place of a `~`; as it is where there is no home."""
    separators = "\\/" if platform == _WINDOWS else "/"
    if path != "~" and not (path[:1] == "~" and path[1:2] in separators):
        return path
    variables = ("USERPROFILE", "HOME") if platform == _WINDOWS else ("HOME",)
    home = next((value for name in variables if (value := environ.get(name, "").strip())), "")
    if not home and platform == sys.platform:
        return os.path.expanduser(path)  # noqa: PTH111 (no error where there is no home)
    return home.rstrip(separators) + path[1:] if home else path


def find_file(environ: Mapping[str, str] | None = None) -> File | None:
    """Give the configuration file that counts, if there is one; one that is named need not be there."""
    environ = os.environ if environ is None else environ
    looked = places(environ, sys.platform)
    if environ.get(CONFIG_VARIABLE, "").strip():
        return File(Path(looked[0].path), own=True)
    return next((File(Path(path), own) for path, own in looked if os.path.exists(path)), None)  # noqa: PTH110 (raises nothing)


# --- what is in it -------------------------------------------------------------------------------


class Document(NamedTuple):
    """What a file holds; `file` is judged by its owner too.

    `shared` says that its group, or others, may read it: then no secret may stand in it.
    """

    file: File
    root: Value
    shared: bool


def document(file: File) -> Document:
    """Give what a file holds; it is read anew when it changed.

    Raises `ConfigError` where it cannot be read, is no plain file, may be written by anybody, is too large, or is no
    configuration: see `loomstream.providers.yaml_file`.
    """
    try:
        status = file.path.stat()
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        msg = f"{file.path} cannot be read: {reason}"
        raise ConfigError(msg) from error
    if problem := problem_of(status.st_mode, sys.platform):
        msg = f"{file.path} {problem}"
        raise ConfigError(msg)
    root = _read(file.path, status.st_mtime_ns, status.st_size, status.st_ino)
    owner = other_owner(status.st_uid, sys.platform) if file.own else ""
    judged = File(file.path, file.own and not owner, owner)
    return Document(judged, root, is_shared(status.st_mode, sys.platform))


def problem_of(mode: int, platform: str) -> str:
    """Say why a file of this mode is not read; an empty text: it is. `platform` is that of `sys.platform`."""
    if not stat.S_ISREG(mode):
        return f"is {'a folder' if stat.S_ISDIR(mode) else 'no plain file'}: name a {FILE_NAME}"
    if platform != _WINDOWS and mode & stat.S_IWOTH:
        return "may be changed by every user of this machine, and says where your keys go: run chmod o-w on it"
    return ""


def is_shared(mode: int, platform: str) -> bool:
    """Say whether more than its owner may read a file of this mode; on Windows the mode does not tell."""
    return platform != _WINDOWS and bool(mode & (stat.S_IRGRP | stat.S_IROTH))


def other_owner(uid: int, platform: str) -> str:
    """Give the user to whom a file belongs, where it is neither this one nor the machine's administrator.

    Such a user may change it at any time. On Windows the number does not tell.
    """
    if platform == _WINDOWS or uid in (0, os.geteuid()):
        return ""
    import pwd  # noqa: PLC0415 (not on Windows)

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # one that this machine, or this container, has no name for
        return f"number {uid}"


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size: int, inode: int) -> Value:
    del changed_ns, size, inode  # another file of the same name is read anew
    from loomstream.providers.yaml_file import read_yaml  # noqa: PLC0415 (imports PyYAML)

    return read_yaml(path)
