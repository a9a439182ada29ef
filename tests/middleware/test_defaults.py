"""What a model has where no middleware is named."""

from __future__ import annotations

import threading
from collections import OrderedDict

import anyio
import httpx
import pytest
from models import ANSWER

import loomstream as ls
from loomstream.errors import AuthFailed, DeadlineExceeded, ServerFault, UnknownProvider
from loomstream.messages import Timeouts
from loomstream.middleware import defaults
from loomstream.middleware.defaults import default_middleware
from loomstream.middleware.store import Demand, MemoryStore, Quota
from loomstream.testing.clock import virtual_clock_backends


@pytest.fixture(params=virtual_clock_backends())
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


class Host:
    """Answers with these statuses in turn, then well."""

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None) -> None:
        self._statuses = list(statuses)
        self._headers = headers or {}
        self.asked_s: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        del request
        self.asked_s.append(anyio.current_time())
        if self._statuses:
            return httpx.Response(self._statuses.pop(0), json={"error": {"message": "no"}}, headers=self._headers)
        return httpx.Response(200, headers={"content-type": "text/event-stream"} | self._headers, content=ANSWER)

    def model(self, key: str, spec: str = "openai:gpt-4o", **options: object) -> ls.Model:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return ls.connect(spec, api_key=key, client=client, **options)  # type: ignore[arg-type]


@pytest.mark.anyio
class TestAModelWithoutMiddleware:
    async def test_a_failure_that_passes_is_repeated_and_told(self) -> None:
        host = Host(503, 500)
        async with host.model("sk-repeated") as model, model.stream("x") as stream:
            kinds = [event.kind async for event in stream if isinstance(event, ls.Notice)]
        assert kinds == ["retry", "retry"]
        assert stream.response.text == "hi"
        assert stream.response.cost.amount_usd is not None
        assert len(host.asked_s) == 3

    async def test_a_failure_that_stays_names_each_try(self) -> None:
        host = Host(*[500] * 9)
        async with host.model("sk-stays") as model:
            with pytest.raises(ServerFault) as caught:
                await model.complete("x")
        assert [attempt.outcome for attempt in caught.value.attempts] == ["ServerFault"] * 3

    async def test_a_refusal_is_not_repeated(self) -> None:
        host = Host(401, 401)
        async with host.model("sk-refused") as model:
            with pytest.raises(AuthFailed):
                await model.complete("x")
        assert len(host.asked_s) == 1

    async def test_without_any_middleware_nothing_is_repeated(self) -> None:
        host = Host(500)
        async with host.model("sk-none", middleware=()) as model:
            with pytest.raises(ServerFault):
                await model.complete("x")
        assert len(host.asked_s) == 1

    async def test_the_limits_of_a_request_win(self) -> None:
        host = Host(*[503] * 9, headers={"retry-after": "20"})
        async with host.model("sk-limits") as model:
            began_s = anyio.current_time()
            with pytest.raises((ServerFault, ls.errors.Overloaded, DeadlineExceeded)):
                await model.complete("x", timeouts=Timeouts(total_s=30))
            assert anyio.current_time() - began_s <= 30
        assert len(host.asked_s) == 2

    async def test_the_rows_limit_spreads_calls(self) -> None:
        host = Host()
        async with host.model("sk-spread") as model:
            for _ in range(8):
                await model.complete("x")
        gaps = [round(later - earlier, 3) for earlier, later in zip(host.asked_s, host.asked_s[1:], strict=False)]
        assert gaps == [0, 0, 0, 0, 0, 1, 1]  # 60 a minute, of which a tenth at once

    async def test_an_address_of_yours_has_no_limit_of_theirs(self) -> None:
        host = Host()
        async with host.model("sk-elsewhere", base_url="http://127.0.0.1:9/v1") as model:
            for _ in range(20):
                await model.complete("x")
        assert host.asked_s[0] == host.asked_s[-1]

    async def test_models_of_one_account_share_a_line_and_others_do_not(self) -> None:
        host, other = Host(), Host()
        for _ in range(7):
            async with host.model("sk-shared") as model:
                await model.complete("x")
        async with other.model("sk-not-shared") as model:
            await model.complete("x")
        assert round(host.asked_s[6] - host.asked_s[0], 3) == 1
        assert other.asked_s == [host.asked_s[6]]

    async def test_models_of_one_account_share_a_retry_budget(self) -> None:
        """Objects that live for one call each amplify an outage no more than one that lives for all."""
        asked = 0
        for _ in range(40):
            host = Host(*[500] * 9)
            async with host.model("sk-outage", base_url="http://127.0.0.1:9/v1") as model:
                with pytest.raises(ServerFault):
                    await model.complete("x")
            asked += len(host.asked_s)
        assert asked <= 40 * 1.2 + 10

    async def test_calls_beside_each_other_wait_in_one_line(self) -> None:
        host = Host()
        async with host.model("sk-beside") as model, anyio.create_task_group() as group:
            for _ in range(9):
                group.start_soon(model.complete, "x")
        gaps = [round(at - host.asked_s[0], 3) for at in host.asked_s]
        assert gaps == [0, 0, 0, 0, 0, 0, 1, 2, 3]


def test_the_same_stack_for_the_same_account() -> None:
    assert default_middleware("openai", "m", "one") is default_middleware("openai", "m", "one")
    assert default_middleware("openai", "m", "one") is not default_middleware("openai", "m", "two")
    assert len(default_middleware("openai", "m")) == 4


def test_a_name_that_no_row_has() -> None:
    with pytest.raises(UnknownProvider):
        default_middleware("opnai", "m")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "_shared", OrderedDict())
    monkeypatch.setattr(defaults, "MOST_SHARED", 2)
    first = default_middleware("openai", "m", "bounded 1")
    for number in range(2, 4):
        default_middleware("openai", "m", f"bounded {number}")
    assert len(defaults._shared) == 2
    assert default_middleware("openai", "m", "bounded 1") is not first


def test_no_mark_of_an_account_shows_its_key() -> None:
    endpoint = ls.connect("openai:gpt-4o", api_key="sk-canary-0123456789")._endpoint
    assert endpoint.account
    assert "canary" not in endpoint.account
    assert ls.connect("openai:gpt-4o")._endpoint.account == ""


def test_each_thread_has_its_own_levels() -> None:
    store, taken = MemoryStore(lambda: 0.0), []

    def take() -> None:
        taken.append(store.take_now(Demand("k", "p", Quota(1, 1))))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert taken == [0, 0]
