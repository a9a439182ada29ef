"""One conversation, three providers: each goes on where the one before it stopped.

Runs offline on recorded answers; with `--local` the last one is the embedded model.
"""

import asyncio
import json

from which_model import LOCAL

import loomstream as ls
from loomstream.testing import replay_model

WEATHER = ls.Tool("get_weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


def sse(*frames: dict[str, object]) -> bytes:
    """Give a recorded answer. With keys in place, `ls.connect("anthropic:…")` and the like stand for `replay_model`."""
    return "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames).encode()


CLAUDE = sse(
    {"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "model": "claude", "content": []}},
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": "A tool knows.", "signature": "c2lnbmVk"},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}},
    },
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)
MISTRAL = sse(
    {"id": "1", "model": "mistral", "choices": [{"index": 0, "delta": {"content": "4 °C."}, "finish_reason": "stop"}]}
)
GEMINI = sse(
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "A coat will do."}]}, "finishReason": "STOP"}]}
)


async def ask(provider: str, model: str, answer: bytes, history: list[ls.Message]) -> ls.Response:
    """Go on with the conversation at a provider; the answer joins the history."""
    chosen = replay_model(provider, answer, model=model) if answer else ls.connect(provider, max_tokens=60)
    async with chosen as connected:
        response = await connected.complete(history, tools=[WEATHER], tool_choice="none" if not answer else "auto")
    history.append(response.message)
    print(f"{provider}: {response.text or [f'{call.name} {call.arguments}' for call in response.tool_calls]}")
    for warning in response.warnings:
        print(f"  told: {warning}")
    return response


async def main() -> None:
    """Claude asks for a tool, Mistral reads what it gave, Gemini advises."""
    history = [ls.user("How warm is it in Oslo?")]
    first = await ask("anthropic", "claude-sonnet-4-5-20250929", CLAUDE, history)
    history += [ls.tool_result(call, "4 °C, rain") for call in first.tool_calls]
    await ask("mistral", "mistral-large-latest", MISTRAL, history)
    history.append(ls.user("What shall I wear?"))
    if LOCAL:
        await ask("local", "", b"", history)
    else:
        await ask("gemini", "gemini-3-pro-preview", GEMINI, history)
    print(len(history), "messages by three providers,", len(ls.messages.encode(history)), "bytes as JSON")


asyncio.run(main())
