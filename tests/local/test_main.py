"""The child as a program: its one line each way, its usage, and `--fetch`."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loomstream.local import __main__ as child
from loomstream.local.protocol import Failed, Ready, Report, Settings

pytestmark = pytest.mark.timeout(300)


def settings(model_path: Path) -> Settings:
    return Settings(
        model_path=str(model_path),
        model_name="tiny",
        api_key="canary-key",
        threads=1,
        context_tokens=256,
        parallel=1,
        bundled=True,
    )


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loomstream.local", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_it_reports_its_port_and_ends_when_its_input_closes(model_path: Path) -> None:
    done = run(text=msgspec.json.encode(settings(model_path)).decode() + "\n")
    report = msgspec.json.decode(done.stdout, type=Report)
    assert isinstance(report, Ready)
    assert report.port > 1024
    assert (done.returncode, done.stderr) == (0, "")


def test_it_reports_a_model_that_cannot_be_served(model_path: Path, tmp_path: Path) -> None:
    del model_path  # it stands for the runtime being here
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    done = run(text=msgspec.json.encode(settings(tmp_path / "small.gguf")).decode() + "\n")
    report = msgspec.json.decode(done.stdout, type=Report)
    assert isinstance(report, Failed)
    assert report.what == "model"
    assert "failed to load model" in done.stderr


def test_a_runtime_that_cannot_be_loaded_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    report, server = child._start(settings(tmp_path))
    assert isinstance(report, Failed)
    assert report.what == "import"
    assert server is None


@pytest.mark.parametrize(("arguments", "text"), [(["--help"], ""), ([], ""), ([], "{}\n"), ([], "hello\n")])
def test_anything_else_prints_the_usage(arguments: list[str], text: str) -> None:
    done = run(*arguments, text=text)
    assert done.returncode == 2
    assert done.stderr.startswith("python -m loomstream.local --fetch")
    assert "Traceback" not in done.stderr


def test_fetch_prints_the_path_of_the_model(model_path: Path) -> None:
    done = run("--fetch")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{model_path}\n", "")


def test_fetch_that_fails_says_why_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOOMSTREAM_CACHE_DIR", os.fspath(tmp_path / "file"))
    done = run("--fetch")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().startswith("cannot write the embedded model into")
    assert len(done.stderr.strip().splitlines()) == 1
