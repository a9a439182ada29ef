"""Anthropic Messages: requests, streams, whole answers and errors.

Terminal marker: `message_stop`. Frames are told apart by the `type` in their JSON, never by the SSE event's name. Must
know no provider: what differs between hosts is in `Quirks`.

Source: https://docs.anthropic.com/en/api/messages and https://docs.anthropic.com/en/docs/build-with-claude/streaming,
and what recorded hosts really send.
"""

from loomstream.dialects.anthropic_messages.errors import parse_error
from loomstream.dialects.anthropic_messages.request import build_request
from loomstream.dialects.anthropic_messages.translate import parse_response, translator

__all__ = ("build_request", "parse_error", "parse_response", "translator")
