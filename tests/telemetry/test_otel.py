"""OpenTelemetry: a span and the client metrics of each call, whatever became of it; no content unless asked for."""

from __future__ import annotations

import builtins
import gzip
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from loomstream.errors import BadRequest, ConfigError, ConnectionLost, DeadlineExceeded, LoomstreamError, Overloaded
from loomstream.events import Event, Notice, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.handler import Handler, Middleware
from loomstream.messages import Image, Message, Request, Text, Timeouts, Tool, ToolCall, ToolResult
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.cost import cost
from loomstream.middleware.hedge import hedge
from loomstream.middleware.retry import retry
from loomstream.telemetry.otel import CONTENT_VARIABLE, otel
from loomstream.telemetry.otel_calls import otel_name
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends

pytestmark = pytest.mark.anyio

CANARY = "canary-4711"
USAGE = Usage(input_tokens=3, output_tokens=20, cache_read_tokens=5, reasoning_tokens=8, final=True)
HEAD: list[Event] = [Start("openai", "gpt-4o-2024-08-06", "resp-1", "req-1"), TextStart(0)]
TAIL: list[Event] = [TextEnd(0), USAGE, Stop("end_turn", "stop")]
Script = list[Event | Pause | LoomstreamError]
SLOW: Script = [
    *HEAD,
    Pause(2),
    TextDelta(0, "Hel"),
    Pause(0.5),
    TextDelta(0, "lo"),
    Pause(3),
    TextDelta(0, "!"),
    *TAIL,
]


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param


class SDK:
    """A configured SDK that keeps everything in memory."""

    def __init__(self) -> None:
        self._exported = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exported))
        self.meters = MeterProvider(metric_readers=[self._reader])

    def otel(self, *names: str, content: bool | None = None, gaps_every: int = 32) -> Middleware:
        return otel(
            *names,
            content=content,
            gaps_every=gaps_every,
            tracer_provider=self.tracers,
            meter_provider=self.meters,
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exported.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        [span] = self.spans
        return span

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.span.attributes or {}

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        found = [
            metric.data.data_points
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return list(found[0]) if found else []


@pytest.fixture
def sdk() -> Iterator[SDK]:
    sdk = SDK()
    yield sdk
    sdk.tracers.shutdown()
    sdk.meters.shutdown()


async def test_the_span_of_a_whole_answer(sdk: SDK) -> None:
    model = scripted_model(SLOW, middleware=[sdk.otel("openai", "gpt-4o"), cost("openai", "gpt-4o")])
    await model.complete("hi", max_tokens=50, temperature=0, stop_sequences=["END"], seed=7)
    span = sdk.span
    assert (span.name, span.kind, span.status.status_code) == ("chat gpt-4o", trace.SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(sdk.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.seed": 7,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "resp-1",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.finish_reasons": ("stop",),
        "loomstream.stop_reason": "end_turn",
        "gen_ai.response.time_to_first_chunk": 2.0,
        "gen_ai.usage.input_tokens": 8,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 8,
        "loomstream.outcome": "whole",
        "loomstream.attempts": 1,
        "loomstream.resets": 0,
        "loomstream.reads": 3,
        "loomstream.longest_gap_s": 3.0,
        "loomstream.request_id": "req-1",
        "loomstream.cost_usd": pytest.approx(0.00021375),
        "loomstream.cost_lower_usd": pytest.approx(0.00021375),
        "loomstream.cost_upper_usd": pytest.approx(0.00021375),
        "loomstream.cost_exact": True,
    }
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == 5_500_000_000


async def test_the_metrics(sdk: SDK) -> None:
    watching = sdk.otel("openai", "gpt-4o", gaps_every=1)
    for _ in range(2):
        await scripted_model(SLOW, middleware=[watching]).complete("hi")
    known = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
    }
    expected = {
        "gen_ai.client.operation.duration": (2, 11.0),
        "gen_ai.client.operation.time_to_first_chunk": (2, 4.0),
        "gen_ai.client.operation.time_per_output_chunk": (4, 7.0),
    }
    for name, (count, total) in expected.items():
        [point] = sdk.points(name)
        assert (name, point.count, point.sum, point.attributes) == (name, count, total, known)
        assert point.explicit_bounds[0] == 0.01
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in sdk.points("gen_ai.client.token.usage")}
    assert tokens == {"input": 16, "output": 40}
    [spent] = sdk.points("loomstream.client.cost")
    assert spent.value == pytest.approx(2 * 0.00021375)


async def test_gaps_are_sampled_over_all_calls(sdk: SDK) -> None:
    watching = sdk.otel(gaps_every=3)
    for _ in range(3):
        await scripted_model(SLOW, middleware=[watching]).complete("hi")
    [point] = sdk.points("gen_ai.client.operation.time_per_output_chunk")
    assert point.count == 2  # of six


async def test_without_names_the_span_is_named_by_the_answer(sdk: SDK) -> None:
    await scripted_model(SLOW, middleware=[sdk.otel()]).complete("hi")
    assert sdk.span.name == "chat gpt-4o-2024-08-06"
    assert sdk.attributes["gen_ai.provider.name"] == "openai"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bedrock", "aws.bedrock"), ("mistral", "mistral_ai"), ("xai", "x_ai"), ("openai", "openai"), ("mine", "mine")],
)
def test_providers_have_the_names_of_the_conventions(name: str, expected: str) -> None:
    assert otel_name(name) == expected


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (Stop("end_turn", "STOP"), "STOP"),
        (Stop("end_turn"), "stop"),
        (Stop("max_tokens"), "length"),
        (Stop("tool_use"), "tool_calls"),
        (Stop("other", f"because of {CANARY}"), "other"),
        (Stop("other", "x" * 65), "other"),
    ],
)
async def test_a_reason_is_the_models_own_word(sdk: SDK, stop: Stop, told: str) -> None:
    script: Script = [*HEAD, TextDelta(0, "Hel"), *TAIL[:-1], stop]
    await scripted_model(script, middleware=[sdk.otel("openai", "gpt-4o")]).complete("hi")
    assert sdk.attributes["gen_ai.response.finish_reasons"] == (told,)
    assert sdk.attributes["loomstream.stop_reason"] == stop.reason


