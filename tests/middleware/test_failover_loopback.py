"""Failover over real sockets: a host that answers 200 with something useless, and one that answers well."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from loomstream import joined
from loomstream.errors import ConnectionLost, LoomstreamError
from loomstream.events import Notice, Start, TextDelta
from loomstream.model import Model, connect
from loomstream.testing import check_order

pytestmark = pytest.mark.anyio

RUNS = 10

SPECS = {"openai_chat": "openai:m", "anthropic_messages": "anthropic:m"}


def sse(*frames: dict[str, object]) -> bytes:
    """Write frames as both dialects do: the name of the event, where it has one, is its type."""
    return b"".join(
        (f"event: {frame['type']}\n" if "type" in frame else "").encode() + f"data: {json.dumps(frame)}\n\n".encode()
        for frame in frames
    )


def delta(**fields: object) -> dict[str, object]:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


BEGUN = {
    "openai_chat": sse(delta(role="assistant", content="")),
    "anthropic_messages": sse(
        {
            "type": "message_start",
            "message": {"id": "m1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ),
}
TEXT = {
    "openai_chat": sse(delta(content="Hel"), delta(content="lo")),
    "anthropic_messages": sse(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    ),
}
END = {
    "openai_chat": sse({"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    + b"data: [DONE]\n\n",
    "anthropic_messages": sse(
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ),
}
ERROR = {
    "openai_chat": {"error": {"message": "upstream fell over", "type": "server_error", "code": None}},
    "anthropic_messages": {"type": "error", "error": {"type": "api_error", "message": "upstream fell over"}},
}
EVENTS = "text/event-stream"

USELESS: dict[str, Callable[[str], tuple[str, bytes]]] = {
    "HTML": lambda _: ("text/html", b"<!doctype html><html><body><h1>Sign in to the network</h1></body></html>"),
    "error body": lambda dialect: ("application/json", json.dumps(ERROR[dialect]).encode()),
    "empty": lambda _: (EVENTS, b""),
    "cut before content": lambda dialect: (EVENTS, BEGUN[dialect]),
    "wrong content type": lambda _: ("image/png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
    "error as first event": lambda dialect: (EVENTS, sse(ERROR[dialect])),
}


class Server:
    """Answers every request with 200 and the same bytes, then closes the connection."""

    def __init__(self, content_type: str, body: bytes, declared: int | None) -> None:
        length = f"content-length: {declared}\r\n" if declared is not None else ""
        self.answer = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{length}\r\n".encode() + body
        self.url = ""
        self.requests = 0

    async def handle(self, stream: SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive()
            head, body = received.split(b"\r\n\r\n", 1)
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            while len(body) < length:
                body += await stream.receive()
            self.requests += 1
            await stream.send(self.answer)


Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with anyio.create_task_group() as tasks:

        async def start(content_type: str, body: bytes, declared: int | None = None) -> Server:
            server = Server(content_type, body, declared)
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            server.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"  # noqa: S610 (not Django)
            tasks.start_soon(_listen, server, listener)
            return server

        yield start
        tasks.cancel_scope.cancel()


async def _listen(server: Server, listener: anyio.abc.Listener[SocketStream]) -> None:
    async with listener:
        await listener.serve(server.handle)


def asking(server: Server, dialect: str) -> Model:
    return connect(SPECS[dialect], base_url=server.url, api_key="k-1234567890", middleware=(), trust_env_proxies=False)


@pytest.mark.parametrize("dialect", SPECS)
@pytest.mark.parametrize("useless", USELESS)
async def test_a_useless_200_fails_over_to_one_clean_stream(useless: str, dialect: str, serve: Serve) -> None:
    bad = await serve(*USELESS[useless](dialect))
    good = await serve(EVENTS, BEGUN[dialect] + TEXT[dialect] + END[dialect])
    async with asking(bad, dialect) as first, asking(good, dialect) as second, joined.failover(first, second) as model:
        for _ in range(RUNS):
            async with model.stream("hi", max_tokens=50) as stream:
                events = [event async for event in stream]
            check_order(events)
            assert isinstance(events[0], Notice)
            assert events[0].kind == "failover"
            assert sum(isinstance(event, Start) for event in events) == 1
            assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
            assert stream.response.complete
            assert (await model.complete("hi", max_tokens=50)).text == "Hello"
    assert (bad.requests, good.requests) == (2 * RUNS, 2 * RUNS)


@pytest.mark.parametrize("dialect", SPECS)
async def test_where_all_are_useless_the_error_names_each(dialect: str, serve: Serve) -> None:
    servers = [await serve(*make(dialect)) for make in USELESS.values()]
    models = [asking(server, dialect) for server in servers]
    with pytest.raises(LoomstreamError) as caught:
        await joined.failover(*models).complete("hi", max_tokens=50)
    assert len(caught.value.attempts) == len(USELESS)
    for model in models:
        await model.aclose()


@pytest.mark.parametrize("dialect", SPECS)
async def test_after_content_the_answer_is_the_first_one_s_and_incomplete(dialect: str, serve: Serve) -> None:
    body = BEGUN[dialect] + TEXT[dialect]
    broken = await serve(EVENTS, body, declared=len(body) + 100)
    good = await serve(EVENTS, body + END[dialect])
    async with asking(broken, dialect) as first, asking(good, dialect) as second:
        with pytest.raises(ConnectionLost) as caught:
            await joined.failover(first, second).complete("hi", max_tokens=50)
        assert caught.value.partial is not None
        assert (caught.value.partial.text, caught.value.partial.complete) == ("Hello", False)
        assert good.requests == 0
