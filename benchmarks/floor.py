"""The floor: the least that a Python program on asyncio can do with the same bytes.

Contract: asyncio's own streams over a plain socket, keep-alive, a request with the headers that ours has, status and
headers of the answer read into a number and a dictionary, HTTP chunks undone by hand, the text split at blank lines,
each payload read by msgspec into a type. No errors, limits, deadlines, fold, cost, other wires.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import msgspec

from benchmarks.client import API_KEY, MODEL, PROMPT

_READ_BYTES = 256 * 1024
_DONE = b"[DONE]"
_OK = 200


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Chunk).decode
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Chunks:
    """Undoes HTTP chunks."""

    def __init__(self) -> None:
        self._rest = b""
        self.over = False

    def feed(self, data: bytes) -> bytes:
        """Give the body's bytes; a chunk is given when it is whole."""
        data = self._rest + data
        out: list[bytes] = []
        start = 0
        while (end := data.find(b"\r\n", start)) >= 0:
            size = int(data[start:end], 16)
            following = end + size + 4
            if following > len(data):
                break
            if not size:
                self.over = True
            out.append(data[end + 2 : end + 2 + size])
            start = following
        self._rest = data[start:]
        return b"".join(out)


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Give the status, and the headers by lower-case name."""
    status_line, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(status_line.split(" ", 2)[1]), headers


class BareAnswer:
    """An answer that is being read."""

    def __init__(self, client: BareClient, streams: _Streams) -> None:
        self._client = client
        self._streams = streams
        self._chunks = _Chunks()
        self._text = b""
        self._ahead = 0

    async def take(self, count: int) -> int:
        """Read until `count` more text events came, or to the end; give how many came."""
        reader = self._streams[0]
        taken = self._ahead
        while taken < count and not self._chunks.over:
            taken += self._texts(self._chunks.feed(await reader.read(_READ_BYTES)))
        self._ahead = max(0, taken - count)
        return min(taken, count)

    def _texts(self, data: bytes) -> int:
        frames = (self._text + data).split(b"\n\n")
        self._text = frames.pop()
        texts = 0
        for frame in frames:
            payload = frame[6:]
            if payload != _DONE:
                for choice in _decode(payload).choices:
                    if choice.delta.content:
                        texts += 1
        return texts

    async def aclose(self) -> None:
        """Keep the connection where the answer was read to its end, else end it."""
        if self._chunks.over:
            self._client.idle.append(self._streams)
        else:
            self._streams[1].close()


class BareClient:
    """Sends and reads by hand."""

    answer: type[BareAnswer] = BareAnswer
    """How the answer is read; the request is the same on every wire."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname, parts.port
        self._head = (
            f"POST {parts.path}/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\n"
            f"authorization: Bearer {API_KEY}\r\ncontent-type: application/json\r\naccept: text/event-stream\r\n"
            "accept-encoding: identity\r\nuser-agent: bare\r\ncontent-length: %d\r\n\r\n"
        ).encode()
        self.idle: list[_Streams] = []

    async def _send(self) -> BareAnswer:
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection(self._host, self._port)
        body = msgspec.json.encode({"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "stream": True})
        writer.write(self._head % len(body) + body)
        status, headers = _read_head(await reader.readuntil(b"\r\n\r\n"))
        if status != _OK or headers["transfer-encoding"] != "chunked":
            msg = f"the server answered {status} {headers}"
            raise ValueError(msg)
        return self.answer(self, (reader, writer))

    async def read_all(self) -> int:
        """Ask, read the whole answer; give the number of its text events."""
        answer = await self._send()
        taken = await answer.take(1 << 60)
        await answer.aclose()
        return taken

    async def begin(self) -> BareAnswer:
        """Ask, read to the first text event."""
        answer = await self._send()
        await answer.take(1)
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        for _, writer in self.idle:
            writer.close()
