"""A client of the user's own, httpx's or httpx2's; and a respx router, which must always be asked."""
# ruff: noqa: PT012 (an error may come when a response is opened, read or left: a block is the unit here)

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from types import AsyncGeneratorType, ModuleType
from typing import TYPE_CHECKING

import anyio
import httpx
import httpx2
import pytest
import respx

from loomstream.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    FirstEventTimeout,
    IdleTimeout,
    LoomstreamError,
    UsageError,
)
from loomstream.messages import Timeouts
from loomstream.transport.http import HttpOptions, HttpTransport
from loomstream.transport.watch import Watch

if TYPE_CHECKING:
    from tests.transport.conftest import Connection, Post, Serve

pytestmark = pytest.mark.anyio

PACKAGES = pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"
URL = "https://api.example.com/v1/chat"


async def streaming(connection: Connection) -> None:
    await connection.request()
    await connection.send(CHUNKED + EVENT)
    await connection.wait_closed()


@PACKAGES
async def test_requests_go_through_the_given_client_which_stays_open(
    serve: Serve, post: Post, package: ModuleType
) -> None:
    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(CHUNKED + EVENT + b"0\r\n\r\n")

    server = await serve(script)
    async with package.AsyncClient(headers={"x-mine": "1"}, trust_env=False) as client:
        transport = HttpTransport(client=client)
        for _ in range(2):
            async with transport.open(post(server.url)) as response:
                assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
        await transport.aclose()
        assert not client.is_closed
    assert server.connections == 1
    head = server.requests[0].lower()
    assert b"x-mine: 1\r\n" in head
    assert head.count(b"accept-encoding: identity\r\n") == 1


@PACKAGES
async def test_leaving_early_closes_and_leaves_no_generator(serve: Serve, post: Post, package: ModuleType) -> None:
    server = await serve(streaming)
    async with package.AsyncClient(trust_env=False) as client:
        transport = HttpTransport(client=client)
        for _ in range(20):
            async with transport.open(post(server.url)) as response:
                async for _ in response.chunks:
                    break
        await server.all_closed()
        gc.collect()
        mine = [item for item in gc.get_objects() if type(item) is AsyncGeneratorType and "httpcore" in repr(item)]
        assert mine == []


@PACKAGES
async def test_a_mock_transport(post: Post, package: ModuleType) -> None:
    def answer(request: httpx.Request) -> object:
        assert request.headers["authorization"] == "Bearer k"
        return package.Response(200, headers={"x-a": "b"}, content=b"data: 1\n\n")

    async with package.AsyncClient(transport=package.MockTransport(answer)) as client:
        async with HttpTransport(client=client).open(post(URL, authorization="Bearer k")) as response:
            assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
        assert (response.status, response.headers["x-a"]) == (200, "b")


@PACKAGES
async def test_a_mock_body_that_waits_for_ever_can_be_left(post: Post, package: ModuleType) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await anyio.sleep_forever()

    source = body()
    answer = package.MockTransport(lambda _: package.Response(200, content=source))
    async with package.AsyncClient(transport=answer) as client:
        with anyio.fail_after(10):
            async with HttpTransport(client=client).open(post(URL)) as response:
                assert await anext(response.chunks) == b"data: 1\n\n"
    await source.aclose()


@PACKAGES
async def test_redirects_are_not_followed_even_if_the_client_does(post: Post, package: ModuleType) -> None:
    seen = []

    def answer(request: httpx.Request) -> object:
        seen.append(str(request.url))
        return package.Response(307, headers={"location": "https://evil.example/"})

    transport = package.MockTransport(answer)
    async with package.AsyncClient(transport=transport, follow_redirects=True) as client:
        opened = HttpTransport(client=client).open(post(URL))
        async with opened as response:
            assert response.status == 307
    assert seen == [URL]


@PACKAGES
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, {"connect": 3.0, "read": None, "write": None, "pool": 3.0}),
        ({"timeout": 30.0}, {"connect": 3.0, "read": 30.0, "write": 30.0, "pool": 3.0}),
        ({"timeout": 1.0}, {"connect": 1.0, "read": 1.0, "write": 1.0, "pool": 1.0}),
        ({"timeout": None}, {"connect": 3.0, "read": None, "write": None, "pool": 3.0}),
    ],
    ids=["default", "longer", "shorter", "none"],
)
async def test_only_time_outs_that_the_user_chose_count(
    post: Post, package: ModuleType, chosen: dict[str, object], expected: object
) -> None:
    seen = []

    def answer(request: httpx.Request) -> object:
        seen.append(request.extensions["timeout"])
        return package.Response(200)

    async with package.AsyncClient(transport=package.MockTransport(answer), **chosen) as client:
        opened = HttpTransport(client=client).open(post(URL), connect_s=3.0)
        async with opened:
            pass
    assert seen == [expected]


@PACKAGES
async def test_a_read_time_out_that_the_user_chose_is_honoured(serve: Serve, post: Post, package: ModuleType) -> None:
    server = await serve(streaming)
    async with package.AsyncClient(timeout=package.Timeout(5.0, read=0.02), trust_env=False) as client:
        with pytest.raises(IdleTimeout, match="your HTTP client's own"):
            async with HttpTransport(client=client).open(post(server.url)) as response:
                async for _ in response.chunks:
                    pass


@PACKAGES
async def test_the_watch_bounds_a_foreign_client_too(serve: Serve, post: Post, package: ModuleType) -> None:
    server = await serve(streaming)
    watch = Watch(Timeouts(first_event_s=0.05))
    async with package.AsyncClient(trust_env=False) as client:
        with pytest.raises(FirstEventTimeout):
            async with watch.open(HttpTransport(client=client), post(server.url)) as response:
                while await watch.read(response.chunks):
                    pass
        await server.all_closed()


