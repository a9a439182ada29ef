"""The model: specs, keys and addresses; one attempt from request to events; time limits; what closes when."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import keyring
import msgspec
import pytest
import trio
from keyring.backends import null
from keyring.errors import KeyringLocked

import loomstream
from loomstream import catalog
from loomstream.errors import (
    AuthFailed,
    BadFrame,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    FirstEventTimeout,
    IdleTimeout,
    LoomstreamError,
    MissingKey,
    RateLimited,
    RequestError,
    ServerFault,
    StreamTruncated,
    UnknownModel,
    UnknownProvider,
    UsageError,
)
from loomstream.events import Cost, Event, Raw, Start, Stop, TextDelta, Usage
from loomstream.handler import Handler
from loomstream.messages import Request, Timeouts
from loomstream.model import Endpoint, Model, connect, parse_spec
from loomstream.providers import Provider, look_up
from loomstream.providers.table import BY_NAME, TABLE
from loomstream.pump import MAX_ERROR_BODY_BYTES
from loomstream.testing import Recording, ReplayTransport, check_order, replay_model
from loomstream.testing.clock import virtual_clock_backends
from loomstream.testing.replay import Step
from loomstream.transport import ByteResponse
from loomstream.wire import Secret, WireRequest

CANARY = "sk-canary-7f3a9c2e41d8"
VARIABLES = [name for row in TABLE for name in (*row.key_environment, *row.base_url_environment)]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without any key: no variable, an empty keyring."""
    for name in ("LOOM_LLM_PROVIDER", *VARIABLES):
        monkeypatch.delenv(name, raising=False)
    before = keyring.get_keyring()
    keyring.set_keyring(null.Keyring())
    yield
    keyring.set_keyring(before)


class Keyring(null.Keyring):
    """Holds one key."""

    priority = -1  # type: ignore[assignment]

    def __init__(self, name: str, key: str) -> None:
        self.entry = (name, key)

    def get_password(self, service: str, username: str) -> str | None:
        return self.entry[1] if (service, username) == ("loom", self.entry[0]) else None


# --- answers -------------------------------------------------------------------------------------


def sse(*frames: object) -> bytes:
    return b"".join(f"data: {json.dumps(frame)}\n\n".encode() for frame in frames)


def delta(text: str) -> bytes:
    return sse({"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": text}}]})


FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}})
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
ANSWER = delta("hi") + FINISH + USAGE + DONE


def sleeping(seconds: float) -> Callable[[], Awaitable[None]]:
    async def sleep() -> None:
        await anyio.sleep(seconds)

    return sleep


def failing(error: LoomstreamError) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


def noting(log: list[str], word: str) -> Callable[[], Awaitable[None]]:
    async def note() -> None:
        log.append(word)

    return note


def replay(
    *steps: Step, provider: str = "openai", status: int = 200, **options: object
) -> tuple[Model, ReplayTransport]:
    transport = ReplayTransport(Recording(steps, status))
    return replay_model(provider, transport=transport, **options), transport


def connected(
    answer: Callable[[httpx.Request], httpx.Response], spec: str = "openai:gpt-4o", **options: object
) -> tuple[Model, httpx.AsyncClient]:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return connect(spec, client=client, **options), client


def answering(request: httpx.Request) -> httpx.Response:
    del request
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=ANSWER)


async def key_sent(spec: str = "openai", **options: object) -> str:
    """Give the credential that a request goes out with."""
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization", ""))
        return answering(request)

    model, client = connected(answer, spec, **options)
    async with client, model:
        await model.complete("x")
    return sent[0].removeprefix("Bearer ")


# --- specs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "provider", "model"),
    [
        ("openai:gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("openai", "openai", "gpt-4o"),
        ("openai:", "openai", "gpt-4o"),
        (" openai : gpt-4o-mini ", "openai", "gpt-4o-mini"),
        ("ollama:qwen2.5:7b", "ollama", "qwen2.5:7b"),
        ("groq:meta-llama/llama-4:free", "groq", "meta-llama/llama-4:free"),
    ],
)
def test_a_spec_is_split_at_the_first_colon(spec: str, provider: str, model: str) -> None:
    row, name = parse_spec(spec)
    assert (row.name, name) == (provider, model)
    made = connect(spec)
    assert (made.provider, made.model) == (provider, model)
    assert repr(made) == f"<Model {provider}:{model}>"


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("opnai", UnknownProvider, "did you mean 'openai'"),
        ("", UnknownProvider, "unknown provider ''"),
        (":gpt-4o", UnknownProvider, "unknown provider ''"),
        ("gpt-4o", UnknownProvider, "unknown provider 'gpt-4o'"),
        ("groq", UnknownModel, "write groq:MODEL-ID"),
        ("groq:  ", UnknownModel, "write groq:MODEL-ID"),
    ],
)
def test_a_spec_that_names_nothing_is_refused(spec: str, error: type[LoomstreamError], words: str) -> None:
    with pytest.raises(error, match=words):
        connect(spec)


