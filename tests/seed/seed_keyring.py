"""A keyring for the transcript: a JSON file in the fresh home, so that nobody's own keyring is asked or changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


def _file() -> Path:
    return Path(os.environ["HOME"]) / ".stand-in-keyring.json"


def _read() -> dict[str, str]:
    return json.loads(_file().read_text()) if _file().exists() else {}


class FileKeyring(KeyringBackend):
    """Stands in for the system's; the real one is tested against gnome-keyring in tests/config."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        return _read().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        _file().write_text(json.dumps(_read() | {f"{service}/{username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        left = _read()
        if left.pop(f"{service}/{username}", None) is None:
            msg = "no such entry"
            raise PasswordDeleteError(msg)
        _file().write_text(json.dumps(left))
