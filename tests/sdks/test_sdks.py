# ruff: noqa: E501 (scripts for another interpreter)
"""The vendors' own clients accept the simulator's streams: text, a tool call with its arguments, usage, whole answers.

Each runs in a process of its own, by `run_sdk`; the simulator is this one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from loomstream.events import (
    Start,
    Stop,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)
from loomstream.testing.server import Simulator, simulator

pytestmark = pytest.mark.peer
Run = Callable[[str, str], str]

ANSWER = [
    Start(),
    TextStart(0),
    TextDelta(0, "Hel"),
    TextDelta(0, "lo ü"),
    TextEnd(0),
    ToolCallStart(1, "call_1", "look"),
    ToolCallDelta(1, '{"n":'),
    ToolCallDelta(1, "7}"),
    ToolCallEnd(1, "call_1", "look", '{"n":7}'),
    Usage(input_tokens=11, output_tokens=5, final=True),
    Stop("tool_use"),
]
EXPECTED = "Hello ü|look|7|11|5"
"""What every script prints: the text, the tool, its argument, the tokens in and out; then the same, not streamed."""


@pytest.fixture
def server() -> Iterator[Simulator]:
    with simulator(ANSWER) as opened:
        yield opened


def both(run: Run, module: str, script: str) -> None:
    streamed, whole = run(module, "import json, sys\nsys.stdout.reconfigure(encoding='utf-8')\n" + script).splitlines()
    assert streamed == EXPECTED
    assert whole == EXPECTED


def test_openai_chat(server: Simulator, run_sdk: Run) -> None:
    both(
        run_sdk,
        "openai",
        f"""
client = openai.OpenAI(base_url={server.url("openai")!r}, api_key="x")
def show(message, usage):
    call = message.tool_calls[0].function
    print(message.content, call.name, json.loads(call.arguments)["n"], usage.prompt_tokens, usage.completion_tokens, sep="|")
ask = dict(model="gpt-4o", messages=[{{"role": "user", "content": "hi"}}])
with client.chat.completions.stream(**ask, stream_options={{"include_usage": True}}) as stream:
    for _ in stream: pass
    done = stream.get_final_completion()
show(done.choices[0].message, done.usage)
done = client.chat.completions.create(**ask)
show(done.choices[0].message, done.usage)
""",
    )


def test_openai_responses(server: Simulator, run_sdk: Run) -> None:
    both(
        run_sdk,
        "openai",
        f"""
client = openai.OpenAI(base_url={server.url("openai")!r}, api_key="x")
def show(response):
    call = next(item for item in response.output if item.type == "function_call")
    usage = response.usage
    print(response.output_text, call.name, json.loads(call.arguments)["n"], usage.input_tokens, usage.output_tokens, sep="|")
with client.responses.stream(model="gpt-4o", input="hi") as stream:
    for _ in stream: pass
    show(stream.get_final_response())
show(client.responses.create(model="gpt-4o", input="hi"))
""",
    )


def test_anthropic(server: Simulator, run_sdk: Run) -> None:
    both(
        run_sdk,
        "anthropic",
        f"""
client = anthropic.Anthropic(base_url={server.url("anthropic")!r}, api_key="x")
def show(message):
    text, call = message.content
    print(text.text, call.name, call.input["n"], message.usage.input_tokens, message.usage.output_tokens, sep="|")
ask = dict(model="claude-sonnet-4-5", max_tokens=99, messages=[{{"role": "user", "content": "hi"}}])
with client.messages.stream(**ask) as stream:
    for _ in stream: pass
    show(stream.get_final_message())
show(client.messages.create(**ask))
""",
    )


def test_google_genai(server: Simulator, run_sdk: Run) -> None:
    both(
        run_sdk,
        "google.genai",
        f"""
from google import genai
client = genai.Client(api_key="x", http_options={{"base_url": {server.url("gemini").removesuffix("/v1beta")!r}}})
def show(chunks):
    parts = [part for chunk in chunks for part in (chunk.candidates[0].content.parts or [])]
    text = "".join(part.text or "" for part in parts)
    call = next(part.function_call for part in parts if part.function_call)
    usage = chunks[-1].usage_metadata
    print(text, call.name, call.args["n"], usage.prompt_token_count, usage.candidates_token_count, sep="|")