def test_without_a_spec_and_without_any_key_it_is_the_embedded_model() -> None:
    model = connect()
    assert model.provider == "local"
    assert model._endpoint._launch_options["download"] is False


def test_the_embedded_model_may_be_fetched_where_it_was_asked_for() -> None:
    assert connect("local")._endpoint._launch_options["download"] is True
    assert connect("local", download=False)._endpoint._launch_options["download"] is False


def test_the_embedded_model_takes_a_file_of_your_own() -> None:
    model = connect("local:some/folder/mine.gguf")
    assert (model.provider, model.model) == ("local", "mine")
    assert model._endpoint._launch_options["model_path"] == "some/folder/mine.gguf"
    assert connect("local", model_path="x.gguf")._endpoint._launch_options["model_path"] == "x.gguf"


def test_the_embedded_model_is_no_other() -> None:
    with pytest.raises(UnknownModel, match=r"not 'gpt-4o': write local or local:PATH.gguf"):
        connect("local:gpt-4o")


def test_without_a_spec_the_variable_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("LOOM_LLM_PROVIDER", " anthropic:claude-x ")
    model = connect()
    assert (model.provider, model.model) == ("anthropic", "claude-x")


def test_without_a_spec_the_only_provider_with_a_key_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    assert connect().provider == "anthropic"


def test_without_a_spec_the_keyring_is_asked() -> None:
    keyring.set_keyring(Keyring("deepseek_api_key", CANARY))
    # a keyring of keyring's own null module counts as absent, so this one must say that it is another
    assert type(keyring.get_keyring()).__module__ != "keyring.backends.null"
    assert connect().provider == "deepseek"


def test_without_a_spec_the_environment_comes_before_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring.set_keyring(Keyring("deepseek_api_key", CANARY))
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    assert connect().provider == "anthropic"


def test_without_a_spec_the_keyring_has_one_time_limit_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    asked: list[str] = []

    class Slow(Keyring):
        def get_password(self, service: str, username: str) -> str | None:
            asked.append(username)
            clock[0] += 2
            return super().get_password(service, username)

    keyring.set_keyring(Slow("", ""))
    monkeypatch.setattr("loomstream.model.monotonic", lambda: clock[0])
    assert connect().provider == "local"
    assert len(asked) == 3


@pytest.mark.parametrize("spec", [5, b"openai", ("openai", "gpt-4o")])
def test_a_spec_is_a_text(spec: object) -> None:
    with pytest.raises(UsageError, match=r"the spec is a \w+: give a text, as in connect\('openai:gpt-4o'\)"):
        connect(spec)  # type: ignore[arg-type]


def test_several_keys_need_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with pytest.raises(ConfigError, match=r"\(anthropic, openai\): name one, as in connect\('anthropic'\)"):
        connect()
    assert connect("openai").provider == "openai"


