"""`looms config` at a real pseudo-terminal, and the same commands through a pipe."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import keyring_in_a_file
from tests.cli.conftest import CANARY, PATIENCE_S, Start

pexpect = pytest.importorskip("pexpect", reason="NOT TESTED: a pseudo-terminal; to test it: pip install '.[test]'")

Spawn = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture(autouse=True)
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    request.getfixturevalue("clean_environment")
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", keyring_in_a_file.NAME)
    monkeypatch.setenv(keyring_in_a_file.VARIABLE, str(tmp_path / "keyring.json"))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.fixture
def spawn(home: Path) -> Iterator[Spawn]:
    children: list[pexpect.spawn[str]] = []

    def begin(*arguments: str) -> "pexpect.spawn[str]":
        command = ["-m", "loomstream", "config", *arguments]
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
        child = pexpect.spawn(sys.executable, command, cwd=home, env=environment, timeout=PATIENCE_S, encoding="utf-8")
        children.append(child)
        return child

    yield begin
    for child in children:
        child.close(force=True)


def ended(child: "pexpect.spawn[str]") -> tuple[int | None, str]:
    child.expect(pexpect.EOF)
    shown = child.before or ""
    child.close()
    return child.exitstatus, shown


def kept(home: Path) -> dict[str, str]:
    file = home / "keyring.json"
    return json.loads(file.read_text()) if file.exists() else {}


def test_a_key_is_typed_without_an_echo_and_shown_whole_only_where_asked(home: Path, spawn: Spawn) -> None:
    child = spawn("set-key", "anthropic_api_key")
    child.expect_exact("Enter anthropic_api_key (input hidden): ")
    child.waitnoecho()
    child.sendline(CANARY)
    code, shown = ended(child)
    assert (code, CANARY in shown) == (0, False)
    assert "stored: anthropic_api_key (sk-c...1d5e)" in shown
    assert kept(home) == {"loom/anthropic_api_key": CANARY}
    code, shown = ended(spawn("get-key", "anthropic_api_key", "--reveal"))
    assert (code, f"anthropic_api_key: {CANARY}" in shown) == (0, True)
    child = spawn("delete-key", "anthropic_api_key")
    child.expect_exact("Delete anthropic_api_key from the keyring? [y/N]: ")
    child.sendline("n")
    assert ended(child)[0] == 130
    assert kept(home)


def test_nothing_typed_and_ctrl_c_store_nothing(home: Path, spawn: Spawn) -> None:
    for typed, expected in (("\r", 2), ("\x03", 130)):
        child = spawn("set-key", "openai_api_key")
        child.expect_exact("(input hidden): ")
        child.waitnoecho()
        child.send(typed)
        assert ended(child)[0] == expected
    assert kept(home) == {}


def test_init_asks_and_asks_before_it_overwrites(home: Path, spawn: Spawn) -> None:
    (home / ".git").mkdir()
    child = spawn("init")
    child.expect_exact("anthropic")
    child.expect_exact("Provider (name or number) [anthropic]: ")
    child.sendline("nobody")
    child.expect_exact("There is no 'nobody'. Provider [anthropic]: ")
    child.sendline("openai")
    child.expect(r"openai_model \(.*\) \[gpt-4o\]: ")
    child.sendline("gpt-4o-mini")
    child.expect_exact("to .gitignore? [Y/n]: ")
    child.sendline("")
    code, shown = ended(child)
    assert code == 0
    assert "looms config set-key openai_api_key" in shown
    file = home / "data" / "looms.yaml"
    text = file.read_text()
    assert "  provider: openai\n  openai_model: gpt-4o-mini\n" in text
    assert (home / ".gitignore").read_text() == "*.key\n*credentials*.yaml\n.env\n"
    child = spawn("init")
    child.expect_exact("is there already. Overwrite it? [y/N]: ")
    child.sendline("")
    assert ended(child)[0] == 130
    assert file.read_text() == text


def test_through_a_pipe_nothing_is_asked(home: Path, start: Start) -> None:
    process = start("config", "set-key", "openai_api_key", stdin=subprocess.PIPE)
    out, err = process.communicate(CANARY.encode() + b"\n", timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, b"")
    assert b"stored: openai_api_key (sk-c...1d5e)" in out
    assert kept(home) == {"loom/openai_api_key": CANARY}
    process = start("config", "get-key", "openai_api_key", "--reveal")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (2, b"")
    assert b"at a terminal only" in err
    process = start("config", "init")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert out == f"written: {home / 'data' / 'looms.yaml'}\n".encode()


def test_a_key_is_in_no_process_s_arguments_or_environment(home: Path, start: Start) -> None:
    process = start("config", "set-key", "openai_api_key", stdin=subprocess.PIPE)
    try:
        for name in ("cmdline", "environ"):
            file = Path(f"/proc/{process.pid}/{name}")
            if file.exists():  # Linux
                assert CANARY.encode() not in file.read_bytes()
    finally:
        process.communicate(CANARY.encode(), timeout=PATIENCE_S)
    assert kept(home)
