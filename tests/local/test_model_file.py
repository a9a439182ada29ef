"""Which file is served, and what is said where there is none."""

import sys
from pathlib import Path

import pytest

from loomstream.errors import ConfigError
from loomstream.local import SMOLLM2, cached_model
from loomstream.local.model_file import cache_folder, choose_model, installed_model, no_model_message

TINY = SMOLLM2.__class__(
    name="tiny",
    requirement="tiny-model==1.0",
    package="tiny_model",
    file_name="tiny.gguf",
    wheel_bytes=10,
    wheel_sha256="",
    gguf_bytes=8,
    gguf_sha256="",
)


def write(path: Path, content: bytes = b"GGUF\x03\0\0\0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_nothing_cached(cache: Path) -> None:
    assert cached_model(TINY) is None
    assert choose_model(None, TINY) is None
    assert not cache.exists(), "looking changes nothing"


def test_the_cached_model_is_chosen(cache: Path) -> None:
    path = write(cache / "tiny.gguf")
    assert cached_model(TINY) == path
    found = choose_model(None, TINY)
    assert found is not None
    assert (found.path, found.name, found.bundled) == (path, "tiny", True)


def test_a_cached_file_of_the_wrong_size_is_no_model(cache: Path) -> None:
    write(cache / "tiny.gguf", b"GGUF\x03")
    assert cached_model(TINY) is None
    assert "damaged" in no_model_message(TINY)


@pytest.mark.usefixtures("cache")
def test_the_message_names_every_way_to_a_model() -> None:
    message = no_model_message(SMOLLM2)
    for way in (
        "python -m loomstream.local --fetch",
        "looms ask",
        'connect("local")',
        "--model PATH.gguf",
        "LOOMSTREAM_LOCAL_MODEL",
        "93 MB",
    ):
        assert way in message


@pytest.mark.usefixtures("cache")
def test_a_model_installed_as_a_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "site" / "tiny_model" / "__init__.py", b"raise RuntimeError('imported')")
    path = write(tmp_path / "site" / "tiny_model" / "tiny.gguf")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert installed_model(TINY) == path
    found = choose_model(None, TINY)
    assert found is not None
    assert found.path == path


def test_a_given_path_comes_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(cache / "tiny.gguf")
    monkeypatch.setenv("LOOMSTREAM_LOCAL_MODEL", str(write(tmp_path / "Second.Q4.gguf")))
    found = choose_model(write(tmp_path / "First.Q4.gguf"), TINY)
    assert found is not None
    assert (found.name, found.bundled) == ("First.Q4", False)
    found = choose_model(None, TINY)
    assert found is not None
    assert (found.name, found.bundled) == ("Second.Q4", False)


def test_the_bundled_model_is_known_by_its_file_name(tmp_path: Path) -> None:
    found = choose_model(str(write(tmp_path / "tiny.gguf")), TINY)
    assert found is not None
    assert (found.name, found.bundled) == ("tiny", True)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file"), (b"PK\x03\x04 a zip", "is not a GGUF file"), (b"", "is not a GGUF file")],
)
def test_a_named_file_that_cannot_be_used_is_an_error(
    content: bytes | None, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        choose_model(path, TINY)
    assert str(path) in str(caught.value)
    monkeypatch.setenv("LOOMSTREAM_LOCAL_MODEL", str(path))
    with pytest.raises(ConfigError, match="LOOMSTREAM_LOCAL_MODEL"):
        choose_model(None, TINY)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the model file"):
        choose_model(tmp_path, TINY)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="NOT TESTED: the XDG rules hold on other systems")
def test_the_cache_follows_the_xdg_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOMSTREAM_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "loomstream" / "models"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / "home" / ".cache" / "loomstream" / "models"


@pytest.mark.parametrize(
    ("system", "expected"), [("darwin", "Library/Caches/loomstream/models"), ("win32", "Local/loomstream/models")]
)
def test_the_cache_on_other_systems(
    system: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOMSTREAM_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert cache_folder() == tmp_path / expected
