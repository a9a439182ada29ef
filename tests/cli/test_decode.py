import io
import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loomstream.cli.decode import _chunks
from loomstream.cli.group import looms
from tests.cli.conftest import CANARY, END, PATIENCE_S, Start, delta

WHOLE = delta("Hel") + delta("lo") + END


def decode(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(looms, ["decode", *arguments], input=stdin)


def types(result: Result) -> list[str]:
    return [json.loads(line)["type"] for line in result.stdout.splitlines()]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "capture.sse"
    path.write_bytes(WHOLE)
    return path


def test_a_capture_becomes_events(capture: Path) -> None:
    result = decode("--provider", "openai", str(capture))
    assert (result.exit_code, result.stderr) == (0, "")
    assert types(result) == ["start", "text_start", "text_delta", "text_delta", "text_end", "usage", "stop"]


def test_standard_input_works_too(capture: Path) -> None:
    from_file = decode("-p", "openai", str(capture), "--json")
    assert decode("-p", "openai", "-", stdin=WHOLE).stdout == from_file.stdout


def test_raw_frames_come_before_their_events(capture: Path) -> None:
    result = decode("-p", "openai", "--raw-events", str(capture))
    assert types(result)[:2] == ["raw", "start"]


def test_another_dialect_of_a_provider() -> None:
    body = b'{"model":"m","message":{"role":"assistant","content":"hi"},"done":true,"done_reason":"stop"}\n'
    result = decode(
        "-p", "openai", "--dialect", "ollama_chat", "--content-type", "application/x-ndjson", "-", stdin=body
    )
    assert result.exit_code == 0
    assert "text_delta" in types(result)


def test_head_and_model_are_used() -> None:
    head = ["--header", "x-request-id: abc", "--header", "Content-Type: text/event-stream", "--model", "asked-for"]
    result = decode("-p", "openai", *head, "-", stdin=WHOLE)
    assert json.loads(result.stdout.splitlines()[0])["request_id"] == "abc"


def test_a_cut_capture_gives_what_came_and_the_error() -> None:
    result = decode("-p", "openai", "-", stdin=delta("Hel"))
    assert result.exit_code == 8
    assert "text_delta" in types(result)
    assert "stop" not in types(result)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.endswith("(the capture is not whole, or --provider/--dialect is wrong)\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("status", "code"), [("401", 4), ("404", 5), ("429", 6), ("301", 8)])
def test_an_error_status_is_that_error(status: str, code: int) -> None:
    result = decode("-p", "openai", "--status", status, "-", stdin=b'{"error":{"message":"no"}}')
    assert (result.exit_code, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["-p", "opnai", "-"], 3, "did you mean 'openai'"),
        (["-p", "openai", "--dialect", "morse", "-"], 3, "openai_chat"),
        (["-p", "openai", "no-such-file"], 2, "no-such-file"),
        (["-p", "openai", "."], 2, "directory"),
        (["-p", "openai", "--header", "nonsense", "-"], 2, "name: value"),
        (["-p", "openai", "--status", "7", "-"], 2, "--status"),
        (["-"], 2, "--provider"),
    ],
)
def test_wrong_arguments_say_what_to_do(arguments: list[str], code: int, word: str) -> None:
    result = decode(*arguments, stdin=WHOLE)
    assert result.exit_code == code
    assert word in result.stderr.replace("Is a d", "is a d")


def test_a_file_is_read_in_pieces() -> None:
    sizes = [len(chunk) for chunk in _chunks(io.BytesIO(b"x" * 200_000))]
    assert sum(sizes) == 200_000
    assert max(sizes) <= 64 * 1024


def test_an_open_pipe_is_followed(start: Start) -> None:
    process = start("decode", "-p", "openai", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(delta("first"))
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in range(3)]
    assert json.loads(lines[-1])["text"] == "first"
    out, err = process.communicate(END, timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, b"")
    assert b'"stop"' in out


def test_a_closed_pipe_ends_it_quietly(start: Start, tmp_path: Path) -> None:
    big = tmp_path / "big.sse"
    big.write_bytes(delta("text") * 20_000 + END)
    process = start("decode", "-p", "openai", str(big))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE_S) == 141


def test_decoding_needs_no_key_and_shows_none(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    result = decode("-p", "openai", str(capture))
    assert CANARY not in result.output
