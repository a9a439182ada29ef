"""`looms` as a process: when text appears, how it ends on signals and closed pipes, what a terminal gets to see."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from loomstream.local import cached_model
from tests.cli.conftest import CANARY, END, PATIENCE_S, Exchange, Start, Stub, answer, delta

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has no such signals")


def end(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Give the exit code and what is still to be read."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, (out or b"").decode(), (err or b"").decode()


def stdout_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


class HeldAnswer:
    """Sends a first piece, and the rest once it is released; tells when the client is gone."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.closed = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(delta("first"))
        waiter = threading.Thread(target=self._wait_closed, args=(exchange,))
        waiter.start()
        self.release.wait(PATIENCE_S)
        exchange.send(delta(" second"), END)

    def _wait_closed(self, exchange: Exchange) -> None:
        exchange.wait_closed()
        self.closed.set()
        self.release.set()


def test_text_is_out_before_the_answer_is_whole(stub: Stub, start: Start) -> None:
    held = HeldAnswer()
    stub.script = held
    process = start("ask", "hi", *stub.options)
    assert stdout_of(process).read(5) == b"first"
    held.release.set()
    code, rest, err = end(process)
    assert (code, rest) == (0, " second\n")
    assert "to first event" in err


def test_nothing_is_left_open(stub: Stub, start: Start) -> None:
    process = start("ask", "hi", *stub.options, env={"PYTHONDEVMODE": "1"})
    code, out, err = end(process)
    assert (code, out) == (0, "Hello\n")
    assert "ResourceWarning" not in err
    assert "never awaited" not in err


def test_the_prompt_is_read_from_a_pipe(stub: Stub, start: Start) -> None:
    process = start("ask", *stub.options, stdin=subprocess.PIPE)
    out, _ = process.communicate(b"hi\n", timeout=PATIENCE_S)
    assert (process.returncode, out) == (0, b"Hello\n")
    assert stub.exchanges[0].body["messages"][0]["content"] == "hi"


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quietly_and_closes_the_connection(
    stub: Stub, start: Start, number: signal.Signals, code: int
) -> None:
    held = HeldAnswer()
    stub.script = held
    process = start("ask", "hi", *stub.options)
    assert stdout_of(process).read(5) == b"first"
    process.send_signal(number)
    assert end(process) == (code, "\n", "")
    assert held.closed.wait(PATIENCE_S)


INTERRUPTS = """
import os, signal, sys, weakref

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            watched = Interrupting()  # the import system has such callbacks, and what is raised in one is only shown
            reference = weakref.ref(watched, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del watched

sys.meta_path.insert(0, Interrupting())
"""


@posix_only
@pytest.mark.parametrize("module", ["click", "loomstream.cli.ask", "anyio", "loomstream.model"])
def test_ctrl_c_during_an_import_is_quiet(start: Start, stub: Stub, tmp_path: Path, module: str) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(INTERRUPTS, "utf-8")
    env = {"PYTHONPATH": str(tmp_path / "hook"), "INTERRUPT_AT": module}
    assert end(start("ask", "hi", *stub.options, env=env)) == (130, "", "")
    assert stub.exchanges == []


@posix_only
def test_sigterm_works_where_ctrl_c_is_ignored(stub: Stub, start: Start) -> None:
    held = HeldAnswer()
    stub.script = held
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start("ask", "hi", *stub.options, restore_signals=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stdout_of(process).read(5) == b"first"
    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert (code, err) == (143, "")


@posix_only
def test_ctrl_c_while_the_prompt_is_awaited(start: Start, stub: Stub) -> None:
    process = start("ask", *stub.options, "--openai-key", "key", stdin=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"Warning: --openai-key")  # the prompt is read next
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "", "")


def endless(exchange: Exchange) -> None:
    exchange.begin()
    while True:
        exchange.send(delta("more and more text "))


@posix_only
@pytest.mark.parametrize("form", [[], ["--events"]])
def test_a_closed_pipe_ends_it_quietly(stub: Stub, start: Start, form: list[str]) -> None:
    stub.script = endless
    process = start("ask", "hi", *stub.options, *form)
    out = stdout_of(process)
    assert len(out.read(10)) == 10
    out.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE_S) == 141


