"""Servers that are launched for a model, and closed with it."""

from __future__ import annotations

import sys
from types import ModuleType

import anyio
import anyio.lowlevel
import httpx
import pytest
from models import (
    ANSWER,
    answering,
    connected,
    replay,
)

from loomstream.endpoint import Endpoint
from loomstream.errors import (
    ConfigError,
    LoomstreamError,
    MissingKey,
    UsageError,
)
from loomstream.model import connect
from loomstream.providers import Provider
from loomstream.providers.table import BY_NAME
from loomstream.wire import Secret

pytestmark = pytest.mark.usefixtures("no_keys")


# --- servers of our own ----------------------------------------------------------------------------


class Launched:
    """A server that a row launches."""

    def __init__(self, log: list[str]) -> None:
        self.base_url = "http://127.0.0.1:1/v1/"
        self.api_key = Secret("launched-key")
        self.alive = True
        self._log = log

    async def aclose(self) -> None:
        self._log.append("closed")


class Launcher:
    """What the fake module's `launch` does."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.options: dict[str, object] = {}
        self.error: LoomstreamError | None = None
        self.servers: list[Launched] = []
        self.ready = anyio.Event()
        self.ready.set()

    async def launch(self, **options: object) -> Launched:
        await anyio.lowlevel.checkpoint()
        self.log.append("launched")
        self.options = options
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        self.servers.append(Launched(self.log))
        return self.servers[-1]


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    """A provider `acme` whose server starts when it is first needed."""
    made = Launcher()
    module = ModuleType("acme_server")
    module.launch = made.launch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_server", module)
    monkeypatch.setitem(BY_NAME, "acme", Provider(name="acme", default_model="m", launch="acme_server:launch"))
    return made


@pytest.mark.anyio
@pytest.mark.parametrize("server", [None, ValueError("no port")])
async def test_a_launch_that_gives_no_server_is_a_config_error(
    server: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def launch(**options: object) -> None:
        del options
        await anyio.lowlevel.checkpoint()
        if server is not None:
            raise server

    module = ModuleType("acme_server")
    module.launch = launch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "acme_server", module)
    row = Provider(name="acme", default_model="m", launch="acme_server:launch")
    with pytest.raises(ConfigError, match=r"acme cannot be started: its launch='acme_server:launch' failed"):
        await Endpoint(row).resolve()


@pytest.mark.anyio
class TestLaunching:
    async def test_a_server_is_started_once_for_all_and_closed_with_the_model(self, launcher: Launcher) -> None:
        seen: list[tuple[str, str]] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append((str(request.url), request.headers["authorization"]))
            return answering(request)

        model, client = connected(answer, "acme", model_path="some.gguf")
        assert launcher.log == []
        async with client, model:
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(model.complete, "x")
            assert launcher.log == ["launched"]
        assert launcher.log == ["launched", "closed"]
        assert set(seen) == {("http://127.0.0.1:1/v1/chat/completions", "Bearer launched-key")}
        assert launcher.options == {"model_path": "some.gguf", "download": True, "progress": None}
        await model.aclose()
        assert launcher.log == ["launched", "closed"]

    async def test_a_server_that_does_not_start_is_tried_again(self, launcher: Launcher) -> None:
        model, client = connected(answering, "acme")
        launcher.error = ConfigError("no space")
        async with client, model:
            with pytest.raises(ConfigError, match="no space"):
                await model.complete("x")
            launcher.error = None
            assert (await model.complete("x")).text == "hi"
        assert launcher.log == ["launched", "launched", "closed"]

    async def test_a_server_that_died_is_launched_anew_once(self, launcher: Launcher) -> None:
        model, client = connected(answering, "acme")
        async with client, model:
            await model.complete("x")
            launcher.servers[0].alive = False
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(model.complete, "x")
            assert launcher.log == ["launched", "closed", "launched"]
        assert launcher.log == ["launched", "closed", "launched", "closed"]

    async def test_closing_while_it_starts_leaves_no_server(self, launcher: Launcher) -> None:
        model, client = connected(answering, "acme")
        launcher.ready = anyio.Event()
        async with client, anyio.create_task_group() as group:

            async def ask() -> None:
                with pytest.raises(UsageError, match="this model is closed"):
                    await model.complete("x")

            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            await model.aclose()
            launcher.ready.set()
        assert launcher.log == ["launched", "closed"]

    async def test_a_stream_older_than_the_closing_launches_nothing(self, launcher: Launcher) -> None:
        model, client = connected(answering, "acme")
        stream = model.stream("x")
        async with client:
            await model.aclose()
            async with stream:
                with pytest.raises(UsageError, match="this model is closed: connect again"):
                    await anext(stream)
        assert launcher.log == []
        with pytest.raises(UsageError, match="this model is closed"):
            await model._endpoint.resolve()

    @pytest.mark.parametrize("launch", ["no_such_module:launch", "acme_server:nothing", "acme_server"])
    async def test_a_launcher_that_cannot_be_imported(
        self, launch: str, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(BY_NAME, "acme", Provider(name="acme", default_model="m", launch=launch))
        async with connect("acme") as model:
            with pytest.raises(ConfigError, match=f"acme cannot be started: its launch='{launch}'"):
                await model.complete("x")
        assert launcher.log == []

    async def test_preparing_does_what_the_first_stream_would(self, launcher: Launcher) -> None:
        async with connect("acme") as model:
            await model.prepare()
            await model.prepare()
            assert launcher.log == ["launched"]
            assert model._transport._lanes is not None
        with pytest.raises(UsageError, match="this model is closed"):
            await model.prepare()

    async def test_preparing_with_a_client_of_your_own(self) -> None:
        model, client = connected(answering, api_key="k")
        async with client, model:
            await model.prepare()
            assert (await model.complete("x")).text == "hi"

    async def test_preparing_says_what_is_missing(self) -> None:
        async with connect("openai") as model:
            with pytest.raises(MissingKey):
                await model.prepare()

    async def test_preparing_a_replay_sends_nothing(self) -> None:
        model, transport = replay(ANSWER)
        async with model:
            await model.prepare()
        assert transport.requests == []

    async def test_an_address_of_your_own_launches_nothing(self, launcher: Launcher) -> None:
        model, client = connected(answering, "acme", base_url="http://127.0.0.1:9/v1", api_key="k")
        async with client, model:
            await model.complete("x")
        assert launcher.log == []

    async def test_a_model_that_was_never_used_launches_nothing(self, launcher: Launcher) -> None:
        async with connect("acme"):
            pass
        assert launcher.log == []
