"""What the simulator says to a key that is missing or wrong: where each scheme puts it, and each wire's own refusal.

Contract: pure. A signed request (AWS) shows the id of its key alone, which is what is compared then. Rows whose hosts
know no keys are asked for none.
Source: the providers' error pages (https://platform.openai.com/docs/guides/error-codes,
https://docs.claude.com/en/api/errors, https://ai.google.dev/gemini-api/docs/troubleshooting,
https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html, https://docs.cohere.com/reference/errors).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from loomstream.providers.table import BY_NAME
from loomstream.testing.wires import Wire
from loomstream.testing.wires.answers import JSON, compact

_PLACES: dict[str, tuple[str, ...]] = {
    "bearer": ("authorization",),
    "x-api-key": ("x-api-key", "authorization"),
    "x-goog-api-key": ("x-goog-api-key", "?key"),
    "azure": ("api-key", "authorization"),
    "google": ("authorization", "x-goog-api-key", "?key"),
    "aws": ("authorization",),
    "none": (),
}
"""Each scheme of `loomstream.auth` to where a client may put its key; `?` stands before a parameter of the address."""
_ANYWHERE = tuple(dict.fromkeys(place for places in _PLACES.values() for place in places))
_BEARER = re.compile(r"(?i:bearer)\s+(\S+)\s*")
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/")


class Refusal(NamedTuple):
    """A response to a request without the key."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def refusal(key: str, wire: Wire, provider: str, target: str, headers: Mapping[str, str]) -> Refusal | None:
    """Give what a request is told whose key is not `key`; None where it is. `provider` is empty where none is known."""
    places = _PLACES.get(BY_NAME[provider].auth, _ANYWHERE) if provider else _ANYWHERE
    given = [found for place in places if (found := _given(place, target, headers))]
    if not places or any(hmac.compare_digest(found.encode(), key.encode()) for found in given):
        return None
    said = _SAID[wire.name]
    status, body, more = said.wrong if given else said.missing
    return Refusal(status, compact(body), {"content-type": "application/json", **more})


def _given(place: str, target: str, headers: Mapping[str, str]) -> str:
    if place.startswith("?"):
        return parse_qs(urlsplit(target).query).get(place[1:], [""])[0]
    value = headers.get(place, "")
    if place != "authorization":
        return value
    found = _BEARER.fullmatch(value) or _SIGNED.match(value)
    return found[1] if found else ""


# --- what is said --------------------------------------------------------------------------------

_Said = tuple[int, JSON, Mapping[str, str]]


class _Words(NamedTuple):
    missing: _Said
    wrong: _Said


def _openai(message: str, code: str | None) -> _Said:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return 401, {"error": error}, {"www-authenticate": "Bearer"}


def _anthropic(message: str) -> _Said:
    return 401, {"type": "error", "error": {"type": "authentication_error", "message": message}}, {}


def _gemini(status: int, name: str, message: str, reason: str) -> _Said:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
    return status, {"error": {"code": status, "message": message, "status": name, "details": [info]}}, {}


def _aws(name: str, message: str) -> _Said:
    return 403, {"message": message}, {"x-amzn-errortype": name}


def _plain(field: str, message: str) -> _Said:
    return 401, {field: message}, {}


_OPENAI = _Words(
    _openai("You didn't provide an API key (simulated).", None),
    _openai("Incorrect API key provided (simulated).", "invalid_api_key"),
)
_AWS = _Words(
    _aws("MissingAuthenticationTokenException", "Missing Authentication Token"),
    _aws("UnrecognizedClientException", "The security token included in the request is invalid."),
)
_SAID: dict[str, _Words] = {
    "openai_chat": _OPENAI,
    "openai_responses": _OPENAI,
    "anthropic_messages": _Words(_anthropic("x-api-key header is required"), _anthropic("invalid x-api-key")),
    "gemini": _Words(
        _gemini(403, "PERMISSION_DENIED", "The caller gave no API key (simulated).", "API_KEY_MISSING"),
        _gemini(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", "API_KEY_INVALID"),
    ),
    "bedrock_converse": _AWS,
    "bedrock_invoke": _AWS,
    "ollama_chat": _Words(_plain("error", "unauthorized"), _plain("error", "unauthorized")),
    "cohere_chat": _Words(_plain("message", "no api key supplied"), _plain("message", "invalid api token")),
}
"""Each wire to its words. Gemini answers 400 to a wrong key, AWS 403."""
