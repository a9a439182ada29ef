"""Errors of Cohere-shaped hosts: HTTP error bodies, and errors inside a stream.

Shape: flat `{"id", "message"}`, sometimes with `error_type`; a stream that fails ends in a `message-end` whose
`finish_reason` is an error, with the words in `error`. What the status alone does not tell:
498 is sent where a prompt or an answer holds a deny-listed token, 499 where the request was cancelled on the way, and
429 also for the month's calls of a trial key, which no waiting brings back (https://docs.cohere.com/reference/errors
and https://docs.cohere.com/docs/rate-limits).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loomstream.dialects import Target
from loomstream.dialects.fields import as_object, as_text
from loomstream.dialects.http_errors import error_fields, provider_error
from loomstream.errors import ProviderError
from loomstream.wire.json import loads

_OK = 200
_TOO_MANY_REQUESTS = 429
_PER_MONTH = re.compile(r"calls? ?(?:/|per|a) ?month", re.IGNORECASE)
_KINDS = {498: "content_filter", 499: "server_error"}
_QUOTA = "insufficient_quota"


def parse_error(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Give the typed error of an error response, whatever its body holds."""
    parsed = loads(body)
    code, kind, message = error_fields(parsed)
    used_up = status == _TOO_MANY_REQUESTS and _PER_MONTH.search(message)
    return provider_error(
        status,
        headers,
        code,
        message,
        body,
        target,
        kind=_QUOTA if used_up else kind or _KINDS.get(status, ""),
        request_id=as_text(as_object(parsed).get("id")),
        parsed=parsed,
    )


def stream_error(data: bytes, target: Target) -> ProviderError:
    """Give the typed error of a frame that is one; its `status` is 200, which is what the headers said."""
    return parse_error(_OK, {}, data, target)


def end_error(code: str, message: str, data: bytes, target: Target) -> ProviderError:
    """Give the typed error of an answer that ended in one: by its finish reason, if that says so, and its words."""
    return provider_error(_OK, {}, code, message or _WORDS.get(code, f"the answer ended in {code}"), data, target)


_WORDS = {
    "ERROR": "the generation failed",
    "TIMEOUT": "the generation took too long",
    "USER_CANCEL": "the generation was cancelled",
}
