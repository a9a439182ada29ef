"""A hundred streams at once on one Model, a third of them broken: nothing may cross, nothing may stay open."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

import loomstream as ls
from loomstream.errors import StreamCancelled
from loomstream.events import Event
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model
from loomstream.testing.replay import Step

pytestmark = pytest.mark.anyio

STREAMS = 100
SEED = 20261122
HEAD_END = b"\r\n\r\n"
ROADS = ("break", "raise", "cancel", "scope", "close")
"""How a stream is left early: a break, an error of ours, `Stream.cancel()`, our task's cancellation, `aclose()`."""


# --- what is asked and answered ------------------------------------------------------------------


END_FRAMES = 3
"""An answer's finish, its usage and `[DONE]`."""
END_EVENTS = 4
"""What they bring: the ends of two calls, usage, stop."""


class Plan(NamedTuple):
    """What caller `number` does: how it leaves its stream, and after how many events; `read` reads to the end."""

    number: int
    road: str = "read"
    events: int = 0


def plans() -> list[Plan]:
    dice = random.Random(SEED)  # noqa: S311 (a test's dice)
    broken = dice.sample(range(STREAMS), STREAMS // 3)
    return [
        Plan(number, dice.choice(ROADS), dice.randrange(len(answer_events(number)) - END_EVENTS))
        if number in broken
        else Plan(number)
        for number in range(STREAMS)
    ]


def tools(number: int) -> list[ls.Tool]:
    return [ls.Tool(f"tool_{number}_{letter}") for letter in "ab"]


def text(number: int) -> list[str]:
    """Answers differ in length, so that they end in different rounds."""
    return [f"<{number}.{piece}>" for piece in range(1 + number % 7)]


def frames(number: int, tool_names: list[str]) -> list[bytes]:
    """Give the answer to caller `number` in frames; the names of its tools come out of its request."""
    deltas: list[dict[str, object]] = [{"content": piece} for piece in text(number)]
    for index, name in enumerate(tool_names):
        call = {"index": index, "id": f"call_{number}_{index}", "type": "function"}
        deltas += [
            {"tool_calls": [{**call, "function": {"name": name, "arguments": '{"caller":'}}]},
            {"tool_calls": [{"index": index, "function": {"arguments": f"{number}}}"}}]},
        ]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    head = {"id": f"chatcmpl-{number}", "model": f"model-{number}"}
    bodies: list[object] = [{**head, "choices": [choice]} for choice in choices]
    usage = {"prompt_tokens": 1000 + number, "completion_tokens": 2000 + number}
    bodies.append({**head, "choices": [], "usage": usage})
    return [b"data: %s\n\n" % json.dumps(body).encode() for body in bodies] + [b"data: [DONE]\n\n"]


def answer_events(number: int) -> list[Event]:
    """Give what caller `number` must see, and nothing else; costs aside."""
    events: list[Event] = [
        ls.Start("openai-compatible", f"model-{number}", f"chatcmpl-{number}", f"req-{number}"),
        ls.TextStart(0),
        *(ls.TextDelta(0, piece) for piece in text(number)),
        ls.TextEnd(0),
    ]
    calls = [(index, f"call_{number}_{index - 1}", tool.name) for index, tool in enumerate(tools(number), 1)]
    for index, id_, name in calls:
        events += [
            ls.ToolCallStart(index, id_, name),
            ls.ToolCallDelta(index, '{"caller":'),
            ls.ToolCallDelta(index, f"{number}}}"),
        ]
    events += [ls.ToolCallEnd(index, id_, name, f'{{"caller":{number}}}') for index, id_, name in calls]
    usage = ls.Usage(input_tokens=1000 + number, output_tokens=2000 + number, final=True)
    return [*events, usage, ls.Stop("tool_use", "tool_calls")]


def comparable(events: list[Event]) -> list[str]:
    """Costs are ours and the raw usage is the wire's: neither is compared."""
    kept = [event for event in events if not isinstance(event, ls.Cost)]
    return [
        repr(ls.Usage(input_tokens=event.input_tokens, output_tokens=event.output_tokens, final=event.final))
        if isinstance(event, ls.Usage)
        else repr(event)
        for event in kept
    ]


def caller_of(body: bytes) -> tuple[int, list[str]]:
    """Give the caller and its tools out of a request's body."""
    sent = json.loads(body)
    number = int(sent["messages"][-1]["content"].removeprefix("I am caller "))
    return number, [tool["function"]["name"] for tool in sent["tools"]]


# --- the callers ---------------------------------------------------------------------------------


class OurError(Exception):
    """What a consumer's own code raises."""


class Callers:
    """Runs the plans on one Model, and keeps what each of them saw."""

    def __init__(self, model: ls.Model) -> None:
        self._model = model
        self.seen: dict[int, list[Event]] = {}
        self.responses: dict[int, ls.Response] = {}
        self._streams: list[ls.Stream] = []  # kept, so that no garbage collection closes what was left open

    async def run(self, plan: Plan) -> None:
        stream = self._model.stream(f"I am caller {plan.number}", tools=tools(plan.number))
        self._streams.append(stream)
        seen = self.seen[plan.number] = []
        with anyio.CancelScope() as scope:
            try:
                async with stream:
                    await self._read(plan, stream, seen, scope)
            except (OurError, StreamCancelled):
                assert plan.road in {"raise", "cancel"}
        self.responses[plan.number] = stream.response

    async def _read(self, plan: Plan, stream: ls.Stream, seen: list[Event], scope: anyio.CancelScope) -> None:
        async for event in stream:
            seen.append(event)
            if plan.road == "read" or len(seen) <= plan.events:
                continue
            match plan.road:
                case "break":
                    break
                case "raise":
                    raise OurError
                case "cancel":
                    stream.cancel()
                case "scope":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
                case _:
                    await stream.aclose()
                    break

    def check(self, plan: Plan) -> None:
        number, seen, response = plan.number, self.seen[plan.number], self.responses[plan.number]
        expected = comparable(answer_events(number))
        got = comparable(seen)
        check_order(seen, complete=plan.road == "read")
        assert got == expected[: len(got)], f"caller {number}"
        if plan.road != "read":
            assert len(seen) == plan.events + 1
            assert not response.complete
            return
        assert got == expected
        assert response.text == "".join(text(number))
        assert [(call.id, call.name) for call in response.tool_calls] == [
            (f"call_{number}_{index}", tool.name) for index, tool in enumerate(tools(number))
        ]
        assert (response.response_id, response.request_id) == (f"chatcmpl-{number}", f"req-{number}")
        assert response.complete


# --- the server ----------------------------------------------------------------------------------


class Server:
    """Answers all callers in turn, one frame a round, once all of them have asked.

    Which connection writes first changes with each round, so that no order of arrival is a stable one. It never ends
    the answers to those who are `leaving`, so that nothing but their hanging up closes their connections.
    """

    def __init__(self, leaving: set[int]) -> None:
        self._leaving = leaving
        self._dice = random.Random(SEED)  # noqa: S311 (a test's dice)
        self._pending: list[tuple[int, SocketStream, list[bytes]]] = []
        self._all_asked = anyio.Event()
        self._changed = anyio.Event()
        self.open: dict[SocketStream, int] = {}
        self.most_open = 0

    async def handle(self, stream: SocketStream) -> None:
        self.open[stream] = -1
        self.most_open = max(self.most_open, len(self.open))
        try:
            async with stream:
                await self._take_requests(stream)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the client hung up, which a third of them does
        finally:
            del self.open[stream]
            self._changed.set()
            self._changed = anyio.Event()

    async def _take_requests(self, stream: SocketStream) -> None:
        buffer = b""
        while True:
            buffer += await stream.receive()
            head, found, body = buffer.partition(HEAD_END)
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) if found else 0
            if not found or len(body) < length:
                continue
            buffer = body[length:]
            number, names = caller_of(body[:length])
            self.open[stream] = number
            self._pending.append((number, stream, frames(number, names)))
            if len(self._pending) == STREAMS:
                self._all_asked.set()

    async def answer(self) -> None:
        await self._all_asked.wait()
        for number, _, answer in self._pending:
            answer[:0] = [
                f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req-{number}\r\n".encode()
                + b"transfer-encoding: chunked\r\n\r\n"
            ]
            if number in self._leaving:
                del answer[-END_FRAMES:]
        while self._pending:
            self._dice.shuffle(self._pending)
            for asked in list(self._pending):
                await self._write_next(*asked)
                if not asked[2]:
                    self._pending.remove(asked)

    async def _write_next(self, number: int, stream: SocketStream, answer: list[bytes]) -> None:
        frame = answer.pop(0)
        framed = frame if frame.startswith(b"HTTP/") else b"%x\r\n%s\r\n" % (len(frame), frame)
        try:
            await stream.send(framed if answer or number in self._leaving else framed + b"0\r\n\r\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            answer.clear()

    async def only_open(self, callers: set[int]) -> None:
        """Return once no connection but those of `callers` is open."""
        with anyio.fail_after(10):
            while not set(self.open.values()) <= callers:
                await self._changed.wait()


@asynccontextmanager
async def serving(leaving: set[int]) -> AsyncGenerator[tuple[Server, str]]:
    server = Server(leaving)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=STREAMS)
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 (not Django)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.handle)
        group.start_soon(server.answer)
        yield server, f"http://127.0.0.1:{port}/v1"
        group.cancel_scope.cancel()


