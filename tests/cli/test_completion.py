"""What shells complete: through click, and through a real bash where there is one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from loomstream.cli.group import looms

pytestmark = pytest.mark.usefixtures("clean_environment")


def completed(line: str) -> list[str]:
    env = {"_LOOMS_COMPLETE": "bash_complete", "LOOMS_LINE": line}
    output = CliRunner().invoke(looms, [], env=env).output
    return [value for _, _, value in (each.partition(",") for each in output.splitlines())]


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
    ],
)
def test_names_are_completed(line: str, expected: list[str]) -> None:
    assert sorted(completed(line)) == sorted(expected)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    script = CliRunner().invoke(looms, ["completion", shell]).output
    assert "_LOOMS_COMPLETE=" in script
    assert json.loads(CliRunner().invoke(looms, ["completion", shell, "--json"]).output)["script"] == script


@pytest.mark.skipif(shutil.which("bash") is None, reason="NOT TESTED: there is no bash here")
def test_bash_completes_behind_a_colon(tmp_path: Path) -> None:
    command = tmp_path / "looms"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m loomstream "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(looms completion bash)"; COMP_LINE="looms ask -m anthropic:claude-sonnet-4-5-2"; '
        'COMP_POINT=${#COMP_LINE}; COMP_WORDS=(looms); _looms_completion; printf "%s|" "${COMPREPLY[@]}"'
    )
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [shutil.which("bash") or "", "-c", script], env=env, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "claude-sonnet-4-5-20250929|"
