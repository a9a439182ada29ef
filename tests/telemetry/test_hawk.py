"""Hawk: spans in the seed system's form, at a server on loopback that stands in for Hawk; nothing lost but counted."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import logging
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest

from loomstream import connect
from loomstream.errors import BadRequest, ConfigError, ConnectionLost, LoomstreamError, Overloaded
from loomstream.events import (
    Event,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    Usage,
)
from loomstream.messages import Tool
from loomstream.middleware.cost import cost
from loomstream.middleware.retry import retry
from loomstream.telemetry.hawk import hawk, in_trace, timestamp
from loomstream.telemetry.hawk_exporter import HawkExporter, HawkSpan
from loomstream.testing import Pause, scripted_model
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.server import simulator

pytestmark = pytest.mark.anyio

CANARY = "canary-4711"
MOMENT = re.compile(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?(Z|[+-]\d\d:\d\d)\Z")
Script = list[Event | Pause | LoomstreamError]
THOUGHT: list[Event] = [ReasoningStart(0), ReasoningDelta(0, f"hm {CANARY}"), ReasoningEnd(0)]
USAGE = Usage(input_tokens=3, output_tokens=22, cache_read_tokens=5, reasoning_tokens=8, final=True)
ANSWER: Script = [
    Start("openai", "gpt-4o"),
    Pause(2),
    *THOUGHT,
    TextStart(1),
    Pause(3.5),
    TextDelta(1, f"Hello {CANARY}"),
    TextEnd(1),
    USAGE,
    Stop("end_turn"),
]


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param


class Server:
    """Stands in for Hawk; answers with the statuses given, the last one again and again."""

    def __init__(self, *statuses: int, retry_after: str = "") -> None:
        self.statuses = list(statuses) or [200]
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(server.statuses.pop(0) if len(server.statuses) > 1 else server.statuses[0])
                if retry_after:
                    self.send_header("retry-after", retry_after)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def spans(self) -> list[dict[str, Any]]:
        return [span for _, _, body in self.requests for span in body["spans"]]

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def a_span(name: str = "s", **attributes: object) -> HawkSpan:
    moment = timestamp(1_000_000_000)
    return HawkSpan(
        trace_id="t", span_id="i", name=name, start_time=moment, end_time=moment, duration_ms=0, status="ok",
        attributes=attributes,
    )  # fmt: skip


async def ask(server: Server, script: Script, *, content: bool = False, metrics: bool = False) -> None:
    with HawkExporter(server.url) as exporter:
        watching = hawk(exporter, provider="openai", model="gpt-4o", content=content, metrics=metrics)
        model = scripted_model(script, middleware=[watching, cost("openai", "gpt-4o")])
        with contextlib.suppress(LoomstreamError):
            await model.complete(CANARY, tools=[Tool("find", CANARY)])


async def test_a_call_in_the_form_of_the_seed_system(server: Server) -> None:
    await ask(server, ANSWER)
    [(path, headers, body)] = server.requests
    assert path == "/v1/traces"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    assert list(body) == ["spans"]
    [span] = body["spans"]
    attributes, events = span.pop("attributes"), span.pop("events")
    assert uuid.UUID(span.pop("trace_id")).version == uuid.UUID(span.pop("span_id")).version == 4
    for name in ("start_time", "end_time"):
        assert MOMENT.match(span.pop(name))
    assert span == {"name": "llm.completion", "duration_ms": 5500, "status": "ok"}
    assert attributes == {
        "llm.provider": "openai",
        "llm.model": "gpt-4o",
        "llm.operation": "chat",
        "llm.streaming": True,
        "llm.messages.count": 1,
        "llm.tools.count": 1,
        "llm.tools.names": ["find"],
        "llm.tokens.input": 3,
        "llm.tokens.output": 22,
        "llm.tokens.total": 30,
        "llm.tokens.cache_read": 5,
        "llm.tokens.cache_write": 0,
        "llm.tokens.reasoning": 8,
        "llm.cost.usd": pytest.approx(0.00023375),
        "llm.stop_reason": "end_turn",
        "llm.duration_ms": 5500,
        "llm.ttft_ms": 2000,
        "llm.streaming.chunks": 2,
        "llm.streaming.throughput": 4.0,
        "llm.tool_calls.count": 0,
        "llm.tool_calls.names": [],
        "llm.content.length": 17,
        "llm.thinking.length": 14,
        "loomstream.outcome": "whole",
        "loomstream.attempts": 1,
        "loomstream.cost_exact": True,
    }
    assert [event["name"] for event in events] == [
        "llm.call.started",
        "stream.started",
        "stream.first_token",
        "stream.completed",
        "llm.call.completed",
    ]
    assert all(MOMENT.match(event["timestamp"]) and "attributes" not in event for event in events)
    assert CANARY not in json.dumps(body)


def test_what_happened_is_told_in_its_order(server: Server) -> None:
    """By a clock that goes on: an answer that comes whole in one read has its first token before its end."""
    with HawkExporter(server.url) as exporter, simulator("Hello") as simulated:
        watching = hawk(exporter, provider="openai", model="gpt-4o", metrics=False)

        async def asked() -> None:
            async with connect("openai:gpt-4o", middleware=[watching], **simulated.options("openai")) as model:
                await model.complete("Hi")

        anyio.run(asked)
    [span] = server.spans
    moments = [(event["timestamp"][:19], float(found[1] or 0))
               for event in span["events"] if (found := MOMENT.match(event["timestamp"]))]  # fmt: skip
    assert len(moments) == 5
    assert moments == sorted(moments)


async def test_content_by_opt_in(server: Server) -> None:
    await ask(server, ANSWER, content=True)
    [span] = server.spans
    assert span["attributes"]["message.preview"] == CANARY
    assert span["attributes"]["response.preview"] == f"Hello {CANARY}"
    [thought] = [event for event in span["events"] if event["name"] == "llm.thinking"]
    assert thought["attributes"] == {"content": f"hm {CANARY}"}


async def test_a_call_that_failed_has_what_it_came_to(server: Server) -> None:
    await ask(server, [*ANSWER[:6], Usage(input_tokens=3, output_tokens=9), ConnectionLost(CANARY)])
    [span] = server.spans
    assert (span["status"], span["attributes"]["error.type"]) == ("error", "ConnectionLost")
    assert span["attributes"]["llm.tokens.output"] == 9
    assert span["attributes"]["llm.cost.usd"] > 0
    assert [event["name"] for event in span["events"]][-2:] == ["stream.failed", "llm.call.failed"]
    assert CANARY not in json.dumps(span)


async def test_each_try_is_an_event(server: Server) -> None:
    flaky = scripted_model([Overloaded(CANARY, provider="openai", model="gpt-4o")], ANSWER)
    with HawkExporter(server.url) as exporter:
        await scripted_model(ANSWER, middleware=[hawk(exporter), lambda _: retry()(flaky.handler)]).complete("hi")
    span = server.spans[0]
    [event] = [event for event in span["events"] if event["name"] == "loomstream.retry"]
    assert event["attributes"]["error.type"] == "Overloaded"
    assert span["attributes"]["loomstream.attempts"] == 2


async def test_metrics_are_spans_of_the_same_trace(server: Server) -> None:
    await ask(server, ANSWER, metrics=True)
    call, *metrics = server.spans
    figures = {span["attributes"]["metric.name"]: span["attributes"]["metric.value"] for span in metrics}
    assert figures == {
        "llm.calls.total": 1,
        "llm.latency": 5500,
        "llm.tokens.input": 3,
        "llm.tokens.output": 22,
        "llm.tokens.cache_read": 5,
        "llm.cache.hit_rate": 0.625,
        "llm.cost": pytest.approx(0.00023375),
        "llm.streaming.ttft_ms": 2000,
        "llm.streaming.throughput": 4.0,
        "llm.streaming.chunks.total": 2,
    }
    for span in metrics:
        assert span["name"] == f"metric.{span['attributes']['metric.name']}"
        assert (span["trace_id"], span["parent_span_id"]) == (call["trace_id"], call["span_id"])
        assert span["attributes"]["span.kind"] == "metric"
        assert span["attributes"]["metric.label.model"] == "gpt-4o"


async def test_calls_of_one_trace(server: Server) -> None:
    async with HawkExporter(server.url) as exporter:
        model = scripted_model(ANSWER, middleware=[hawk(exporter, metrics=False)])
        with in_trace(parent_span_id="parent") as trace_id:
            await model.complete("one")
            await model.complete("two")
        await model.complete("three")
    one, two, three = server.spans
    assert one["trace_id"] == two["trace_id"] == trace_id != three["trace_id"]
    assert (one["parent_span_id"], "parent_span_id" in three) == ("parent", False)


# --- the exporter --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://localhost:9090", "http://localhost:9090/v1/traces"),
        ("http://localhost:9090/", "http://localhost:9090/v1/traces"),
        ("http://localhost:8080/v1/traces", "http://localhost:8080/v1/traces"),
        ("https://hawk.example/in?team=red#x", "https://hawk.example/in?team=red"),
    ],
)
def test_the_address_with_or_without_a_path(given: str, used: str) -> None:
    assert HawkExporter(given).endpoint == used


@pytest.mark.parametrize(
    "given", ["", "localhost:9090", "ftp://host", "http://", "http://host:99999", "https://u:p@host"]
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        HawkExporter(given)


def test_plain_http_stays_on_this_machine() -> None:
    with pytest.raises(ConfigError, match="plain http to another machine"):
        HawkExporter("http://hawk.example")
    assert HawkExporter("http://hawk.example", allow_http=True).endpoint == "http://hawk.example/v1/traces"


@pytest.mark.parametrize(
    "name", ["max_queue", "batch", "interval_s", "timeout_s", "attempts", "first_wait_s", "exit_s"]
)
def test_limits_are_above_0(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0"):
        HawkExporter("http://localhost", **{name: 0})


@pytest.mark.parametrize(
    ("statuses", "requests", "sent"),
    [
        ([200], 1, 1),
        ([204], 1, 1),
        ([429, 201], 2, 1),
        ([500, 503, 599, 202], 4, 1),
        ([503], 4, 0),
        ([400], 1, 0),
        ([301], 1, 0),
    ],
)
def test_what_is_tried_again(statuses: list[int], requests: int, sent: int, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(*statuses)
    with HawkExporter(server.url, first_wait_s=1e-3) as exporter:
        exporter.put([a_span()])
        assert exporter.flush()
    server.close()
    assert (len(server.requests), exporter.sent, exporter.dropped) == (requests, sent, 1 - sent)
    assert bool(caplog.records) == (not sent)


class Answering(Server):
    """Stands in for Hawk; answers with this head and body, and writes on until the client is gone."""

    def __init__(self, head: str, piece: bytes, *, endless: bool = False, stalls: bool = False) -> None:
        super().__init__()
        self.gone = threading.Event()
        self.requests = requests = []
        gone = self.gone

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                requests.append((self.path, dict(self.headers.items()), {"spans": []}))
                self.close_connection = True
                try:
                    self.wfile.write(head.encode() + b"\r\n\r\n" + piece)
                    while endless:
                        self.wfile.write(piece)
                    if stalls:
                        self.connection.recv(1)  # until the client has had enough of waiting
                except OSError:
                    pass
                gone.set()

            def log_message(self, *_: object) -> None: ...

        self._http.RequestHandlerClass = Handler


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_neither_key_nor_spans_follow_a_redirect(server: Server, status: int, caplog: pytest.LogCaptureFixture) -> None:
    head = f"HTTP/1.1 {status} Elsewhere\r\nlocation: {server.url}/v1/traces\r\ncontent-length: 0"
    first = Answering(head, b"")
    with HawkExporter(first.url, api_key=CANARY) as exporter:
        exporter.put([a_span()])
    first.close()
    assert (server.requests, exporter.sent, exporter.dropped, len(first.requests)) == ([], 0, 1, 1)
    assert f"HTTP {status}" in caplog.text
    assert CANARY not in caplog.text


BOMB = gzip.compress(bytes(20_000_000))


@pytest.mark.parametrize(
    ("head", "piece", "endless", "stalls"),
    [
        ("HTTP/1.1 200 OK", b"x" * 65_536, True, False),
        (f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(BOMB)}", BOMB, False, False),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 7", b"rubbish", False, False),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9", b"cut", False, False),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9", b"slow", False, True),
    ],
    ids=["endless", "bomb", "no gzip", "cut", "slow"],
)
def test_the_status_tells_whatever_body_follows(*, head: str, piece: bytes, endless: bool, stalls: bool) -> None:
    hawk_server = Answering(head, piece, endless=endless, stalls=stalls)
    with HawkExporter(hawk_server.url, timeout_s=0.1 if stalls else 30.0) as exporter:
        exporter.put([a_span()])
        assert exporter.flush()
    assert hawk_server.gone.wait(5)
    hawk_server.close()
    assert (exporter.sent, exporter.dropped, len(hawk_server.requests)) == (1, 0, 1)


def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    with HawkExporter("http://127.0.0.1:9", first_wait_s=1e-3) as exporter:
        for _ in range(2):
            exporter.put([a_span()])
            assert exporter.flush()
        assert exporter.dropped == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "ConnectError" in caplog.text


def test_a_full_queue_drops_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    server = Server()

    class Slow(HawkExporter):
        def _clean(self, span: HawkSpan) -> HawkSpan:
            release.wait(10)
            return super()._clean(span)

    with Slow(server.url, max_queue=3, batch=1) as exporter:
        exporter.put([a_span()])
        while exporter.waiting != 1 or exporter._queue:
            pass  # until the first one is under way
        exporter.put([a_span() for _ in range(5)])
        assert exporter.dropped == 2
        release.set()
        assert exporter.flush()
        assert (exporter.sent, exporter.dropped) == (4, 2)
    server.close()
    assert "3 spans wait" in caplog.text


def test_batches_and_the_key(server: Server) -> None:
    with HawkExporter(server.url, api_key="sk-hawk", batch=2, interval_s=1e9) as exporter:
        exporter.put([a_span(str(number)) for number in range(5)])
    assert [len(body["spans"]) for _, _, body in server.requests] == [2, 2, 1]
    assert [span["name"] for span in server.spans] == list("01234")
    assert server.requests[0][1]["authorization"] == "Bearer sk-hawk"
    assert "sk-hawk" not in repr(vars(exporter))


def test_closing_waits_for_nobody_and_puts_come_to_nothing() -> None:
    server = Server(503)
    exporter = HawkExporter(server.url, first_wait_s=1e9)
    exporter.put([a_span()])
    exporter.flush(0.01)
    exporter.close()
    exporter.close()
    exporter.put([a_span()])
    server.close()
    assert (exporter.sent, exporter.waiting, exporter.dropped) == (0, 0, 2)


def test_a_span_that_closing_gave_up_counts_once(server: Server) -> None:
    """It may still arrive: by then nobody is told of it."""
    release = threading.Event()

    class Slow(HawkExporter):
        def _clean(self, span: HawkSpan) -> HawkSpan:
            release.wait(10)
            return super()._clean(span)

    exporter = Slow(server.url, batch=1, exit_s=0.01)
    exporter.put([a_span()])
    while exporter._queue:
        pass  # until it is under way
    exporter.close()
    release.set()
    assert exporter._thread is not None
    exporter._thread.join(10)
    assert len(server.spans) == 1
    assert (exporter.sent, exporter.waiting, exporter.dropped) == (0, 0, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: fork is missing; to test it: a POSIX system")
def test_what_is_left_goes_out_when_the_interpreter_ends(server: Server) -> None:
    code = """if True:
        import asyncio, os, sys
        from loomstream.telemetry.hawk import hawk
        from loomstream.testing import scripted_model, text_events
        model = scripted_model(text_events("Hi"), middleware=[hawk(sys.argv[1], metrics=False)])
        asyncio.run(model.complete("hi"))
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        else:
            asyncio.run(model.complete("hi"))
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, server.url], check=True, timeout=20)
    assert len(server.spans) == 2  # none lost, and none sent by both


def test_moments_are_local_with_their_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time  # noqa: PLC0415 (for this alone)

    try:
        for zone, offset in (("UTC", "Z"), ("Asia/Kolkata", "+05:30"), ("America/New_York", "-05:00")):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert timestamp(1_700_000_000_120_000_000).endswith(f".12{offset}")
            assert timestamp(1_700_000_000_000_000_000).endswith(f":20{offset}")
            assert dt.datetime.fromisoformat(timestamp(1_700_000_000_000_000_000)).timestamp() == 1_700_000_000
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_redaction_on_the_way(server: Server) -> None:
    with HawkExporter(server.url) as exporter:
        model = scripted_model([BadRequest("no")], ANSWER, middleware=[hawk(exporter, content=True, metrics=False)])
        with pytest.raises(BadRequest):
            await model.complete("mail ann@example.com, key sk-abcdefghijklmnopqrst")
    assert server.spans[0]["attributes"]["message.preview"] == "mail [EMAIL_REDACTED], key [SECRET_REDACTED]"
