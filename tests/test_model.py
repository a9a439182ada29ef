"""The model: specs, what closes when, cost, event loops, secrets."""

from __future__ import annotations

import asyncio
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import keyring
import pytest
import trio
from models import (
    ANSWER,
    CANARY,
    Keyring,
    answering,
    connected,
    delta,
    failing,
    key_sent,
    noting,
    replay,
    sse,
)

from loomstream.errors import (
    AuthFailed,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    LoomstreamError,
    ServerFault,
    StreamTruncated,
    UnknownModel,
    UnknownProvider,
    UsageError,
)
from loomstream.events import Cost, Stop, TextDelta, Usage
from loomstream.model import connect, parse_spec
from loomstream.providers import Provider
from loomstream.providers.table import TABLE
from loomstream.testing import Recording, replay_model
from loomstream.testing.replay import Step
from loomstream.wire import Secret

pytestmark = pytest.mark.usefixtures("no_keys")


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
        ("gpt-4o", UnknownProvider, "names no provider: write 'openai:gpt-4o'"),
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
    monkeypatch.setattr("loomstream.configured.choice.monotonic", lambda: clock[0])
    assert connect().provider == "local"
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("spec", "kind"), [(5, "an int"), (b"openai", "a bytes"), (("openai", "gpt-4o"), "a tuple"), ({}, "a dict")]
)
def test_a_spec_is_a_text(spec: object, kind: str) -> None:
    with pytest.raises(UsageError, match=rf"the spec is {kind}: give a text, as in connect\('openai:gpt-4o'\)"):
        connect(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [row for row in TABLE if row.key_environment], ids=lambda row: row.name)
def test_without_a_spec_a_key_that_is_set_counts_wanted_or_not(row: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(row.key_environment[0], "k-1234567890")
    for setting in row.settings:
        if setting.environment and not setting.keyring:
            monkeypatch.setenv(setting.environment[0], setting.default or "x")
    for name in row.base_url_environment[:1] if not row.base_url else ():
        monkeypatch.setenv(name, "https://host.example/v1")
    for name in row.model_environment[:1]:
        monkeypatch.setenv(name, "m")
    try:
        assert connect().provider == row.name
    except UnknownModel as error:
        assert error.provider == row.name  # noqa: PT017 (a provider without a default model is found all the same)


def test_several_keys_need_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with pytest.raises(ConfigError, match=r"\(anthropic, openai\): name one, as in connect\('anthropic'\)"):
        connect()
    assert connect("openai").provider == "openai"


def test_an_unknown_option_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="did you mean temperature"):
        connect("openai", temprature=1)  # type: ignore[call-arg]


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