def living_tasks() -> int:
    """Count the tasks of the running event loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio  # noqa: PLC0415 (only where it runs)

        return trio.lowlevel.current_statistics().tasks_living


async def together(group: TaskGroup, callers: Callers, all_plans: list[Plan]) -> None:
    for plan in all_plans:
        group.start_soon(callers.run, plan)


async def test_a_hundred_streams_over_http() -> None:
    all_plans = plans()
    assert {plan.road for plan in all_plans} == {"read", *ROADS}
    read = {plan.number for plan in all_plans if plan.road == "read"}
    before = living_tasks()
    async with serving(set(range(STREAMS)) - read) as (server, base_url):
        with_server = living_tasks()
        async with ls.connect("openai-compatible:any", base_url=base_url) as model:
            callers = Callers(model)
            async with anyio.create_task_group() as group:
                await together(group, callers, all_plans)
            for plan in all_plans:
                callers.check(plan)
            assert server.most_open == STREAMS
            await server.only_open(read)
        await server.only_open(set())
        assert living_tasks() == with_server
    assert living_tasks() == before


async def test_a_hundred_streams_are_cancelled_before_their_answers() -> None:
    """The server has every request and answers none: all callers leave at once."""
    before = living_tasks()
    async with serving(set()) as (server, base_url), ls.connect("openai-compatible:any", base_url=base_url) as model:
        callers = Callers(model)
        async with anyio.create_task_group() as group:
            # One short of all: so the server waits for ever.
            await together(group, callers, [Plan(number) for number in range(STREAMS - 1)])
            with anyio.fail_after(20):
                while len(server._pending) < STREAMS - 1:
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await server.only_open(set())
        assert all(not seen for seen in callers.seen.values())
    assert living_tasks() == before


# --- the same without a network ------------------------------------------------------------------


def recorded(number: int) -> Recording:
    """Give an answer that takes a few turns of the event loop between any two frames."""
    names = [tool.name for tool in tools(number)]
    dice = random.Random(number)  # noqa: S311 (a test's dice)

    async def wait() -> None:
        for _ in range(dice.randrange(4)):
            await anyio.lowlevel.checkpoint()

    body: list[Step] = [step for frame in frames(number, names) for step in (wait, frame)]
    return Recording(body, headers={"content-type": "text/event-stream", "x-request-id": f"req-{number}"})


class ByCaller(ReplayTransport):
    """Answers each caller with its own recording, whatever the order in which they come."""

    @asynccontextmanager
    async def open(self, wire_request, *, connect_s=None):  # noqa: ANN001, ANN201 (the transport's signature)
        number, names = caller_of(wire_request.body)
        assert names == [tool.name for tool in tools(number)]
        one = ReplayTransport(recorded(number))
        self.requests.append(wire_request)
        self.open_responses += 1
        try:
            async with one.open(wire_request, connect_s=connect_s) as response:
                yield response
        finally:
            self.open_responses -= 1


async def test_a_hundred_streams_over_replay() -> None:
    before = living_tasks()
    transport = ByCaller()
    model = replay_model("openai-compatible", transport=transport)
    callers, all_plans = Callers(model), plans()
    async with anyio.create_task_group() as group:
        await together(group, callers, all_plans)
    for plan in all_plans:
        callers.check(plan)
    assert sorted(caller_of(request.body)[0] for request in transport.requests) == list(range(STREAMS))
    assert transport.open_responses == 0
    assert living_tasks() == before
