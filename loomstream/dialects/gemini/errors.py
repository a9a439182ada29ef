"""Errors of Google's APIs: HTTP error bodies, and errors inside a stream.

Shape: `{"error": {"code", "message", "status", "details": [...]}}`, in a list where a JSON array was asked for. The
details tell what the status does not: `ErrorInfo.reason` that a 400 is about the key, `QuotaFailure` that a 429 lasts a
day, `RetryInfo.retryDelay` when to come back. Source: https://cloud.google.com/apis/design/errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loomstream.dialects import Target
from loomstream.dialects.fields import JSONObject, as_list, as_object, as_text
from loomstream.dialects.http_errors import error_fields, provider_error
from loomstream.errors import BadRequest, ModelNotFound, ProviderError
from loomstream.wire.json import loads

_OK = 200
_REFUSED = "permission_denied"
_SPENT = "insufficient_quota"

# `google.rpc.ErrorInfo.reason` to a code that says the same in the words of `http_errors`.
# Source: https://cloud.google.com/service-infrastructure/docs/service-management/reference/rpc/google.api#errorreason.
_REASONS = {
    **dict.fromkeys(
        (
            "API_KEY_INVALID",
            "API_KEY_EXPIRED",
            "API_KEY_SERVICE_BLOCKED",
            "API_KEY_HTTP_REFERRER_BLOCKED",
            "API_KEY_IP_ADDRESS_BLOCKED",
            "API_KEY_ANDROID_APP_BLOCKED",
            "API_KEY_IOS_APP_BLOCKED",
            "ACCESS_TOKEN_EXPIRED",
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            "ACCESS_TOKEN_TYPE_UNSUPPORTED",
            "ACCOUNT_STATE_INVALID",
            "CONSUMER_INVALID",
            "CONSUMER_SUSPENDED",
            "CREDENTIALS_MISSING",
            "IAM_PERMISSION_DENIED",
            "SERVICE_DISABLED",
            "USER_PROJECT_DENIED",
        ),
        _REFUSED,
    ),
    "BILLING_DISABLED": _SPENT,
    "RATE_LIMIT_EXCEEDED": "rate_limited",
}
_STATUSES = {"CANCELLED": "server_error", "ABORTED": "server_error", "DATA_LOSS": "server_error"}
"""Statuses that `http_errors` does not know."""

_DAILY = re.compile(r"per_?day", re.IGNORECASE)
_SPENT_MESSAGE = re.compile(r"credits? (?:is|are) depleted|spend(?:ing)? (?:cap|limit)|billing account", re.IGNORECASE)
_ZERO_LIMIT = re.compile(r"\blimit: 0\b")
_HINTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"location is not supported|not available in (?:your|this) (?:country|region)", re.IGNORECASE),
        "this address serves no requests from your region: use a host of another region",
    ),
    (
        re.compile(r"has not been used in project|is disabled|SERVICE_DISABLED", re.IGNORECASE),
        "enable the API in the project that the credentials belong to, or set another project",
    ),
)


def parse_error(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Give the typed error of an error response, whatever its body holds."""
    parsed = loads(body)
    _, _, message = error_fields(parsed)
    error = _error_object(parsed)
    code, kind = _codes(error, message)
    found = provider_error(status, headers, code, message, body, target, kind=kind, parsed=parsed)
    hint = _hint(found, code, target)
    if hint:
        found.args = (f"{found.message.rstrip()} ({hint})",)
    return found


def stream_error(data: bytes, target: Target) -> ProviderError:
    """Give the typed error of a frame; its `status` is 200, which is what the headers said."""
    return parse_error(_OK, {}, data, target)


def _error_object(parsed: object) -> JSONObject:
    items = as_list(parsed)
    outer = as_object(items[0] if items else parsed)
    return as_object(outer.get("error")) or outer


def _codes(error: JSONObject, message: str) -> tuple[str, str]:
    """Give the code to show, and one that `http_errors` understands where that one says too little."""
    status, number = as_text(error.get("status")), as_text(error.get("code"))
    details = [as_object(detail) for detail in as_list(error.get("details"))]
    if status == "RESOURCE_EXHAUSTED" or number == "429":
        spent = _spent_quota(details, message)
        if spent:
            return spent, _SPENT
    for detail in details:
        reason = as_text(detail.get("reason"))
        if reason in _REASONS:
            return reason, _REASONS[reason]
    return status or number, _STATUSES.get(status, number)


def _spent_quota(details: list[JSONObject], message: str) -> str:
    """Name the quota that no short wait brings back: one of a day, one of nothing at all, or money."""
    for detail in details:
        for violation in map(as_object, as_list(detail.get("violations"))):
            name = as_text(violation.get("quotaId")) or as_text(violation.get("quotaMetric"))
            if _DAILY.search(name) or as_text(violation.get("quotaValue")) == "0":
                return name
    return "QUOTA_EXHAUSTED" if _SPENT_MESSAGE.search(message) or _ZERO_LIMIT.search(message) else ""


def _hint(error: ProviderError, code: str, target: Target) -> str:
    said = f"{error.message} {code}"
    found = next((hint for pattern, hint in _HINTS if pattern.search(said)), "")
    if not found and isinstance(error, ModelNotFound) and target.settings.get("location"):
        found = f"is the model offered in location {target.settings['location']!r}, and enabled in the project?"
    return found if isinstance(error, BadRequest | ModelNotFound) or code == "SERVICE_DISABLED" else ""
