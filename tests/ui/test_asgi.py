"""A stream as an HTTP response, on bare ASGI: resume, clients that vanish or send rubbish, errors in the body."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, MutableMapping
from contextlib import nullcontext
from typing import Any

import anyio
import pytest
from held_models import HeldModel

from loomstream import ui
from loomstream.errors import RateLimited, UsageError
from loomstream.testing import Pause, scripted_model, text_events
from loomstream.ui import Broadcast, Hub

pytestmark = pytest.mark.anyio
ANSWER = text_events("Hello", " world")
Message = MutableMapping[str, Any]


class Client:
    """The server's side of a connection: notes what is sent, says when the client is gone."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.scope = {"type": "http", "method": "GET", "path": "/", "headers": list(headers)}
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.ended = False
        self.gone = anyio.Event()
        self.on_body: Callable[[bytes], None] = lambda _: None
        self.stall = False

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.gone.is_set():
            raise BrokenPipeError
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            return
        if self.stall and b"data" in message.get("body", b""):
            await anyio.sleep(math.inf)
        self.pieces.append(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        self.on_body(self.pieces[-1])

    @property
    def data(self) -> list[dict[str, Any]]:
        lines = b"".join(self.pieces).decode().splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

    @property
    def text(self) -> str:
        return "".join(data["text"] for data in self.data if data["type"] == "text_delta")


async def get(source: Any, *headers: tuple[bytes, bytes], **options: Any) -> Client:  # noqa: ANN401 (any source)
    client = Client(*headers)
    await ui.respond(client.scope, client.receive, client.send, source, **options)
    return client


async def test_a_whole_answer() -> None:
    client = await get(scripted_model(ANSWER).stream("Hi"), headers=[("x-mine", "1")])
    assert (client.status, client.ended) == (200, True)
    assert client.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert client.headers[b"x-accel-buffering"] == b"no"
    assert client.headers[b"x-mine"] == b"1"
    assert client.text == "Hello world"
    assert [data["type"] for data in client.data[-2:]] == ["stop", "end"]
    assert client.pieces[0] == b"retry: 1000\n\n"  # the headers do not wait for the first token


@pytest.mark.parametrize("kind", ["sse", "ndjson", "ai-sdk"])
async def test_an_error_stands_in_the_body_of_every_format(kind: Any) -> None:  # noqa: ANN401 (a Format)
    client = await get(scripted_model([*ANSWER[:3], RateLimited("too many")]).stream("Hi"), format=kind)
    body = b"".join(client.pieces)
    assert client.ended
    assert b"Hello" in body
    assert b"RateLimited" in body
    assert b'"end"' not in body
    assert b'"finish"' not in body


async def test_what_strangers_are_told_of_an_error() -> None:
    stream = scripted_model([RateLimited("key sk-1 of team Rocket")]).stream("Hi")
    client = await get(stream, describe=ui.describe_kind)
    assert client.data[-1]["error"] == "RateLimited"
    assert b"Rocket" not in b"".join(client.pieces)


async def test_who_comes_back_goes_on_behind_the_last_event() -> None:
    async with Hub() as hub:
        broadcast = hub.publish("a", scripted_model(ANSWER).stream("Hi"))
        whole = await get(broadcast)
        rest = await get(broadcast, (b"last-event-id", b"3"))
        assert [data["text"] for data in rest.data if data["type"] == "text_delta"] == [" world"]
        assert rest.data == whole.data[3:]
        assert (await get(broadcast, (b"last-event-id", str(broadcast.last).encode()))).data == [{"type": "end"}]
        assert (await get(broadcast, (b"last-event-id", str(broadcast.last + 1).encode()))).status == 204


async def test_the_ai_sdk_s_stream_is_resumed_with_what_it_needs_to_know() -> None:
    async with Hub() as hub:
        broadcast = hub.publish("a", scripted_model(ANSWER).stream("Hi"))
        whole = b"".join((await get(broadcast, format="ai-sdk")).pieces)
        rest = b"".join((await get(broadcast, (b"last-event-id", b"3"), format="ai-sdk")).pieces)
        assert rest == whole[whole.index(b"id: 4\n") :]


@pytest.mark.parametrize(
    ("given", "status"),
    [(b"x", 400), (b"-1", 400), (b"9999", 400), (b"1e3", 400), ("٣".encode(), 400), (b"9" * 5000, 400), (b"\xff", 400)],
)
async def test_rubbish_for_an_id_is_refused(given: bytes, status: int) -> None:
    async with Hub() as hub:
        client = await get(hub.publish("a", HeldModel().stream()), (b"last-event-id", given))
    assert (client.status, client.ended) == (status, True)


async def test_what_the_log_has_let_go_of_is_gone() -> None:
    broadcast = Broadcast(scripted_model(text_events(*"abcdefgh" * 50)).stream("Hi"), replay=10)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broadcast.run)
        assert (await get(broadcast)).status == 200
        assert (await get(broadcast, (b"last-event-id", b"3"))).status == 410
        assert (await get(broadcast, format="ai-sdk")).status == 410


