"""`looms ui`: what it prints, whom it lets in, and that its end ends everything."""

import json
import signal
import socket
import sys
import threading
import urllib.request
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loomstream.cli.group import looms
from tests.cli.conftest import PATIENCE_S, Exchange, Start, Stub, delta

pytest.importorskip("uvicorn", reason="NOT TESTED: uvicorn is missing; to test it: pip install 'loomstream[serve]'")


def ui(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(looms, ["ui", "--no-open", *arguments], input=stdin)


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (("--no-token", "--host", "0.0.0.0"), b"", 2, "--no-token would let everybody in"),  # noqa: S104 (refused)
        (("--token", "short"), b"", 2, "at least 16 characters"),
        (("--token", "-"), b"short\n", 2, "at least 16 characters"),
        (("--port", "99999"), b"", 2, "65535"),
        (("--model", "ollama:m", "--host", "203.0.113.7"), b"", 3, "203.0.113.7"),
        (("--provider", "nobody"), b"", 3, "nobody"),
        (("--model", "nobody:m"), b"", 3, "nobody"),
        (("--model", "ollama:m", "--set", "nothing"), b"", 2, "NAME=VALUE"),
        (("--model", "ollama:m", "--set", "nothing=1"), b"", 3, "nothing"),
        (("--model", "ollama:m", "--dialect", "smalltalk"), b"", 3, "smalltalk"),
        (("--model", "ollama:m", "--tools", "nowhere.py"), b"", 2, "no such file"),
    ],
)
@pytest.mark.usefixtures("clean_environment")
def test_what_cannot_be_served(arguments: tuple[str, ...], stdin: bytes, code: int, said: str) -> None:
    result = ui(*arguments, stdin=stdin)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


@pytest.mark.usefixtures("clean_environment")
def test_a_token_that_others_can_see_is_warned_of() -> None:
    assert "other users" in ui("--token", "a-token-of-many-characters", "--provider", "nobody").stderr
    assert "other users" not in ui("--token", "-", "--provider", "nobody", stdin=b"a-token-of-many-characters").stderr


@pytest.mark.usefixtures("clean_environment")
def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = ui("--port", str(port))
    assert result.exit_code == 3
    assert f"127.0.0.1 port {port} cannot be used" in result.stderr


class Endless:
    """Sends a first piece, and notes when the client is gone."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(delta("first"))
        exchange.wait_closed()
        self.closed.set()


def request(url: str, token: str, body: object = None) -> Any:  # noqa: ANN401 (an HTTP response)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=PATIENCE_S)  # noqa: S310 (loopback)


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: Windows has no such signals")
def test_ctrl_c_in_the_middle_of_an_answer_stops_the_bill(stub: Stub, start: Start) -> None:
    endless = stub.script = Endless()
    process = start("ui", "--json", "--no-open", "--port", "0", *stub.options, env={"LOOM_LLM_PROVIDER": "anthropic"})
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())
    assert address["host"] == "127.0.0.1"
    base = f"http://127.0.0.1:{address['port']}"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        request(f"{base}/api/models", "wrong")
    with request(f"{base}/api/models", address["token"]) as answered:
        spec = json.load(answered)["models"][0]["spec"]
    assert spec == "openai-compatible:stub-1"  # what was typed wins over what the environment says
    with request(f"{base}/api/conversations/c/messages", address["token"], {"text": "Hi", "spec": spec}) as answered:
        key = json.load(answered)["answer"]["key"]
    with request(f"{base}/api/answers/{key}/events", address["token"]) as events:
        assert any(b"first" in line for line in events)
        process.send_signal(signal.SIGINT)
        rest = events.read()
    assert b"StreamCancelled" in rest
    _, complaint = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, complaint) == (130, b"")
    assert endless.closed.wait(PATIENCE_S)


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize("missing", ["uvicorn", "starlette.responses"])
def test_a_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("loomstream.ui.page", "loomstream.ui.starlette"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    result = ui()
    assert (result.exit_code, "pip install 'loomstream[serve]'" in result.stderr) == (3, True)
