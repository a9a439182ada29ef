"""What a client must offer to be measured, and which clients there are.

Contract: a client is made inside a running event loop from a base URL and sends one short prompt by its own ordinary
public streaming API. Importing this module imports no client.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

PROMPT = "Hi"
API_KEY = "sk-benchmark"
MODEL = "m"


class Answer(Protocol):
    """An answer that is being read."""

    async def take(self, count: int) -> int:
        """Read until `count` more text events came, or to the end; give how many came."""
        ...

    async def aclose(self) -> None:
        """Leave it where it is."""
        ...


class Client(Protocol):
    """See the module's contract."""

    async def read_all(self) -> int:
        """Ask, read the whole answer; give the number of its text events."""
        ...

    async def begin(self) -> Answer:
        """Ask, read to the first text event."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


MakeClient = Callable[[str], Awaitable[Client]]

WIRE_CLIENTS = {
    "openai_responses": "ResponsesClient",
    "anthropic_messages": "MessagesClient",
    "gemini": "GeminiClient",
    "bedrock_converse": "ConverseClient",
    "bedrock_invoke": "InvokeClient",
    "ollama_chat": "OllamaClient",
    "cohere_chat": "CohereClient",
}
"""By dialect: the class of the client that speaks it, in `benchmarks.ours` and in `benchmarks.floor_wires`."""

CLIENTS = {
    "bare": "benchmarks.floor:BareClient",
    "aiohttp": "benchmarks.floor_aiohttp:AiohttpClient",
    "loomstream": "benchmarks.ours:OurClient",
    **{f"bare ({name})": f"benchmarks.floor_wires:{made}" for name, made in WIRE_CLIENTS.items()},
    **{f"loomstream ({name})": f"benchmarks.ours:{made}" for name, made in WIRE_CLIENTS.items()},
    "openai": "benchmarks.peers:OpenAIClient",
    "anthropic": "benchmarks.peers:AnthropicClient",
    "litellm": "benchmarks.peers:LiteLLMClient",
    "pydantic-ai": "benchmarks.peers:PydanticAIClient",
    "langchain-openai": "benchmarks.peers:LangChainClient",
    "any-llm": "benchmarks.peers:AnyLLMClient",
}
"""By name: module and class, imported in the measuring process alone."""

IMPORTS = {
    "bare": "msgspec",
    "loomstream": "loomstream",
    "openai": "openai",
    "anthropic": "anthropic",
    "litellm": "litellm",
    "pydantic-ai": "pydantic_ai",
    "langchain-openai": "langchain_openai",
    "any-llm": "any_llm",
}
"""By client: the module whose import is timed; `bare` is the floor."""

PEERS = ("openai", "anthropic", "litellm", "pydantic-ai", "langchain-openai", "any-llm")


def client_class(name: str) -> Callable[[str], Client]:
    """Import a client's class by its name."""
    module, _, attribute = CLIENTS[name].partition(":")
    return cast("Callable[[str], Client]", getattr(importlib.import_module(module), attribute))
