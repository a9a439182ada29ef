"""Conformance: what keeps the promises passes, and each broken promise is seen by the check that names it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.lowlevel
import httpx
import pytest

from loomstream.endpoint import Endpoint
from loomstream.errors import AuthFailed, LoomstreamError, RateLimited, Unsupported
from loomstream.events import Event, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.model import Model, connect
from loomstream.providers import Provider
from loomstream.providers.table import BY_NAME
from loomstream.testing import ConformanceFailure, ConformanceReport, ReplayTransport, conformance, tool_call_events
from loomstream.testing.checks import Check
from loomstream.testing.observed import Lab

pytestmark = pytest.mark.anyio


def failures(report: ConformanceReport) -> list[str]:
    return [check.name for check in report.failures]


def result(report: ConformanceReport, name: str) -> Check:
    (check,) = [check for check in report.checks if check.name == name]
    return check


# --- over HTTP -------------------------------------------------------------------------------------


def frames(deltas: Sequence[object], reason: str) -> bytes:
    made = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}
    return b"".join(f"data: {json.dumps(frame)}\n\n".encode() for frame in [*made, end, usage]) + b"data: [DONE]\n\n"


CALL = {
    "tool_calls": [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"O"}'}}
    ]
}


def host(request: httpx.Request) -> httpx.Response:
    if request.headers["authorization"] != "Bearer good-key":
        return httpx.Response(401, json={"error": {"message": "who are you?"}})
    body = json.loads(request.content)
    calls = body.get("tools") and body["messages"][-1]["role"] != "tool"
    deltas, reason = ([CALL], "tool_calls") if calls else ([{"content": word} for word in ("a", "b", "c")], "stop")
    if body.get("stream"):
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=frames(deltas, reason))
    return httpx.Response(200, json={"choices": [{"message": {"content": "abc"}, "finish_reason": "stop"}]})


def at_host(answer: Callable[[httpx.Request], httpx.Response] = host, key: str = "good-key") -> Model:
    return connect("openai:m", api_key=key, client=httpx.AsyncClient(transport=httpx.MockTransport(answer)))


async def test_a_good_host_passes_every_check() -> None:
    async with at_host() as model, at_host(key="bad-key") as refused:
        report = await conformance(model, refused=refused)
    assert {check.result for check in report.checks} == {"pass"}, str(report)
    assert str(report).splitlines()[0] == "openai:m"
    report.raise_for_failures()


async def test_a_key_that_everybody_has_is_a_failure() -> None:
    async with at_host() as model, at_host() as refused:
        report = await conformance(model, refused=refused)
    assert failures(report) == ["a wrong key is refused"]
    with pytest.raises(ConformanceFailure, match="a wrong key is refused: a wrong key was accepted"):
        report.raise_for_failures()


async def test_a_host_without_tools_is_not_held_to_them() -> None:
    def without(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        return httpx.Response(400, json={"error": {"message": "no tools here"}}) if body.get("tools") else host(request)

    async with at_host(without) as model:
        report = await conformance(model)
    assert failures(report) == []
    assert result(report, "a tool is called").result == "not applicable"
    assert "no tools here" in result(report, "a tool is called").why


async def test_a_host_that_only_refuses_to_be_forced() -> None:
    def unforced(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        return httpx.Response(400, json={"error": {"message": "no"}}) if "tool_choice" in body else host(request)

    async with at_host(unforced) as model:
        report = await conformance(model)
    assert result(report, "a tool is called").result == "pass"


async def test_a_host_that_cuts_its_answers_fails() -> None:
    def cut(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=host(request).content[:60])

    async with at_host(cut) as model:
        report = await conformance(model)
    assert "a streamed answer obeys the order law" in failures(report)
    assert "StreamTruncated" in result(report, "a streamed answer obeys the order law").why
    assert result(report, "bytes may be cut anywhere").result == "not applicable"


# --- dialects --------------------------------------------------------------------------------------


class Bent:
    """The dialect of the host, bent in one place."""

    def __init__(self, inner: object, **bent: object) -> None:
        self._inner = inner
        self.__dict__.update(bent)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


async def bent(monkeypatch: pytest.MonkeyPatch, **functions: object) -> ConformanceReport:
    from loomstream.dialects import openai_chat  # noqa: PLC0415 (only here)

    monkeypatch.setattr("loomstream.attempt.dialect_module", lambda name: Bent(openai_chat, **functions))  # noqa: ARG005
    async with at_host() as model:
        return await conformance(model)


async def test_a_dialect_that_depends_on_the_cuts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Lab.run

    async def forgetful(self: Lab, pieces: Sequence[bytes], response: object = None) -> tuple[list[Event], str]:
        pieces = list(pieces)
        return ([], "") if len(pieces) > 5 else await run(self, pieces, response)  # type: ignore[arg-type]

    monkeypatch.setattr(Lab, "run", forgetful)
    async with at_host() as model:
        report = await conformance(model)
    assert failures(report) == ["bytes may be cut anywhere"]
    assert "the same bytes gave other events when they came in pieces of" in report.failures[0].why


class Lenient:
    """A translator that takes the end of a body for the end of the answer."""

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self._text_is_open = False

    def feed(self, frame: object) -> list[object]:
        out = self._inner.feed(frame)  # type: ignore[attr-defined]
        for event in out:
            self._text_is_open = isinstance(event, TextStart | TextDelta)
        return out

    def finish(self) -> list[object]:
        if self._text_is_open:
            return [TextEnd(0), Stop("end_turn")]
        return self._inner.finish()  # type: ignore[attr-defined]


async def test_a_dialect_that_lets_a_cut_answer_pass_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from loomstream.dialects import openai_chat  # noqa: PLC0415 (only here)

    report = await bent(monkeypatch, translator=lambda target: Lenient(openai_chat.translator(target)))
    assert failures(report) == ["a truncated answer is an error"]
    assert report.failures[0].why.endswith("bytes pass for a whole answer")


async def test_a_dialect_with_the_wrong_errors_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse_error(status: int, headers: object, body: bytes, target: object) -> LoomstreamError:
        del headers, body, target
        return AuthFailed("no", status=status) if status == 401 else RateLimited("always", status=status)

    report = await bent(monkeypatch, parse_error=parse_error)
    assert failures(report) == ["HTTP errors are typed"]
    assert "status 500 with b'' becomes RateLimited, not ServerFault or Overloaded" in report.failures[0].why


async def test_a_dialect_that_raises_on_garbage_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from loomstream.dialects import openai_chat  # noqa: PLC0415 (only here)

    def parse_response(body: bytes, target: object) -> object:
        if b"choices" not in body:
            raise KeyError
        return openai_chat.parse_response(body, target)  # type: ignore[arg-type]

    report = await bent(monkeypatch, parse_response=parse_response)
    assert failures(report) == ["what is no answer is an error"]
    assert "KeyError came out, which is no LoomstreamError" in report.failures[0].why


# --- handlers --------------------------------------------------------------------------------------

GOOD: tuple[Event, ...] = (
    Start("acme", "m"),
    TextStart(0),
    TextDelta(0, "one "),
    TextDelta(0, "two "),
    TextDelta(0, "three "),
    TextEnd(0),
    Usage(input_tokens=1, output_tokens=3, final=True),
    Stop("end_turn"),
)


async def events_of(*events: Event | Exception) -> AsyncGenerator[Event]:
    for event in events:
        await anyio.lowlevel.checkpoint()
        if isinstance(event, Exception):
            raise event
        yield event


def words() -> AsyncGenerator[Event]:
    return events_of(*GOOD)


def handler_of(make: Callable[[Request], AsyncIterator[Event]], *, close: bool = True) -> Handler:
    @asynccontextmanager
    async def handler(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        events = make(request)
        if close:
            async with aclosing(events):  # type: ignore[type-var]
                yield events
        else:
            yield events

    return handler


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], Model]:
    """Give a function that gives a model with this handler."""

    def making(handler: Handler) -> Model:
        row = Provider(name="acme", handler="tests_acme_handler:make", auth="none", default_model="m")
        monkeypatch.setitem(BY_NAME, "acme", row)
        monkeypatch.setattr("loomstream.model.imported", lambda *_: lambda model, credentials: handler)  # noqa: ARG005
        return Model(Endpoint(row, "m"), transport=ReplayTransport())

    return making


MakeModel = Callable[[Handler], Model]


async def test_a_good_handler_passes(acme: MakeModel) -> None:
    report = await conformance(acme(handler_of(lambda request: words())))  # noqa: ARG005 (the handler's signature)
    assert failures(report) == [], str(report)
    assert result(report, "bytes may be cut anywhere").why == "a handler of its own gives events, not bytes"
    assert "the model called no tool" in result(report, "a tool is called").why


@pytest.mark.parametrize(
    ("events", "what"),
    [
        ([event for event in GOOD if not isinstance(event, TextEnd)], "comes while blocks are open"),
        ([event for event in GOOD if not isinstance(event, Stop)], "the events ended without a Stop"),
        ([GOOD[0], GOOD[-1]], "no text came; the answer stopped with Stop(reason='end_turn', raw='')"),
        ([Start("other", "m"), *GOOD[1:]], "Start names the provider 'other', not 'acme'"),
        ([GOOD[0], KeyError("x")], "MiddlewareError: "),
    ],
)
async def test_events_that_break_the_law(acme: MakeModel, events: list[Event | Exception], what: str) -> None:
    report = await conformance(acme(handler_of(lambda request: events_of(*events))))  # noqa: ARG005 (as above)
    check = result(report, "a streamed answer obeys the order law")
    assert check.result == "fail"
    assert what in check.why


async def test_an_answer_that_counts_nothing(acme: MakeModel) -> None:
    events = [Usage(input_tokens=1, final=True) if isinstance(event, Usage) else event for event in GOOD]
    report = await conformance(acme(handler_of(lambda request: events_of(*events))))  # noqa: ARG005 (as above)
    assert failures(report) == ["usage is counted"]


class Forever:
    """Events that go on whatever happens."""

    def __init__(self) -> None:
        self._given = 0

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        await anyio.lowlevel.checkpoint()
        self._given += 1
        first: list[Event] = [Start("acme", "m"), TextStart(0)]
        last: list[Event] = [TextEnd(0), Usage(input_tokens=1, output_tokens=9, final=True), Stop("end_turn")]
        if self._given <= 2:
            return first[self._given - 1]
        if self._given == 16:
            raise StopAsyncIteration
        return TextDelta(0, "on ") if self._given <= 12 else last[self._given - 13]


async def test_events_that_go_on_after_the_stream_was_left(acme: MakeModel) -> None:
    report = await conformance(acme(handler_of(lambda request: Forever(), close=False)))  # noqa: ARG005 (as above)
    assert failures(report) == ["leaving early closes the upstream"]
    assert report.failures[0].why == "the handler's events go on after its context was left"


async def test_a_handler_that_hangs_is_given_up(acme: MakeModel) -> None:
    async def hanging() -> AsyncGenerator[Event]:
        yield Start("acme", "m")
        await anyio.sleep_forever()

    report = await conformance(acme(handler_of(lambda request: hanging())), patience_s=0.01)  # noqa: ARG005 (as above)
    assert result(report, "a streamed answer obeys the order law").why == "it took longer than 0.01 s"


@pytest.mark.parametrize(
    ("name", "arguments", "stop", "what"),
    [
        ("get_weather", '{"city": "Oslo"}', "tool_use", ""),
        ("other", '{"city": "Oslo"}', "tool_use", "the call has the id 'call_0' and the name 'other'"),
        ("get_weather", '{"city": "Os', "tool_use", "the arguments are no JSON object"),
        ("get_weather", '{"city": "Oslo"}', "end_turn", "the answer stopped with"),
    ],
)
async def test_tools(acme: MakeModel, name: str, arguments: str, stop: str, what: str) -> None:
    *events, _ = tool_call_events(name, arguments, provider="acme", model="m")
    calling = [*events, Stop(stop)]  # type: ignore[arg-type]

    def answer(request: Request) -> AsyncIterator[Event]:
        return events_of(*calling) if request.tools and request.messages[-1].role != "tool" else words()

    report = await conformance(acme(handler_of(answer)))
    check = result(report, "a tool is called")
    assert (check.result, what in check.why) == ("fail" if what else "pass", True)
    assert result(report, "a tool's result is taken").result == ("not applicable" if what else "pass")


async def test_tools_that_are_refused(acme: MakeModel) -> None:
    refusing = [Unsupported("no tools")]
    report = await conformance(acme(handler_of(lambda request: events_of(*(refusing if request.tools else GOOD)))))
    assert result(report, "a tool is called").why == "tools are refused: no tools"
