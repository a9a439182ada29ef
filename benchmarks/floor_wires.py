"""The floors of the other wires: as `benchmarks.floor`, with each wire's framing undone by hand.

Contract: that of `benchmarks.floor`. Of an AWS event stream the lengths are read and nothing is checked, so that what
is left is the reading of the JSON payloads.
"""

from __future__ import annotations

import struct

import msgspec

from benchmarks.floor import BareAnswer, BareClient


class _Text(msgspec.Struct):
    text: str | None = None


class _NamedSSE(BareAnswer):
    """Text split at blank lines, the event's name skipped."""

    def _texts(self, data: bytes) -> int:
        frames = (self._text + data).split(b"\n\n")
        self._text = frames.pop()
        count = self._is_text
        return sum(count(frame[frame.index(b"\ndata: ") + 7 :]) for frame in frames)

    @staticmethod
    def _is_text(payload: bytes) -> bool:
        raise NotImplementedError


class _ResponsesEvent(msgspec.Struct):
    type: str
    delta: str = ""


_responses = msgspec.json.Decoder(_ResponsesEvent).decode


class ResponsesAnswer(_NamedSSE):
    """An answer of Responses."""

    @staticmethod
    def _is_text(payload: bytes) -> bool:
        event = _responses(payload)
        return event.type == "response.output_text.delta" and bool(event.delta)


class _MessagesEvent(msgspec.Struct):
    type: str
    delta: _Text | None = None


_messages = msgspec.json.Decoder(_MessagesEvent).decode


def _is_messages_text(payload: bytes) -> bool:
    event = _messages(payload)
    return event.type == "content_block_delta" and event.delta is not None and bool(event.delta.text)


class MessagesAnswer(_NamedSSE):
    """An answer of Messages."""

    _is_text = staticmethod(_is_messages_text)


class _CohereMessage(msgspec.Struct):
    content: _Text | list[msgspec.Raw] | None = None


class _CohereDelta(msgspec.Struct):
    message: _CohereMessage | None = None


class _CohereEvent(msgspec.Struct):
    type: str
    delta: _CohereDelta | None = None


_cohere = msgspec.json.Decoder(_CohereEvent).decode


class CohereAnswer(_NamedSSE):
    """An answer of Cohere's chat."""

    @staticmethod
    def _is_text(payload: bytes) -> bool:
        event = _cohere(payload)
        if event.type != "content-delta" or event.delta is None or event.delta.message is None:
            return False
        content = event.delta.message.content
        return isinstance(content, _Text) and bool(content.text)


class _GeminiContent(msgspec.Struct):
    parts: list[_Text]


class _GeminiCandidate(msgspec.Struct):
    content: _GeminiContent


class _GeminiCounts(msgspec.Struct):
    promptTokenCount: int = 0  # noqa: N815 (the wire's name)
    candidatesTokenCount: int = 0  # noqa: N815 (the wire's name)
    totalTokenCount: int = 0  # noqa: N815 (the wire's name)


class _GeminiChunk(msgspec.Struct):
    candidates: list[_GeminiCandidate]
    usageMetadata: _GeminiCounts | None = None  # noqa: N815 (the wire's name)


_gemini = msgspec.json.Decoder(_GeminiChunk).decode


class GeminiAnswer(BareAnswer):
    """An answer of generateContent. Each frame counts, and any may be the last that does: so the counts are read."""

    def _texts(self, data: bytes) -> int:
        frames = (self._text + data).split(b"\n\n")
        self._text = frames.pop()
        texts = 0
        for frame in frames:
            for candidate in _gemini(frame[6:]).candidates:
                for part in candidate.content.parts:
                    if part.text:
                        texts += 1
        return texts


class _OllamaMessage(msgspec.Struct):
    content: str


class _OllamaLine(msgspec.Struct):
    message: _OllamaMessage


_ollama = msgspec.json.Decoder(_OllamaLine).decode


class OllamaAnswer(BareAnswer):
    """An answer of Ollama's chat."""

    def _texts(self, data: bytes) -> int:
        lines = (self._text + data).split(b"\n")
        self._text = lines.pop()
        return sum(1 for line in lines if _ollama(line).message.content)


_lengths = struct.Struct(">II").unpack_from


class _AWSMessages(BareAnswer):
    """Messages cut out by their lengths."""

    def _texts(self, data: bytes) -> int:
        data = self._text + data
        start = texts = 0
        while len(data) - start >= 12:  # noqa: PLR2004 (two lengths and their checksum)
            total, headers = _lengths(data, start)
            if start + total > len(data):
                break
            texts += self._is_text(data[start + 12 + headers : start + total - 4])
            start += total
        self._text = data[start:]
        return texts

    @staticmethod
    def _is_text(payload: bytes) -> bool:
        raise NotImplementedError


class _ConverseEvent(msgspec.Struct):
    delta: _Text | None = None


_converse = msgspec.json.Decoder(_ConverseEvent).decode


class ConverseAnswer(_AWSMessages):
    """An answer of Converse."""

    @staticmethod
    def _is_text(payload: bytes) -> bool:
        delta = _converse(payload).delta
        return delta is not None and bool(delta.text)


class _InvokeChunk(msgspec.Struct):
    event: bytes = msgspec.field(name="bytes")


_invoke = msgspec.json.Decoder(_InvokeChunk).decode


class InvokeAnswer(_AWSMessages):
    """An answer of InvokeModel that holds events of Messages."""

    @staticmethod
    def _is_text(payload: bytes) -> bool:
        return _is_messages_text(_invoke(payload).event)


class ResponsesClient(BareClient):
    """Reads Responses."""

    answer = ResponsesAnswer


class MessagesClient(BareClient):
    """Reads Messages."""

    answer = MessagesAnswer


class CohereClient(BareClient):
    """Reads Cohere's chat."""

    answer = CohereAnswer


class GeminiClient(BareClient):
    """Reads generateContent."""

    answer = GeminiAnswer


class OllamaClient(BareClient):
    """Reads Ollama's chat."""

    answer = OllamaAnswer


class ConverseClient(BareClient):
    """Reads Converse."""

    answer = ConverseAnswer


class InvokeClient(BareClient):
    """Reads InvokeModel."""

    answer = InvokeAnswer
