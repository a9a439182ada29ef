"""Ollama's own chat API: requests, streams of JSON lines, whole answers and errors.

Terminal marker: `done: true`. Must know no provider: what differs between hosts is in `Quirks`.

Source: https://docs.ollama.com/api/chat, and what recorded servers really send.
"""

from loomstream.dialects.ollama_chat.errors import parse_error
from loomstream.dialects.ollama_chat.request import build_request
from loomstream.dialects.ollama_chat.translate import parse_response, translator

__all__ = ("build_request", "parse_error", "parse_response", "translator")