show(list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")))
show([client.models.generate_content(model="gemini-2.5-flash", contents="hi")])
""",
    )


def test_mistralai(server: Simulator, run_sdk: Run) -> None:
    both(
        run_sdk,
        "mistralai",
        f"""
try:
    from mistralai import Mistral
except ImportError:
    from mistralai.client import Mistral
client = Mistral(api_key="x", server_url={server.url("mistral").removesuffix("/v1")!r})
ask = dict(model="mistral-large-latest", messages=[{{"role": "user", "content": "hi"}}])
chunks = [event.data for event in client.chat.stream(**ask)]
deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
calls = [call.function for delta in deltas for call in (delta.tool_calls or [])]
arguments = "".join(call.arguments for call in calls)
usage = chunks[-1].usage
print("".join(delta.content or "" for delta in deltas), calls[0].name, json.loads(arguments)["n"], usage.prompt_tokens, usage.completion_tokens, sep="|")
done = client.chat.complete(**ask)
message, usage = done.choices[0].message, done.usage
call = message.tool_calls[0].function
print(message.content, call.name, json.loads(call.arguments)["n"], usage.prompt_tokens, usage.completion_tokens, sep="|")
""",
    )


def test_cohere(server: Simulator, run_sdk: Run) -> None:
    both(
        run_sdk,
        "cohere",
        f"""
client = cohere.ClientV2(api_key="x", base_url={server.url("cohere")!r})
ask = dict(model="command-a-03-2025", messages=[{{"role": "user", "content": "hi"}}])
text, name, arguments = "", "", ""
for event in client.chat_stream(**ask):
    if event.type == "content-delta":
        text += event.delta.message.content.text
    elif event.type == "tool-call-start":
        name = event.delta.message.tool_calls.function.name
    elif event.type == "tool-call-delta":
        arguments += event.delta.message.tool_calls.function.arguments
    elif event.type == "message-end":
        tokens = event.delta.usage.tokens
print(text, name, json.loads(arguments)["n"], int(tokens.input_tokens), int(tokens.output_tokens), sep="|")
done = client.chat(**ask)
call, tokens = done.message.tool_calls[0].function, done.usage.tokens
print(done.message.content[0].text, call.name, json.loads(call.arguments)["n"], int(tokens.input_tokens), int(tokens.output_tokens), sep="|")
""",
    )


def test_ollama(server: Simulator, run_sdk: Run) -> None:
    both(
        run_sdk,
        "ollama",
        f"""
client = ollama.Client(host={server.url("ollama").removesuffix("/v1")!r})
ask = dict(model="m", messages=[{{"role": "user", "content": "hi"}}])
def show(chunks):
    call = next(call.function for chunk in chunks for call in (chunk.message.tool_calls or []))
    text = "".join(chunk.message.content or "" for chunk in chunks)
    print(text, call.name, call.arguments["n"], chunks[-1].prompt_eval_count, chunks[-1].eval_count, sep="|")
show(list(client.chat(**ask, stream=True)))
show([client.chat(**ask)])
""",
    )


def test_boto3(server: Simulator, run_sdk: Run) -> None:
    both(
        run_sdk,
        "boto3",
        f"""
client = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url={server.url("bedrock")!r},
                      aws_access_key_id="x", aws_secret_access_key="x")
ask = dict(modelId="anthropic.claude-3-haiku-20240307-v1:0", messages=[{{"role": "user", "content": [{{"text": "hi"}}]}}])
text, arguments = "", ""
for event in client.converse_stream(**ask)["stream"]:
    if "contentBlockStart" in event:
        name = event["contentBlockStart"]["start"]["toolUse"]["name"]
    delta = event.get("contentBlockDelta", {{}}).get("delta", {{}})
    text += delta.get("text", "")
    arguments += delta.get("toolUse", {{}}).get("input", "")
    usage = event.get("metadata", {{}}).get("usage")
print(text, name, json.loads(arguments)["n"], usage["inputTokens"], usage["outputTokens"], sep="|")
done = client.converse(**ask)
said, called = done["output"]["message"]["content"]
print(said["text"], called["toolUse"]["name"], called["toolUse"]["input"]["n"], done["usage"]["inputTokens"], done["usage"]["outputTokens"], sep="|")
chunks = client.invoke_model_with_response_stream(modelId=ask["modelId"], body="{{}}")["body"]
assert json.loads([chunk for chunk in chunks][-1]["chunk"]["bytes"])["type"] == "message_stop"
""",
    )
