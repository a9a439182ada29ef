"""OpenAI Responses: requests, streams, whole answers and errors.

Terminal markers: `response.completed`, `response.incomplete` and, as an error, `response.failed`; a `[DONE]` says
nothing. Requests are stateless: nothing is stored at the provider, so reasoning goes back encrypted with the next
request. Must know no provider: what differs between hosts is in `Quirks`.

Source: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming, and what recorded hosts
really send.
"""

from loomstream.dialects.openai_responses.errors import parse_error
from loomstream.dialects.openai_responses.request import build_request
from loomstream.dialects.openai_responses.translate import parse_response, translator

__all__ = ("build_request", "parse_error", "parse_response", "translator")
