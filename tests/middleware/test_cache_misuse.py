"""Cache, where others misbehave: callers that differ, requests that change, stores that hang, upstreams that fail."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from msgspec.structs import replace

from loomstream.errors import AuthFailed, LoomstreamError, MiddlewareError, Overloaded, RequestError
from loomstream.events import Event, Notice, Start, Stop, TextDelta
from loomstream.handler import Handler
from loomstream.messages import Output, Request, Timeouts, Tool, user
from loomstream.middleware.cache import FileCache, MemoryCache, cache, request_key
from loomstream.middleware.retry import retry
from loomstream.testing import Pause, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ANSWER = text_events("Hel", "lo", provider="openai", model="gpt-4o")
PACED = [item for event in ANSWER for item in ((Pause(1), event) if isinstance(event, TextDelta) else (event,))]
BASE = Request(messages=(user("hi"),))


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def over(handler: Handler, **options: object) -> ScriptedModel:
    return scripted_model(ANSWER, middleware=[cache("p", "m", **options), lambda _: handler])  # type: ignore[arg-type]


def handler_of(read: Callable[[Request], AsyncGenerator[Event]]) -> Handler:
    @asynccontextmanager
    async def handler(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        async with aclosing(read(request)) as events:
            yield events

    return handler


async def outcome(model: ScriptedModel, **options: object) -> object:
    """Give the text of an answer, or its error."""
    try:
        return (await model.complete("hi", **options)).text  # type: ignore[arg-type]
    except LoomstreamError as error:
        return error


async def all_of(*steps: Callable[[], Awaitable[object]]) -> list[object]:
    """Start these one after the other, each when the one before waits; give what they gave."""
    given: list[object] = [None] * len(steps)

    async def one(number: int) -> None:
        given[number] = await steps[number]()

    async with anyio.create_task_group() as group:
        for number in range(len(steps)):
            group.start_soon(one, number)
            await anyio.wait_all_tasks_blocked()
    return given


# --- errors that are shared ----------------------------------------------------------------------


async def test_the_attempts_of_one_reader_are_not_another_s() -> None:
    model = scripted_model([Start("p", "m"), Pause(1), Overloaded("busy")], middleware=[retry(3), cache("p", "m")])
    errors = await all_of(*[lambda: outcome(model)] * 3)
    assert [len(error.attempts) for error in errors] == [4] * 3  # type: ignore[attr-defined]


class OwnError(LoomstreamError):
    """An error of a user's, with a constructor of its own."""

    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.where = where


async def test_an_error_with_a_constructor_of_its_own_reaches_all_as_it_is() -> None:
    async def read(_: Request) -> AsyncGenerator[Event]:
        await anyio.sleep(1)
        raise OwnError(3, "sea")
        yield

    model = over(handler_of(read))
    errors = await all_of(*[lambda: outcome(model)] * 3)
    assert [(str(error), error.where) for error in errors] == [("code 3 at sea", "sea")] * 3  # type: ignore[attr-defined]
    assert len({id(error) for error in errors}) == 3


# --- who shares ----------------------------------------------------------------------------------


async def test_calls_with_other_credentials_share_no_answer_under_way_but_what_is_kept() -> None:
    asked: list[str] = []

    async def read(request: Request) -> AsyncGenerator[Event]:
        key = request.extra_headers["x-api-key"]
        asked.append(key)
        await anyio.sleep(1)
        if key == "wrong":
            msg = "no"
            raise AuthFailed(msg)
        for event in ANSWER:
            yield event

    model = over(handler_of(read))
    keys = ("wrong", "right", "right", "other")
    results = await all_of(*(lambda key=key: outcome(model, extra_headers={"x-api-key": key}) for key in keys))
    assert isinstance(results[0], AuthFailed)
    assert results[1:] == ["Hello"] * 3
    assert asked == ["wrong", "right", "other"]
    assert await outcome(model, extra_headers={"x-api-key": "wrong"}) == "Hello"  # by now it is kept


async def test_calls_with_other_time_limits_share_no_answer_under_way() -> None:
    limits: list[float | None] = []

    async def read(request: Request) -> AsyncGenerator[Event]:
        limits.append(request.timeouts.first_event_s)
        await anyio.sleep(1)
        for event in ANSWER:
            yield event

    model = over(handler_of(read))
    given = (2.0, 600.0, 2.0)
    steps = [lambda s=s: outcome(model, timeouts=Timeouts(first_event_s=s)) for s in given]
    assert await all_of(*steps) == ["Hello"] * 3
    assert limits == [2.0, 600.0]