async def test_a_broken_answer_is_an_error_with_what_had_come(sdk: SDK) -> None:
    script: Script = [*HEAD, TextDelta(0, "Hel"), Usage(input_tokens=3, output_tokens=1), ConnectionLost(CANARY)]
    with pytest.raises(ConnectionLost):
        await scripted_model(script, middleware=[sdk.otel("openai", "gpt-4o")]).complete("hi")
    assert sdk.span.status.status_code is StatusCode.ERROR
    assert sdk.span.status.description == sdk.attributes["error.type"] == "ConnectionLost"
    assert sdk.attributes["loomstream.outcome"] == "failed"
    assert sdk.attributes["gen_ai.usage.output_tokens"] == 1
    assert "gen_ai.response.finish_reasons" not in sdk.attributes
    [duration] = sdk.points("gen_ai.client.operation.duration")
    assert duration.attributes["error.type"] == "ConnectionLost"


async def test_an_error_of_ours_has_its_words_and_a_provider_s_its_status(sdk: SDK) -> None:
    model = scripted_model([*HEAD, Pause(100)], [BadRequest(CANARY, status=413)], middleware=[sdk.otel()])
    with pytest.raises(DeadlineExceeded):
        await model.complete("hi", timeouts=Timeouts(total_s=7))
    with pytest.raises(BadRequest):
        await model.complete("hi")
    late, refused = sdk.spans
    assert late.status.description == "the call took longer than 7 s in all"
    assert refused.attributes is not None
    assert refused.attributes["http.response.status_code"] == 413
    assert refused.status.description == "BadRequest"


async def test_an_answer_that_its_reader_left_is_no_error(sdk: SDK) -> None:
    async with scripted_model(SLOW, middleware=[sdk.otel()]).stream("hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    assert sdk.attributes["loomstream.outcome"] == "abandoned"
    assert sdk.span.status.status_code is StatusCode.UNSET


async def test_every_try_is_an_event_of_the_span(sdk: SDK) -> None:
    flaky = scripted_model([Overloaded(CANARY, provider="openai", model="gpt-4o")], SLOW)
    await scripted_model(SLOW, middleware=[sdk.otel(), lambda _: retry()(flaky.handler)]).complete("hi")
    [event] = sdk.span.events
    assert event.name == "loomstream.retry"
    assert event.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "error.type": "Overloaded",
        "loomstream.may_be_billed": False,
    }
    assert sdk.attributes["loomstream.attempts"] == 2


