"""What an audit log tells: filters, sums, the greatest, and following it over rotations."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from loomstream.errors import UsageError
from loomstream.telemetry.audit_log import AuditLog, follow
from loomstream.telemetry.audit_report import KEYS, Selection, all_in_all, greatest, moment, sums
from loomstream.telemetry.records import AuditRecord, AuditUsage, Ending, Reading, encode_record

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


def call(  # noqa: PLR0913 (a record)
    who: str = "ann",
    *,
    model: str = "gpt-4o",
    tag: str = "red",
    hours: float = 0,
    usd: str | None = "0.5",
    tokens: tuple[int, int] | None = (10, 20),
    outcome: Ending = "whole",
    error: str = "",
) -> AuditRecord:
    return AuditRecord(
        id=who,
        began=NOON + dt.timedelta(hours=hours),
        outcome=outcome,
        error=error,
        who=who,
        provider="openai",
        model=model,
        tag=tag,
        cost_usd=None if usd is None else Decimal(usd),
        usage=None if tokens is None else AuditUsage(input_tokens=tokens[0], output_tokens=tokens[1]),
    )


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(), "a b c"),
        (Selection(models=("gpt-4*",)), "a b"),
        (Selection(models=("openai:o3",)), "c"),
        (Selection(providers=("anthropic",)), ""),
        (Selection(tags=("red",), who=("a", "c")), "a c"),
        (Selection(outcomes=("failed", "cancelled")), "b"),
        (Selection(outcomes=("Overloaded",)), "b"),
        (Selection(since=NOON + dt.timedelta(hours=1)), "b c"),
        (Selection(since=NOON, until=NOON + dt.timedelta(hours=2)), "a b"),
    ],
)
def test_which_calls_count(selection: Selection, names: str) -> None:
    calls = [
        call("a"),
        call("b", hours=1, outcome="failed", error="Overloaded", tag=""),
        call("c", hours=2, model="o3"),
    ]
    assert " ".join(record.who for record in calls if selection.has(record)) == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20", "2026-11-20T00:00:00+00:00"),
        ("2026-11-20T18:30", "2026-11-20T18:30:00+00:00"),
        ("2026-11-20T18:30+02:00", "2026-11-20T18:30:00+02:00"),
        ("30m", "2026-11-22T11:30:00+00:00"),
        ("24h", "2026-11-21T12:00:00+00:00"),
        ("2w", "2026-11-08T12:00:00+00:00"),
    ],
)
def test_moments(text: str, expected: str) -> None:
    assert moment(text, NOON).isoformat() == expected


@pytest.mark.parametrize("text", ["", "yesterday", "5y", "-3h", "2026-13-01", "999999w"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        moment(text, NOON)


def test_sums_keep_the_unknown_apart() -> None:
    calls = [
        call("a", usd="0.1"),
        call("b", usd=None, tokens=None, outcome="failed"),
        call("c", tag="blue", usd="0.3", outcome="abandoned"),
    ]
    blue, red = sums(calls, "tag")
    assert (blue.name, blue.unfinished, blue.totals.amount_usd) == ("blue", 1, Decimal("0.3"))
    assert (red.totals.calls, red.failed, red.totals.unknown) == (2, 1, 1)
    assert (red.totals.amount_usd, red.totals.output_tokens) == (Decimal("0.1"), 20)
    total = all_in_all([blue, red])
    assert (total.totals.calls, total.totals.amount_usd, total.failed) == (3, Decimal("0.4"), 1)


@pytest.mark.parametrize("by", list(KEYS))
def test_sums_by_each_key_lose_no_call(by: str) -> None:
    calls = [call("a", hours=hours, model=model) for hours in (0, 30) for model in ("gpt-4o", "o3")]
    assert sum(group.totals.calls for group in sums(calls, by)) == 4


def test_days_are_in_their_order() -> None:
    names = [group.name for group in sums([call(hours=48), call(), call(hours=72)], "day")]
    assert names == sorted(names)
    assert len(names) == 3


@pytest.mark.parametrize(("by", "names"), [("cost", "c a b"), ("tokens", "b a"), ("output-ratio", "a b")])
def test_the_greatest(by: str, names: str) -> None:
    calls = [
        call("a", usd="0.2", tokens=(10, 30)),
        call("b", usd="0.1", tokens=(100, 20)),
        call("c", usd="0.3", tokens=None),
        call("d", usd=None, tokens=None),
    ]
    assert " ".join(record.who for record in greatest(calls, by, 3)) == names


def test_following_goes_over_a_rotation_and_waits_for_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    log = AuditLog(path, max_bytes=300)
    log.write(call("a"))
    torn = encode_record(call("c"))
    steps = [
        lambda: log.write(call("d")),
        path.unlink,
        lambda: _append(path, torn[30:]),
        lambda: _append(path, torn[:30]),
        lambda: log.write(call("b")),  # the file is put aside before
    ]

    def wait() -> None:
        steps.pop()()

    seen: list[bytes] = []
    for line in follow(path, wait):
        seen += [] if line is None else [line]
        if len(seen) == 4:
            break
    assert [record.who for record in Reading(seen)] == ["a", "b", "c", "d"]


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_following_misses_no_file_however_often_the_log_is_put_aside(tmp_path: Path) -> None:
    """Three files come and go between two looks."""
    path = tmp_path / "audit.jsonl"
    names = iter(f"audit-2026112{day}T000000.000000Z-1.jsonl" for day in range(1, 9))

    def put_aside(line: bytes) -> None:
        with path.open("ab") as file:
            file.write(line)
        path.rename(tmp_path / next(names))

    put_aside(b"1\n")
    path.write_bytes(b"2\n")
    pauses = iter([(b"3\n", b"4\n", b"5\n"), ()])

    def wait() -> None:
        for line in next(pauses):
            put_aside(line)
        path.write_bytes(b"6\n")

    lines: list[bytes] = []
    for line in follow(path, wait):
        lines += [line] if line else []
        if line == b"6\n":
            break
    assert lines == [b"%d\n" % number for number in range(1, 7)]
