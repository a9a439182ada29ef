"""Errors of OpenAI-shaped hosts: HTTP error bodies, and errors inside a stream.

Shapes seen: `{"error": {message, type, code, …}}`, `{"error": "text"}` (Venice, Hugging Face with `error_type`), the
flat `{object: "error", message, type, code}` (Mistral), `{code, message, type}` (doubleword), `{"detail": …}`.
"""

from __future__ import annotations

from collections.abc import Mapping

from loomstream.dialects import Target
from loomstream.dialects.fields import JSONObject, as_object, as_text
from loomstream.dialects.http_errors import classify, error_fields, provider_error
from loomstream.errors import ModelNotFound, ProviderError
from loomstream.wire.json import loads

_STATUS_KEYS = ("status_code", "raw_status_code", "status", "code")
_OK = 200


def parse_error(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Give the typed error of an error response."""
    parsed = loads(body)
    code, kind, message = error_fields(parsed)
    kind = kind or _inner_code(parsed)
    message = _naming_the_model(classify(status, code, message, kind=kind), message, target)
    return provider_error(status, headers, code, message, body, target, kind=kind, parsed=parsed)


def _inner_code(parsed: object) -> str:
    """Give the code below `error.innererror` (Azure), which says why content was filtered."""
    error = as_object(as_object(parsed).get("error"))
    return as_text(as_object(error.get("innererror")).get("code"))


def _naming_the_model(kind: type[ProviderError], message: str, target: Target) -> str:
    """Give the message with the model's name in it, where it says that there is no such model (Azure leaves it out)."""
    if kind is not ModelNotFound or not message or target.model in message:
        return message
    return f"{message} (asked for {target.model!r})"


def stream_error(target: Target, parsed: object, body: bytes) -> ProviderError | None:
    """Give the typed error that a frame holds, or None where it holds none."""
    frame = as_object(parsed)
    if not _is_error(frame):
        return None
    code, kind, message = error_fields(frame)
    inner = as_object(frame.get("error")) or frame
    return provider_error(_status(inner), {}, code, message, body, target, kind=kind, parsed=frame, in_stream=True)


def _is_error(frame: JSONObject) -> bool:
    if frame.get("error") is not None or frame.get("object") == "error":
        return True
    if "choices" in frame:
        return False
    return "detail" in frame or ("message" in frame and ("type" in frame or "code" in frame))


def _status(error: JSONObject) -> int:
    """Give the HTTP status that the error names, 200 where it names none."""
    for key in _STATUS_KEYS:
        text = as_text(error.get(key))
        if len(text) == 3 and text.isascii() and text.isdigit() and text[0] in "45":  # noqa: PLR2004 (an HTTP status)
            return int(text)
    return _OK
