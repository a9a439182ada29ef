"""Cohere's chat API, version 2 (version 1 is not spoken): requests, streams, whole answers and errors.

Terminal marker: `message-end`; the `data: [DONE]` behind it says nothing. Frames are told apart by the `type` in their
JSON. The plan that a model makes before it calls tools (`tool_plan`) is reasoning. Must know no provider: what differs
between hosts is in `Quirks`.

Source: https://docs.cohere.com/reference/chat-stream and https://docs.cohere.com/docs/streaming, the types of the
vendor's own package, and what recorded hosts really send.
"""

from loomstream.dialects.cohere_chat.errors import parse_error
from loomstream.dialects.cohere_chat.request import build_request
from loomstream.dialects.cohere_chat.translate import parse_response, translator

__all__ = ("build_request", "parse_error", "parse_response", "translator")