def test_an_unknown_option_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="did you mean temperature"):
        connect("openai", temprature=1)  # type: ignore[call-arg]


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.anyio
class TestKeys:
    async def test_a_missing_key_comes_out_of_the_iteration(self) -> None:
        model, client = connected(answering)
        async with client, model, model.stream("x") as stream:
            with pytest.raises(MissingKey, match=r"LOOM_LLM_OPENAI_API_KEY .*OPENAI_API_KEY.* api_key=") as raised:
                await anext(stream)
        assert raised.value.provider == "openai"
        assert raised.value.partial is not None

    async def test_a_key_that_turns_up_later_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, client = connected(answering)
        async with client, model:
            with pytest.raises(MissingKey):
                await model.complete("x")
            monkeypatch.setenv("OPENAI_API_KEY", CANARY)
            assert (await model.complete("x")).text == "hi"

    async def test_a_locked_keyring_is_named(self) -> None:
        class Locked(Keyring):
            def get_password(self, service: str, username: str) -> str | None:
                del service, username
                raise KeyringLocked

        keyring.set_keyring(Locked("", ""))
        model, client = connected(answering)
        async with client, model:
            with pytest.raises(MissingKey, match="the keyring is locked"):
                await model.complete("x")

    async def test_the_order_of_the_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keyring.set_keyring(Keyring("openai_api_key", "from-keyring"))
        assert await key_sent() == "from-keyring"
        monkeypatch.setenv("OPENAI_API_KEY", "from-vendor")
        assert await key_sent() == "from-vendor"
        monkeypatch.setenv("LOOM_LLM_OPENAI_API_KEY", "from-loom")
        assert await key_sent() == "from-loom"
        assert await key_sent(api_key="from-argument") == "from-argument"
        assert await key_sent(api_key=Secret("from-secret")) == "from-secret"

    async def test_the_key_is_looked_up_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "first")
        sent: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request.headers["authorization"])
            return answering(request)

        model, client = connected(answer)
        async with client, model:
            await model.complete("x")
            monkeypatch.setenv("OPENAI_API_KEY", "second")
            await model.complete("x")
        assert sent == ["Bearer first"] * 2

    async def test_a_key_that_is_optional_is_sent_where_there_is_one(self) -> None:
        options = {"spec": "openai-compatible:m", "base_url": "https://host/v1"}
        assert await key_sent(**options) == ""
        assert await key_sent(**options, api_key="mine") == "mine"

    async def test_no_key_goes_to_a_host_that_wants_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        body = b'{"message":{"content":"hi"},"done":true,"done_reason":"stop"}\n'
        headers: list[httpx.Headers] = []

        def answer(request: httpx.Request) -> httpx.Response:
            headers.append(request.headers)
            return httpx.Response(200, content=body, headers={"content-type": "application/x-ndjson"})

        model, client = connected(answer, "ollama")
        async with client, model:
            assert (await model.complete("x")).text == "hi"
        assert "authorization" not in headers[0]
        assert CANARY not in str(headers[0].raw)
        model, client = connected(answer, "ollama", api_key="mine")
        async with client, model:
            await model.complete("x")
        assert headers[1]["authorization"] == "Bearer mine", "it stands behind a gate that wants one"


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.anyio
class TestAddresses:
    @pytest.mark.parametrize(
        ("base_url", "url"),
        [
            ("https://host/v1", "https://host/v1/chat/completions"),
            ("https://host/v1/", "https://host/v1/chat/completions"),
            ("  https://host//  ", "https://host/chat/completions"),
            ("localhost:1234/v1", "http://localhost:1234/v1/chat/completions"),
            ("127.0.0.1:1", "http://127.0.0.1:1/chat/completions"),
        ],
    )
    async def test_a_base_url_is_put_in_order(self, base_url: str, url: str) -> None:
        row = look_up("openai-compatible")
        transport = ReplayTransport(Recording([ANSWER]))
        endpoint = Endpoint(row, base_url=base_url)
        async with Model(row, "m", endpoint=endpoint, transport=transport) as model:
            await model.complete("x")
        assert transport.requests[0].url == url

    async def test_the_environment_gives_an_address_and_the_argument_wins(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = look_up("openai")
        monkeypatch.setenv("OPENAI_BASE_URL", "https://vendor/v1")
        assert (await Endpoint(row, api_key="k").resolve())[0] == "https://vendor/v1"
        monkeypatch.setenv("LOOM_LLM_OPENAI_BASE_URL", " https://loom/v1 ")
        assert (await Endpoint(row, api_key="k").resolve())[0] == "https://loom/v1"
        assert (await Endpoint(row, api_key="k", base_url="https://mine").resolve())[0] == "https://mine"

    async def test_a_blank_variable_is_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", "  ")
        assert (await Endpoint(look_up("openai"), api_key="k").resolve())[0] == "https://api.openai.com/v1"


def test_a_provider_without_an_address_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match="base_url='https://host/v1' or set LOOM_LLM_OPENAI_COMPATIBLE_BASE_URL"):
        connect("openai-compatible:m")


def test_a_row_without_variables_says_how_to_give_an_address() -> None:
    with pytest.raises(ConfigError, match=r"pass base_url='https://host/v1'$"):
        Endpoint(Provider(name="acme"))


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
            assert model._transport._client is not None
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


