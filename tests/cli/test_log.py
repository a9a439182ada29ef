"""`looms log`: the calls of an audit log."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from loomstream.cli import log as module
from loomstream.cli.group import looms
from loomstream.telemetry.audit_log import AuditLog
from loomstream.telemetry.records import AuditAttempt, AuditRecord, AuditUsage

Run = Callable[..., tuple[int, str, str]]
YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for number, tag in enumerate(("red", "blue", "red")):
        log.write(
            AuditRecord(
                id=str(number),
                began=YESTERDAY + dt.timedelta(hours=number),
                outcome="whole" if number else "failed",
                error="" if number else "Overloaded",
                stop="end_turn" if number else "",
                who="ann",
                tag=tag,
                provider="openai",
                model="gpt-\x1b[31m4o",
                usage=AuditUsage(input_tokens=3, cache_read_tokens=4, output_tokens=5 * number),
                cost_usd=Decimal(number) / 100 if number else None,
                cost_exact=True,
                attempts=(AuditAttempt(outcome="Overloaded"), AuditAttempt(outcome="ok")),
                first_event_s=0.25,
                total_s=1.5,
            )
        )
    return path


@pytest.fixture
def run(path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LOOM_DATA_DIR", str(path.parent))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            looms.main(["log", *arguments])
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_a_call_is_a_line(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    failed, *_, last = out.splitlines()
    assert "openai:gpt-4o · Overloaded · 7 → 0 tokens · cost unknown · 0.25 s to first, 1.50 s · 2 tries" in failed
    assert last.endswith(
        "openai:gpt-4o · end_turn · 7 → 10 tokens · $0.02 · 0.25 s to first, 1.50 s · 2 tries · [red] · ann"
    )


def test_filters_and_the_last_ones(run: Run) -> None:
    assert [json.loads(line)["id"] for line in run("--json")[1].splitlines()] == ["0", "1", "2"]
    assert [json.loads(line)["id"] for line in run("--json", "--last", "1")[1].splitlines()] == ["2"]
    assert [json.loads(line)["id"] for line in run("--json", "--tag", "red", "--last", "0")[1].splitlines()] == [
        "0",
        "2",
    ]
    assert [json.loads(line)["id"] for line in run("--json", "--outcome", "failed")[1].splitlines()] == ["0"]
    assert run("--since", "1h")[1:] == ("", "no call fits\n")


def test_sums(run: Run) -> None:
    titles, blue_or_red, _, total = run("--totals", "tag")[1].splitlines()
    assert titles.split("  ")[0] == "tag"
    assert blue_or_red.split() == ["red", "2", "1", "0", "14", "10", "$0.02", "1", "call"]
    assert total.split() == ["total", "3", "1", "0", "21", "15", "$0.03", "1", "call"]
    [red, blue] = json.loads(run("--totals", "tag", "--json")[1])
    assert (red["name"], red["totals"]["calls"], blue["totals"]["amount_usd"]) == ("red", 2, "0.01")


@pytest.mark.parametrize(("by", "ids"), [("cost", "2 1"), ("tokens", "2 1 0"), ("output-ratio", "2 1 0")])
def test_the_greatest(run: Run, by: str, ids: str) -> None:
    assert [json.loads(line)["id"] for line in run("--top", "20", "--by", by, "--json")[1].splitlines()] == ids.split()
    assert [json.loads(line)["id"] for line in run("--top", "1", "--by", by, "--json")[1].splitlines()] == ["2"]


def test_a_torn_line_is_told_of(run: Run, path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"id": "torn')
    code, out, err = run()
    assert (code, len(out.splitlines())) == (0, 3)
    assert err == "Warning: 1 line is no record and was skipped\n"


def test_following_shows_what_is_added(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        assert seconds > 0
        if lines:
            with path.open("ab") as file:
                file.write(lines.pop())
        else:
            raise KeyboardInterrupt

    [*_, last] = path.read_bytes().splitlines(keepends=True)
    lines = [last.replace(b'"id":"2"', b'"id":"3"')]
    monkeypatch.setattr(module.time, "sleep", sleep)
    code, out, _ = run("--follow", "--json", "--last", "1")
    assert code == 130
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["2", "3"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--since", "yesterday"], 2, "is no time"),
        (["--follow", "--totals", "tag"], 2, "--follow shows calls"),
        (["--totals", "moon"], 2, "Invalid value"),
        (["--file", "nowhere.jsonl"], 3, "there is no audit log at nowhere.jsonl"),
    ],
)
def test_what_cannot_be_shown(run: Run, arguments: list[str], code: int, words: str) -> None:
    ended, out, err = run(*arguments)
    assert (ended, out) == (code, "")
    assert words in err


def test_one_call_is_no_calls() -> None:
    assert [module._counted(calls) for calls in (0, 1, 2)] == ["-", "1 call", "2 calls"]
