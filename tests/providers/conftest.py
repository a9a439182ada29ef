"""Packages that a test installs, and a machine without any configuration file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from loomstream.providers import plugins

Install = Callable[..., None]


@pytest.fixture(autouse=True)
def nothing_else_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Show only the packages and the files that a test makes, not those of whoever runs it."""
    installed = tmp_path / "site-packages"

    def distributions() -> list[metadata.Distribution]:
        return list(metadata.Distribution.discover(path=[str(installed)]))

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        return [entry for package in distributions() for entry in package.entry_points if entry.group == group]

    monkeypatch.setattr(metadata, "distributions", distributions)
    monkeypatch.setattr(metadata, "entry_points", entry_points)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("LOOM_CONFIG", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    plugins._entries.cache_clear()
    yield
    plugins._entries.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Give a function that installs a package: its module's text, and the lines of its entry points by group."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def installing(module: str, source: str, *rows: str, dialects: tuple[str, ...] = ()) -> None:
        (folder / f"{module}.py").write_text(source, "utf-8")
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", "utf-8")
        groups = ["[loomstream.providers]", *rows, "[loomstream.dialects]", *dialects]
        (info / "entry_points.txt").write_text("\n".join(groups) + "\n", "utf-8")
        plugins._entries.cache_clear()

    return installing