# --- one attempt -----------------------------------------------------------------------------------


@pytest.mark.anyio
class TestAttempt:
    async def test_a_whole_answer(self) -> None:
        model, transport = replay(delta("h"), delta("i"), FINISH, USAGE, DONE)
        async with model, model.stream("x") as stream:
            events = [event async for event in stream]
        check_order(events)
        assert [type(event).__name__ for event in events] == [
            "Start", "TextStart", "TextDelta", "TextDelta", "TextEnd", "Usage", "Cost", "Stop",
        ]  # fmt: skip
        assert transport.open_responses == 0

    async def test_options_override_the_defaults(self) -> None:
        model, transport = replay(ANSWER, temperature=0.0, max_tokens=5)
        async with model:
            await model.complete("x", max_tokens=7)
        body = json.loads(transport.requests[0].body)
        assert (body["temperature"], body["max_completion_tokens"]) == (0.0, 7)

    async def test_what_the_provider_cannot_honour_is_said_in_the_start(self) -> None:
        model, _ = replay(ANSWER)
        async with model:
            response = await model.complete("x", top_k=40)
        assert response.warnings == ("top_k is not sent: this host does not take it",)

    async def test_raw_events_come_on_request(self) -> None:
        model, _ = replay(ANSWER)
        async with model, model.stream("x", raw_events=True) as stream:
            assert sum([isinstance(event, Raw) async for event in stream]) == 4

    async def test_a_value_that_cannot_be_sent_is_refused_before_anything_is(self) -> None:
        model, transport = replay(ANSWER)
        async with model:
            with pytest.raises(RequestError, match="max_tokens"):
                model.stream("x", max_tokens="5")  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="unknown option"):
                model.stream("x", colour="red")  # type: ignore[call-arg]
            with pytest.raises(RequestError, match="cannot be written as JSON"):
                await model.complete("x", extra_body={"a": object()})
        assert transport.requests == []

    async def test_a_closed_model_says_so(self) -> None:
        model, transport = replay(ANSWER)
        async with model:
            pass
        with pytest.raises(UsageError, match="this model is closed: connect again"):
            model.stream("x")
        await model.aclose()
        assert transport.requests == []

    async def test_an_older_stream_sends_nothing_while_its_model_is_closing(self) -> None:
        closing, go_on = anyio.Event(), anyio.Event()

        class SlowToClose(ReplayTransport):
            async def aclose(self) -> None:
                closing.set()
                await go_on.wait()

        transport = SlowToClose(Recording([ANSWER]))
        model = replay_model("openai", transport=transport)
        async with model.stream("x") as stream, anyio.create_task_group() as group:
            group.start_soon(model.aclose)
            await closing.wait()
            with pytest.raises(UsageError, match="this model is closed: connect again"):
                await anext(stream)
            go_on.set()
        assert transport.requests == []

    @pytest.mark.parametrize(("status", "error"), [(401, AuthFailed), (429, RateLimited), (500, ServerFault)])
    async def test_a_status_is_a_typed_error(self, status: int, error: type[LoomstreamError]) -> None:
        model, transport = replay(b'{"error":{"mess', b'age":"why"}}', status=status)
        async with model, model.stream("x") as stream:
            with pytest.raises(error, match="why") as raised:
                await stream.collect()
            assert transport.open_responses == 0
        assert raised.value.partial == stream.response
        assert not raised.value.committed

    async def test_no_more_of_an_error_is_read_than_is_kept(self) -> None:
        log: list[str] = []
        steps: list[Step] = [b"x" * 20_000] * 4
        model, _ = replay(*steps, noting(log, "read on"), b"x", status=500)
        async with model:
            with pytest.raises(ServerFault) as raised:
                await model.complete("x")
        assert raised.value.body == "x" * MAX_ERROR_BODY_BYTES
        assert log == []

    @pytest.mark.parametrize("error", [ConnectionLost("cut"), IdleTimeout("late"), BadFrame("odd")])
    async def test_an_error_whose_body_is_cut_is_still_that_error(self, error: LoomstreamError) -> None:
        model, _ = replay(b'{"error":{"message":"slow down"}}', failing(error), status=429)
        async with model:
            with pytest.raises(RateLimited, match="slow down"):
                await model.complete("x")

    async def test_the_handler_is_a_building_block(self) -> None:
        model, _ = replay(ANSWER)
        request = Request(messages=(loomstream.user("x"),))
        async with model, model.handler(request) as events:
            assert isinstance(await anext(events), Start)

    async def test_middleware_of_your_own_takes_the_place_of_the_default(self) -> None:
        log: list[str] = []

        def own(handler: Handler) -> Handler:
            @asynccontextmanager
            async def wrapped(request: Request) -> AsyncGenerator[AsyncIterator[Event]]:
                log.append("open")
                async with handler(request) as events:
                    yield events
                log.append("closed")

            return wrapped

        model, _ = replay(ANSWER, middleware=[own])
        async with model, model.stream("x") as stream:
            events = [event async for event in stream]
            assert log == ["open", "closed"]
        assert not any(isinstance(event, Cost) for event in events)
        assert stream.response.cost.amount_usd == Decimal("0.0035")


