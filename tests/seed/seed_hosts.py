"""The providers of the transcript: one loopback server that answers on every wire with the goldens of tests/streams."""

from __future__ import annotations

import contextlib
import json
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

_STREAMS = Path(__file__).parent.parent / "streams"
_GOLDENS = (
    ("/messages", "anthropic_messages/text"),
    ("/converse-stream", "bedrock_converse/text"),
    ("/api/chat", "ollama_chat/text"),
    (":streamGenerateContent", "gemini/text"),
    ("/responses", "openai_responses/text"),
    ("/chat/completions", "openai_chat/text"),
)
"""What a path asks for, and the golden that answers it."""

_SHOWN = {"capabilities": ["completion", "tools"], "model_info": {}}
_PULLED = {"models": [{"name": "qwen2.5:7b", "model": "qwen2.5:7b"}]}


class Answer(NamedTuple):
    """A response: what a host says."""

    status: int
    content_type: str
    body: bytes


def golden(path: str) -> Answer:
    """Give the answer that belongs to a path."""
    name = next((name for part, name in _GOLDENS if part in path), "")
    if not name:
        return Answer(404, "application/json", b'{"error": {"message": "no such path"}}')
    meta = tomllib.loads((_STREAMS / f"{name}.meta.toml").read_text())
    return Answer(meta.get("status", 200), meta["content_type"], (_STREAMS / f"{name}.bin").read_bytes())


class Hosts:
    """The server. `trouble` takes the place of the answers; what is None hangs."""

    def __init__(self) -> None:
        self.trouble: Answer | str | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._ended = threading.Event()
        hosts = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hosts.requests.append((self.path, dict(self.headers.items())))
                self._send(Answer(200, "application/json", json.dumps(_PULLED).encode()))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                hosts.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                if self.path.endswith("/api/show"):
                    self._send(Answer(200, "application/json", json.dumps(_SHOWN).encode()))
                elif hosts.trouble == "silence":
                    hosts._ended.wait(20)
                elif isinstance(hosts.trouble, Answer):
                    self._send(hosts.trouble)
                else:
                    self._send(golden(self.path))

            def _send(self, answer: Answer) -> None:
                with contextlib.suppress(ConnectionError):
                    self.send_response(answer.status)
                    self.send_header("content-type", answer.content_type)
                    self.send_header("content-length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Hosts]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()
