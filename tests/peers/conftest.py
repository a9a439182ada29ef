"""Servers of other projects on loopback, each started once a session: llama.cpp's, aimock, llmock, Redis."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from loomstream.errors import ConfigError, LoomstreamError
from loomstream.events import Event, TextDelta
from loomstream.local import LocalServer, fetch_model, launch
from loomstream.stream import Stream
from loomstream.testing import check_order

AIMOCK = "LOOMSTREAM_AIMOCK"
AIMOCK_CLI = "node_modules/@copilotkit/aimock/dist/cli.js"
AIMOCK_REMEDY = f"npm install @copilotkit/aimock@1.43.0, or set {AIMOCK} to its dist/cli.js"
GUARDED_KEY = "sk-canary-guarded-0123456789"
START_LIMIT_S = 30.0
CONTEXT_TOKENS = 512
RPM = 2
CONTEXT_WINDOW = 200

Result = TypeVar("Result")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.peer)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no key of the user's may reach these tests."""
    for name in list(os.environ):
        if name.lower().endswith(("_proxy", "_api_key")):
            monkeypatch.delenv(name)


async def read(stream: Stream) -> list[Event]:
    """Read a stream to its end and hold it to the order law."""
    async with stream:
        events = [event async for event in stream]
    check_order(events)
    return events


async def read_to_error(stream: Stream) -> tuple[list[Event], LoomstreamError]:
    """Read a stream that fails, give what came and the error, which must tell the same."""
    events: list[Event] = []
    with pytest.raises(LoomstreamError) as caught:  # noqa: PT012 (only reading stands in it)
        async with stream:
            async for event in stream:
                events.append(event)  # noqa: PERF401 (what came before the error counts)
    check_order(events, complete=False)
    partial = caught.value.partial
    assert partial is not None
    assert not partial.complete
    assert partial.text == "".join(event.text for event in events if isinstance(event, TextDelta))
    return events, caught.value


@pytest.fixture(scope="session", name="read_to_error")
def read_to_error_fixture() -> Callable[[Stream], Awaitable[tuple[list[Event], LoomstreamError]]]:
    return read_to_error


@pytest.fixture(scope="session", name="read")
def read_fixture() -> Callable[[Stream], Awaitable[list[Event]]]:
    return read


# --- servers -------------------------------------------------------------------------------------


class Peer:
    """A server under test: its address, and its own control API as JSON."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401 (another project's JSON)
        return self._ask("GET", path, None, headers or {})

    def post(self, path: str, body: object = None) -> Any:  # noqa: ANN401 (another project's JSON)
        return self._ask("POST", path, json.dumps(body), {"content-type": "application/json"})

    def delete(self, path: str) -> None:
        self._ask("DELETE", path, None, {})

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Any:  # noqa: ANN401 (as above)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        assert response.status < 300, (method, path, response.status, answer)
        return json.loads(answer) if answer else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once somebody listens: a process of another project says it in no other way."""
    end = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def serve(command: list[str], port: int, log: Path, **environment: str) -> Iterator[Peer]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    try:
        await_port(process, port, log)
        yield Peer(port)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def aimock_command(port: int, fixtures: str, latency_ms: int, skip_loudly: Callable[..., None]) -> list[str]:
    cli, node = Path(os.environ.get(AIMOCK) or AIMOCK_CLI), shutil.which("node")
    if node is None:
        skip_loudly("Node.js, which runs the server aimock,", f"install Node.js 20 or later, then {AIMOCK_REMEDY}")
    if not cli.is_file():
        skip_loudly(f"the server aimock ({cli})", AIMOCK_REMEDY)
    options = ["--chunk-size", "8", "--latency", str(latency_ms), "--strict", "--validate-on-load"]
    return [str(node), str(cli), "--port", str(port), "--fixtures", str(Path(__file__).with_name(fixtures)), *options]


@pytest.fixture(scope="session")
def aimock_server(tmp_path_factory: pytest.TempPathFactory, skip_loudly: Callable[..., None]) -> Iterator[Peer]:
    port = free_port()
    command = aimock_command(port, "aimock.json", 5, skip_loudly)
    yield from serve(command, port, tmp_path_factory.mktemp("aimock") / "log")


@pytest.fixture(scope="session")
def guarded_aimock(
    tmp_path_factory: pytest.TempPathFactory, skip_loudly: Callable[..., None]
) -> Iterator[tuple[Peer, str]]:
    """aimock that answers the live suite, and the one key that it takes."""
    port = free_port()
    command = aimock_command(port, "aimock_live.json", 1, skip_loudly)
    log = tmp_path_factory.mktemp("guarded_aimock") / "log"
    for peer in serve(command, port, log, AIMOCK_API_KEYS=GUARDED_KEY):
        yield peer, GUARDED_KEY


@pytest.fixture
def aimock(aimock_server: Peer) -> Peer:
    """aimock with an empty journal."""
    aimock_server.post("/__aimock/reset/journal")
    return aimock_server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory, skip_loudly: Callable[..., None]) -> Iterator[str]:
    """The address of a Redis server that keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        skip_loudly("the server redis-server", "apt-get install redis-server")
    if importlib.util.find_spec("redis") is None:
        skip_loudly("the client of Redis", "pip install 'loomstream[redis]'")
    port, where = free_port(), tmp_path_factory.mktemp("redis")
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(where)]
    for peer in serve([str(program), *options], port, where / "log"):
        yield f"redis://127.0.0.1:{peer.port}/0"


@pytest.fixture(scope="session")
def llmock_server(tmp_path_factory: pytest.TempPathFactory, skip_loudly: Callable[..., None]) -> Iterator[Peer]:
    if importlib.util.find_spec("llmock") is None:
        skip_loudly("the server llmock", "pip install 'loomstream[test]'")
    port = free_port()
    serve_it = "from llmock.cli import app; app()"
    options = ["--log-level", "warning", "--response-style", "hello"]
    limits = ["--rpm", str(RPM), "--context-window", str(CONTEXT_WINDOW)]
    command = [sys.executable, "-c", serve_it, "serve", "--port", str(port), *options, *limits]
    yield from serve(command, port, tmp_path_factory.mktemp("llmock") / "log")


@pytest.fixture
def llmock(llmock_server: Peer) -> Iterator[Peer]:
    """llmock without scripts or memory; its limits count by key, so each test brings its own."""
    llmock_server.post("/_llmock/reset")
    yield llmock_server
    assert llmock_server.get("/_llmock/scenario") == {"pending": []}


# --- llama.cpp -----------------------------------------------------------------------------------


def in_own_thread(function: Callable[[], Awaitable[Result]]) -> Result:
    """Run a coroutine on an event loop of its own, whatever the test runs on."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, function).result()


@pytest.fixture(scope="session")
def model_path(skip_loudly: Callable[..., None]) -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        skip_loudly("the runtime of the embedded model", "pip install 'loomstream[local]'")
    try:
        return in_own_thread(fetch_model)
    except ConfigError as error:
        skip_loudly(f"the embedded model ({error})", "python -m loomstream.local --fetch")
        raise


@pytest.fixture(scope="session")
def llamacpp(model_path: Path) -> Iterator[LocalServer]:
    """llama.cpp's own server with a real model."""

    async def start() -> LocalServer:
        return await launch(model_path=model_path, context_tokens=CONTEXT_TOKENS)

    server = in_own_thread(start)
    yield server
    server.close_now()