# --- the transport fails around the terminal marker --------------------------------------------------


@pytest.mark.anyio
class TestTerminalMarker:
    @pytest.mark.parametrize("error", [ConnectionLost("cut"), IdleTimeout("late")])
    async def test_a_fault_after_the_marker_leaves_a_whole_answer(self, error: LoomstreamError) -> None:
        model, transport = replay(delta("hi") + FINISH, USAGE, failing(error))
        async with model, model.stream("x") as stream:
            events = [event async for event in stream]
        check_order(events)
        assert events[-1] == Stop("end_turn", "stop")
        assert stream.response.usage is not None
        assert stream.response.usage.final
        assert transport.open_responses == 0

    @pytest.mark.parametrize("error", [ConnectionLost("cut"), IdleTimeout("late")])
    async def test_a_fault_before_the_marker_is_that_fault(self, error: LoomstreamError) -> None:
        model, _ = replay(delta("h"), delta("i"), failing(error))
        async with model, model.stream("x") as stream:
            with pytest.raises(type(error)) as raised:
                await stream.collect()
        assert raised.value is error
        assert raised.value.__cause__ is None
        assert raised.value.partial is not None
        assert raised.value.partial.text == "hi"
        assert raised.value.committed
        assert not stream.response.complete

    async def test_a_fault_in_the_middle_of_a_frame_is_that_fault(self) -> None:
        model, _ = replay(delta("hi"), FINISH[:-10], failing(ConnectionLost("cut")))
        async with model:
            with pytest.raises(ConnectionLost):
                await model.complete("x")

    async def test_an_end_before_the_marker_is_a_truncation(self) -> None:
        model, _ = replay(delta("hi"))
        async with model, model.stream("x") as stream:
            with pytest.raises(StreamTruncated) as raised:
                await stream.collect()
        assert raised.value.partial is not None
        assert raised.value.partial.text == "hi"

    async def test_an_end_after_the_marker_is_whole(self) -> None:
        model, _ = replay(delta("hi"), FINISH)
        async with model:
            assert (await model.complete("x")).complete

    async def test_an_error_among_the_frames_ends_the_stream_after_what_came_before(self) -> None:
        model, _ = replay(delta("hi") + sse({"error": {"message": "broken"}}) + delta("more"))
        async with model, model.stream("x") as stream:
            with pytest.raises(ServerFault, match="broken"):
                await stream.collect()
        assert stream.response.text == "hi"


# --- closing ---------------------------------------------------------------------------------------


@pytest.mark.anyio
class TestClosing:
    async def test_the_rest_of_a_whole_answer_is_drained_so_that_the_connection_is_kept(self) -> None:
        log: list[str] = []
        model, transport = replay(ANSWER, noting(log, "rest"), b"\n", noting(log, "end"))
        async with model, model.stream("x") as stream:
            async for event in stream:
                if isinstance(event, Stop):
                    assert log == []
                    assert transport.open_responses == 1
                    break
        assert log == ["rest", "end"]
        assert transport.open_responses == 0

    async def test_a_long_rest_is_not_drained(self) -> None:
        log: list[str] = []
        model, _ = replay(ANSWER, b"x" * 70_000, noting(log, "read on"), b"x")
        async with model:
            await model.complete("x")
        assert log == []

    async def test_a_rest_that_fails_is_of_no_interest(self) -> None:
        model, _ = replay(ANSWER, failing(ConnectionLost("cut")))
        async with model:
            assert (await model.complete("x")).complete

    @pytest.mark.parametrize("road", ["break", "raise", "fail"])
    async def test_an_early_end_closes_at_once(self, road: str) -> None:
        log: list[str] = []
        steps: list[Step] = [sse({"error": {"message": "x"}})] if road == "fail" else [delta("more")]
        model, transport = replay(delta("hi"), *steps, noting(log, "read on"), ANSWER)
        async with model:
            try:
                async with model.stream("x") as stream:
                    async for event in stream:
                        if isinstance(event, TextDelta) and road == "break":
                            break
                        if isinstance(event, TextDelta) and road == "raise":
                            int("mine")
            except (ValueError, ServerFault) as error:
                assert (road == "raise") == isinstance(error, ValueError)  # noqa: PT017 (which one came is the point)
            assert transport.open_responses == 0
        assert log == []


