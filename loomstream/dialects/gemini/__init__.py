"""Gemini's generateContent: requests, streams, whole answers and errors.

Terminal marker: a `finishReason` for every candidate, or `promptFeedback.blockReason` where the prompt was refused; and
then the end of the body, because a host may send more behind the reason. A stream comes as server-sent events, or as
the elements of one JSON array. Must know no provider: what differs between hosts is in `Quirks`.

Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/thought-signatures, and what
recorded hosts really send.
"""

from loomstream.dialects.gemini.errors import parse_error
from loomstream.dialects.gemini.request import build_request
from loomstream.dialects.gemini.translate import parse_response, translator

__all__ = ("build_request", "parse_error", "parse_response", "translator")
