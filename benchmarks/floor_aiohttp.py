"""The floor for memory: bare aiohttp, which is the leanest client with a pool and HTTP that is complete.

Contract: as `benchmarks.floor`, but the bytes are read and thrown away after the first event.
"""

from __future__ import annotations

import aiohttp

from benchmarks.client import API_KEY, MODEL, PROMPT

_TEXT = b'"content":" '


class AiohttpAnswer:
    """A response that is being read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def take(self, count: int) -> int:
        """Read until `count` more text events came, or to the end; give how many came."""
        taken = 0
        while taken < count and (data := await self._response.content.readany()):
            taken += data.count(_TEXT)
        return taken

    async def aclose(self) -> None:
        """Leave it where it is."""
        self._response.close()


class AiohttpClient:
    """One session."""

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/chat/completions"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"authorization": f"Bearer {API_KEY}"},
        )

    async def begin(self) -> AiohttpAnswer:
        """Ask, read to the first text event."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "stream": True}
        answer = AiohttpAnswer(await self._session.post(self._url, json=body))
        await answer.take(1)
        return answer

    async def read_all(self) -> int:
        """Ask, read the whole answer; give the number of its text events."""
        answer = await self.begin()
        return 1 + await answer.take(1 << 60)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()
