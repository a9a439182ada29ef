"""What shells complete: through click, and through real shells."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from click.testing import CliRunner

from loomstream.cli.group import looms

pytestmark = pytest.mark.usefixtures("clean_environment")


def completed(line: str) -> list[str]:
    env = {"_LOOMS_COMPLETE": "bash_complete", "LOOMS_LINE": line}
    output = CliRunner().invoke(looms, [], env=env).output
    return [value for _, _, value in (each.partition(",") for each in output.split())]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("looms ch", ["chat"]),
        ("looms ask --provider anth", ["anthropic"]),
        ("looms ask hello -m ope", ["openai:", "openrouter:", "openai-compatible:"]),
        ("looms chat --model anthropic:claude-sonnet-4-5-2", ["anthropic:claude-sonnet-4-5-20250929"]),
        ("looms ask -p anthropic -m claude-sonnet-4-5-2", ["claude-sonnet-4-5-20250929"]),
        ("looms ask --output-s", ["--output-schema"]),
        ("looms completion z", ["zsh"]),
        ("looms providers azu", ["azure-openai"]),
        ("looms doctor -p anth", ["anthropic"]),
        ("looms doctor -p anthropic:claude-sonnet-4-5-2", ["anthropic:claude-sonnet-4-5-20250929"]),
        ("looms decode -p vertex", ["vertex-ai"]),
        ("looms models -p azu", ["azure-openai"]),
        ("looms cost -p openai --models anthropic:claude-sonnet-4-5-2", ["anthropic:claude-sonnet-4-5-20250929"]),
        ("looms log -p anthropic -m anthropic:claude-sonnet-4-5-2", ["anthropic:claude-sonnet-4-5-20250929"]),
        ("looms config init -p hug", ["huggingface"]),
        ("looms config set-k", ["set-key"]),
        ("looms config set-key anthropic", ["anthropic_api_key"]),
        ("looms config get-key openai_a", ["openai_api_key"]),
        ("looms config delete-key azure_openai_a", ["azure_openai_api_key"]),
        ("looms config get llm.anthropic_m", ["llm.anthropic_model"]),
        ("looms config set middleware.retry.resume pre", ["prefill"]),
        ("looms config set llm.provider anth", ["anthropic"]),
        ("looms config set llm.model x", []),
        ("looms bench anth", ["anthropic"]),
        ("looms bench anthropic:claude-sonnet-4-5-2", ["anthropic:claude-sonnet-4-5-20250929"]),
        ("looms ui -p anth", ["anthropic"]),
        ("looms ui -m anthropic:claude-sonnet-4-5-2", ["anthropic:claude-sonnet-4-5-20250929"]),
        ("looms ui --di", ["--dialect"]),
        ("looms config unset llm.tempe", ["llm.temperature"]),
        ("looms config set nothing.at.all ", []),
        ("looms config nothing x", []),
    ],
)
def test_names_are_completed(line: str, expected: list[str]) -> None:
    assert sorted(completed(line)) == sorted(expected)


@pytest.mark.parametrize("line", ["looms nothing ", "looms '; nothing ", "looms $(id) x ", "looms \x1b[31m "])
def test_a_command_that_there_is_not_is_no_error_amid_a_line(line: str) -> None:
    result = CliRunner().invoke(looms, [], env={"_LOOMS_COMPLETE": "bash_complete", "LOOMS_LINE": line})
    assert result.exit_code == 0
    assert "plain,ask" in result.stdout


def test_all_settings_and_all_keys_are_offered() -> None:
    assert {"llm.provider", "llm.temperature", "llm.anthropic_model"} <= set(completed("looms config set llm."))
    assert len(completed("looms config get ")) > 200
    assert {"anthropic_api_key", "openai_api_key", "gcp_credentials"} <= set(completed("looms config set-key "))
    assert completed("looms config set middleware.retry.resume ") == ["off", "prefill", "prompt", "restart"]


@pytest.mark.parametrize(
    ("shell", "env"),
    [
        ("zsh", {"COMP_WORDS": "looms config set-key anthropic", "COMP_CWORD": "3"}),
        ("fish", {"COMP_WORDS": "looms config set-key ", "COMP_CWORD": "anthropic"}),
    ],
)
def test_the_scripts_of_other_shells_get_the_same(shell: str, env: dict[str, str]) -> None:
    output = CliRunner().invoke(looms, [], env=env | {"_LOOMS_COMPLETE": f"{shell}_complete"}).output
    assert "anthropic_api_key" in output
    assert "openai_api_key" not in output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    script = CliRunner().invoke(looms, ["completion", shell]).output
    assert "_LOOMS_COMPLETE=" in script
    assert json.loads(CliRunner().invoke(looms, ["completion", shell, "--json"]).output)["script"] == script


# --- real shells ---------------------------------------------------------------------------------

LINES = {
    "looms ask --provider anth": "anthropic",
    "looms chat --model anthropic:claude-sonnet-4-5-2": "anthropic:claude-sonnet-4-5-20250929",
    "looms config get llm.anthropic_m": "llm.anthropic_model",
    "looms config set-key anthropic": "anthropic_api_key",
    "looms config set llm.provider anth": "anthropic",
}
"""What is typed, and the one word that fits."""


@pytest.fixture
def shells(tmp_path: Path) -> dict[str, str]:
    """An environment in which `looms` is this one, and whose home is empty."""
    command = tmp_path / "looms"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m loomstream "$@"\n')
    command.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


def found(shell: str, skip_loudly: Callable[[str, str], None]) -> str:
    program = shutil.which(shell)
    if program is None:
        skip_loudly(f"the shell {shell}", f"apt-get install {shell}")
    return str(program)


def test_bash(shells: dict[str, str], skip_loudly: Callable[[str, str], None]) -> None:
    script = (
        'eval "$(looms completion bash)"; for COMP_LINE in "$@"; do '
        'COMP_POINT=${#COMP_LINE}; COMP_WORDS=(looms); _looms_completion; printf "%s|" "${COMPREPLY[@]}"; done'
    )
    out = subprocess.run(
        [found("bash", skip_loudly), "-c", script, "bash", *LINES],
        env=shells, capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    assert out.split("|")[:-1] == [word.rpartition(":")[2] for word in LINES.values()]  # it replaces what is behind it


def test_fish(shells: dict[str, str], skip_loudly: Callable[[str, str], None]) -> None:
    script = "looms completion fish | source; for line in $argv; complete -C $line; end"
    out = subprocess.run(
        [found("fish", skip_loudly), "-c", script, *LINES],
        env=shells, capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    assert out.splitlines() == list(LINES.values())


def test_zsh(shells: dict[str, str], skip_loudly: Callable[[str, str], None]) -> None:
    program = found("zsh", skip_loudly)
    child = pexpect.spawn(program, ["-f", "-i"], env=shells, encoding="utf-8", dimensions=(40, 200), timeout=30)
    try:
        child.sendline("PROMPT=READY; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -D")
        child.sendline('eval "$(looms completion zsh)"; echo LOADED >&2')
        child.expect("LOADED\r\n")
        for line, word in LINES.items():
            child.send(f"{line}\t")
            child.expect_exact(f"{line.rpartition(' ')[0]} {word} ")
            child.send("\x15")  # empties the line
    finally:
        child.close(force=True)
