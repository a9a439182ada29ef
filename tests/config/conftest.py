"""Configurations as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a `looms.yaml` that only its user can read."""

    def writing(text: str, mode: int = 0o600) -> Path:
        path = tmp_path / "looms.yaml"
        path.write_text(text, "utf-8")
        path.chmod(mode)
        return path

    return writing