# --- time limits, on a virtual clock -----------------------------------------------------------------


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
        model, transport = replay(sleeping(3600), ANSWER)
        assert await self.elapsed(model, FirstEventTimeout) == pytest.approx(60)
        assert transport.open_responses == 0

    async def test_the_wait_for_the_headers_counts(self) -> None:
        transport = SlowToOpen(3600, Recording([ANSWER]))
        assert await self.elapsed(replay_model("openai", transport=transport), FirstEventTimeout) == pytest.approx(60)
        transport = SlowToOpen(40, Recording([sleeping(40), ANSWER]))
        assert await self.elapsed(replay_model("openai", transport=transport), FirstEventTimeout) == pytest.approx(60)

    async def test_pings_are_no_first_event(self) -> None:
        steps: list[Step] = [step for _ in range(30) for step in (PING, sleeping(5))]
        model, _ = replay(*steps, ANSWER)
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
        model, _ = replay(b'{"error":{"message":"slow down"}}', sleeping(3600), status=429)
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
            with pytest.raises(IdleTimeout, match=r"1.5 s .*timeouts=Timeouts\(idle_s=…\)") as raised:
                await stream.collect()
        assert raised.value.partial is not None
        assert raised.value.partial.text == "hi"


# --- models that cannot stream -----------------------------------------------------------------------

WHOLE = {
    "id": "c1",
    "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
}


@pytest.mark.anyio
class TestWithoutStreaming:
    @pytest.fixture(autouse=True)
    def cannot_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """gpt-4o is taken for a model that cannot stream."""
        known = catalog.look_up("openai", "gpt-4o")
        assert known is not None
        entry = msgspec.structs.replace(known, streaming=False)
        monkeypatch.setattr(catalog, "look_up", lambda provider, model: entry if model == "gpt-4o" else None)  # noqa: ARG005 (its signature)

    async def kinds(self, transport: ReplayTransport, **options: object) -> list[str]:
        async with replay_model("openai", transport=transport) as model, model.stream("x", **options) as stream:
            events = [event async for event in stream]
        check_order(events)
        assert stream.response.text == "hi"
        return [type(event).__name__ for event in events]

    async def test_it_asks_for_no_stream_and_gives_the_same_events(self) -> None:
        whole = ReplayTransport(Recording([json.dumps(WHOLE).encode()], headers={"content-type": "application/json"}))
        assert await self.kinds(whole) == [
            "Start", "TextStart", "TextDelta", "TextEnd", "Usage", "Cost", "Stop",
        ]  # fmt: skip
        assert not json.loads(whole.requests[0].body).keys() & {"stream", "stream_options"}

    async def test_stream_can_be_asked_for_all_the_same(self) -> None:
        transport = ReplayTransport(Recording([ANSWER]))
        await self.kinds(transport, stream=True)
        assert json.loads(transport.requests[0].body)["stream"] is True

    async def test_a_default_is_as_good(self) -> None:
        transport = ReplayTransport(Recording([ANSWER]))
        async with replay_model("openai", transport=transport, stream=True) as model:
            await model.complete("x")
        assert json.loads(transport.requests[0].body)["stream"] is True

    async def test_a_model_that_can_stream_may_be_asked_not_to(self) -> None:
        transport = ReplayTransport(Recording([json.dumps(WHOLE).encode()]))
        async with replay_model("openai", model="other", transport=transport) as model:
            assert (await model.complete("x", stream=False)).text == "hi"
        assert "stream" not in json.loads(transport.requests[0].body)


