"""The example package is installed, listed and conforms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import loomstream
from loomstream.errors import Overloaded, StreamTruncated, Unsupported
from loomstream.events import Start, TextDelta, ToolCallEnd, Usage
from loomstream.messages import Image, Message
from loomstream.model import Model, connect
from loomstream.providers import look_up, plugins
from loomstream.testing import Recording, ReplayTransport, conformance, replay_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "acme_provider"
ROWS = ("acme", "acme-lines", "acme-echo")


@pytest.fixture(scope="session")
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package as its users would, into a folder of its own; no registry is asked."""
    folder = tmp_path_factory.mktemp("site-packages")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-W", "ignore", "-m", "pip", "install", *options, "--target", str(folder), str(EXAMPLE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def installed(site_packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site_packages))
    plugins._entries.cache_clear()


# --- a server as Acme might have one ---------------------------------------------------------------


def lines(answer: dict[str, object]) -> list[dict[str, object]]:
    if answer.get("call"):
        call = {"kind": "call", "id": "c1", "name": "get_weather", "arguments": {"city": "Oslo"}}
        return [call, {"kind": "end", "reason": "call", "tokens": {"in": 9, "out": 5}}]
    words = [{"kind": "text", "text": f"{word} "} for word in ["one", "two", "three", "four"]]
    return [*words, {"kind": "end", "reason": "stop", "tokens": {"in": 7, "out": 4}}]


def acme_lines(request: httpx.Request) -> httpx.Response:
    if request.headers.get("x-api-key") != "good-key":
        return httpx.Response(401, json={"error": {"code": "no_key", "message": "who are you?"}})
    body = json.loads(request.content)
    assert request.url == "https://lines.acme.example/answers"
    answer = lines({"call": body.get("tools") and body["turns"][-1]["by"] != "tool"})
    if not body["stream"]:
        return httpx.Response(200, json={"lines": answer})
    content = "".join(json.dumps(line) + "\n" for line in answer)
    return httpx.Response(200, headers={"content-type": "application/x-ndjson"}, content=content)


def acme(request: httpx.Request) -> httpx.Response:
    if request.headers.get("authorization") != "Bearer good-key":
        return httpx.Response(401, json={"error": {"code": "no_key", "message": "who are you?"}})
    assert request.url == "https://eu.llm.acme.example/v1/chat/completions"
    body = json.loads(request.content)
    assert "max_completion_tokens" in body, "one of its quirks"
    message: dict[str, object] = {"content": "one two three"}
    reason = "stop"
    if body.get("tools") and body["messages"][-1]["role"] != "tool":
        function = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
        message = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}
        reason = "tool_calls"
    usage = {"prompt_tokens": 7, "completion_tokens": 4}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return httpx.Response(200, json={"choices": [choice], "usage": usage})
    frames = [
        {"choices": [{"index": 0, "delta": message}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {"choices": [], "usage": usage},
    ]
    content = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + "data: [DONE]\n\n"
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content)


def connected(spec: str, answer: Callable[[httpx.Request], httpx.Response], key: str = "good-key") -> Model:
    return connect(spec, api_key=key, client=httpx.AsyncClient(transport=httpx.MockTransport(answer)))


SERVERS = {"acme": acme, "acme-lines": acme_lines}


# --- it conforms -----------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.usefixtures("installed")
class TestConformance:
    @pytest.mark.parametrize("name", SERVERS)
    async def test_over_http_every_check_passes(self, name: str) -> None:
        refused = connected(name, SERVERS[name], "bad-key")
        async with connected(name, SERVERS[name]) as model, refused:
            report = await conformance(model, refused=refused)
        assert {check.result for check in report.checks} == {"pass"}, str(report)

    async def test_a_handler_of_its_own(self) -> None:
        async with connect("acme-echo") as model:
            report = await conformance(model)
        report.raise_for_failures()
        applicable = [check.name for check in report.checks if check.result == "pass"]
        assert len(applicable) == 7, str(report)


@pytest.mark.anyio
@pytest.mark.usefixtures("installed")
class TestWhatItDoes:
    async def test_the_row_has_a_setting(self) -> None:
        row = look_up("acme")
        assert row.settings[0].name == "region"
        seen: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request.url.host)
            return httpx.Response(500)

        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        us = {"region": "us"}
        async with connect("acme", api_key="k", settings=us, client=client, middleware=()) as model:
            with pytest.raises(loomstream.ProviderError):
                await model.complete("x")
        assert seen == ["us.llm.acme.example"]

    async def test_the_dialect_reads_its_lines(self) -> None:
        body = "".join(json.dumps(line) + "\n" for line in lines({})).encode()
        events = list(loomstream.decode("acme-lines", body))
        assert events[0] == Start("acme-lines", "acme-small")
        assert events[2] == TextDelta(0, "one ")
        assert Usage(input_tokens=7, output_tokens=4, final=True) in events
        body = "".join(json.dumps(line) + "\n" for line in lines({"call": True})).encode()
        (call,) = [event for event in loomstream.decode("acme-lines", body) if isinstance(event, ToolCallEnd)]
        assert (call.id, call.name, call.arguments) == ("c1", "get_weather", '{"city":"Oslo"}')

    async def test_the_dialect_knows_errors(self) -> None:
        with pytest.raises(StreamTruncated):
            list(loomstream.decode("acme-lines", b'{"kind":"text","text":"a"}\n'))
        with pytest.raises(Overloaded, match="try later"):
            list(loomstream.decode("acme-lines", b'{"kind":"error","code":"overloaded","message":"try later"}\n'))

    async def test_what_cannot_be_honoured_is_said(self) -> None:
        transport = ReplayTransport(Recording([b'{"kind":"end"}\n'], headers={}))
        async with replay_model("acme-lines", transport=transport, temperature=0.5) as model:
            response = await model.complete(Message("user", (Image(url="https://x.test/a.png"),)))
        assert response.warnings == ("acme-lines does not take Image", "acme-lines does not take temperature")

    async def test_the_echo(self) -> None:
        async with connect("acme-echo") as model:
            response = await model.complete("say it again", max_tokens=2)
            with pytest.raises(Unsupported, match="acme-echo cannot see images"):
                await model.complete(Message("user", (Image(url="https://x.test/a.png"),)))
        assert response.text == "say it "
        assert response.stop is not None
        assert response.stop.reason == "max_tokens"


# --- it is listed ----------------------------------------------------------------------------------


def test_the_command_line_knows_it(site_packages: Path, tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LOOM_", "ACME_"))},
        "PYTHONPATH": os.pathsep.join([str(site_packages), os.environ.get("PYTHONPATH", "")]),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "LOOM_DATA_DIR": str(tmp_path),
        "ACME_API_KEY": "k",
    }

    def looms(*arguments: str) -> str:
        command = [sys.executable, "-m", "loomstream", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = {row["name"]: row for row in json.loads(looms("providers", "--json"))}
    assert {name: listed[name]["origin"] for name in ROWS} == dict.fromkeys(ROWS, "package acme-provider")
    assert {name: listed[name]["usable"] for name in ROWS} == dict.fromkeys(ROWS, True)
    assert looms("ask", "hello there", "--provider", "acme-echo", "--no-stats") == "hello there \n"
