"""`pytest -m live` as a user runs it, in a process of its own: the environment points at a server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loomstream.providers.table import TABLE

ROOT = Path(__file__).parents[2]
KEPT = ("PATH", "HOME", "LANG", "LOOMSTREAM_AIMOCK", "SYSTEMROOT", "TEMP")


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run pytest on a machine without any key but those given; its exit code and what it prints."""
    clean = {name: os.environ[name] for name in KEPT if name in os.environ}
    clean |= {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring", "COLUMNS": "300", **environment}
    command = [sys.executable, "-m", "pytest", "tests/live", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=50, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def keys(guarded_aimock: tuple[Any, str]) -> dict[str, str]:
    peer, key = guarded_aimock
    return {
        "OPENAI_API_KEY": key,
        "OPENAI_BASE_URL": f"{peer.url}/v1",
        "LOOM_LLM_GROQ_API_KEY": key,
        "GROQ_BASE_URL": f"{peer.url}/openai/v1",
        "LOOMSTREAM_LIVE_MODELS": "groq:some-model",
    }


def test_without_credentials_each_provider_is_skipped_by_name() -> None:
    code, output = run("-m", "live")
    assert code == pytest.ExitCode.OK, output
    assert "passed" not in output
    assert "failed" not in output
    skipped = [line for line in output.splitlines() if line.startswith("SKIPPED")]
    for row in TABLE:
        lines = [line for line in skipped if f"NOT TESTED: {row.name} has no " in line]
        assert len(lines) == (0 if row.launch else 1), (row.name, lines)
    assert "to test it: set LOOM_LLM_ANTHROPIC_API_KEY (or ANTHROPIC_API_KEY)" in output


def test_providers_whose_credentials_are_found_are_asked(keys: dict[str, str]) -> None:
    code, output = run("-m", "live", "-rp", "-k", "openai or groq", **keys)
    assert code == pytest.ExitCode.OK, output
    for name in ("openai-gpt-4o-mini", "openai-gpt-4o-mini-openai_responses", "groq-some-model"):
        for test in ("text", "tool_call", "usage", "wrong_key", "early_break"):
            assert f"test_{test}[{name}]" in output
    assert "15 passed" in output
    assert "of 0.50 USD counted for 18 answers" in output


def test_a_failure_shows(keys: dict[str, str]) -> None:
    code, output = run("-m", "live", "-k", "groq and text", **{**keys, "LOOM_LLM_GROQ_API_KEY": "sk-other-key-012345"})
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "AuthFailed" in output
    assert "sk-other-key-012345" not in output


def test_the_cap_stops_the_rest(keys: dict[str, str]) -> None:
    # The answers of a model without a price count 0.02 each: text, tool call twice.
    options = ["-k", "groq", "--max-cost-usd", "0.05", "--unknown-cost-usd", "0.02"]
    code, output = run("-m", "live", *options, **keys)
    assert code == pytest.ExitCode.OK, output
    assert "2 passed, 3 skipped" in output
    words = "NOT TESTED: the cap is reached; 0.06 of 0.05 USD counted for 3 answers, 3 of unknown price as 0.02 each"
    (line,) = (line for line in output.splitlines() if words in line)
    assert line.startswith("SKIPPED [3] ")


@pytest.mark.parametrize("marks", [(), ("-m", "not peer")])
def test_nothing_runs_that_is_not_named(marks: tuple[str, ...], keys: dict[str, str]) -> None:
    """Nor counts as skipped where skips are failures."""
    code, output = run(*marks, "-k", "TestLive", LOOMSTREAM_NO_SKIPS="1", **keys)
    assert code == pytest.ExitCode.NO_TESTS_COLLECTED, output
    assert "deselected" in output
    assert "skipped" not in output


def test_an_amount_that_is_none_is_refused() -> None:
    code, output = run("-m", "live", "--max-cost-usd", "much")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "'much' is no amount of US dollars: write it as 0.50" in output
