"""Which decoder fits a body, by its first bytes: content types lie.

Contract: pure. The answer depends on the shortest beginning that decides and on the content type, never on how the body
was cut: the caller joins what it got so far and asks again while the answer is None. Facts: recorded streams of
servers that send SSE as `application/json`, and JSON errors as `text/event-stream`.
"""

from __future__ import annotations

import re

from loomstream.errors import Failure, UnexpectedContent
from loomstream.wire.aws import MAX_MESSAGE_BYTES, MEDIA_TYPE
from loomstream.wire.framing import skip_byte_order_mark
from loomstream.wire.json import quote

_QUOTE_BYTES = 512
_WHITESPACE = b" \t\r\n"
_LEADING_SPACE = re.compile(rb"\A((?:\xef\xbb\xbf)?[ \t\r\n])[ \t\r\n]+")
_NDJSON_TYPES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/stream+json"}
)
_JSON_TYPES = frozenset({"application/json", "text/json"})
_AWS_BEGINNINGS = tuple(bytes([first]) for first in range((MAX_MESSAGE_BYTES >> 24) + 1))
"""The first byte of a message's length."""
_SSE_FIELDS = (b"data", b"event", b"id", b"retry")
_SSE_BEGINNINGS = (b":", *(field + end for field in _SSE_FIELDS for end in (b":", b"\r", b"\n")))
_HINTS = {
    b"<": "This is an HTML or XML page: a proxy, a login page or the wrong base URL answered in the provider's place.",
    b"\x1f\x8b": "This is compressed with gzip, which was not asked for: a proxy may have done it.",
}
_HINT = "Check the base URL and which provider is configured for it."


def sniff(first_bytes: bytes, expected: str, content_type: str) -> str | Failure | None:
    """Say which decoder reads a body of status 200.

    A JSON object goes to `json`, unless the content type says NDJSON, or NDJSON is expected and the content type is
    not that of plain JSON (Ollama answers in one `application/json` object where no stream was asked for). An array
    goes to `json`; a field or comment of an event stream to `sse`, whatever is expected. Binary lengths go to `aws`
    where that is expected or the content type says so.

    Args:
        first_bytes: the body so far.
        expected: `sse`, `ndjson`, `aws` or `json`: what the request asked for.
        content_type: the header's value, or an empty string.

    Returns:
        The decoder: `sse`, `ndjson`, `aws` or `json`; None while the bytes do not decide; or the failure
        `UnexpectedContent` for anything else, which quotes the first 512 bytes at most.
    """
    if first_bytes.startswith(_AWS_BEGINNINGS) and (expected == "aws" or _media_type(content_type) == MEDIA_TYPE):
        return "aws"
    text = skip_byte_order_mark(b"", first_bytes)[1].lstrip(_WHITESPACE)
    if not text:
        return None
    if text.startswith((b"{", b"[")):
        return _kind_of_json(text, expected, content_type)
    if text.startswith(_SSE_BEGINNINGS):
        return "sse"
    if any(beginning.startswith(text) for beginning in _SSE_BEGINNINGS):
        return None
    return Failure(UnexpectedContent(_describe(text, expected, content_type)))


def squeeze(first_bytes: bytes) -> bytes:
    """Give a beginning that does not decide without its white space but for one byte: what follows decides the same.

    So a caller who gets white space in many pieces need not have all of it looked at again for each.
    """
    return _LEADING_SPACE.sub(rb"\1", first_bytes)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _kind_of_json(text: bytes, expected: str, content_type: str) -> str:
    media_type = _media_type(content_type)
    if text.startswith(b"["):
        return "json"
    if media_type in _NDJSON_TYPES or (expected == "ndjson" and media_type not in _JSON_TYPES):
        return "ndjson"
    return "json"


def _describe(text: bytes, expected: str, content_type: str) -> str:
    hint = next((hint for beginning, hint in _HINTS.items() if text.startswith(beginning)), _HINT)
    said = f" ({content_type})" if content_type else ""
    return f"expected {expected}, the answer{said} begins with {quote(text, _QUOTE_BYTES)}. {hint}"
