"""The audit log: a line for each call, however it ended; whole lines whatever happens to the process."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from loomstream.errors import (
    BadRequest,
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    LoomstreamError,
    Overloaded,
    StreamCancelled,
)
from loomstream.events import Event, Notice, ReasoningDelta, ReasoningEnd, ReasoningStart, Start, TextDelta, TextStart
from loomstream.messages import Request, Timeouts
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.cost import cost
from loomstream.middleware.failover import failover
from loomstream.middleware.retry import retry
from loomstream.telemetry.audit import audit
from loomstream.telemetry.audit_log import AuditLog, files_of, lines_of
from loomstream.telemetry.records import AuditAttempt, AuditRecord, AuditUsage, Reading, encode_record
from loomstream.testing import Pause, check_order, scripted_model, text_events, tool_call_events
from loomstream.testing.clock import virtual_clock_backends

pytestmark = pytest.mark.anyio

CANARY = "canary-4711"
ANSWER = text_events("Hel", "lo", provider="openai", model="gpt-4o")
BEGUN: list[Event] = [Start("openai", "gpt-4o"), TextStart(0), TextDelta(0, "Hel")]
Script = list[Event | Pause | LoomstreamError]


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "calls.jsonl"


def read(path: Path) -> list[AuditRecord]:
    return list(Reading(lines_of(path)))


def text_of(path: Path) -> str:
    return path.read_text()


def one(path: Path) -> AuditRecord:
    [record] = read(path)
    return record


async def test_a_whole_answer_leaves_who_asked_whom_and_what_it_cost(path: Path) -> None:
    model = scripted_model(
        [*ANSWER[:2], Pause(2), *ANSWER[2:3], Pause(1), *ANSWER[3:]],
        middleware=[audit(path, tag=lambda request: f"team-{request.metadata['team']}"), cost("openai", "gpt-4o")],
    )
    response = await model.complete(CANARY, end_user_id="ann", metadata={"team": "red"}, system=CANARY)
    record = one(path)
    assert (record.who, record.tag, record.metadata) == ("ann", "team-red", {"team": "red"})
    assert (record.provider, record.model, record.outcome, record.stop) == ("openai", "gpt-4o", "whole", "end_turn")
    assert record.usage == AuditUsage(input_tokens=1, output_tokens=2, final=True)
    assert record.cost_usd == response.cost.amount_usd == Decimal("0.0000225")
    assert record.cost_exact
    assert record.attempts == (AuditAttempt(provider="openai", model="gpt-4o", outcome="ok"),)
    assert (record.first_event_s, record.total_s) == (2.0, 3.0)
    assert (record.deltas, record.text_chars) == (2, 5)
    assert abs(record.began - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert record.pid == os.getpid()
    assert CANARY not in text_of(path)


async def test_content_is_there_where_it_was_asked_for(path: Path) -> None:
    model = scripted_model(ANSWER, middleware=[audit(path, content=True)])
    await model.complete(CANARY, system="Be brief")
    record = one(path)
    assert record.prompt[0].text == CANARY
    assert record.system == "Be brief"
    assert record.answer is not None
    assert record.answer.text == "Hello"


async def test_reasoning_and_tool_calls_are_counted_not_quoted(path: Path) -> None:
    thought: list[Event] = [ReasoningStart(0), ReasoningDelta(0, CANARY), ReasoningEnd(0)]
    call = tool_call_events("weather", f'{{"city": "{CANARY}"}}')
    script = [call[0], *thought, *(_shifted(event) for event in call[1:])]
    await scripted_model(script, middleware=[audit(path)]).complete("hi")
    record = one(path)
    assert (record.reasoning_chars, record.tool_calls, record.stop) == (len(CANARY), ("weather",), "tool_use")
    assert CANARY not in text_of(path)


def _shifted(event: Event) -> Event:
    import msgspec  # noqa: PLC0415 (for this alone)

    return msgspec.structs.replace(event, index=1) if hasattr(event, "index") else event


async def test_a_broken_answer_keeps_what_had_come(path: Path) -> None:
    model = scripted_model([*BEGUN, ConnectionLost("gone")], middleware=[audit(path)])
    with pytest.raises(ConnectionLost):
        await model.complete("hi")
    record = one(path)
    assert (record.outcome, record.error, record.text_chars, record.stop) == ("failed", "ConnectionLost", 3, "")
    assert (record.usage, record.cost_usd) == (None, Decimal("0.0000125"))  # by the text that came
    assert (record.lower_usd, record.upper_usd, record.cost_exact) == (0, None, False)
    assert [attempt.outcome for attempt in record.attempts] == ["ConnectionLost"]


async def test_nothing_is_reckoned_for_what_never_began(path: Path) -> None:
    model = scripted_model([Overloaded("busy")], middleware=[audit(path, provider="openai", model="gpt-4o")])
    with pytest.raises(Overloaded):
        await model.complete("hi")
    assert (one(path).requested, one(path).cost_usd) == ("openai:gpt-4o", None)


async def test_what_a_provider_says_of_a_prompt_stays_out(path: Path) -> None:
    script: Script = [BadRequest(f"do not like {CANARY!r}", status=400, provider="openai", model="gpt-4o")]
    for content in (False, True):
        with pytest.raises(BadRequest):
            await scripted_model(script, middleware=[audit(path, content=content)]).complete("hi")
    quiet, loud = read(path)
    assert (quiet.error, quiet.status, quiet.error_message) == ("BadRequest", 400, "")
    assert (quiet.provider, quiet.model) == ("openai", "gpt-4o")
    assert CANARY in loud.error_message


async def test_an_answer_that_its_reader_left(path: Path) -> None:
    async with scripted_model(ANSWER, middleware=[audit(path)]).stream("hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    record = one(path)
    assert (record.outcome, record.text_chars, record.error) == ("abandoned", 3, "")
    assert [attempt.outcome for attempt in record.attempts] == [""]


@pytest.mark.parametrize("how", ["task", "stream"])
async def test_a_cancelled_call(path: Path, how: str) -> None:
    model = scripted_model([*BEGUN, Pause(100), *ANSWER[3:]], middleware=[audit(path)])
    stream = model.stream("hi")

    async def read_it() -> None:
        async with stream:
            with pytest.raises(LoomstreamError):
                await stream.collect()

    async with anyio.create_task_group() as group:
        group.start_soon(read_it)
        await anyio.sleep(5)
        stream.cancel() if how == "stream" else group.cancel_scope.cancel()
    record = one(path)
    assert (record.outcome, record.text_chars, record.total_s) == ("cancelled", 3, 5.0)


async def test_a_stream_within_that_was_cancelled(path: Path) -> None:
    model = scripted_model([*BEGUN, StreamCancelled("left")], middleware=[audit(path)])
    with pytest.raises(StreamCancelled):
        await model.complete("hi")
    assert (one(path).outcome, one(path).error) == ("cancelled", "StreamCancelled")


async def test_the_limit_of_the_whole_call_is_told_from_a_cancellation(path: Path) -> None:
    model = scripted_model([*BEGUN, Pause(100), *ANSWER[3:]], middleware=[audit(path)])
    with pytest.raises(DeadlineExceeded):
        await model.complete("hi", timeouts=Timeouts(total_s=7))
    record = one(path)
    assert (record.outcome, record.error, record.total_s) == ("failed", "DeadlineExceeded", 7.0)


async def test_a_stream_that_was_never_read_leaves_nothing(path: Path) -> None:
    async with scripted_model(ANSWER, middleware=[audit(path)]).stream("hi"):
        pass
    assert read(path) == []


async def test_every_try_is_named(path: Path) -> None:
    flaky = scripted_model([Overloaded("busy", provider="openai", model="gpt-4o")], ANSWER)
    model = scripted_model(ANSWER, middleware=[audit(path), lambda _: retry()(flaky.handler)])
    await model.complete("hi")
    assert [(each.provider, each.outcome) for each in one(path).attempts] == [
        ("openai", "Overloaded"),
        ("openai", "ok"),
    ]


async def test_a_failover_names_who_failed_and_who_answered(path: Path) -> None:
    chain = failover(
        [
            Candidate("a", scripted_model([Overloaded("busy", provider="anthropic", model="claude")]).handler),
            Candidate("b", scripted_model(ANSWER).handler),
        ]
    )
    await scripted_model(ANSWER, middleware=[audit(path), lambda _: chain]).complete("hi")
    record = one(path)
    assert [(each.provider, each.outcome) for each in record.attempts] == [
        ("anthropic", "Overloaded"),
        ("openai", "ok"),
    ]
    assert (record.provider, record.model) == ("openai", "gpt-4o")


async def test_a_restarted_answer_counts_its_resets_and_both_bills(path: Path) -> None:
    script = [*ANSWER[:-1], Notice("reset"), *ANSWER]
    await scripted_model(script, middleware=[audit(path)]).complete("hi")
    record = one(path)
    assert (record.resets, record.text_chars) == (1, 5)
    assert (record.cost_usd, record.cost_exact) == (Decimal("0.0000450"), False)


# --- what fails ----------------------------------------------------------------------------------


async def test_a_log_that_fails_breaks_no_stream(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watching = audit(path)
    shutil.rmtree(path.parent)
    for _ in range(2):
        response = await scripted_model(ANSWER, middleware=[watching]).complete("hi")
        assert response.text == "Hello"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "calls.jsonl" in caplog.text


async def test_a_tag_that_fails_is_told_once_and_the_line_is_written(path: Path) -> None:
    def tag(request: Request) -> str:
        raise RuntimeError(request.end_user_id)

    async with scripted_model(ANSWER, middleware=[audit(path, tag=tag)]).stream("hi", end_user_id="ann") as stream:
        events = [event async for event in stream]
    check_order(events)
    assert [event for event in events if not isinstance(event, Notice)] == ANSWER
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert "RuntimeError: ann" in notice.detail
    assert one(path).who == "ann"


def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/calls\.jsonl cannot be written"):
        audit(tmp_path / "file" / "calls.jsonl")
    for limits in ({"max_bytes": 0}, {"max_age_s": -1}, {"keep": 0}):
        with pytest.raises(ConfigError, match="above 0"):
            AuditLog(tmp_path / "calls.jsonl", **limits)


# --- the file ------------------------------------------------------------------------------------


def a_record(name: str = "", began: float = 0.0) -> AuditRecord:
    return AuditRecord(id="1", began=dt.datetime.fromtimestamp(began, dt.UTC), outcome="whole", who=name)


def test_only_its_owner_may_read_it(path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o666)
    AuditLog(path).write(a_record())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_device_is_written_to_and_left_as_it_is() -> None:
    before = Path(os.devnull).stat().st_mode
    AuditLog(os.devnull).write(a_record())
    assert Path(os.devnull).stat().st_mode == before


def test_a_torn_line_is_left_behind_and_costs_no_other(path: Path) -> None:
    log = AuditLog(path)
    log.write(a_record("before"))
    with path.open("ab") as file:
        file.write(encode_record(a_record("torn"))[:40])
    log.write(a_record("after"))
    reading = Reading(lines_of(path))
    assert [record.who for record in reading] == ["before", "after"]
    assert reading.skipped == 1


HEAD = b'{"id":"1","began":"2026-01-01T00:00:00Z","outcome":"whole"'
FOREIGN = [b"{}", b"[", b"\xff\xfe", HEAD.replace(b"Z", b"") + b"}", b"[" * 100_000]
BAD_MONEY = [HEAD + b',"cost_usd":"%s"}' % amount for amount in (b"NaN", b"Infinity", b"1e999999")]


@pytest.mark.parametrize("line", [*FOREIGN, *BAD_MONEY])
def test_a_foreign_line_is_counted(line: bytes) -> None:
    reading = Reading([line + b"\n", b"\n"])
    assert list(reading) == []
    assert reading.skipped == 1


def test_fields_of_a_later_version_do_not_hinder_reading() -> None:
    line = json.loads(encode_record(a_record("ann")))
    [record] = Reading([json.dumps({**line, "later": 1}).encode()])
    assert record.who == "ann"


def test_it_is_put_aside_by_size_and_nothing_is_lost(path: Path) -> None:
    log = AuditLog(path, max_bytes=200)
    for number in range(10):
        log.write(a_record(str(number)))
    assert len(files_of(path)) > 2
    assert [record.who for record in read(path)] == [str(number) for number in range(10)]
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in files_of(path))


def test_it_is_put_aside_by_age(path: Path) -> None:
    now = 1e9
    AuditLog(path).write(a_record("old", now))
    log = AuditLog(path, max_age_s=60, clock=lambda: now)
    log.write(a_record("young", now))
    assert len(files_of(path)) == 1
    now += 60
    log.write(a_record("new", now))
    [aside, current] = files_of(path)
    assert aside.name.startswith("calls-20010909T014740.000000Z-")
    assert [record.who for record in Reading(current.read_bytes().splitlines())] == ["new"]


def test_only_so_many_are_kept(path: Path) -> None:
    path.parent.mkdir()
    foreign = path.with_name("calls-NOTESZ-1.jsonl")
    foreign.touch()
    log = AuditLog(path, max_bytes=1, keep=2)
    for number in range(6):
        log.write(a_record(str(number)))
    assert [record.who for record in read(path)] == ["3", "4", "5"]
    assert foreign.exists()


def test_several_processes_share_a_file_that_is_rotated_meanwhile(path: Path) -> None:
    code = """if True:
        import datetime as dt, sys
        from loomstream.telemetry.audit_log import AuditLog
        from loomstream.telemetry.records import AuditRecord
        log = AuditLog(sys.argv[1], max_bytes=5_000)
        for number in range(200):
            moment = dt.datetime.now(dt.timezone.utc)
            log.write(AuditRecord(id=f"{sys.argv[2]}-{number}", began=moment, outcome="whole"))
    """
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("a", "b")]
    assert [process.wait(30) for process in running] == [0, 0]
    reading = Reading(lines_of(path))
    assert {record.id for record in reading} == {f"{name}-{number}" for name in ("a", "b") for number in range(200)}
    assert reading.skipped == 0
    assert len(files_of(path)) > 3


WRITER = """if True:
    import datetime as dt, os, resource, signal, sys
    from loomstream.telemetry.audit_log import AuditLog
    from loomstream.telemetry.records import AuditRecord
    if sys.argv[3:]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    log = AuditLog(sys.argv[1])
    for number in range(100_000):
        name = f"{sys.argv[2]}-{number}"
        try:
            log.write(AuditRecord(id=name, began=dt.datetime.now(dt.timezone.utc), outcome="whole", who="x" * 500))
        except OSError as error:
            print(error, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        print(name, flush=True)
"""


def test_a_process_that_is_killed_in_the_middle_of_a_line_costs_no_other(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), "torn", "2000"], capture_output=True, text=True, check=False
    )
    *told, failure = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert re.fullmatch(r"only \d+ of \d+ bytes could be written to .*calls\.jsonl", failure)
    assert not path.read_bytes().endswith(b"\n")
    AuditLog(path).write(a_record("after"))
    reading = Reading(lines_of(path))
    assert [record.id for record in reading] == [*told, "1"]
    assert (len(told) > 1, reading.skipped) == (True, 1)


def test_a_process_that_is_killed_as_it_writes_loses_nothing_that_it_had_written(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path), "killed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(200)]
        process.kill()
        told += process.stdout.read().split("\n")[:-1]  # what it has told without an end it may not have told whole
    AuditLog(path).write(a_record("after"))
    reading = Reading(lines_of(path))
    kept = [record.id for record in reading]
    assert (kept[: len(told)], kept[-1]) == (told, "1")
    assert len(kept) <= len(told) + 2  # at most one was written and not told
