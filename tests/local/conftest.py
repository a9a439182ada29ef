"""The real model, fetched once into the user cache; stand-in interpreters for everything else."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from loomstream.errors import ConfigError
from loomstream.local import SMOLLM2, fetch_model


@pytest.fixture(scope="session")
def model_path() -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("NOT TESTED: the embedded model needs `pip install 'loomstream[local]'`")
    try:
        return anyio.run(fetch_model, None, SMOLLM2)
    except ConfigError as error:
        pytest.skip(f"NOT TESTED: the embedded model cannot be fetched: {error}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model cache of the test's own."""
    monkeypatch.setenv("LOOMSTREAM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LOOMSTREAM_LOCAL_MODEL", raising=False)
    return tmp_path / "cache" / "models"


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a program of the test's own in the place of the Python interpreter, and a runtime in its place."""
    if sys.platform == "win32":
        pytest.skip("NOT TESTED: Windows cannot run a script in the place of the interpreter")
    real = sys.executable
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "xllamacpp.py").touch()

    def pretend(body: str) -> None:
        script = tmp_path / "interpreter"
        script.write_text(f"#!{real}\n{body}")
        script.chmod(0o755)
        monkeypatch.syspath_prepend(tmp_path / "runtime")
        monkeypatch.setattr(sys, "executable", str(script))

    return pretend


@pytest.fixture
def announcements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A named pipe, `$ANNOUNCE` to children: reading it waits until one has written."""
    if sys.platform == "win32":
        pytest.skip("NOT TESTED: Windows has no named pipes in the file system")
    path = tmp_path / "announcements"
    os.mkfifo(path)
    monkeypatch.setenv("ANNOUNCE", str(path))
    return path