async def test_a_plain_stream_is_never_begun_anew() -> None:
    """An EventSource whose connection broke asks again by itself; that must not buy a second answer."""
    held = HeldModel()
    client = await get(held.stream(), (b"last-event-id", b"3"))
    assert (client.status, held.requests) == (204, [])


async def test_a_client_that_leaves_stops_the_upstream() -> None:
    held = HeldModel()
    held.give(*ANSWER[:3])
    client = Client()
    client.on_body = lambda body: client.gone.set() if b"Hello" in body else None
    with anyio.fail_after(1):
        await ui.respond(client.scope, client.receive, client.send, held.stream())
    assert (held.open_streams, client.ended) == (0, False)


async def test_a_client_that_leaves_while_nothing_comes_stops_the_upstream() -> None:
    held = HeldModel()
    client = Client()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ui.respond, client.scope, client.receive, client.send, held.stream())
        await anyio.sleep(5)
        assert held.open_streams == 1
        client.gone.set()
    assert held.open_streams == 0


async def test_a_client_that_takes_nothing_is_let_go() -> None:
    """It vanished without a word: what is sent to it stands in a buffer, and nobody reads on."""
    held = HeldModel()
    client = Client()
    client.stall = True
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ui.respond, client.scope, client.receive, client.send, held.stream())
            held.give(*text_events(*("x" for _ in range(1000)))[:-2])
    assert held.open_streams == 0
    assert held.given < 600


async def test_one_of_several_clients_leaves() -> None:
    held = HeldModel()
    async with Hub(linger_s=0) as hub:
        broadcast = hub.publish("a", held.stream())
        one, other = Client(), Client()
        async with anyio.create_task_group() as tasks:
            for client in (one, other):
                tasks.start_soon(ui.respond, client.scope, client.receive, client.send, broadcast)
            held.give(*ANSWER[:3])
            await anyio.sleep(1)
            one.gone.set()
            await anyio.sleep(1)
            assert (broadcast.readers, held.open_streams) == (1, 1)
            held.give(*ANSWER[3:])
            held.end()
        assert other.text == "Hello world"


async def test_an_idle_connection_is_kept_open() -> None:
    client = await get(scripted_model([*ANSWER[:3], Pause(50), *ANSWER[3:]]).stream("Hi"), heartbeat_s=15)
    assert client.pieces.count(b":\n\n") == 3
    assert client.text == "Hello world"


async def test_a_heartbeat_that_goes_out_slowly_never_crosses_an_event() -> None:
    client, sending = Client(), 0

    async def send(message: Message) -> None:
        nonlocal sending
        assert not sending, "two messages at once"
        sending += 1
        await anyio.sleep(20 if message.get("body") == b":\n\n" else 0)
        sending -= 1
        await client.send(message)

    stream = scripted_model([*ANSWER[:3], Pause(25), *ANSWER[3:]]).stream("Hi")
    await ui.respond(client.scope, client.receive, send, stream, heartbeat_s=15)
    assert client.pieces.count(b":\n\n") == 1  # begun after 15 s, out after 35: the events had come after 25
    assert client.text == "Hello world"
    assert client.ended


async def test_while_an_event_goes_out_slowly_there_is_no_heartbeat() -> None:
    client = Client()

    async def send(message: Message) -> None:
        await anyio.sleep(40 if b"Hello" in message.get("body", b"") else 0)
        await client.send(message)

    await ui.respond(client.scope, client.receive, send, scripted_model(ANSWER).stream("Hi"), heartbeat_s=15)
    assert b":\n\n" not in client.pieces
    assert client.text == "Hello world"


@pytest.mark.parametrize("raised", [BrokenPipeError, ValueError])
async def test_a_heartbeat_that_fails_ends_the_response(raised: type[Exception]) -> None:
    held = HeldModel()
    held.give(*ANSWER[:3])
    client = Client()

    async def send(message: Message) -> None:
        if message.get("body") == b":\n\n":
            raise raised
        await client.send(message)

    with (
        pytest.raises(ValueError, match=r"^$") if raised is ValueError else nullcontext()
    ):  # an OSError: the client is gone
        await ui.respond(client.scope, client.receive, send, held.stream())
    assert held.open_streams == 0


async def test_the_server_s_own_fault_is_passed_on_as_it_is() -> None:
    held = HeldModel()
    held.give(*ANSWER[:3])
    client = Client()

    async def send(message: Message) -> None:
        if b"data" in message.get("body", b""):
            msg = "a server's own"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="a server's own"):
        await ui.respond(client.scope, client.receive, send, held.stream())
    assert held.open_streams == 0


async def test_starlette_s_response() -> None:
    client = Client()
    answer = ui.starlette.response(scripted_model(ANSWER).stream("Hi"), format="ndjson", headers={"x-mine": "1"})
    await answer(client.scope, client.receive, client.send)
    lines = b"".join(client.pieces).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(ANSWER) + 2))
    assert client.headers[b"x-mine"] == b"1"
    with pytest.raises(UsageError, match="format"):
        ui.starlette.response(scripted_model(ANSWER).stream("Hi"), format="xml")  # pyright: ignore[reportArgumentType]
