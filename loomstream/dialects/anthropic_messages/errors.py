"""Errors of Anthropic-shaped hosts: HTTP error bodies, and `error` events inside a stream.

Shape: `{"type": "error", "error": {"type", "message", "details"}, "request_id"}`; `details.error_code` tells a spending
limit from a rate limit.
"""

from __future__ import annotations

from collections.abc import Mapping

from loomstream.dialects import Target
from loomstream.dialects.fields import as_object, as_text
from loomstream.dialects.http_errors import error_fields, provider_error
from loomstream.errors import ProviderError
from loomstream.wire.json import loads

_OK = 200


def parse_error(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Give the typed error of an error response, whatever its body holds."""
    parsed = loads(body)
    code, kind, message = error_fields(parsed)
    outer = as_object(parsed)
    details = as_object(as_object(outer.get("error")).get("details"))
    return provider_error(
        status,
        headers,
        as_text(details.get("error_code")) or code,
        message,
        body,
        target,
        kind=kind,
        request_id=as_text(outer.get("request_id")),
        parsed=parsed,
    )


def stream_error(data: bytes, target: Target) -> ProviderError:
    """Give the typed error of an `error` event; its `status` is 200, which is what the headers said."""
    return parse_error(_OK, {}, data, target)