async def test_spans_of_what_is_inside_are_its_children(sdk: SDK) -> None:
    """Also where the reads run in tasks of a race; and the reader's own context is as it was."""

    def inside(handler: Handler) -> Handler:
        def traced(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
            sdk.tracers.get_tracer("http").start_span("POST").end()
            return handler(request)

        return traced

    model = scripted_model(SLOW, middleware=[inside])
    raced = hedge([Candidate("a", model.handler), Candidate("b", model.handler)], delay_s=1)
    with sdk.tracers.get_tracer("app").start_as_current_span("app") as app:
        async with scripted_model(SLOW, middleware=[sdk.otel("p", "m"), lambda _: raced]).stream("hi") as stream:
            async for _ in stream:
                assert trace.get_current_span() is app
    spans = {span.name: span for span in sdk.spans}
    assert len(sdk.spans) == 4
    assert spans["POST"].parent == spans["chat m"].context
    assert spans["chat m"].parent == spans["app"].context


# --- content -------------------------------------------------------------------------------------

PROMPT = [
    Message("user", (Text(f"look {CANARY}"), Image(data=b"\x89PNG\r\n\x1a\n" + CANARY.encode()))),
    Message("assistant", (ToolCall("c1", "find", f'{{"q": "{CANARY}"}}'),)),
    Message("tool", (ToolResult("c1", (Text(CANARY),)),)),
]


@pytest.mark.parametrize("ending", ["whole", "error", "warning"])
async def test_nothing_of_a_prompt_or_an_answer_leaves_unasked(sdk: SDK, ending: str) -> None:
    script: Script = [Notice("retry", CANARY), *HEAD, TextDelta(0, CANARY)]
    script += [ConnectionLost(CANARY)] if ending == "error" else [Notice("warning", CANARY), *TAIL]
    model = scripted_model(script, middleware=[sdk.otel()])
    tools = [Tool("find", CANARY)]
    async with model.stream(PROMPT, system=CANARY, tools=tools, metadata={"k": CANARY}) as stream:
        with pytest.raises(ConnectionLost) if ending == "error" else nullcontext():
            await stream.collect()
    assert CANARY not in sdk.span.to_json()


@pytest.mark.parametrize("how", ["option", "variable"])
async def test_content_by_opt_in(sdk: SDK, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTENT_VARIABLE, "SPAN_ONLY" if how == "variable" else "false")
    watching = sdk.otel(content=True) if how == "option" else sdk.otel()
    await scripted_model(SLOW, middleware=[watching]).complete(PROMPT, system="Be brief")
    asked = json.loads(sdk.attributes["gen_ai.input.messages"])
    assert [message["role"] for message in asked] == ["user", "assistant", "tool"]
    assert asked[0]["parts"] == [
        {"type": "text", "content": f"look {CANARY}"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "bytes": 19},
    ]
    assert asked[1]["parts"] == [{"type": "tool_call", "id": "c1", "name": "find", "arguments": {"q": CANARY}}]
    assert asked[2]["parts"][0]["response"] == [{"type": "text", "content": CANARY}]
    assert json.loads(sdk.attributes["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief"}]
    assert json.loads(sdk.attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello!"}], "finish_reason": "end_turn"}
    ]


# --- on, off, failing ----------------------------------------------------------------------------


async def test_without_an_sdk_a_call_is_not_touched() -> None:
    handler = scripted_model(SLOW).handler
    asked = Request(messages=())
    assert type(otel()(handler)(asked)) is type(handler(asked))


async def test_an_sdk_that_is_set_up_later_is_found_and_one_that_is_switched_off_asked_once(
    sdk: SDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, asked = otel(), Request(messages=())
    handler = scripted_model(SLOW).handler
    bare = type(handler(asked))
    assert type(watching(handler)(asked)) is bare
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    off = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: off)
    assert [type(watching(handler)(asked)) is bare for _ in range(2)] == [True, True]
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: sdk.tracers)
    assert type(watching(handler)(asked)) is not bare


async def test_an_sdk_that_fails_breaks_no_stream(sdk: SDK, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(trace.NoOpTracer):
        def start_span(self, *_: object, **__: object) -> NoReturn:
            raise RuntimeError(CANARY)

    class Provider(TracerProvider):
        def get_tracer(self, *_: object, **__: object) -> trace.Tracer:
            return Broken()

    model = scripted_model(
        text_events("Hel", "lo"), middleware=[otel(tracer_provider=Provider(), meter_provider=sdk.meters)]
    )
    async with model.stream("hi") as stream:
        events = [event async for event in stream]
    check_order(events)
    assert [event.kind for event in events if isinstance(event, Notice)] == ["warning"]
    assert stream.response.text == "Hello"
    assert "RuntimeError" in caplog.text


def test_what_is_missing_or_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        otel(gaps_every=0)
    real = builtins.__import__

    def without(name: str, *arguments: object, **named: object) -> object:
        if name.endswith("otel_calls"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'loomstream\[otel\]'"):
        otel()


# --- a real receiver -----------------------------------------------------------------------------


class Receiver:
    """An OTLP/HTTP receiver on loopback."""

    def __init__(self) -> None:
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                kind, into = {
                    "/v1/traces": (ExportTraceServiceRequest, receiver.traces),
                    "/v1/metrics": (ExportMetricsServiceRequest, receiver.metrics),
                }[self.path]
                into.append(kind.FromString(body))  # type: ignore[attr-defined]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


async def test_an_otlp_receiver_gets_the_span_and_the_metrics(receiver: Receiver) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{receiver.url}/v1/metrics"), 1e9)
    meters = MeterProvider(metric_readers=[reader])
    watching = otel("openai", "gpt-4o", gaps_every=1, tracer_provider=tracers, meter_provider=meters)
    await scripted_model(SLOW, middleware=[watching]).complete("hi")
    tracers.shutdown()
    meters.shutdown()
    [scope] = receiver.traces[0].resource_spans[0].scope_spans
    [span] = scope.spans
    assert (scope.scope.name, span.name) == ("loomstream", "chat gpt-4o")
    values = {each.key: each.value for each in span.attributes}
    assert values["gen_ai.usage.input_tokens"].int_value == 8
    assert values["loomstream.cost_usd"].double_value == pytest.approx(0.00021375)
    names = {metric.name for metric in receiver.metrics[0].resource_metrics[0].scope_metrics[0].metrics}
    assert names == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.operation.time_per_output_chunk",
        "gen_ai.client.token.usage",
        "loomstream.client.cost",
    }
