"""Errors of Responses: HTTP error bodies, `error` frames and failed responses.

Shapes: `{"error": {message, type, code, param}}`; in a stream flat, as the reference has it (`{"type": "error", code,
message, param}`), or nested, as it is really sent (`{"type": "error", "error": {type, code, message}}`), and then
`response.failed` with `{"response": {"error": {code, message}}}`; `{"code": "text", "error": "text"}` (xAI).
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw as RawJSON

from loomstream.dialects import Target
from loomstream.dialects.fields import as_object, as_text
from loomstream.dialects.http_errors import error_fields, provider_error
from loomstream.errors import (
    BadRequest,
    ContentFiltered,
    Failure,
    ProviderError,
    ServerFault,
)
from loomstream.wire.json import loads

_OK = 200
_ERROR = "error"
FAILED = "failed"

_CODES: dict[type[ProviderError], str] = {
    ContentFiltered: "bio_policy cyber_policy image_content_policy_violation invalid_prompt",
    BadRequest: """data_residency_mismatch empty_image_file failed_to_download_image image_file_not_found
        image_file_too_large image_parse_error image_too_large image_too_small invalid_base64_image invalid_image
        invalid_image_format invalid_image_mode invalid_image_url unsupported_image_media_type""",
    ServerFault: "vector_store_timeout",
}
_BY_CODE = {code: error for error, codes in _CODES.items() for code in codes.split()}
"""Codes of a failed response that no other dialect has. Source: the API reference, `response.error.code`."""


def parse_error(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Give the typed error of an error response, whatever its body holds."""
    parsed = loads(body)
    code, kind, message = error_fields(parsed)
    return provider_error(
        status, headers, code, message, body, target, kind=kind, parsed=parsed, known=_BY_CODE.get(code)
    )


def stream_error(data: bytes, target: Target) -> Failure:
    """Give the failure of an `error` frame; its error's `status` is 200, which is what the headers said."""
    parsed = loads(data)
    code, kind, message = error_fields(parsed)
    if not as_object(as_object(parsed).get("error")):
        kind = "" if kind == _ERROR else kind  # the frame's own type, which says nothing of the error
    known = _BY_CODE.get(code)
    return Failure(provider_error(_OK, {}, code, message, data, target, kind=kind, parsed=parsed, known=known))


def failed(status: str, error: RawJSON, data: bytes, target: Target) -> Failure:
    """Give the failure of a response that failed or was cancelled, with the error that it holds, if any."""
    fields = as_object(loads(error))
    code = as_text(fields.get("code")) or status
    kind = as_text(fields.get("type"))
    message = as_text(fields.get("message")) or f"the response ended with the status {status!r}"
    known = _BY_CODE.get(code)
    return Failure(provider_error(_OK, {}, code, message, data, target, kind=kind, parsed=loads(data), known=known))
