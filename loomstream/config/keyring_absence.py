"""Whether this machine plainly has no keyring: what a look at names and files tells, before the library is imported.

Contract: the library `keyring` and what it tries take some 60 ms to import, on the way of every call without a key. On
Linux its own parts all talk to the session's bus. True only where there is no such bus, nobody installed another part
and nobody chose one; in any doubt False: then the library is asked. No part of it is imported, nobody is asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache

_CHOSEN = "PYTHON_KEYRING_BACKEND"
_BUS = ("DBUS_SESSION_BUS_ADDRESS", "DBUS_STARTER_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY")
"""By these the bus is found, or started for a desktop."""
_FILE = "python_keyring/keyringrc.cfg"
_FOLDERS = (("XDG_CONFIG_HOME", "~/.config"), ("XDG_DATA_HOME", "~/.local/share"))
"""Where the library looks for the file in which its user chooses a part."""
_CACHE = ("XDG_CACHE_HOME", "~/.cache")
"""GLib's folder for the bus where no other is set."""
_GROUP = "keyring.backends"
_OWN = "keyring.backends."


def is_plainly_absent(environ: Mapping[str, str]) -> bool:
    """Say whether there can be no keyring in this environment."""
    if not sys.platform.startswith("linux") or "keyring" in sys.modules:  # who imported it may have chosen one
        return False
    if _CHOSEN in environ or any(environ.get(name) for name in _BUS):
        return False
    return not any(map(os.path.exists, _files(environ))) and not _others(tuple(sys.path))


def _files(environ: Mapping[str, str]) -> list[str]:
    buses = (environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.getuid()}", _folder(environ, *_CACHE))
    return [
        *(f"{folder}/bus" for folder in buses if folder),
        *(f"{_folder(environ, *place)}/{_FILE}" for place in _FOLDERS),
    ]


def _folder(environ: Mapping[str, str], name: str, usual: str) -> str:
    return environ.get(name) or os.path.expanduser(usual)  # noqa: PTH111 (no error where there is no home)


@lru_cache(maxsize=8)
def _others(path: tuple[str, ...]) -> bool:
    """Say whether a package brings a part of its own."""
    del path  # where packages are looked for: another path may have others
    from importlib import metadata  # noqa: PLC0415 (15 ms)

    try:
        return any(not entry.value.startswith(_OWN) for entry in metadata.entry_points(group=_GROUP))
    except Exception:  # noqa: BLE001 (one package's malformed file: the library shall say)
        return True
