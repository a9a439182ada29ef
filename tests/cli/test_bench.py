"""`looms bench` and `looms simulate` as they are typed."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.request
from pathlib import Path

import pexpect
import pytest
from click.testing import CliRunner, Result

from loomstream.cli.group import looms
from tests.cli.conftest import PATIENCE_S, Start

SMALL = ("simulated:ollama", "--runs", "1", "--max-tokens", "3")


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(looms, list(arguments))


@pytest.mark.usefixtures("clean_environment")
def test_a_benchmark_writes_what_it_is_told_to(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("r.html", "r.csv", "r.json", "svg")}
    written = ("--html", files["r.html"], "--csv", files["r.csv"], "--save", files["r.json"], "--svg", files["svg"])
    result = typed("bench", *SMALL, "nosuch:m", *written)
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.output
    assert "simulated:ollama [simulated, warm]" in result.stdout
    assert "nosuch:m [live, warm]: unknown provider" in result.stdout
    assert "2/2 simulated:ollama [simulated, warm]: " in result.stderr
    assert Path(files["r.html"]).read_text().startswith("<!doctype html>")
    assert {path.name for path in Path(files["svg"]).iterdir()} >= {"total.svg", "timeline.svg", "cost.svg"}
    compared = typed("bench", "--compare", files["r.json"], files["r.json"])
    assert compared.exit_code == 0
    assert "too few runs" in compared.stdout


@pytest.mark.usefixtures("clean_environment")
def test_json_holds_everything() -> None:
    told = json.loads(typed("bench", *SMALL, "--json").stdout)
    assert told["summaries"][0]["label"] == "simulated:ollama [simulated, warm]"
    assert told["report"]["rows"][0]["samples"][1]["output_tokens"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((*SMALL, "--html", "/nowhere/r.html"), 3, "/nowhere/r.html cannot be written"),
        ((*SMALL, "--csv", "/"), 3, "/ cannot be written"),
        ((*SMALL, "--svg", "/dev/null/x"), 3, "/dev/null/x is no folder"),
        ((*SMALL, "--csv", "one", "--html", "./one"), 2, "one is named twice"),
        ((*SMALL[:-1], "99999999999"), 2, "1000000"),
        ((*SMALL, "--max-cost", "much"), 2, "an amount in US dollars"),
        ((*SMALL, "--prompt", "hi", "--input-tokens", "9"), 2, "exclude each other"),
        ((*SMALL, "--connections", "hot"), 2, "'hot' is not one of"),
        (("--compare", "a.json"), 2, "two saved files"),
        (("--compare", "a.json", "b.json"), 3, "no saved benchmark"),
        (("--runs", "0"), 2, "runs"),
    ],
)
@pytest.mark.usefixtures("clean_environment")
def test_what_cannot_be_measured(arguments: tuple[str, ...], code: int, said: str) -> None:
    result = typed("bench", *arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


@pytest.mark.usefixtures("clean_environment")
def test_where_nothing_could_be_measured_the_exit_code_says_so() -> None:
    assert typed("bench", "nosuch:m").exit_code == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT TESTED: no /dev/full here")
@pytest.mark.usefixtures("clean_environment")
def test_a_file_that_fails_at_the_end_costs_neither_the_figures_nor_the_other_files(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    result = typed("bench", *SMALL, "--csv", "/dev/full", "--html", str(page))
    assert result.exit_code == 3
    assert "/dev/full cannot be written: No space left on device" in result.stderr
    assert "total p50" in result.stdout
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has no pseudo-terminals")
@pytest.mark.usefixtures("clean_environment")
def test_at_a_terminal_there_is_a_live_table_and_ctrl_c_shows_what_was_measured(tmp_path: Path) -> None:
    saved = tmp_path / "r.json"
    command = ["-m", "loomstream", "bench", *SMALL, "--runs", "500", "--connections", "both", "--save", str(saved)]
    child = pexpect.spawn(
        sys.executable,
        command,
        env={**os.environ, "TERM": "xterm"},
        cwd=str(tmp_path),
        timeout=PATIENCE_S,
        encoding="utf-8",
        dimensions=(30, 80),
    )
    try:
        child.expect(r"2 of 1001 answers")
        child.expect(r"simulated:ollama \[simulated, warm\] +1 ")
        child.sendintr()
        child.expect_exact("gap p50")
        child.expect(pexpect.EOF)
        shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", child.before or "")
        child.wait()
    finally:
        child.close(force=True)
    assert child.exitstatus == 130
    assert "Interrupted: this is what had been measured until then." in shown
    assert max(map(len, shown.splitlines())) <= 80
    kept = json.loads(saved.read_bytes())
    assert (kept["complete"], kept["rows"][0]["samples"][0]["output_tokens"]) == (False, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--fault", "fire"), 2, "'fire' is no fault"),
        (("--profile", "nosuch"), 3, "nosuch"),
        (("--answer", "a", "--script", __file__), 2, "exclude each other"),
        (("--script", __file__), 3, "what is no event"),
        (("--port", "70000"), 2, "65535"),
    ],
)
@pytest.mark.usefixtures("clean_environment")
def test_what_cannot_be_simulated(arguments: tuple[str, ...], code: int, said: str) -> None:
    result = typed("simulate", *arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


def test_a_simulator_tells_of_each_request_and_ends_with_ctrl_c(start: Start) -> None:
    process = start(
        "simulate", "--answer", "Hello there", "--profile", "each", "--first", "0", "--tokens-per-s", "1000", "--json"
    )
    assert process.stdout is not None
    listening = json.loads(process.stdout.readline())
    url = listening["base_urls"]["vllm"] + "/chat/completions"
    with urllib.request.urlopen(url, b'{"model":"m","stream":true}', timeout=PATIENCE_S) as answer:  # noqa: S310 (loopback)
        assert b'"content":" there"' in answer.read()
    told = json.loads(process.stdout.readline())
    assert (told["provider"], told["model"], told["stream"]) == ("vllm", "m", True)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
