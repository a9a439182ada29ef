"""A server on loopback that a test scripts, and `looms` as a process of its own in a clean environment."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loomstream.local import cached_model

CANARY = "sk-canary-7f3a9b2c1d5e"
PATIENCE_S = 30
_SECRET_WORDS = ("_API_KEY", "_TOKEN", "_PROXY", "_BASE_URL", "_ENDPOINT", "_HOST")


def delta(text: str, field: str = "content") -> bytes:
    """Give an OpenAI-shaped event with a piece of text."""
    choice = {"index": 0, "delta": {field: text}, "finish_reason": None}
    return b"data: " + json.dumps({"id": "r1", "model": "stub-1", "choices": [choice]}).encode() + b"\n\n"


END = (
    b'data: {"id":"r1","model":"stub-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"r1","model":"stub-1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)


class Exchange:
    """One request and the means to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.path = handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.body = json.loads(handler.rfile.read(int(self.headers.get("content-length", 0))) or b"null")

    def begin(self, status: int = 200, content_type: str = "text/event-stream") -> None:
        self._handler.send_response(status)
        self._handler.send_header("content-type", content_type)
        self._handler.end_headers()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._handler.wfile.write(piece)
            self._handler.wfile.flush()

    def wait_closed(self) -> None:
        """Return when the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while self._handler.rfile.read(1):
                pass


Script = Callable[[Exchange], None]


def answer(*pieces: bytes, status: int = 200, content_type: str = "text/event-stream") -> Script:
    """Give a script that sends these bytes."""

    def run(exchange: Exchange) -> None:
        exchange.begin(status, content_type)
        exchange.send(*pieces)

    return run


class Stub:
    """The server; `script` says what it does with a request."""

    def __init__(self) -> None:
        self.script: Script = answer(delta("Hel"), delta("lo"), END)
        self.exchanges: list[Exchange] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                exchange = Exchange(self)
                stub.exchanges.append(exchange)
                with contextlib.suppress(ConnectionError):  # the client went away: the script's business
                    stub.script(exchange)

            do_GET = do_POST  # noqa: N815 (what http.server calls)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    @property
    def options(self) -> list[str]:
        """The arguments that lead here."""
        return ["--provider", "openai-compatible", "--model", "stub-1", "--base-url", self.url]


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no setting, no file and no keyring of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("LOOM_", "LOOMSTREAM_LOCAL", "OLLAMA")) or name.upper().endswith(_SECRET_WORDS):
            monkeypatch.delenv(name)
    # The first two make a process report slow steps on standard error, the third hides a missing flush.
    for name in ("PYTHONDEVMODE", "PYTHONASYNCIODEBUG", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("LOOM_DATA_DIR", str(Path(os.devnull) / "nothing"))


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(clean_environment: None, tmp_path: Path) -> Iterator[Start]:  # noqa: ARG001 (for its effect)
    """Start `looms` as a process; its standard input is empty unless given."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, env: dict[str, str] | None = None, **options: object) -> subprocess.Popen[bytes]:
        pipes: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, "-m", "loomstream", *arguments],
            env=os.environ | (env or {}),
            cwd=tmp_path,
            start_new_session=True,
            **(pipes | options),
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def embedded() -> None:
    pytest.importorskip("xllamacpp", reason="NOT TESTED: the embedded model needs `pip install 'loomstream[local]'`")
    if cached_model() is None:
        pytest.skip("NOT TESTED: run `python -m loomstream.local --fetch` once to test the embedded model")
