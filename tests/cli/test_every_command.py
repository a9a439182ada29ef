"""Every command at a real pseudo-terminal and through a pipe: what a user sees, in colour or not, and the exit code.

Commands that talk on (`ask`, `chat`, `config init | set-key | delete-key`, `bench`, the page of `ui`) have tests at a
terminal of their own; here they show their help, or what they say of wrong usage. All of a column run in one process.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import pexpect
import pytest

from loomstream.telemetry.audit_log import AuditLog
from loomstream.telemetry.records import AuditRecord, AuditUsage
from tests.cli.conftest import END, PATIENCE_S, delta
from tests.cli.test_help import COMMANDS

DRIVER = """
import json, os
from loomstream.cli.group import looms

for arguments in json.loads(os.environ["COMMANDS"]):
    code = None
    try:
        looms.main(arguments, prog_name="looms")
    except SystemExit as end:
        code = end.code
    print(f"=== {code}", flush=True)
"""
COLUMNS = 80
CONFIGURATION = "llm:\n  provider: openai\n  temperature: 0\n"
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Case(NamedTuple):
    """A command: what to type, its exit code, what is to be read in any case, and whether a terminal has colours."""

    typed: str
    code: int
    words: str
    is_colored: bool = False
    width: int = COLUMNS
    """The widest line on a terminal; 0 where what is shown is not to be folded."""


CASES = (
    Case("--version", 0, "loomstream "),
    Case("--help", 0, "Exit codes:"),
    Case("ask --nonsense", 2, "Usage: looms ask"),
    Case("chat hello", 2, "type what you say in the chat", width=0),
    Case("bench --runs 0 local", 2, "--runs"),
    Case("ui --no-token --host 0.0.0.0 --no-open", 2, "--no-token", width=0),
    Case("simulate --fault nonsense", 2, "nonsense", width=0),
    Case("completion zsh", 0, "_LOOMS_COMPLETE=zsh_complete", width=0),
    Case("cost hello --models openai:gpt-4o", 0, "openai:gpt-4o", is_colored=True),
    Case("models claude-sonnet-4-5 --limit 3", 0, "200k", is_colored=True),
    Case("models --json claude-sonnet-4-5-20250929", 0, '"model":', width=0),
    Case("decode -p openai capture.sse", 0, '"type":"text_delta"', width=0),
    Case("decode -p openai nowhere.sse", 2, "nowhere.sse", width=0),
    Case("doctor --offline", 1, "do: ", is_colored=True, width=0),
    Case("log --file audit.jsonl", 0, "openai:gpt-4o"),
    Case("log --file audit.jsonl --totals model", 0, "gpt-4o", is_colored=True),
    Case("providers", 0, "set ANTHROPIC_API_KEY", is_colored=True),
    Case("providers openai", 0, "OPENAI_API_KEY", width=0),
    Case("providers opnai", 3, "did you mean 'openai'?", is_colored=True, width=0),
    Case("config --help", 0, "set-key"),
    Case("config show", 0, "llm.temperature", is_colored=True, width=0),
    Case("config get llm.temperature", 0, "llm.temperature: 0", is_colored=True, width=0),
    Case("config get llm.nothing", 3, "llm.nothing", is_colored=True, width=0),
    Case("config set llm.max_tokens 100", 0, "llm.max_tokens: 100", is_colored=True, width=0),
    Case("config unset llm.max_tokens", 0, "llm.max_tokens: null", is_colored=True, width=0),
    Case("config unset llm.allow_http", 1, "does not say llm.allow_http", is_colored=True, width=0),
    Case("config validate", 0, "looms.yaml", width=0),
    Case("config init --yes", 3, "looms.yaml", is_colored=True, width=0),
    Case("config get-key openai_api_key", 1, "openai_api_key", is_colored=True, width=0),
    Case("config list-keys", 0, "anthropic_api_key", is_colored=True, width=0),
    Case("config delete-key openai_api_key --yes", 3, "keyring", is_colored=True, width=0),
    Case("config set-key azure", 3, "did you mean 'azure_openai_api_key'?", is_colored=True, width=0),
    Case("config set-key nonsense", 3, "nonsense", is_colored=True, width=0),
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    (home / "looms.yaml").write_text(CONFIGURATION)
    (home / "looms.yaml").chmod(0o600)
    (home / "capture.sse").write_bytes(delta("Hel") + delta("lo") + END)
    usage = AuditUsage(input_tokens=3, output_tokens=5)
    record = AuditRecord(id="1", began=dt.datetime.now(dt.UTC), outcome="whole", provider="openai", model="gpt-4o",
                         usage=usage, cost_usd=Decimal("0.01"), cost_exact=True)  # fmt: skip
    AuditLog(home / "audit.jsonl").write(record)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "PYTHONPATH")}
    return kept | {
        "HOME": str(home),
        "LOOM_DATA_DIR": str(home),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "COMMANDS": json.dumps([case.typed.split() for case in CASES]),
    }


def parts(shown: str) -> Iterator[tuple[int, str]]:
    """Give what each command showed, with its exit code."""
    found = re.split(r"=== (\S+)\r?\n", shown)
    assert len(found) == 2 * len(CASES) + 1, found[-1][-500:]
    return zip(map(int, found[1::2]), found[::2], strict=False)


def at_a_terminal(environment: dict[str, str]) -> dict[str, tuple[int, str]]:
    if sys.platform == "win32":
        pytest.skip("NOT TESTED: Windows has no pseudo-terminals")
    child = pexpect.spawn(
        sys.executable,
        ["-c", DRIVER],
        env=environment,
        cwd=environment["HOME"],
        timeout=PATIENCE_S,
        encoding="utf-8",
        dimensions=(40, COLUMNS),
    )
    child.expect(pexpect.EOF)
    child.close()
    return dict(zip((case.typed for case in CASES), parts(child.before or ""), strict=True))


@pytest.fixture(scope="module")
def terminal(environment: dict[str, str]) -> dict[str, tuple[int, str]]:
    return at_a_terminal(environment)


@pytest.fixture(scope="module")
def colorless(environment: dict[str, str]) -> dict[str, tuple[int, str]]:
    return at_a_terminal(environment | {"NO_COLOR": "1"})


@pytest.fixture(scope="module")
def pipe(environment: dict[str, str]) -> dict[str, tuple[int, str]]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env=environment,
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=True,
    )
    return dict(zip((case.typed for case in CASES), parts(done.stdout), strict=True))


def test_every_command_is_here() -> None:
    typed = {tuple(case.typed.split()) for case in CASES}
    leaves = [path[1:] for path in COMMANDS if path[1:] not in ((), ("config",))]
    assert [path for path in leaves if not any(words[: len(path)] == path for words in typed)] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.typed)
def test_a_terminal(case: Case, terminal: dict[str, tuple[int, str]]) -> None:
    code, shown = terminal[case.typed]
    plain = SEQUENCE.sub("", shown)
    assert code == case.code, shown
    assert case.words in plain
    assert ("\x1b[" in shown) == case.is_colored
    assert "\x1b" not in plain
    assert not case.width or max(len(line.rstrip()) for line in plain.splitlines()) <= case.width


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.typed)
def test_no_color(case: Case, colorless: dict[str, tuple[int, str]]) -> None:
    code, shown = colorless[case.typed]
    assert code == case.code
    assert case.words in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.typed)
def test_a_pipe(case: Case, pipe: dict[str, tuple[int, str]]) -> None:
    code, shown = pipe[case.typed]
    assert code == case.code
    assert case.words in shown
    assert "\x1b" not in shown
    assert "\r" not in shown
