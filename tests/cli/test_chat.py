"""`looms chat` through a pipe and at a real terminal, against a server on loopback."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from click.testing import CliRunner, Result

from loomstream.cli.group import looms
from tests.cli.conftest import END, PATIENCE_S, Exchange, Stub, answer, delta

TOOLS = '''
def get_weather(city: str) -> str:
    """Give the weather of a city."""
    return f"rain in {city}"
'''
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 8


@pytest.fixture(autouse=True)
def home(clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001 (its effect)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "loom"))
    return tmp_path


def talk(stub: Stub, lines: str, *arguments: str) -> Result:
    return CliRunner().invoke(looms, ["chat", *stub.options, *arguments], input=lines)


def echo(exchange: Exchange) -> None:
    """Answer with what was said last."""
    content = exchange.body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1].get("text", "")
    answer(delta(f"You said {text}."), END)(exchange)


def weather(exchange: Exchange) -> None:
    """Call the tool, then say what it gave."""
    last = exchange.body["messages"][-1]
    if last["role"] == "tool":
        answer(delta(f"It says: {last['content']}"), END)(exchange)
        return
    call = {"index": 0, "id": "c1", "type": "function"}
    call["function"] = {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    answer(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\ndata: [DONE]\n\n")(exchange)


# --- a pipe --------------------------------------------------------------------------------------


def test_an_argument_is_no_message(stub: Stub) -> None:
    result = CliRunner().invoke(looms, ["chat", *stub.options, "hello"])
    assert result.exit_code == 2
    assert "type what you say in the chat" in result.stderr


def test_each_line_is_a_turn_and_commands_work(stub: Stub, home: Path) -> None:
    stub.script = echo
    kept = home / "kept.json"
    lines = f"one\ntwo \\\nlines\n/undo\n//slash\n/usage\n/system be brief\n/save {kept}\nthree\n/quit\nnever\n"
    result = talk(stub, lines)
    assert result.exit_code == 0
    assert result.stdout == "You said one.\nYou said two \nlines.\nYou said /slash.\nYou said three.\n"
    assert "21 in, 6 out · 3 answers of unknown cost" in result.stderr
    sent = stub.exchanges[-1].body["messages"]
    assert [message["content"] for message in sent] == [
        "be brief", "one", "You said one.", "/slash", "You said /slash.", "three",
    ]  # fmt: skip
    assert [message["role"] for message in json.loads(kept.read_bytes())] == ["system", *["user", "assistant"] * 2]


def test_it_goes_on_where_it_ended(stub: Stub, home: Path) -> None:
    stub.script = echo
    refused = talk(stub, "never\n", "--continue")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert talk(stub, "one\n", "--system", "s").exit_code == 0
    result = talk(stub, "two\n", "--continue", "--json")
    (report,) = map(json.loads, result.stdout.splitlines())
    assert (report["text"], report["complete"]) == ("You said two.", True)
    assert [message["role"] for message in stub.exchanges[-1].body["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert talk(stub, "three\n", "--no-save", "--no-stats").stderr == ""
    assert b"three" not in (home / "loom" / "chat.json").read_bytes()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/modle", "did you mean /model?"),
        ("/undo", "nothing was said"),
        ("/save", "which file?"),
        ("/load /nowhere", "cannot be read"),
        ("/load /dev/zero", "larger than 256 MiB"),
        ("/load /", "cannot be read"),
        ("/attach /dev/zero", "larger than 256 MiB"),
        ("/attach /nowhere.png", "cannot be read"),
        ("/model nowhere:x", "nowhere"),
        ("/model nowhere", "names no provider"),
    ],
)
def test_what_a_command_cannot_do_ends_a_pipe_with_one_sentence(stub: Stub, line: str, words: str) -> None:
    result = talk(stub, f"{line}\nhi\n")
    assert result.exit_code in (2, 3)
    (error,) = result.stderr.splitlines()
    assert error.startswith("Error: ")
    assert words in error
    assert stub.exchanges == []


def test_an_error_of_the_provider_ends_a_pipe_with_its_code(stub: Stub) -> None:
    stub.script = answer(b'{"error":{"message":"no"}}', status=401, content_type="application/json")
    result = talk(stub, "hi\nagain\n")
    assert result.exit_code == 4
    assert len(stub.exchanges) == 1


def test_another_model_goes_on_and_losses_are_told(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.script = answer(delta("hmm", "reasoning_content"), delta("Yes"), END)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    result = talk(stub, "one\n/model openai:gpt-4o\ntwo\n", "--no-stats")
    assert result.exit_code == 0
    assert "openai:gpt-4o answers" in result.stderr
    assert "Warning: reasoning" in result.stderr
    assert [exchange.body["model"] for exchange in stub.exchanges] == ["stub-1", "gpt-4o"]
    assert len(stub.exchanges[1].body["messages"]) == 3
    assert "openai:gpt-4o answers" in talk(stub, "/model openai\n").stderr


def test_a_warning_is_told_once(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.script = answer(delta("hmm", "reasoning_content"), delta("Yes"), END)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    result = talk(stub, "one\n/model openai:gpt-4o\ntwo\nthree\n", "--no-stats")
    assert (result.exit_code, len(stub.exchanges)) == (0, 3)
    assert result.stderr.count("Warning: reasoning") == 1


def test_a_line_that_never_ends_is_still_said(stub: Stub) -> None:
    stub.script = echo
    assert talk(stub, "one \\").stdout == "You said one \n.\n"


def test_help_is_a_table(stub: Stub) -> None:
    lines = talk(stub, "/help\n").stderr.splitlines()
    assert len({line.index(word) for line, word in zip(lines, ("this list", "say who"), strict=False)}) == 1


def test_files_and_tools(stub: Stub, home: Path) -> None:
    (home / "tools.py").write_text(TOOLS)
    (home / "a.png").write_bytes(PNG)
    (home / "b.pdf").write_bytes(b"%PDF-1.7 ")
    stub.script = weather
    arguments = ("--tools", str(home / "tools.py"), "--attach", str(home / "a.png"), "--no-stats")
    refused = talk(stub, f"/attach {home / 'b.pdf'}\n/tools\nHow is it?\n", *arguments)
    assert refused.exit_code == 0
    kinds = [part["type"] for part in stub.exchanges[0].body["messages"][0]["content"]]
    assert kinds == ["image_url", "file", "text"]
    assert "nobody is here to allow it" in refused.stdout
    allowed = talk(stub, "How is it?\n", *arguments, "--yes")
    assert allowed.stdout == "It says: rain in Oslo\n"
    assert 'tool call: get_weather {"city":"Oslo"}' in allowed.stderr
    assert "get_weather → rain in Oslo" in allowed.stderr


@pytest.mark.usefixtures("embedded")
def test_the_embedded_model_remembers_what_was_said() -> None:
    arguments = ["chat", "--provider", "local", "--max-tokens", "8", "--temperature", "0", "--json"]
    result = CliRunner().invoke(looms, arguments, input="Say hello.\nAgain.\n/usage\n")
    assert result.exit_code == 0
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["text"]
    read = [usage["input_tokens"] + usage["cache_read_tokens"] for usage in (first["usage"], second["usage"])]
    assert read[1] > read[0]
    assert "$0.0000 (local)" in result.stderr


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("1 +", "SyntaxError"),
        ("x = 1", "no tool"),
        ("TOOLS = 3", "TOOLS is an int"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_tool_file_that_is_none(stub: Stub, home: Path, program: str, words: str) -> None:
    (home / "tools.py").write_text(program)
    result = talk(stub, "hi\n", "--tools", str(home / "tools.py"))
    assert result.exit_code == 2
    assert words in result.stderr


# --- a terminal ----------------------------------------------------------------------------------

Open = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def terminal(home: Path) -> Iterator[Open]:
    """Start `looms` at a terminal of its own."""
    if sys.platform == "win32":
        pytest.skip("NOT TESTED: Windows has no pseudo-terminals")
    children: list[pexpect.spawn[str]] = []

    def start(*arguments: str, program: str = "") -> "pexpect.spawn[str]":
        env = {**os.environ, "TERM": "xterm", "NO_COLOR": ""}
        child = pexpect.spawn(
            sys.executable,
            ["-c", program] if program else ["-m", "loomstream", *arguments],
            env=env,
            cwd=str(home),
            timeout=PATIENCE_S,
            encoding="utf-8",
            dimensions=(30, 100),
        )
        child.delaybeforesend = child.delayafterclose = None
        children.append(child)
        return child

    yield start
    for child in children:
        child.close(force=True)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


def test_a_chat_at_a_terminal(stub: Stub, terminal: Open, home: Path) -> None:  # noqa: PLR0915 (one process start)
    """Markdown, folded reasoning, a tool that is asked about, Ctrl-C, an error, the end: in one process."""
    (home / "tools.py").write_text(TOOLS)
    child = terminal("chat", *stub.options, "--tools", "tools.py")
    child.expect_exact("Ctrl-D ends")
    child.expect("> ")

    stub.script = answer(
        delta("so so\x1b[2J", "reasoning_content"), delta("It is **b"), delta("old** \x1b]0;x\x07."), END
    )
    child.sendline("hi")
    child.expect("7 in, 2 out")
    seen = child.before
    assert "\x1b[2J" not in seen
    assert "\x1b]0" not in seen
    assert "It is \x1b[1mbold\x1b[0m ." in seen
    assert "thinking: so so" in seen
    assert "/reasoning shows what" in seen
    child.sendline("/reasoning")
    child.expect_exact("so so")

    stub.script = weather
    child.sendline("How is it?")
    child.expect_exact("or why not: ")
    assert "May this run? " in plain(child.before)
    child.sendline("not today")
    child.expect("It says: .*not today")
    child.expect("> ")
    child.sendline("/retry")
    child.expect_exact("or why not: ")
    child.sendline("a")
    child.expect_exact("It says: rain in Oslo")
    child.expect("> ")

    def held(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(delta("Half of"))
        exchange.wait_closed()
        closed.append(True)

    closed: list[bool] = []
    stub.script = held
    child.sendline("slowly")
    child.expect_exact("Half of")
    child.sendintr()
    child.expect_exact("stopped; what came is kept")
    child.expect("> ")

    stub.script = answer(b'{"error":{"message":"no"}}', status=401, content_type="application/json")
    child.sendline("again")
    child.expect_exact("Error: ")
    child.expect("\n> ")
    child.send("half a line")
    child.expect_exact("half a line")  # the terminal drops what is typed, where it was not read before the interrupt
    child.sendintr()
    child.expect("\n> ")
    os.mkfifo(home / "endless.json")
    child.sendline("/load endless.json")
    with (home / "endless.json").open("wb"):  # it is being read now
        child.kill(signal.SIGINT)
    child.expect("\n> ")
    child.sendline("/history")
    child.expect_exact("assistant: Half of")
    child.expect("\n> ")  # Ctrl-D ends a chat that reads a line: typed before, the terminal turns it into a NUL
    child.sendeof()
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0
    assert closed == [True]
    sent = json.loads((home / "loom" / "chat.json").read_bytes())
    assert sent[-1]["content"][-1]["text"] == "Half of"


DEAF = """
import signal, threading
from loomstream.cli.chat_input import Lines

threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # that thread receives it, and nothing wakes this one
lines = Lines()
print("said:", repr(lines.read()))
print("then:", repr(lines.read()))
"""


def test_an_interrupt_that_wakes_nobody_is_seen_without_another_key(terminal: Open) -> None:
    child = terminal(program=DEAF)
    child.expect("> ")
    child.send("half a line")
    child.expect_exact("half a line")
    child.sendintr()
    child.expect_exact("said: ''")
    child.expect("> ")
    child.sendline("whole")
    child.expect_exact("then: 'whole'")
    child.expect(pexpect.EOF)


def test_sigterm_ends_the_chat(stub: Stub, terminal: Open) -> None:
    child = terminal("chat", *stub.options)
    child.expect_exact("Ctrl-D ends")
    child.expect("> ")
    child.kill(15)
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 143