# --- what is equal -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        lambda names: {"output": Output(schema={"type": "object", "properties": {name: {} for name in names}})},
        lambda names: {"tools": (Tool("t", "", {"type": "object", "properties": {name: {} for name in names}}),)},
        lambda names: {"extra_body": dict.fromkeys(names, 1)},
        lambda names: {"extra_headers": {"X-A": names[0], "x-a": "c"}},
        lambda names: {"extra_headers": {"x-max-tokens": names[0]}},
    ],
    ids=["schema", "tool", "body", "headers by case", "no credential"],
)
async def test_what_the_wire_tells_apart_is_told_apart(changed: Callable[[list[str]], dict[str, object]]) -> None:
    keys = {request_key("p", "m", replace(BASE, **changed(names))) for names in (["a", "b"], ["b", "a"])}
    assert len(keys) == 2


async def test_a_mapping_that_cannot_be_read_is_refused() -> None:
    class Broken(Mapping[str, object]):
        def __getitem__(self, name: str) -> object:
            raise KeyError(name)

        def __iter__(self) -> Iterator[str]:
            msg = "no names"
            raise KeyError(msg)

        def __len__(self) -> int:
            return 1

    with pytest.raises(RequestError, match=r"cannot be cached.*no names"):
        request_key("p", "m", replace(BASE, extra_body=Broken()))


class Slow(MemoryCache):
    """Takes a second to look."""

    async def get(self, key: str) -> Sequence[Event] | None:
        await anyio.sleep(1)
        return await super().get(key)


async def test_a_request_that_changes_meanwhile_is_not_kept_under_what_it_was() -> None:
    async def read(request: Request) -> AsyncGenerator[Event]:
        await anyio.lowlevel.checkpoint()
        for event in text_events(str(request.extra_body["a"])):
            yield event

    model = over(handler_of(read), store=Slow())
    inner = {"n": 1}

    async def change() -> None:
        inner["n"] = 2

    assert await all_of(lambda: outcome(model, extra_body={"a": inner}), change) == ["{'n': 2}", None]
    assert await outcome(model, extra_body={"a": {"n": 1}}) == "{'n': 1}"


# --- stores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hanging", ["get", "put"])
async def test_a_store_that_hangs_is_passed_over(hanging: str) -> None:
    class Hanging(MemoryCache):
        async def get(self, key: str) -> Sequence[Event] | None:
            return await (anyio.sleep_forever() if hanging == "get" else super().get(key))

        async def put(self, key: str, events: Sequence[Event]) -> None:
            await (anyio.sleep_forever() if hanging == "put" else super().put(key, events))

    model = scripted_model(ANSWER, middleware=[cache("p", "m", store=Hanging())])
    began_s = anyio.current_time()
    with anyio.fail_after(60):
        async with model.stream("hi") as stream:
            events = [event async for event in stream]
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert "no answer in 10 s" in notice.detail
    assert round(anyio.current_time() - began_s) == 10
    assert stream.response.text == "Hello"


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # threads take the wall's time
async def test_threads_that_wait_for_an_answer_do_not_starve_the_store(tmp_path: Path) -> None:
    model = scripted_model(ANSWER, middleware=[cache("p", "m", store=FileCache(tmp_path))])
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(waiting_thread, model)


async def waiting_thread(model: ScriptedModel) -> None:
    assert await anyio.to_thread.run_sync(anyio.from_thread.run, outcome, model, abandon_on_cancel=True) == "Hello"


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="POSIX permissions")
async def test_a_file_that_may_be_read_but_not_touched_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await FileCache(tmp_path).put("ab", ANSWER)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    assert list(await FileCache(tmp_path).get("ab") or ()) == ANSWER
    await anyio.Path(tmp_path / "cd.answer.json").write_bytes(b"damaged")
    assert await FileCache(tmp_path).get("cd") is None


async def test_a_file_of_which_anything_was_changed_is_not_there(tmp_path: Path) -> None:
    store = FileCache(tmp_path)
    await store.put("ab", ANSWER)
    path = anyio.Path(tmp_path / "ab.answer.json")
    data = await path.read_bytes()
    for damaged in (data.replace(b"Hel", b"Hal"), data.replace(b'"text_start"', b'"text_end"', 1)):
        assert damaged != data
        await path.write_bytes(damaged)
        assert await store.get("ab") is None


