"""How long an attempt waits: its time limits, on a virtual clock, and what is heard while a whole answer is made."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from models import (
    ANSWER,
    DONE,
    FINISH,
    PING,
    USAGE,
    WHOLE,
    delta,
    failing,
    replay,
    sleeping,
    sse,
)

from loomstream.endpoint import Endpoint
from loomstream.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    FirstEventTimeout,
    IdleTimeout,
    LoomstreamError,
    RateLimited,
)
from loomstream.events import Notice
from loomstream.messages import Timeouts
from loomstream.model import Model
from loomstream.providers import look_up
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.replay import Step
from loomstream.transport import ByteResponse
from loomstream.wire import WireRequest

pytestmark = pytest.mark.usefixtures("no_keys")


class SlowToOpen(ReplayTransport):
    """Takes its time before the headers come."""

    def __init__(self, wait_s: float, *recordings: Recording) -> None:
        super().__init__(*recordings)
        self.wait_s = wait_s

    @asynccontextmanager
    async def open(self, wire_request: WireRequest, *, connect_s: float | None = None) -> AsyncGenerator[ByteResponse]:
        await anyio.sleep(self.wait_s)
        async with super().open(wire_request, connect_s=connect_s) as response:
            yield response


@pytest.mark.anyio
class TestTimeLimits:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]

    async def elapsed(self, model: Model, error: type[LoomstreamError] | None, **options: object) -> float:
        began_s = anyio.current_time()
        async with model, model.stream("x", **options) as stream:
            if error is None:
                await stream.collect()
            else:
                with pytest.raises(error):
                    await stream.collect()
        return anyio.current_time() - began_s

    async def test_no_first_event(self) -> None:
        model, transport = replay(sleeping(3600), ANSWER, middleware=())
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)
        assert transport.open_responses == 0

    async def test_the_wait_for_the_headers_counts(self) -> None:
        transport = SlowToOpen(3600, Recording([ANSWER]))
        model = replay_model("openai", transport=transport, middleware=())
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)
        transport = SlowToOpen(40, Recording([sleeping(40), ANSWER]))
        model = replay_model("openai", transport=transport, middleware=())
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)

    async def test_pings_are_no_first_event(self) -> None:
        steps: list[Step] = [step for _ in range(30) for step in (PING, sleeping(5))]
        model, _ = replay(*steps, ANSWER, middleware=())
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)

    async def test_a_stall_after_the_first_event(self) -> None:
        model, _ = replay(delta("hi"), sleeping(3600), ANSWER)
        assert await self.elapsed(model, IdleTimeout, timeouts=Timeouts(idle_s=20)) == pytest.approx(20)

    async def test_pings_do_not_hide_a_stall(self) -> None:
        steps: list[Step] = [step for _ in range(30) for step in (sleeping(5), PING)]
        model, _ = replay(delta("hi"), *steps, ANSWER)
        assert await self.elapsed(model, IdleTimeout, timeouts=Timeouts(idle_s=20)) == pytest.approx(20)

    async def test_an_hour_of_a_healthy_stream(self) -> None:
        steps: list[Step] = [step for _ in range(72) for step in (sleeping(50), delta("x"))]
        model, _ = replay(*steps, FINISH, DONE)
        assert await self.elapsed(model, None) == pytest.approx(3600)

    async def test_a_slow_consumer_trips_nothing(self) -> None:
        model, _ = replay(delta("a"), sleeping(10), delta("b"), FINISH, DONE)
        async with model, model.stream("x") as stream:
            async for _ in stream:
                await anyio.sleep(600)
        assert stream.response.complete

    async def test_limits_that_are_off(self) -> None:
        model, _ = replay(sleeping(9999), delta("a"), sleeping(9999), FINISH, DONE)
        off = Timeouts(first_event_s=None, idle_s=None)
        assert await self.elapsed(model, None, timeouts=off) == pytest.approx(2 * 9999)

    async def test_a_stall_behind_the_marker_ends_a_whole_answer(self) -> None:
        model, transport = replay(delta("hi"), FINISH, USAGE, sleeping(3600))
        assert await self.elapsed(model, None, timeouts=Timeouts(idle_s=5)) == pytest.approx(5)
        assert transport.open_responses == 0

    async def test_a_stall_in_an_error_s_body_leaves_the_error(self) -> None:
        model, _ = replay(b'{"error":{"message":"slow down"}}', sleeping(3600), status=429, middleware=())
        assert await self.elapsed(model, RateLimited, timeouts=Timeouts(first_event_s=5)) == pytest.approx(5)

    async def test_a_consumer_may_take_its_time_over_events_without_content_too(self) -> None:
        head = sse({"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant"}}]})
        model, _ = replay(head, sleeping(1), ANSWER)
        async with model, model.stream("x", timeouts=Timeouts(first_event_s=5)) as stream:
            async for _event in stream:
                await anyio.sleep(3600)
        assert stream.response.text == "hi"

    async def test_draining_gives_up_soon(self) -> None:
        model, transport = replay(ANSWER, sleeping(3600))
        assert await self.elapsed(model, None) == pytest.approx(0.05)
        assert transport.open_responses == 0

    async def test_an_error_says_which_limit_to_raise(self) -> None:
        model, _ = replay(delta("hi"), sleeping(3600))
        async with model, model.stream("x", timeouts=Timeouts(idle_s=1.5)) as stream:
            with pytest.raises(IdleTimeout, match=r"1.5 s .*timeouts=Timeouts\(idle_s=\d+\)") as raised:
                await stream.collect()
        assert raised.value.partial is not None
        assert raised.value.partial.text == "hi"


# --- waiting for a whole answer ------------------------------------------------------------------


@pytest.mark.anyio
class TestHeartbeats:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        return {name: (name, options) for name, options in virtual_clock_backends()}[request.param]

    async def test_a_notice_says_that_the_answer_is_waited_for(self) -> None:
        body = json.dumps(WHOLE).encode()
        transport = SlowToOpen(12, Recording([body[:20], sleeping(13), body[20:]]))
        async with replay_model("openai", transport=transport) as model, model.stream("x", stream=False) as stream:
            events = [event async for event in stream]
        check_order(events)
        beats = [event for event in events if isinstance(event, Notice)]
        assert [beat.kind for beat in beats] == ["heartbeat", "heartbeat"]
        assert [beat.detail.partition(":")[0] for beat in beats] == [
            "no answer yet after 10 s",
            "no answer yet after 20 s",
        ]
        assert stream.response.text == "hi"

    async def test_an_answer_may_take_longer_than_a_stream_may_be_silent(self) -> None:
        transport = SlowToOpen(590, Recording([json.dumps(WHOLE).encode()]))
        async with replay_model("openai", transport=transport) as model:
            assert (await model.complete("x", stream=False)).text == "hi"

    @pytest.mark.parametrize("body", [[sleeping(9999)], [b"{", sleeping(9999)]])
    async def test_but_not_for_ever(self, body: list[Step]) -> None:
        began_s = anyio.current_time()
        transport = ReplayTransport(Recording(body))
        async with replay_model("openai", transport=transport, middleware=()) as model:
            with pytest.raises(FirstEventTimeout, match=r"no whole answer within 30 s.*Timeouts\(whole_s=\d+\)"):
                await model.complete("x", stream=False, timeouts=Timeouts(whole_s=30))
        assert anyio.current_time() - began_s == pytest.approx(30)
        assert transport.open_responses == 0

    async def test_a_function_that_gives_no_token_is_not_waited_for_for_ever(self) -> None:
        count = itertools.count()

        async def token() -> str:
            if next(count):
                await anyio.sleep(9999)
            return "token"

        endpoint = Endpoint(look_up("openai"), "m", api_key=token)
        async with Model(endpoint, transport=ReplayTransport(Recording([ANSWER]))) as model:
            with pytest.raises(ConnectFailed, match="gave no token within 60 s"):
                await model.complete("x")

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    async def test_what_ends_a_program_comes_out_of_the_wait(self, error: type[BaseException]) -> None:
        async def end() -> None:
            raise error

        transport = ReplayTransport(Recording([b"{", end]))
        async with replay_model("openai", transport=transport) as model:
            with pytest.raises(error):
                await model.complete("x", stream=False)
        assert transport.open_responses == 0

    async def test_the_total_limit_holds(self) -> None:
        transport = SlowToOpen(600, Recording([json.dumps(WHOLE).encode()]))
        began_s = anyio.current_time()
        async with replay_model("openai", transport=transport) as model:
            with pytest.raises(DeadlineExceeded):
                await model.complete("x", stream=False, timeouts=Timeouts(total_s=35))
        assert anyio.current_time() - began_s == pytest.approx(35)
        assert transport.open_responses == 0

    async def test_leaving_between_two_beats_closes_the_response(self) -> None:
        transport = ReplayTransport(Recording([b"{", sleeping(600), b"}"]))
        async with replay_model("openai", transport=transport) as model:
            async with model.stream("x", stream=False) as stream:
                assert isinstance(await anext(stream), Notice)
                assert transport.open_responses == 1
            assert transport.open_responses == 0

    async def test_a_failure_while_waiting_is_raised_with_what_came_before(self) -> None:
        error = ConnectionLost("reset")
        transport = ReplayTransport(Recording([json.dumps(WHOLE).encode()[:30], failing(error)]))
        async with replay_model("openai", transport=transport) as model:
            with pytest.raises(ConnectionLost, match="reset"):
                await model.complete("x", stream=False)
