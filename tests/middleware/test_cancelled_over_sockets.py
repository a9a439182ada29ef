"""A call through the whole stack, over real sockets, cancelled at each of its steps: nothing of it is left.

Permits and reservations are few, so that one that leaks stops the next call; sockets and tasks are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute, SocketStream

import loomstream as ls
from loomstream.middleware.budget import budget
from loomstream.middleware.cache import cache
from loomstream.middleware.circuit_breaker import circuit_breaker
from loomstream.middleware.cost import cost
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.retry import retry
from loomstream.middleware.smooth import smooth
from loomstream.middleware.timeout import timeout
from loomstream.telemetry.calls import Call, Requested, Watcher, watched

pytestmark = pytest.mark.anyio

EVENT = b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n'
EVENTS = [EVENT % number for number in range(5)]
END = b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SPENT_BY_A_CALL = 200
"""More tokens than one call reserves; the budget has room for two."""


class Host(NamedTuple):
    address: str
    open: set[SocketStream]
    answered: list[int]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def serving() -> AsyncIterator[Host]:
    host = Host("", set(), [])

    async def answer(stream: SocketStream) -> None:
        host.open.add(stream)
        try:
            async with stream:
                while True:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += await stream.receive()
                    head, _, body = head.partition(b"\r\n\r\n")
                    size = int(head.lower().split(b"content-length:")[1].split()[0])
                    while len(body) < size:
                        body += await stream.receive()
                    await stream.send(HEAD)
                    for part in (*EVENTS, END):
                        await stream.send(chunk(part))
                    await stream.send(b"0\r\n\r\n")
                    host.answered.append(1)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            host.open.discard(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 (a socket's)
        yield host._replace(address=f"http://127.0.0.1:{port}/v1")
        group.cancel_scope.cancel()


class Told(Watcher):
    ends: list[str]

    def end(self, call: Call) -> None:
        self.ends.append(call.ending or "")


async def test_a_cancellation_at_any_step_leaves_nothing_behind() -> None:
    ends: list[str] = []
    watcher = type("Here", (Told,), {"ends": ends})
    async with serving() as host:
        stack = [
            watched("nobody", watcher, Requested()),
            cost("openai-compatible", "m"),
            cache("openai-compatible", "m"),
            smooth(),
            retry(1),
            rate_limit(concurrency=1, max_queue=1),
            budget(limit_tokens=1_000_000, per="total"),
            circuit_breaker(),
            timeout(),
        ]
        async with ls.connect("openai-compatible:m", base_url=host.address, api_key="k", middleware=stack) as model:
            await model.complete("first", max_tokens=SPENT_BY_A_CALL)
            before = ends.count("whole")
            for steps in range(60):
                with anyio.fail_after(10):
                    async with anyio.create_task_group() as group:
                        group.start_soon(model.complete, f"cancelled {steps}")
                        for _ in range(steps):
                            await anyio.lowlevel.checkpoint()
                        group.cancel_scope.cancel()
                    response = await model.complete(f"next {steps}", max_tokens=SPENT_BY_A_CALL)
                assert response.text == "0 1 2 3 4 "
            assert ends.count("whole") - before >= 60
            assert ends.count("cancelled") > 5
        with anyio.fail_after(5):
            while host.open:  # noqa: ASYNC110 (the peers see it by themselves)
                await anyio.sleep(0.001)
    tasks = asyncio.all_tasks() if _is_asyncio() else set[object]()
    assert len(tasks) <= 2  # this one, and the test runner's own


def _is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