async def test_an_answer_without_its_beginning_is_none() -> None:
    class Foreign(MemoryCache):
        async def get(self, key: str) -> Sequence[Event] | None:
            del key
            return [Stop("end_turn")]

    model = scripted_model(ANSWER, middleware=[cache("p", "m", store=Foreign())])
    assert await outcome(model) == "Hello"
    assert len(model.requests) == 1


async def test_what_nobody_asks_for_again_and_what_a_crash_left_goes(tmp_path: Path) -> None:
    now_s = 1_000_000.0
    store = FileCache(tmp_path, ttl_s=100, clock=lambda: now_s)
    await store.put("ab", ANSWER)
    (tmp_path / ".loomstream-left.part").write_bytes(b"half")
    (tmp_path / ".loomstream-fresh.part").write_bytes(b"being written")
    (tmp_path / "mine.txt").write_bytes(b"no matter of the cache's")
    for name, age_s in (("ab.answer.json", 101), (".loomstream-left.part", 3_601), (".loomstream-fresh.part", 5)):
        os.utime(tmp_path / name, (now_s - age_s,) * 2)
    again = FileCache(tmp_path, ttl_s=100, clock=lambda: now_s)
    await again.put("cd", ANSWER)
    assert sorted([path.name async for path in anyio.Path(tmp_path).iterdir()]) == [
        ".loomstream-fresh.part",
        "cd.answer.json",
        "mine.txt",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
async def test_a_link_to_itself_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "loop.answer.json").symlink_to("loop.answer.json")
    store = FileCache(tmp_path)
    await store.put("ab", ANSWER)
    assert list(await store.get("ab") or ()) == ANSWER


# --- upstreams -----------------------------------------------------------------------------------


@pytest.mark.parametrize("readers", [1, 2])
async def test_an_exit_of_the_program_is_no_cancellation(readers: int) -> None:
    async def read(_: Request) -> AsyncGenerator[Event]:
        for event in ANSWER[:3]:
            await anyio.sleep(1)
            yield event
        raise SystemExit(3)

    handler = cache("p", "m")(handler_of(read))
    raised: list[BaseException] = []

    async def one() -> None:
        try:
            async with handler(BASE) as events:
                async for _ in events:
                    pass
        except (SystemExit, LoomstreamError) as error:
            raised.append(error)

    await all_of(*[one] * readers)
    assert SystemExit in map(type, raised)
    assert len(raised) == readers


async def test_a_failed_upstream_is_closed_though_another_reader_dawdles() -> None:
    model = scripted_model([*PACED[:4], Overloaded("busy")], middleware=[cache("p", "m")])
    failed = anyio.Event()

    async def dawdler() -> None:
        async with model.stream("hi") as stream:
            await anext(stream)
            await failed.wait()
            assert model.open_streams == 0
            with pytest.raises(Overloaded):
                async for _ in stream:
                    pass

    async def other() -> None:
        assert isinstance(await outcome(model), Overloaded)
        failed.set()

    await all_of(dawdler, other)


async def test_who_asks_anew_is_told_that_the_upstream_that_was_cut_could_not_be_closed() -> None:
    calls: list[None] = []

    @asynccontextmanager
    async def handler(_: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        calls.append(None)
        first = len(calls) == 1
        try:
            async with aclosing(read()) as events:
                yield events
        finally:
            if first:
                msg = "close of the first"
                raise KeyError(msg)

    async def read() -> AsyncGenerator[Event]:
        await anyio.sleep(1)
        for event in ANSWER:
            yield event

    model = over(handler)
    scope = anyio.CancelScope()

    async def first() -> None:
        with scope:
            await model.complete("hi")

    async def second() -> list[Event]:
        async with model.stream("hi") as stream:
            return [event async for event in stream]

    async def cancel() -> None:
        scope.cancel()

    _, events, _ = await all_of(first, second, cancel)
    assert len(calls) == 2
    assert [event for event in events if not isinstance(event, Notice)] == ANSWER  # type: ignore[attr-defined]
    [notice] = [event for event in events if isinstance(event, Notice)]  # type: ignore[attr-defined]
    assert "close of the first" in notice.detail


async def test_an_upstream_that_cannot_close_is_told_where_nobody_asks_anew() -> None:
    @asynccontextmanager
    async def handler(_: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        try:
            async with aclosing(aiter_of(ANSWER)) as events:
                yield events
        finally:
            raise KeyError

    assert isinstance(await outcome(over(handler)), MiddlewareError)


async def aiter_of(events: Sequence[Event]) -> AsyncGenerator[Event]:
    for event in events:
        await anyio.sleep(1)
        yield event