@PACKAGES
@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("ConnectError", ConnectFailed),
        ("ConnectTimeout", ConnectTimeout),
        ("PoolTimeout", ConnectTimeout),
        ("ProxyError", ConnectFailed),
        ("ReadTimeout", FirstEventTimeout),
        ("WriteTimeout", FirstEventTimeout),
        ("ReadError", ConnectionLost),
        ("WriteError", ConnectionLost),
        ("RemoteProtocolError", ConnectionLost),
        ("LocalProtocolError", ConnectionLost),
    ],
)
async def test_every_error_of_a_client_is_ours(post: Post, package: ModuleType, raised: str, expected: object) -> None:
    def fail(request: httpx.Request) -> None:
        error = getattr(package, raised)("boom", request=request)
        raise error

    async with package.AsyncClient(transport=package.MockTransport(fail)) as client:
        with pytest.raises(LoomstreamError) as caught:
            async with HttpTransport(client=client).open(post(URL)):
                pass
    assert type(caught.value) is expected
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("error", [RuntimeError("x"), ValueError("x"), OSError(5, "x"), KeyError("x")], ids=repr)
async def test_other_errors_of_a_client_are_connection_lost(post: Post, error: Exception) -> None:
    def fail(_: httpx.Request) -> None:
        raise error

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client:
        with pytest.raises(ConnectionLost):
            async with HttpTransport(client=client).open(post(URL)):
                pass


async def test_an_error_of_no_client_is_named_by_its_class_alone(post: Post) -> None:
    class OurMistake(Exception):
        pass

    def raising(error: Exception) -> Callable[[httpx.Request], None]:
        def fail(_: httpx.Request) -> None:
            raise error

        return fail

    for error, shown in ((OurMistake("secret"), "(OurMistake)"), (httpx.ReadError("secret"), "not HTTP")):
        async with httpx.AsyncClient(transport=httpx.MockTransport(raising(error))) as client:
            with pytest.raises(ConnectionLost) as caught:
                async with HttpTransport(client=client).open(post(URL)):
                    pass
        assert str(caught.value).endswith(shown)
        assert "secret" not in str(caught.value)


async def test_an_assertion_in_a_mock_is_the_tests_own(post: Post) -> None:
    def check(request: httpx.Request) -> None:
        assert request.method == "GET", "wrong method"

    async with httpx.AsyncClient(transport=httpx.MockTransport(check)) as client:
        with pytest.raises(AssertionError, match="wrong method"):
            async with HttpTransport(client=client).open(post(URL)):
                pass


@PACKAGES
async def test_a_closed_client_is_a_usage_error(post: Post, package: ModuleType) -> None:
    client = package.AsyncClient()
    await client.aclose()
    with pytest.raises(UsageError, match="closed"):
        async with HttpTransport(client=client).open(post(URL)):
            pass


@pytest.mark.parametrize("make", [httpx.Client, httpx2.Client, object, dict, lambda: "https://x", lambda: httpx])
def test_anything_else_is_a_usage_error_that_says_what_to_pass(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"pass an httpx\.AsyncClient or an httpx2\.AsyncClient"):
        HttpTransport(client=make())


# --- respx ----------------------------------------------------------------------------------------


@respx.mock
async def test_a_client_of_mine_under_respx(post: Post) -> None:
    route = respx.post(URL).mock(return_value=httpx.Response(200, content=b"data: 1\n\n"))
    async with httpx.AsyncClient() as client, HttpTransport(client=client).open(post(URL)) as response:
        assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n"]
    assert route.calls.last.request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_the_default_client_is_intercepted_while_a_router_is_active(
    serve: Serve, transport: HttpTransport, post: Post, using: str
) -> None:
    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.send(CHUNKED + EVENT + b"0\r\n\r\n")

    server = await serve(script)

    async def fetch() -> bytes:
        async with transport.open(post(server.url)) as response:
            return b"".join([chunk async for chunk in response.chunks])

    assert await fetch() == b"data: 1\n\n"
    with respx.mock(using=using) as router:
        route = router.post(server.url).mock(return_value=httpx.Response(200, content=b"data: mocked\n\n"))
        assert await fetch() == b"data: mocked\n\n"
        assert route.call_count == 1
    assert await fetch() == b"data: 1\n\n"
    assert len(server.requests) == 2


async def test_a_request_that_no_route_expects_fails_the_test(
    serve: Serve, transport: HttpTransport, post: Post
) -> None:
    server = await serve(streaming)
    with respx.mock, pytest.raises(AssertionError, match="not mocked"):
        async with transport.open(post(server.url)):
            pass
    assert server.connections == 0


async def test_a_route_may_raise_and_stream(transport: HttpTransport, post: Post) -> None:
    async def body() -> AsyncIterator[bytes]:
        for text in (b"data: 1\n\n", b"data: 2\n\n"):
            yield text

    with respx.mock as router:
        router.post(URL).mock(side_effect=[httpx.ConnectError("boom"), httpx.Response(200, content=body())])
        with pytest.raises(ConnectFailed):
            async with transport.open(post(URL)):
                pass
        async with transport.open(post(URL)) as response:
            assert [chunk async for chunk in response.chunks] == [b"data: 1\n\n", b"data: 2\n\n"]


async def test_options_do_not_touch_a_given_client() -> None:
    async with httpx.AsyncClient() as client:
        assert HttpTransport(HttpOptions(proxy="http://p:1"), client=client)._proxies is None