@posix_only
def test_help_into_a_closed_pipe(start: Start) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start("--help", stdout=writer)
    os.close(writer)
    assert end(process) == (141, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT TESTED: there is no /dev/full here")
def test_a_full_disk_is_one_sentence(stub: Stub, start: Start) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start("ask", "hi", *stub.options, stdout=full)
    code, _, err = end(process)
    assert code == 1
    assert err == "Error: the operating system says: No space left on device\n"


@posix_only
@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize("descriptor", ["<&-", ">&-", "2>&-"])
def test_a_closed_descriptor_does_no_harm(stub: Stub, descriptor: str) -> None:
    command = f'exec "$0" -m loomstream ask hi "$@" {descriptor}'
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": PATIENCE_S}
    done = subprocess.run(["/bin/sh", "-c", command, sys.executable, *stub.options], check=False, **options)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert done.stdout in (b"Hello\n", b"")


def test_a_locale_without_the_characters_gets_question_marks(stub: Stub, start: Start) -> None:
    stub.script = answer(delta("naïve"), END)
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert end(start("ask", "hi", *stub.options, "--no-stats", env=env)) == (0, "na?ve\n", "")


def test_json_is_utf8_in_any_locale(stub: Stub, start: Start) -> None:
    stub.script = answer(delta("naïve"), END)
    process = start("ask", "hi", *stub.options, "--json", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    code, out, _ = end(process)
    assert code == 0
    assert json.loads(out)["text"] == "naïve"


@pytest.mark.parametrize("form", [[], ["--json"], ["--events"], ["--no-stream"]])
def test_a_wrong_key_is_one_line_without_a_traceback(stub: Stub, start: Start, form: list[str]) -> None:
    body = json.dumps({"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}})
    stub.script = answer(body.encode(), status=401, content_type="application/json")
    env = {"OPENAI_API_KEY": CANARY, "OPENAI_BASE_URL": stub.url}
    code, out, err = end(start("ask", "hi", "--provider", "openai", "--no-stats", *form, env=env))
    assert code == 4
    assert len(err.splitlines()) == 1
    assert CANARY not in out + err
    assert stub.exchanges[0].headers["authorization"].endswith(CANARY)


def test_an_unexpected_error_has_no_traceback_unless_asked(start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import loomstream.providers as p\np.listing = None\n")
    env = {"PYTHONPATH": str(broken)}
    code, _, err = end(start("providers", env=env))
    assert code == 1
    assert err.startswith("Error: unexpected TypeError: ")
    assert len(err.splitlines()) == 1
    assert "Traceback" in end(start("providers", env=env | {"LOOMSTREAM_TRACEBACK": "1"}))[2]


def test_a_library_s_warnings_are_shown_where_they_are_asked_for(stub: Stub, start: Start, tmp_path: Path) -> None:
    tool = 'import warnings\nwarnings.warn("for programmers")\ndef now() -> str:\n    """Tell the time."""\n'
    (tmp_path / "tools.py").write_text(tool)
    arguments = ("ask", "hi", *stub.options, "--tools", "tools.py", "--no-stats")
    assert end(start(*arguments, env={"PYTHONWARNINGS": ""})) == (0, "Hello\n", "")
    assert "UserWarning: for programmers" in end(start(*arguments, env={"PYTHONWARNINGS": "default"}))[2]


def test_a_missing_extra_says_what_to_install(start: Start, tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text("import sys\nsys.modules['xllamacpp'] = None\n")
    env = {"PYTHONPATH": str(blocker)}
    code, out, err = end(start("ask", "hi", "--provider", "local", env=env))
    assert (code, out) == (3, "")
    assert "pip install 'loomstream[local]'" in err
    assert "Traceback" not in err
    rows = json.loads(end(start("providers", "--json", env=env))[1])
    (row,) = [row for row in rows if row["name"] == "local"]
    assert row["usable"] is False
    assert "pip install" in row["reason"]


# --- a terminal ----------------------------------------------------------------------------------


@pytest.fixture
def on_terminal(start: Start) -> Callable[..., bytes]:
    """Run `looms` with a terminal for both outputs; give what that was sent."""
    if sys.platform == "win32":
        pytest.skip("NOT TESTED: Windows has no pseudo-terminals")
    import pty  # noqa: PLC0415 (Windows has none)

    def run(*arguments: str, env: dict[str, str] | None = None) -> bytes:
        ours, theirs = pty.openpty()
        process = start(*arguments, stdout=theirs, stderr=theirs, env={"TERM": "xterm", **(env or {})})
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(ours)
        assert process.wait(PATIENCE_S) == 0
        return seen

    return run


HOSTILE = "\x1b]0;owned\x07\x1b[2Jre\x1b[31md \x9b31m\x1b]52;c;cm0=\x1b\\é"


def test_a_terminal_gets_no_escape_sequence_of_the_model(stub: Stub, on_terminal: Callable[..., bytes]) -> None:
    stub.script = answer(delta(HOSTILE[:3]), delta(HOSTILE[3:]), END)
    seen = on_terminal("ask", "hi", *stub.options, "--no-stats")
    assert seen.decode() == "red é\r\n"


def test_reasoning_is_dim_on_a_terminal(stub: Stub, on_terminal: Callable[..., bytes]) -> None:
    stub.script = answer(delta("hm\x1b[2Jm", "reasoning_content"), delta("Yes"), END)
    seen = on_terminal("ask", "hi", *stub.options).decode()
    assert re.sub(r"\x1b\[[0-9]+m", "", seen).startswith("hmm\r\nYes\r\n")
    assert seen.startswith("\x1b[2mhm")


def test_no_color_means_no_sequence_at_all(stub: Stub, on_terminal: Callable[..., bytes]) -> None:
    stub.script = answer(delta("hmm", "reasoning_content"), delta(HOSTILE), END)
    assert b"\x1b" not in on_terminal("ask", "hi", *stub.options, env={"NO_COLOR": "1"})


def test_events_on_a_terminal_are_still_json(stub: Stub, on_terminal: Callable[..., bytes]) -> None:
    stub.script = answer(delta(HOSTILE), END)
    seen = on_terminal("ask", "hi", *stub.options, "--events").decode()
    assert not set(seen) & set("\x1b\x9b\x07")
    texts = [json.loads(line).get("text") for line in seen.splitlines()]
    assert HOSTILE in texts


def test_providers_are_a_table_on_a_terminal(on_terminal: Callable[..., bytes]) -> None:
    seen = on_terminal("providers", env={"COLUMNS": "80", "OPENROUTER_API_KEY": CANARY}).decode()
    assert "\x1b[" in seen
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9]+m", "", seen).splitlines()]
    assert max(map(len, lines)) <= 80
    assert "…" not in seen
    assert "anthropic          no      claude-sonnet-4-5-20250929  set ANTHROPIC_API_KEY" in lines
    assert "openrouter         yes     -                           OPENROUTER_API_KEY" in lines
    (line,) = [line for line in lines if line.startswith("openai-compatible")]
    folded = lines[lines.index(line) : lines.index(line) + 3]
    assert "LOOM_LLM_OPENAI_COMPATIBLE_BASE_URL" in "".join(part[55:] for part in folded)


def test_a_narrow_terminal_loses_nothing(on_terminal: Callable[..., bytes]) -> None:
    seen = on_terminal("providers", env={"COLUMNS": "40", "NO_COLOR": "1"}).decode()
    assert "…" not in seen
    assert "claude-sonnet-4-5-20250929" in seen


# --- the embedded model --------------------------------------------------------------------------


@pytest.mark.usefixtures("embedded")
def test_a_real_model_answers_without_any_configuration(start: Start) -> None:
    code, out, err = end(start("ask", "Write a haiku about rivers", "--max-tokens", "40"))
    assert code == 0
    assert out.strip()
    chosen, figures = err.splitlines()
    assert chosen.startswith("local:smollm2-135m-instruct answers")
    assert "tokens/s" in figures
    assert "$0.0000 (local)" in figures


@pytest.mark.usefixtures("embedded")
def test_a_model_file_is_run(start: Start) -> None:
    code, out, err = end(start("ask", "Say hello", "--model", str(cached_model()), "--max-tokens", "5", "--json"))
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["text"]
    assert report["response"]["cost"]["amount_usd"] == "0"


@pytest.mark.usefixtures("embedded")
@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: reads the child's id from /proc")
def test_ctrl_c_leaves_no_server_behind(start: Start) -> None:
    process = start("ask", "Count to one thousand", "--provider", "local", "--max-tokens", "2000")
    assert stdout_of(process).read(1)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = end(process)
    assert (code, err) == (130, "")
    assert not Path(f"/proc/{child}").exists()
