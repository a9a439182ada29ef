"""Send through an HTTP client of your own (httpx or httpx2). Runs offline: the client answers from memory."""

import asyncio

import httpx

import loomstream as ls

ANSWER = b'{"message":{"role":"assistant","content":"Hello from your client"},"done":true,"done_reason":"stop"}\n'


def answer(request: httpx.Request) -> httpx.Response:
    """Answer as an Ollama server would."""
    print("sent to:", request.url)
    return httpx.Response(200, headers={"content-type": "application/x-ndjson"}, content=ANSWER)


async def main() -> None:
    """Stream through the client, which stays ours to close."""
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client,
        ls.connect("ollama:qwen2.5:7b", client=client) as model,
        model.stream("Hi") as stream,
    ):
        async for text in stream.text():
            print(text)


asyncio.run(main())
