"""loomstream itself: its public API, its default middleware."""

from __future__ import annotations

from collections.abc import Mapping

import loomstream
from benchmarks.client import API_KEY, MODEL, PROMPT
from loomstream import Stream, TextDelta

_REGION = {"region": "us-east-1"}


class OurAnswer:
    """A stream that is being read."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def take(self, count: int) -> int:
        """Read until `count` more text events came, or to the end; give how many came."""
        taken = 0
        async for event in self._stream:
            if isinstance(event, TextDelta):
                taken += 1
                if taken == count:
                    break
        return taken

    async def aclose(self) -> None:
        """Leave it where it is."""
        await self._stream.aclose()


class OurClient:
    """One model, over Chat Completions."""

    spec = f"openai-compatible:{MODEL}"
    dialect: str | None = None
    settings: Mapping[str, str] | None = None

    def __init__(self, base_url: str) -> None:
        self._model = loomstream.connect(
            self.spec, base_url=base_url, api_key=API_KEY, dialect=self.dialect, settings=self.settings
        )

    async def read_all(self) -> int:
        """Ask, read the whole answer; give the number of its text events."""
        texts = 0
        async with self._model.stream(PROMPT) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    texts += 1
        return texts

    async def begin(self) -> OurAnswer:
        """Ask, read to the first text event."""
        answer = OurAnswer(await self._model.stream(PROMPT).__aenter__())
        await answer.take(1)
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._model.aclose()


class ResponsesClient(OurClient):
    """One model, over Responses."""

    spec = f"openai:{MODEL}"
    dialect = "openai_responses"


class MessagesClient(OurClient):
    """One model, over Anthropic's Messages."""

    spec = f"anthropic:{MODEL}"


class GeminiClient(OurClient):
    """One model, over generateContent."""

    spec = f"gemini:{MODEL}"


class ConverseClient(OurClient):
    """One model, over Converse."""

    spec = f"bedrock:{MODEL}"
    dialect = "bedrock_converse"
    settings: Mapping[str, str] | None = _REGION


class InvokeClient(OurClient):
    """One model, over InvokeModel."""

    spec = f"bedrock:{MODEL}"
    dialect = "bedrock_invoke"
    settings: Mapping[str, str] | None = _REGION


class OllamaClient(OurClient):
    """One model, over Ollama's chat."""

    spec = f"ollama:{MODEL}"


class CohereClient(OurClient):
    """One model, over Cohere's chat."""

    spec = f"cohere:{MODEL}"
