"""OpenAI Chat Completions, the lingua franca: requests, streams, whole answers and errors.

Terminal marker: choice 0's `finish_reason`, or `[DONE]` alone where the host's row says `done_marker`. The usage chunk
comes after the finish reason, so `Stop` waits for `[DONE]` or the end of the body. Must know no provider: what differs
is in `Quirks`.

Source: https://platform.openai.com/docs/api-reference/chat, and what recorded hosts really send.
"""

from loomstream.dialects.openai_chat.errors import parse_error
from loomstream.dialects.openai_chat.request import build_request
from loomstream.dialects.openai_chat.translate import parse_response, translator

__all__ = ("build_request", "parse_error", "parse_response", "translator")
