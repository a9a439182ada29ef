"""The AI SDK's own reader takes our UI message stream, and finds in it what was put in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from held_models import EVERY_EVENT

from loomstream import events
from loomstream.errors import RateLimited, StreamCancelled
from loomstream.ui import AISDKEncoder

pytestmark = pytest.mark.peer
AI_SDK = "LOOMSTREAM_AI_SDK"
REMEDY = f"npm install ai@6, or set {AI_SDK} to the folder node_modules that holds it"
READER = """
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
const load = createRequire(process.argv[1] + "/here.js");
const { DefaultChatTransport, readUIMessageStream } = await import(pathToFileURL(load.resolve("ai")));
const told = JSON.parse(await new Response(process.stdin).text());
const out = [];
for (const text of told) {
  const transport = new DefaultChatTransport({ fetch: async () => new Response(text) });
  const stream = await transport.sendMessages({ trigger: "submit-message", chatId: "c", messages: [] });
  const errors = [];
  let last = null;
  const onError = (error) => errors.push(String(error.message ?? error));
  for await (const message of readUIMessageStream({ stream, onError, terminateOnError: false })) last = message;
  out.push({ errors, message: last });
}
console.log(JSON.stringify(out));
"""


def stream_of(told: list[object], ending: Exception | None = None) -> str:
    encoder = AISDKEncoder()
    data = b"".join(encoder.event(number, event) for number, event in enumerate(told, 1))
    last = encoder.end(len(told) + 1) if ending is None else encoder.error(len(told) + 1, ending)
    return (data + last).decode()


@pytest.fixture(scope="module")
def read(skip_loudly: Callable[..., None]) -> Callable[..., list[dict[str, object]]]:
    node, folder = shutil.which("node"), Path(os.environ.get(AI_SDK) or "node_modules")
    if node is None:
        skip_loudly("Node.js, which runs the AI SDK,", f"install Node.js 20 or later, then {REMEDY}")
    if not (folder / "ai").is_dir():
        skip_loudly(f"the AI SDK ({folder / 'ai'})", REMEDY)

    def run(*streams: str) -> list[dict[str, object]]:
        command = [str(node), "--input-type=module", "-e", READER, str(folder.resolve())]
        done = subprocess.run(command, input=json.dumps(streams), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_sdk_reads_what_we_write(read: Callable[..., list[dict[str, object]]]) -> None:
    begun = [events.Start("acme", "m"), events.TextStart(0), events.TextDelta(0, "half")]
    whole, failed, stopped = read(
        stream_of(list(EVERY_EVENT)),
        stream_of(list(begun), RateLimited("too many requests")),
        stream_of(list(begun), StreamCancelled("stopped")),
    )
    assert whole["errors"] == []
    message = whole["message"]
    assert message["id"] == "r-1"
    assert message["metadata"]["cost"] == {"amount_usd": "0.00012", "exact": True}
    assert message["metadata"]["usage"]["output_tokens"] == 9
    parts = message["parts"]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    assert texts == ["Grüße, </script>\r\n\u2028 \U0001f642", "I cannot do that.", "It is ", "4 °C."]
    assert all(part["state"] == "done" for part in parts if part["type"] in ("text", "reasoning"))
    states = {part["toolCallId"]: (part["type"], part["state"]) for part in parts if part["type"].startswith("tool-")}
    assert states == {
        "call_0": ("tool-get_weather", "output-available"),
        "call_1": ("tool-cut", "output-error"),
        "srv_0": ("tool-web_search", "output-available"),
        "call_2": ("tool-delete_all", "approval-requested"),
    }
    kinds = [part["type"] for part in parts]
    assert kinds.index("data-reset") > 0
    assert kinds.count("step-start") == 3
    assert failed["errors"] == ["RateLimited: too many requests"]
    assert [part.get("text") for part in failed["message"]["parts"] if part["type"] == "text"] == ["half"]
    assert stopped["errors"] == []