# --- cost ------------------------------------------------------------------------------------------


@pytest.mark.anyio
class TestCost:
    async def test_a_priced_model(self) -> None:
        model, _ = replay(ANSWER, model="gpt-4o")
        async with model:
            cost = (await model.complete("x")).cost
        assert cost.amount_usd == Decimal("0.0035")
        assert not cost.exact, "the answer names a model that the catalog does not know"

    async def test_an_exact_price(self) -> None:
        model, _ = replay(ANSWER.replace(b'"m-1"', b'"gpt-4o-2024-08-06"'))
        async with model:
            cost = (await model.complete("x")).cost
        assert (cost.amount_usd, cost.exact, cost.model) == (Decimal("0.0035"), True, "gpt-4o-2024-08-06")

    async def test_a_free_model(self) -> None:
        body = b'{"message":{"content":"hi"},"done":true,"done_reason":"stop"}\n'
        recording = Recording([body], headers={"content-type": "application/x-ndjson"})
        async with replay_model("ollama", recording) as model:
            cost = (await model.complete("x")).cost
        assert (cost.amount_usd, cost.exact, cost.provider) == (Decimal(0), True, "ollama")

    async def test_an_unknown_model(self) -> None:
        model, _ = replay(ANSWER, provider="openai-compatible", model="mine")
        async with model:
            cost = (await model.complete("x")).cost
        assert (cost.amount_usd, cost.provider, cost.model) == (None, "openai-compatible", "m-1")

    async def test_after_a_break(self) -> None:
        usage = sse({"choices": [{"index": 0, "delta": {"content": "b"}}], "usage": {"prompt_tokens": 1000}})
        model, _ = replay(delta("a") + usage + delta("c"), ANSWER)
        async with model, model.stream("x") as stream:
            async for event in stream:
                if isinstance(event, Usage):
                    break
        cost = stream.response.cost
        assert (cost.amount_usd, cost.exact, cost.provider) == (Decimal("0.0025"), False, "openai")

    async def test_at_every_event(self) -> None:
        """Also right after a `Usage` whose `Cost` event is held back."""
        usages = [sse({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": n}}) for n in (10, 20, 30)]
        model, _ = replay(delta("a"), *usages, ANSWER, model="gpt-4o")
        async with model, model.stream("x", max_tokens=400) as stream:
            seen = {event.output_tokens: stream.cost.amount_usd async for event in stream if isinstance(event, Usage)}
        assert seen[10] == Decimal("0.0026")
        assert seen[20] == Decimal("0.0027")
        assert seen[100] == stream.cost.amount_usd == Decimal("0.0035")

    async def test_its_upper_bound_after_a_cut(self) -> None:
        usage = sse(
            {"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "b"}}], "usage": {"prompt_tokens": 1000}}
        )
        model, _ = replay(delta("a").replace(b"m-1", b"gpt-4o") + usage, middleware=())
        async with model:
            with pytest.raises(StreamTruncated) as raised:
                await model.complete("x", max_tokens=400)
        assert raised.value.partial is not None
        cost = raised.value.partial.cost
        assert (cost.lower_usd, cost.upper_usd) == (Decimal("0.0025"), Decimal("0.0065"))

    async def test_before_anything_came(self) -> None:
        model, _ = replay(ANSWER)
        async with model, model.stream("x") as stream:
            assert stream.response.cost == Cost(provider="openai", model="gpt-4o")

    async def test_in_an_error(self) -> None:
        model, _ = replay(delta("a"))
        async with model:
            with pytest.raises(StreamTruncated) as raised:
                await model.complete("x")
        assert raised.value.partial is not None
        assert raised.value.partial.cost.provider == "openai"


# --- event loops -------------------------------------------------------------------------------------


def test_one_model_serves_one_event_loop_after_another() -> None:
    model = replay_model("openai", ANSWER)

    async def ask() -> str:
        return (await model.complete("x")).text

    assert [asyncio.run(ask()), asyncio.run(ask()), trio.run(ask), asyncio.run(ask())] == ["hi"] * 4


class Server(BaseHTTPRequestHandler):
    """Answers every request with the same stream."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_one_model_serves_one_event_loop_after_another_over_http(server_url: str) -> None:
    model = connect("openai-compatible:m", base_url=server_url)

    async def ask() -> list[str]:
        answers = [(await model.complete("x")).text for _ in range(2)]
        await model._transport.aclose()
        return answers

    assert [asyncio.run(ask()), asyncio.run(ask())] == [["hi", "hi"]] * 2

    async def close() -> None:
        await model.aclose()

    asyncio.run(close())


# --- secrets -----------------------------------------------------------------------------------------


def told(error: BaseException) -> str:
    """Give everything that a report of the error could show, local variables included."""
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    shown = [repr(error), str(error), repr(getattr(error, "__dict__", "")), *lines]
    if isinstance(error, LoomstreamError):
        shown.append(repr(pickle.dumps(error)))
        shown.append(repr(error.partial))
    return "\n".join(shown)


def refuse(request: httpx.Request) -> httpx.Response:
    said = request.headers["authorization"].removeprefix("Bearer ")
    return httpx.Response(401, json={"error": {"message": f"Incorrect API key provided: {said}", "code": said}})


def break_down(request: httpx.Request) -> httpx.Response:
    msg = "refused"
    raise httpx.ConnectError(msg, request=request)


def answer_nonsense(request: httpx.Request) -> httpx.Response:
    said = request.headers["authorization"]
    return httpx.Response(200, content=f"<html>{said}</html>".encode())


def answer_an_error(request: httpx.Request) -> httpx.Response:
    said = request.headers["authorization"]
    body = delta("hi") + sse({"error": {"message": f"who is {said}?"}})
    return httpx.Response(200, content=body, headers={"content-type": "text/event-stream"})


@pytest.mark.anyio
class TestSecrets:
    """The key stands in no error, whatever went wrong and however closely one looks."""

    @pytest.fixture(params=["argument", "secret", "environment", "keyring"])
    def key(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
        if request.param == "environment":
            monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        elif request.param == "keyring":
            keyring.set_keyring(Keyring("openai_api_key", CANARY))
        return {"argument": {"api_key": CANARY}, "secret": {"api_key": Secret(CANARY)}}.get(request.param, {})

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (refuse, AuthFailed),
            (break_down, ConnectFailed),
            (answer_nonsense, LoomstreamError),
            (answer_an_error, LoomstreamError),
        ],
    )
    async def test_what_the_other_side_does(
        self,
        answer: Callable[[httpx.Request], httpx.Response],
        error: type[LoomstreamError],
        key: dict[str, object],
    ) -> None:
        model, client = connected(answer, **key)
        key.clear()
        async with client, model:
            with pytest.raises(error) as raised:
                await model.complete("x")
        assert CANARY not in told(raised.value)
        assert CANARY not in repr(vars(model)) + repr(model)

    @pytest.mark.parametrize("bad", ["\nx", "é", "\x00"])
    @pytest.mark.parametrize("place", ["argument", "environment", "keyring"])
    async def test_a_key_that_no_header_can_carry(self, place: str, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if place == "environment" and bad != "\x00":
            monkeypatch.setenv("OPENAI_API_KEY", CANARY + bad)
        elif place == "keyring":
            keyring.set_keyring(Keyring("openai_api_key", CANARY + bad))
        model, client = connected(answering, **({"api_key": CANARY + bad} if place == "argument" else {}))
        async with client, model:
            with pytest.raises(ConfigError) as raised:
                await model.complete("x")
        assert CANARY not in told(raised.value)

    @pytest.mark.parametrize(
        "options",
        [
            {"spec": "opnai"},
            {"spec": "groq"},
            {"spec": "openai", "temprature": 1},
            {"spec": "openai", "client": object()},
            {"spec": "openai-compatible:m"},
        ],
        ids=["provider", "model", "option", "client", "address"],
    )
    async def test_a_wrong_argument_beside_the_key(self, options: dict[str, Any]) -> None:
        with pytest.raises(LoomstreamError) as raised:
            connect(api_key=CANARY, **options)
        assert CANARY not in told(raised.value)

    async def test_a_key_of_another_type(self) -> None:
        model, client = connected(answering, api_key=CANARY.encode())
        async with client, model:
            with pytest.raises(ConfigError, match="must be a string, not bytes") as raised:
                await model.complete("x")
        assert CANARY not in told(raised.value)

    async def test_the_key_is_found_where_it_should_be(self) -> None:
        assert await key_sent(api_key=CANARY) == CANARY
