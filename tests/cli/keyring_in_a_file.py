"""A keyring for processes that a test starts: it keeps its entries in the file that a variable names."""

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend

VARIABLE = "TEST_KEYRING_FILE"
NAME = f"{Path(__file__).stem}.Keyring"


class Keyring(KeyringBackend):
    priority = -1  # pyright: ignore[reportAssignmentType]

    def _entries(self) -> dict[str, str]:
        file = Path(os.environ[VARIABLE])
        return json.loads(file.read_text()) if file.exists() else {}

    def _keep(self, entries: dict[str, str]) -> None:
        Path(os.environ[VARIABLE]).write_text(json.dumps(entries))

    def get_password(self, service: str, username: str) -> str | None:
        return self._entries().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._keep({**self._entries(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        entries = self._entries()
        del entries[f"{service}/{username}"]
        self._keep(entries)
