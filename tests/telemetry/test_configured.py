"""`observability:` of looms.yaml as middleware."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keyring
import msgspec
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from loomstream.config.settings import Observability
from loomstream.errors import ConfigError
from loomstream.telemetry import configured as module
from loomstream.telemetry.audit_log import default_path, lines_of
from loomstream.telemetry.configured import configured
from loomstream.testing import scripted_model, text_events
from loomstream.wire import Secret

CANARY = "canary-4711"
Seen = list[tuple[str, str, bytes]]


class Memory(KeyringBackend):
    """A keyring with one value for every name, or an error."""

    priority = 1.0  # type: ignore[assignment]

    def __init__(self, value: str | Exception) -> None:
        super().__init__()
        self.value = value
        self.asked: list[tuple[str, str]] = []

    def get_password(self, service: str, username: str) -> str:
        self.asked.append((service, username))
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def set_password(self, service: str, username: str, password: str) -> None:  # noqa: ARG002 (a backend has it)
        raise AssertionError


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """What a server on loopback has got: path, key and body; what was made for it is closed at the end."""
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            key = self.headers.get("authorization") or self.headers.get("x-key") or ""
            seen.append((self.path, key, self.rfile.read(int(self.headers["content-length"]))))
            status = re.match(r"/redirect/(\d+)", self.path)
            self.send_response(int(status[1]) if status else 200)
            if status:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setattr(module, "_exporters", {})
    monkeypatch.setattr(module, "_sdks", {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HERE", f"http://127.0.0.1:{server.server_port}")
    yield seen
    finish()
    server.shutdown()
    thread.join()
    server.server_close()


def finish() -> None:
    for exporter in module._exporters.values():
        exporter.close()
    for sdk in module._sdks.values():
        sdk.tracers.shutdown()  # type: ignore[attr-defined]
        sdk.meters.shutdown()  # type: ignore[attr-defined]
    module._exporters.clear()
    module._sdks.clear()


@pytest.fixture
def here(seen: Seen) -> str:
    import os  # noqa: PLC0415 (for this alone)

    assert seen == []
    return os.environ["HERE"]


async def ask(settings: Observability) -> None:
    for _ in range(2):
        layers = configured(settings, "openai", "gpt-4o")
        await scripted_model(text_events("Hi"), middleware=layers).complete(CANARY)
    finish()


@pytest.mark.anyio
async def test_hawk_by_its_endpoint_alone(seen: Seen, here: str) -> None:
    await ask(Observability(hawk_endpoint=here, hawk_api_key=Secret("sk-hawk")))
    [(path, key, body)] = seen  # both models share an exporter
    assert (path, key) == ("/v1/traces", "Bearer sk-hawk")
    assert [span["name"] for span in json.loads(body)["spans"]].count("llm.completion") == 2
    assert CANARY.encode() not in body


@pytest.mark.anyio
async def test_hawk_s_key_may_be_in_the_keyring(seen: Seen, here: str) -> None:
    kept = Memory("sk-kept")
    before = keyring.get_keyring()
    keyring.set_keyring(kept)
    try:
        await ask(Observability(hawk_endpoint=here))
        await ask(Observability(hawk_endpoint=here, hawk_api_key=Secret("sk-file")))
    finally:
        keyring.set_keyring(before)
    assert [key for _, key, _ in seen] == ["Bearer sk-kept", "Bearer sk-file"]
    assert kept.asked == [("loom", "hawk_api_key")]  # once, and not where another place has the key


@pytest.mark.anyio
async def test_a_keyring_that_cannot_be_asked_is_told_and_spans_go_without_a_key(
    seen: Seen, here: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = keyring.get_keyring()
    keyring.set_keyring(Memory(KeyringLocked("sk-kept")))
    try:
        await ask(Observability(hawk_endpoint=here))
    finally:
        keyring.set_keyring(before)
    assert [key for _, key, _ in seen] == [""]
    assert "the keyring is locked" in caplog.text


@pytest.mark.anyio
async def test_a_collector_by_its_endpoint_alone(seen: Seen, here: str) -> None:
    await ask(Observability(otlp_endpoint=here.removeprefix("http://"), otlp_headers={"x-key": Secret("k")}))
    assert sorted({(path, key) for path, key, _ in seen}) == [("/v1/metrics", "k"), ("/v1/traces", "k")]


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_nothing_follows_a_collector_that_points_elsewhere(status: int, seen: Seen, here: str) -> None:
    elsewhere = f"{here}/redirect/{status}"
    await ask(Observability(otlp_endpoint=elsewhere, otlp_headers={"x-key": Secret("k")}))
    await ask(Observability(hawk_endpoint=f"{elsewhere}/v1/traces", hawk_api_key=Secret("sk-hawk")))
    assert {path for path, _, _ in seen} == {f"/redirect/{status}/v1/{signal}" for signal in ("traces", "metrics")}


@pytest.mark.anyio
async def test_the_collector_is_told_the_program_s_name(seen: Seen, here: str) -> None:
    named = Observability(otlp_endpoint=here, service_name="weather-bot", service_version="1.2.3")
    await ask(named)
    assert seen
    assert all(b"weather-bot" in body and b"1.2.3" in body for _, _, body in seen)


@pytest.mark.anyio
async def test_spans_that_are_not_wanted_stay(seen: Seen, here: str) -> None:
    await ask(Observability(otlp_endpoint=f"{here}/v1/traces", otlp_include_spans=("tool.",)))
    assert [path for path, _, _ in seen] == ["/v1/metrics"]


@pytest.mark.anyio
async def test_the_embedded_mode_keeps_the_audit_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path))
    await ask(Observability(mode="embedded"))
    assert len(list(lines_of(default_path()))) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("mode", [None, "service"])
async def test_embedded_wins_over_a_service_where_it_is_preferred(
    mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen, here: str
) -> None:
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path))
    await ask(Observability(mode=mode, hawk_endpoint=here, prefer_embedded=True))
    assert (seen, len(list(lines_of(default_path())))) == ([], 2)


@pytest.mark.parametrize(
    "settings",
    [
        Observability(),
        Observability(mode="none", hawk_endpoint="http://localhost"),
        Observability(enabled=False, mode="otel", otlp_endpoint="http://localhost"),
    ],
)
def test_nothing_is_asked_for(settings: Observability) -> None:
    assert configured(settings) == ()


def test_otel_without_an_endpoint_uses_the_program_s_sdk() -> None:
    assert len(configured(Observability(mode="otel"))) == 1
    assert module._sdks == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Observability(mode="service"), "needs observability.hawk_endpoint"),
        (Observability(provider="hawk", otlp_endpoint="http://localhost"), "needs observability.hawk_endpoint"),
        (Observability(hawk_endpoint="hawk"), "is no address"),
        (Observability(otlp_endpoint="ftp://host"), "is no address"),
        (Observability(otlp_endpoint="http://"), "is no address"),
        (Observability(otlp_endpoint="http://host:99999"), "is no address"),
        (Observability(otlp_endpoint="http://collector:4318"), "otlp_insecure"),
    ],
)
def test_what_cannot_be_used_is_refused(settings: Observability, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        configured(settings)


def test_plain_http_where_it_is_wanted() -> None:
    base = module._base("http://collector:4318/", insecure=True)
    assert base == module._base("collector:4318", insecure=True) == "http://collector:4318"
    assert module._base("collector:4318", insecure=False) == "https://collector:4318"
    assert msgspec.structs.asdict(Observability())["otlp_insecure"] is False
