"""Cache: what counts as equal, what a replay says, who shares with whom, and what a store keeps."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule
from msgspec.structs import replace

from loomstream.errors import ConfigError, LoomstreamError, MiddlewareError, Overloaded, RequestError, StreamTruncated
from loomstream.events import Cost, Event, Limits, Notice, Start, Stop, TextDelta, TextEnd, TextStart, Usage
from loomstream.messages import Request, Timeouts, Tool, user
from loomstream.middleware.cache import CacheStore, FileCache, MemoryCache, cache, request_key
from loomstream.middleware.cost import cost
from loomstream.testing import Pause, check_order, scripted_model, text_events
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ANSWER = text_events("Hel", "lo", provider="openai", model="gpt-4o")
HEAD, FIRST, REST = ANSWER[:2], ANSWER[2], ANSWER[3:]
SLOW: list[Event | Pause | LoomstreamError] = [*HEAD, Pause(1), FIRST, Pause(1), *REST]
ZERO = Cost(
    provider="openai", model="gpt-4o", amount_usd=Decimal(0), lower_usd=Decimal(0), upper_usd=Decimal(0), exact=True
)


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def cached_model(*scripts: object, **options: object) -> ScriptedModel:
    return scripted_model(*scripts, middleware=[cache("openai", "gpt-4o", **options), cost("openai", "gpt-4o")])  # type: ignore[arg-type]


async def ask(model: ScriptedModel, prompt: str = "hi", **options: object) -> list[Event]:
    async with model.stream(prompt, **options) as stream:  # type: ignore[arg-type]
        events = [event async for event in stream]
    check_order(events)
    return events


def plain(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, Cost | Notice)]


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.kind for event in events if isinstance(event, Notice)]


def costs(events: Sequence[Event]) -> set[Decimal | None]:
    return {event.amount_usd for event in events if isinstance(event, Cost)}


# --- replay --------------------------------------------------------------------------------------


async def test_an_equal_request_gets_the_same_events_for_nothing_and_says_so() -> None:
    model = cached_model(ANSWER)
    first, second = await ask(model), await ask(model)
    assert len(model.requests) == 1
    assert kinds(first) == []
    assert costs(first) == {Decimal("0.0000225")}
    assert kinds(second) == ["cache"]
    assert plain(second) == plain(first) == ANSWER
    assert costs(second) == {Decimal(0)}


async def test_the_cost_of_a_replay_is_zero_at_every_event() -> None:
    model = cached_model(ANSWER)
    await ask(model)
    async with model.stream("hi") as stream:
        async for event in stream:
            if not isinstance(event, Notice | Start | Usage):
                assert stream.cost == ZERO
    assert stream.response.cost == ZERO
    assert stream.response.text == "Hello"


async def test_a_cost_outside_of_the_cache_is_zero_too() -> None:
    model = scripted_model(ANSWER, middleware=[cost("openai", "gpt-4o"), cache("openai", "gpt-4o")])
    assert costs(await ask(model)) == {Decimal("0.0000225")}
    assert costs(await ask(model)) == {Decimal(0)}


async def test_what_was_of_that_day_is_not_replayed() -> None:
    limits = Limits(remaining_requests=1)
    broken = [
        Start("openai", "gpt-4o"),
        TextStart(0),
        TextDelta(0, "no"),
        Notice("reset"),
        Start("openai", "gpt-4o", limits=limits),
    ]
    model = cached_model([Notice("retry", "try 1 failed"), *broken, *ANSWER[1:]])
    await ask(model)
    assert plain(await ask(model)) == ANSWER


@pytest.mark.parametrize("ends", [[*ANSWER[:-1], Overloaded("busy")], ANSWER[:-1]])
async def test_an_answer_that_is_not_whole_is_not_kept(ends: list[Event]) -> None:
    model = cached_model(ends, ANSWER)
    with pytest.raises(LoomstreamError):
        await ask(model)
    assert kinds(await ask(model)) == []
    assert len(model.requests) == 2


async def test_an_answer_that_was_left_is_not_kept_and_one_left_behind_its_stop_is() -> None:
    model = cached_model(ANSWER)
    for ending in (TextDelta, Stop):
        async with model.stream("hi") as stream:
            async for event in stream:
                if isinstance(event, ending):
                    break
        assert model.open_streams == 0
    assert len(model.requests) == 2
    assert kinds(await ask(model)) == ["cache"]


async def test_a_request_for_variety_is_passed_on_unless_it_is_said_otherwise() -> None:
    for sampled, requests in ((False, 2), (True, 1)):
        model = cached_model(ANSWER, sampled=sampled)
        for _ in range(2):
            await ask(model, temperature=0.7)
        assert len(model.requests) == requests


async def test_a_long_answer_is_replayed_whole() -> None:
    long = text_events(*(f"{number} " for number in range(1000)))
    model = cached_model(long)
    assert plain(await ask(model)) == plain(await ask(model)) == long


# --- what is equal -------------------------------------------------------------------------------

BASE = Request(messages=(user("hi"),))
TOOL = Tool("t", "d", {"type": "object", "properties": {"a": {}, "b": {}}})
OTHERS: dict[str, object] = {
    "messages": (user("ho"),),
    "system": "s",
    "tools": (TOOL,),
    "max_tokens": 5,
    "temperature": 0.0,
    "seed": 1,
    "stop_sequences": ("x",),
    "reasoning_effort": "low",
    "stream": False,
    "raw_events": True,
    "unsupported": "error",
    "metadata": {"a": "b"},
    "service_tier": "flex",
    "extra_body": {"n": 2},
    "extra_headers": {"anthropic-beta": "x"},
}


@pytest.mark.parametrize("name", OTHERS)
async def test_whatever_reaches_the_wire_tells_requests_apart(name: str) -> None:
    assert request_key("p", "m", replace(BASE, **{name: OTHERS[name]})) != request_key("p", "m", BASE)


async def test_provider_model_and_scope_tell_requests_apart() -> None:
    keys = {
        request_key(*names, BASE, scope=scope) for names in (("p", "m"), ("p", "n"), ("q", "m")) for scope in ("", "s")
    }
    assert len(keys) == 6


@given(st.permutations(["a", "b", "c"]))
async def test_the_order_of_headers_does_not_count(names: list[str]) -> None:
    def key(order: Sequence[str]) -> str:
        return request_key("p", "m", replace(BASE, extra_headers=dict.fromkeys(order, "x")))

    assert key(names) == key(sorted(names))


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X-Goog-Api-Key", "cookie", "X-Amz-Security-Token"])
async def test_credentials_and_time_limits_do_not_count(name: str) -> None:
    other = replace(BASE, extra_headers={name: "hidden"}, timeouts=Timeouts(total_s=3))
    assert request_key("p", "m", other) == request_key("p", "m", BASE)


async def test_what_json_cannot_write_is_refused() -> None:
    with pytest.raises(RequestError, match="cannot be cached"):
        await ask(cached_model(ANSWER), extra_body={"x": object()})


# --- single flight -------------------------------------------------------------------------------


async def together(model: ScriptedModel, calls: int) -> list[object]:
    outcomes: list[object] = [None] * calls

    async def one(number: int) -> None:
        try:
            outcomes[number] = await ask(model)
        except LoomstreamError as error:
            outcomes[number] = error

    async with anyio.create_task_group() as group:
        for number in range(calls):
            group.start_soon(one, number)
            await anyio.wait_all_tasks_blocked()
    assert model.open_streams == 0
    return outcomes


async def test_equal_calls_at_one_time_share_one_answer_and_one_pays() -> None:
    model = cached_model(SLOW)
    first, *others = await together(model, 4)
    assert len(model.requests) == 1
    assert costs(first) == {Decimal("0.0000225")}  # type: ignore[arg-type]
    for other in others:
        assert plain(other) == plain(first) == ANSWER  # type: ignore[arg-type]
        assert kinds(other) == ["cache"]  # type: ignore[arg-type]
        assert costs(other) == {Decimal(0)}  # type: ignore[arg-type]


async def test_those_who_share_get_each_event_as_it_comes() -> None:
    model = cached_model(SLOW)
    times: list[list[float]] = [[], []]

    async def read(number: int) -> None:
        async with model.stream("hi") as stream:
            times[number] += [anyio.current_time() - began_s async for event in stream if isinstance(event, TextDelta)]

    began_s = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(read, 0)
        group.start_soon(read, 1)
    assert [[round(time) for time in row] for row in times] == [[1, 2], [1, 2]]


async def test_a_reader_that_dawdles_holds_up_nobody() -> None:
    model = cached_model(SLOW)
    done_s: dict[str, float] = {}

    async def read(name: str, pause_s: float) -> None:
        async with model.stream("hi") as stream:
            async for _ in stream:
                await anyio.sleep(pause_s)
        done_s[name] = anyio.current_time() - began_s

    began_s = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(read, "slow", 10.0)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(read, "fast", 0.0)
    assert round(done_s["fast"]) == 2
    assert model.open_streams == 0


async def test_an_error_is_everybody_s_and_each_has_its_own() -> None:
    model = cached_model([*HEAD, Pause(1), FIRST, Pause(1), Overloaded("busy")])
    errors = await together(model, 3)
    assert len(model.requests) == 1
    assert [str(error) for error in errors] == ["busy"] * 3
    assert {type(error) for error in errors} == {Overloaded}
    assert len({id(error) for error in errors}) == 3
    assert [error.partial.text for error in errors] == ["Hel"] * 3  # type: ignore[union-attr]


async def test_an_error_of_another_kind_reaches_all_as_one_of_ours() -> None:
    @asynccontextmanager
    async def broken(_: Request) -> AsyncGenerator[AsyncIterator[Event]]:
        await anyio.sleep(1)
        raise KeyError
        yield

    model = scripted_model(ANSWER, middleware=[cache("p", "m"), lambda _: broken])
    errors = await together(model, 2)
    assert [type(error) for error in errors] == [MiddlewareError] * 2


@pytest.mark.parametrize("leave_s", [0.0, 0.5, 1.0, 1.5, 1.999])
@pytest.mark.parametrize("how", ["cancelled", "stream.cancel", "closed"])
async def test_who_pays_may_leave_at_any_time_and_the_others_go_on(leave_s: float, how: str) -> None:
    model = cached_model(SLOW)
    got: list[list[Event]] = []

    async def payer() -> None:
        with anyio.move_on_after(leave_s if how == "cancelled" else 100):
            async with model.stream("hi") as stream, anyio.create_task_group() as group:
                group.start_soon(leaver, stream)
                try:
                    async for _ in stream:
                        pass
                except LoomstreamError:
                    pass
                group.cancel_scope.cancel()

    async def leaver(stream: object) -> None:
        await anyio.sleep(leave_s if how != "cancelled" else 1000)
        if how == "closed":
            await stream.aclose()  # type: ignore[attr-defined]
        else:
            stream.cancel()  # type: ignore[attr-defined]

    async def follower() -> None:
        got.append(await ask(model))

    async with anyio.create_task_group() as group:
        group.start_soon(payer)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(follower)
        group.start_soon(follower)
    assert [plain(events) for events in got] == [ANSWER] * 2
    assert model.open_streams == 0
    assert len(model.requests) <= 2


LONG = text_events(*"streamed", provider="openai", model="gpt-4o")
"""As long as its text has letters, with a second before each event of text."""
PACED = [item for event in LONG for item in ((Pause(1), event) if isinstance(event, TextDelta) else (event,))]


@pytest.mark.parametrize("seed", range(25))
async def test_readers_who_come_and_leave_at_any_time_all_get_the_whole_answer_once(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 (repeatable, not secret)
    model = cached_model(PACED)
    got: list[list[Event]] = []

    async def reader(comes_s: float, patience: int, pause_s: float) -> None:
        await anyio.sleep(comes_s)
        seen: list[Event] = []
        async with model.stream("hi") as stream:
            async for event in stream:
                seen.append(event)
                if len(seen) >= patience:
                    break
                await anyio.sleep(pause_s)
        got.append(plain(seen))

    async with anyio.create_task_group() as group:
        group.start_soon(reader, 0, 1000, dice.choice((0, 0.3, 2)))  # one stays to the end
        for _ in range(dice.randint(1, 5)):
            group.start_soon(reader, dice.uniform(0, 8), dice.choice((1, 5, 9, 1000)), dice.choice((0, 0.3, 2)))
    assert len(model.requests) == 1
    assert all(events == LONG[: len(events)] for events in got)
    assert LONG in got
    assert model.open_streams == 0


async def test_who_joined_in_a_read_that_was_cut_and_had_begun_gets_a_typed_error() -> None:
    model = cached_model(SLOW)
    errors: list[LoomstreamError] = []

    async def payer(scope: anyio.CancelScope) -> None:
        with scope:
            await ask(model)

    async def follower() -> None:
        with pytest.raises(StreamTruncated, match="was cancelled in the middle of a read") as caught:
            await ask(model)
        errors.append(caught.value)

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(payer, scope)
        await anyio.sleep(1.2)  # the payer waits for the second text, alone
        group.start_soon(follower)
        await anyio.sleep(0.2)
        scope.cancel()
    assert errors[0].partial is not None
    assert errors[0].partial.text == "Hel"
    assert errors[0].retry_safety == "maybe"
    assert model.open_streams == 0


async def test_all_may_leave_and_the_upstream_is_closed() -> None:
    model = cached_model(SLOW)
    with anyio.move_on_after(1.5):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, model)
    assert model.open_streams == 0
    assert kinds(await ask(model)) == []


async def test_a_reader_that_comes_late_gets_what_came_before() -> None:
    model = cached_model(SLOW)
    got: list[list[Event]] = []

    async def late() -> None:
        got.append(await ask(model))

    async with anyio.create_task_group() as group:
        group.start_soon(late)
        await anyio.sleep(1.5)
        group.start_soon(late)
    assert [plain(events) for events in got] == [ANSWER, ANSWER]
    assert len(model.requests) == 1


@settings(deadline=None, max_examples=60)
@given(plans=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=6))
async def test_whoever_comes_and_goes_those_who_stay_get_the_answer(plans: list[tuple[float, float]]) -> None:
    """Calls begin and are cancelled at any times; one that stays gets all of it, or the typed error, never a hang."""
    model = cached_model(SLOW)
    outcomes: list[object] = []

    async def one(begin_s: float, stay_s: float) -> None:
        await anyio.sleep(begin_s)
        with suppress(StreamTruncated), anyio.move_on_after(stay_s):
            await ask(model)

    async def stays() -> None:
        await anyio.sleep(1.0)
        try:
            outcomes.append(plain(await ask(model)))
        except StreamTruncated:
            outcomes.append(ANSWER)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for plan in plans:
                group.start_soon(one, *plan)
            group.start_soon(stays)
    assert outcomes == [ANSWER]
    assert model.open_streams == 0


# --- stores --------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


Make = Callable[..., CacheStore]


@pytest.fixture(params=["memory", "files"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return MemoryCache
    return lambda **options: FileCache(tmp_path / "kept", **options)


async def test_a_store_gives_what_it_was_given(make: Make) -> None:
    store = make()
    assert await store.get("ab") is None
    await store.put("ab", ANSWER)
    assert list(await store.get("ab") or ()) == ANSWER


async def test_what_is_too_old_is_gone(make: Make) -> None:
    clock = Clock()
    store = make(ttl_s=10, clock=clock)
    await store.put("ab", ANSWER)
    clock.now_s += 9.9
    assert await store.get("ab")
    clock.now_s += 0.1
    assert await store.get("ab") is None


async def test_what_comes_from_the_future_has_no_age_and_is_gone(make: Make) -> None:
    clock = Clock()
    store = make(clock=clock, ttl_s=None)
    await store.put("ab", ANSWER)
    clock.now_s -= 1
    assert await store.get("ab") is None


async def test_an_answer_larger_than_the_store_is_not_kept(make: Make) -> None:
    store = make(max_bytes=100)
    await store.put("ab", ANSWER)
    assert await store.get("ab") is None


@pytest.mark.parametrize("limits", [{"max_entries": 0}, {"max_bytes": -1}, {"ttl_s": 0}, {"ttl_s": float("nan")}])
async def test_limits_that_cannot_be_are_refused(make: Make, limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="give numbers above 0"):
        make(**limits)


async def test_files_used_longest_ago_go_first(tmp_path: Path) -> None:
    store = FileCache(tmp_path, max_entries=2)
    for position, name in enumerate(("aa", "bb", "cc")):
        await store.put(name, ANSWER)
        os.utime(tmp_path / f"{name}.answer.json", (position, position))
    assert await store.get("aa") is None or await store.get("bb") is None
    await store.put("dd", ANSWER)
    assert len(modes(tmp_path)) == 2
    assert await store.get("dd")


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # threads take the wall's time
async def test_a_damaged_file_or_one_of_another_version_is_asked_for_anew(tmp_path: Path) -> None:
    for damage in (b"", b"{", b'{"schema_version":99,"stored_at_s":0,"events":[{"type":"new"}]}', b"\xff"):
        model = cached_model(ANSWER, store=FileCache(tmp_path))
        [key] = {request_key("openai", "gpt-4o", BASE)}
        (tmp_path / f"{key}.answer.json").write_bytes(damage)
        assert kinds(await ask(model)) == []
        assert kinds(await ask(model)) == ["cache"]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # threads take the wall's time
async def test_files_are_their_owner_s_alone_and_outlive_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "kept"
    await ask(cached_model(ANSWER, store=FileCache(folder)))
    assert modes(folder) == [0o600]
    again = cached_model(ANSWER, store=FileCache(folder))
    assert plain(await ask(again)) == ANSWER
    assert again.requests == []


def modes(folder: Path) -> list[int]:
    return [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # threads take the wall's time
async def test_a_store_that_fails_costs_nobody_the_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    model = cached_model(ANSWER, store=FileCache(tmp_path / "file"))
    events = await ask(model)
    assert plain(events) == ANSWER
    assert kinds(events) == ["warning", "warning"]


@pytest.mark.parametrize(
    ("kept", "lacks"),
    [((), "begin with a Start"), (ANSWER[1:], "begin with a Start"), (ANSWER[:-1], "end with a Stop")],
    ids=["nothing", "no beginning", "no end"],
)
async def test_a_store_that_has_no_whole_answer_is_told_of_and_the_model_asked(kept: list[Event], lacks: str) -> None:
    class Broken(MemoryCache):
        async def get(self, key: str) -> Sequence[Event] | None:
            del key
            return kept

    events = await ask(cached_model(ANSWER, store=Broken()))
    assert plain(events) == ANSWER
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert f"cannot be read (ValueError: what it holds does not {lacks})" in notice.detail


class _Reference(RuleBasedStateMachine):
    """The memory store against a list in the order of use."""

    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryCache(max_entries=3, ttl_s=10, clock=self.clock)
        self.kept: list[tuple[str, float]] = []

    @rule(target=keys, key=st.sampled_from("abcde"))
    def put(self, key: str) -> str:
        run_now(self.store.put(key, [TextEnd(ord(key))]))
        self.kept = [*(pair for pair in self.kept if pair[0] != key), (key, self.clock.now_s)][-3:]
        return key

    @rule(key=keys)
    def get(self, key: str) -> None:
        fresh = [pair for pair in self.kept if pair[0] == key and self.clock.now_s - pair[1] < 10]
        assert run_now(self.store.get(key)) == ((TextEnd(ord(key)),) if fresh else None)
        self.kept = [*(pair for pair in self.kept if pair[0] != key), *fresh]

    @rule(seconds=st.integers(1, 9))
    def wait(self, seconds: int) -> None:
        self.clock.now_s += seconds


def run_now(steps: object) -> object:
    """Run a coroutine that waits for nothing."""
    try:
        steps.send(None)  # type: ignore[attr-defined]
    except StopIteration as end:
        return end.value
    raise AssertionError


TestMemoryStore = _Reference.TestCase
