"""A machine without keys, and a `looms.yaml` of its user's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_is_configured(no_keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del no_keys
    for name in os.environ:
        if name.startswith("LOOM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the user's own `looms.yaml`, or one in the working folder; only its user can read it."""

    def writing(text: str, *, here: bool = False) -> Path:
        path = tmp_path / ("work" if here else "data") / "looms.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        return path

    return writing
