"""Other clients, each by its own ordinary public streaming API.

Contract: as `benchmarks.client.Client`. Nothing is tuned, nothing is switched off but what would leave this machine
(`benchmarks.runner.ENVIRONMENT`). They are imported by name, in the measuring process, so none of them needs to be
installed; what they are is known at run time alone.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from benchmarks.client import API_KEY, MODEL, PROMPT

Pieces = AsyncIterator[Any]
_MESSAGES = [{"role": "user", "content": PROMPT}]
_MAX_TOKENS = 100_000


class PeerAnswer:
    """An answer that is being read. `text_of` gives the text of a piece, empty where it has none."""

    def __init__(
        self, pieces: Pieces, text_of: Callable[[Any], object], close: Callable[[], Awaitable[object]]
    ) -> None:
        self._pieces = pieces
        self._text_of = text_of
        self._close = close

    async def take(self, count: int) -> int:
        """Read until `count` more text events came, or to the end; give how many came."""
        taken = 0
        async for piece in self._pieces:
            if self._text_of(piece):
                taken += 1
                if taken == count:
                    break
        return taken

    async def aclose(self) -> None:
        """Leave it where it is."""
        await self._close()


class _Peer:
    """What the peers share: an answer is begun, read and left."""

    async def _ask(self) -> PeerAnswer:
        raise NotImplementedError

    async def read_all(self) -> int:
        """Ask, read the whole answer; give the number of its text events."""
        answer = await self._ask()
        taken = await answer.take(1 << 60)
        await answer.aclose()
        return taken

    async def begin(self) -> PeerAnswer:
        """Ask, read to the first text event."""
        answer = await self._ask()
        await answer.take(1)
        return answer

    async def aclose(self) -> None:
        """Nothing: these APIs have no close of their own."""


def _chat_text(chunk: Any) -> object:  # noqa: ANN401 (a peer's class)
    return chunk.choices and chunk.choices[0].delta.content


class OpenAIClient(_Peer):
    """`openai`, Chat Completions."""

    def __init__(self, base_url: str) -> None:
        self._client = importlib.import_module("openai").AsyncOpenAI(base_url=base_url, api_key=API_KEY, max_retries=0)

    async def _ask(self) -> PeerAnswer:
        stream = await self._client.chat.completions.create(model=MODEL, messages=_MESSAGES, stream=True)
        return PeerAnswer(aiter(stream), _chat_text, stream.close)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


class AnthropicClient(_Peer):
    """`anthropic`, Messages."""

    def __init__(self, base_url: str) -> None:
        module = importlib.import_module("anthropic")
        self._client = module.AsyncAnthropic(base_url=base_url.removesuffix("/v1"), api_key=API_KEY, max_retries=0)

    async def _ask(self) -> PeerAnswer:
        stream = await self._client.messages.create(
            model=MODEL, messages=_MESSAGES, max_tokens=_MAX_TOKENS, stream=True
        )
        return PeerAnswer(aiter(stream), lambda event: event.type == "content_block_delta", stream.close)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


class LiteLLMClient(_Peer):
    """`litellm.acompletion`."""

    def __init__(self, base_url: str) -> None:
        self._ask_model = importlib.import_module("litellm").acompletion
        self._base_url = base_url

    async def _ask(self) -> PeerAnswer:
        stream = await self._ask_model(
            model=f"openai/{MODEL}", api_base=self._base_url, api_key=API_KEY, messages=_MESSAGES, stream=True
        )
        return PeerAnswer(aiter(stream), _chat_text, stream.aclose)


class PydanticAIClient(_Peer):
    """`pydantic_ai.Agent.run_stream`, every delta as it comes."""

    def __init__(self, base_url: str) -> None:
        models = importlib.import_module("pydantic_ai.models.openai")
        providers = importlib.import_module("pydantic_ai.providers.openai")
        provider = providers.OpenAIProvider(base_url=base_url, api_key=API_KEY)
        self._agent = importlib.import_module("pydantic_ai").Agent(models.OpenAIChatModel(MODEL, provider=provider))

    async def _ask(self) -> PeerAnswer:
        stack = AsyncExitStack()
        run: AbstractAsyncContextManager[Any] = self._agent.run_stream(PROMPT)
        result = await stack.enter_async_context(run)
        return PeerAnswer(aiter(result.stream_text(delta=True, debounce_by=None)), bool, stack.aclose)


class LangChainClient(_Peer):
    """`langchain_openai.ChatOpenAI.astream`."""

    def __init__(self, base_url: str) -> None:
        self._model = importlib.import_module("langchain_openai").ChatOpenAI(
            model=MODEL, base_url=base_url, api_key=API_KEY, max_retries=0
        )

    async def _ask(self) -> PeerAnswer:
        stream = self._model.astream(PROMPT)
        return PeerAnswer(aiter(stream), lambda chunk: chunk.content, stream.aclose)


class AnyLLMClient(_Peer):
    """`any_llm.acompletion`."""

    def __init__(self, base_url: str) -> None:
        self._ask_model = importlib.import_module("any_llm").acompletion
        self._base_url = base_url

    async def _ask(self) -> PeerAnswer:
        stream = await self._ask_model(
            model=MODEL, provider="openai", api_base=self._base_url, api_key=API_KEY, messages=_MESSAGES, stream=True
        )
        return PeerAnswer(aiter(stream), _chat_text, stream.aclose)
