"""A run over a real connection: leaving it closes the socket, and what the provider reads is whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from agents import check_messages
from anyio.abc import SocketAttribute, SocketStream

import loomstream as ls
from loomstream import agent

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The real clock: a virtual one would pass while bytes are on their way."""
    return request.param


def frame(kind: str, **fields: object) -> bytes:
    body = f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(body), body)


def call(index: int) -> bytes:
    block = {"type": "tool_use", "id": f"c{index}", "name": "wait", "input": {}}
    return frame("content_block_start", index=index, content_block=block)


ANSWER = (
    frame("message_start", message={"id": "m1", "model": "m", "usage": {"input_tokens": 9}})
    + call(0)
    + frame("content_block_stop", index=0)
    + call(1)
)


class Server:
    """Answers with a call and half of another one, and then says no more."""

    def __init__(self) -> None:
        self.hung_up = anyio.Event()
        self.url = ""

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(HEAD + ANSWER)
            try:
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.hung_up.set()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        port = listener.extra_attributes[SocketAttribute.local_port]()
        server.url = f"http://127.0.0.1:{port}"
        try:
            yield server
        finally:
            group.cancel_scope.cancel()
    await listener.aclose()


@pytest.mark.parametrize("road", ["break", "scope", "aclose"])
async def test_leaving_closes_the_socket_and_stops_the_tool(road: str) -> None:
    stopped = anyio.Event()
    started = anyio.Event()

    async def wait() -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    async with (
        serving() as server,
        ls.connect("anthropic:m", api_key="k", base_url=server.url) as model,
    ):
        run = agent.run(model, "Go", [wait])
        with anyio.CancelScope() as scope:
            async with run:
                async for event in run:
                    if isinstance(event, ls.ToolCallEnd):
                        await started.wait()
                        if road == "scope":
                            scope.cancel()
                        elif road == "aclose":
                            await run.aclose()
                        break
        assert stopped.is_set()
        with anyio.fail_after(5):
            await server.hung_up.wait()
        assert run.ended == "cancelled"
        check_messages(run.messages)
