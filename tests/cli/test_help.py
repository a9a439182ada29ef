"""The help of every command: laid out in any width, with examples that can be typed, and a word on exit codes."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile

import click
import pexpect
import pytest

from loomstream.cli.group import looms
from tests.cli.conftest import PATIENCE_S


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, (*path, name))


COMMANDS = dict(walk(looms, ("looms",)))


def help_of(path: tuple[str, ...], width: int) -> list[str]:
    command = COMMANDS[path]
    context = command.context_class(
        command, info_name=" ".join(path), terminal_width=width, help_option_names=["-h", "--help"]
    )
    return command.get_help(context).splitlines()


def examples_of(lines: list[str]) -> list[str]:
    """Give the lines below the heading, up to the next empty one; none where there is no heading."""
    heading = next((number for number, line in enumerate(lines) if line == "  Examples:"), len(lines))
    below = lines[heading + 1 :]
    return below[: below.index("") if "" in below else len(below)]


every_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def test_all_commands_are_here() -> None:
    assert {("looms",), ("looms", "ask"), ("looms", "config"), ("looms", "config", "set-key")} <= set(COMMANDS)
    assert len(COMMANDS) >= 23


@every_command
@pytest.mark.parametrize("width", [78, 50])
def test_only_what_is_to_be_typed_may_be_wider_than_the_terminal(path: tuple[str, ...], width: int) -> None:
    """The widths that click takes in terminals of 80 and of 50 columns."""
    lines = help_of(path, width)
    typed = [line for line in examples_of(lines) if "looms" in line]
    wide = [line for line in lines if len(line) > width and (width == 78 or line not in typed)]
    assert wide == []
    assert not [line for line in lines if "\b" in line or r"\b" in line or "\u2011" in line]


@every_command
def test_there_is_an_example_and_a_word_on_exit_codes(path: tuple[str, ...]) -> None:
    lines = help_of(path, 80)
    assert any(" ".join(path) in line for line in examples_of(lines))
    assert any("Exit codes:" in line for line in lines)


@every_command
def test_every_example_names_commands_and_options_that_exist(path: tuple[str, ...]) -> None:
    for line in examples_of(help_of(path, 200)):
        words = shlex.split(re.split(r" {2,}", line.strip())[0])
        start = next(number for number, word in enumerate(words) if word.endswith("looms") or "(looms" in word)
        words = ["looms", *takewhile(lambda word: word not in "|<", words[start + 1 :])]
        named = max((known for known in COMMANDS if tuple(words[: len(known)]) == known), key=len)
        options = {name for option in COMMANDS[named].params for name in (*option.opts, *option.secondary_opts)}
        assert {word for word in words if word.startswith("-") and word != "-"} <= options | {"--help"}, line


@every_command
def test_a_narrow_terminal_has_the_same_examples(path: tuple[str, ...]) -> None:
    """Remarks move below their commands; nothing is lost, and no command is broken."""
    wide, narrow = (examples_of(help_of(path, width)) for width in (200, 50))
    assert " ".join(" ".join(narrow).split()) == " ".join(" ".join(wide).split())
    commands = {line.strip().split("   ")[0] for line in wide}
    assert commands <= {line.strip() for line in narrow} | {line.strip().split("   ")[0] for line in narrow}


def test_no_command_in_a_sentence_is_broken_at_its_hyphen() -> None:
    text = "\n".join(help_of(("looms", "config", "set-key"), 50))
    assert "list-keys` has" in text


ALL_HELP = """
import json, os
from loomstream.cli.group import looms

for arguments in json.loads(os.environ["PATHS"]):
    try:
        looms.main([*arguments, "--help"], prog_name="looms")
    except SystemExit as end:
        print("===", end.code, flush=True)
"""


def shown_in(width: int, *, is_terminal: bool) -> list[list[str]]:
    """Run every `--help` in one process, at a terminal of this width or through a pipe; give the lines of each."""
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LOOM_CONFIG")}
    env |= {"PATHS": json.dumps([path[1:] for path in COMMANDS]), "PYTHONUTF8": "1", "TERM": "xterm"}
    command = ["-c", ALL_HELP]
    if is_terminal:
        child = pexpect.spawn(
            sys.executable, command, env=env, encoding="utf-8", timeout=PATIENCE_S, dimensions=(40, width)
        )
        child.expect(pexpect.EOF)
        child.close()
        shown = (child.before or "").replace("\r\n", "\n")
    else:
        env["COLUMNS"] = str(width)
        shown = subprocess.run(
            [sys.executable, *command], env=env, capture_output=True, encoding="utf-8", timeout=PATIENCE_S, check=True
        ).stdout
    return [part.splitlines() for part in shown.split("=== 0\n")[:-1]]


@pytest.mark.parametrize("is_terminal", [False, True], ids=["pipe", "terminal"])
def test_a_narrow_terminal_and_a_pipe_show_the_same(*, is_terminal: bool) -> None:
    if is_terminal and sys.platform == "win32":
        pytest.skip("NOT TESTED: Windows has no pseudo-terminals")
    shown = shown_in(50, is_terminal=is_terminal)
    assert shown == [help_of(path, 50) for path in COMMANDS]
