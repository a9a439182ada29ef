"""What every dialect makes of an error answer: class, delay, rate limits, a readable sentence.

Contract: pure functions over headers and parsed bodies; nothing here raises, whatever the bytes. There is no clock
here: a point in time is read relative to the response's own `date` header, which also cancels clock skew. Knows no
provider and no dialect: a dialect hands over the code, the type and the message that it found in its own error shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from loomstream.dialects import Target
from loomstream.dialects.blocks import heal
from loomstream.dialects.fields import as_list, as_object, as_text, count_of
from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    ModelNotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RetrySafety,
    ServerFault,
)
from loomstream.events import Limits
from loomstream.wire.json import loads

MAX_BODY_BYTES = 64 * 1024
"""An error keeps no more than this of the answer's body."""

MAX_DELAY_S = 31 * 24 * 3600.0
"""A delay longer than a month is taken for garbage."""

_QUOTE_CHARS = 200
_EPOCH_S = 1e9
_EPOCH_MS = 1e11
_REQUEST_ID_HEADERS = (
    "request-id",
    "x-request-id",
    "apim-request-id",
    "x-ms-request-id",
    "x-amzn-requestid",
    "x-goog-request-id",
    "x-generation-id",
    "cf-ray",
)

# --- numbers, durations, points in time --------------------------------------------------------------------------

_NUMBER = re.compile(r"\d{1,20}(?:\.\d{0,20})?|\.\d{1,20}", re.ASCII)
_DURATION = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_DURATIONS = re.compile(rf"(?:{_DURATION.pattern})+", re.ASCII)
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# RFC 9110 section 5.6.7: IMF-fixdate, RFC 850 and asctime.
_DATES = (
    re.compile(
        r"(?:\w{3}, )?(?P<day>\d{1,2}) (?P<month>\w{3}) (?P<year>\d{4}) (?P<time>\d{2}:\d{2}:\d{2}) GMT", re.ASCII
    ),
    re.compile(r"\w{6,9}, (?P<day>\d{2})-(?P<month>\w{3})-(?P<year>\d{2}) (?P<time>\d{2}:\d{2}:\d{2}) GMT", re.ASCII),
    re.compile(r"\w{3} (?P<month>\w{3}) {1,2}(?P<day>\d{1,2}) (?P<time>\d{2}:\d{2}:\d{2}) (?P<year>\d{4})", re.ASCII),
)
_PIVOT_YEAR = 70
_WAIT_IN_TEXT = re.compile(
    r"(?:retry after|try again in|retry in)\s+([\d.]{1,20})\s*(ms|s|m|h)?(?:[a-z]*)\b", re.ASCII | re.IGNORECASE
)


def _sane(delay_s: float | None) -> float | None:
    if delay_s is None or not math.isfinite(delay_s) or not 0 <= delay_s <= MAX_DELAY_S:
        return None
    return delay_s


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _duration_s(text: str) -> float | None:
    """Read `6m0s`, `120ms`, `1.5s` (a Go or protobuf duration), or a plain number of seconds."""
    if _DURATIONS.fullmatch(text):
        return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(text))
    return _number(text)


def _moment(text: str) -> datetime | None:
    """Read an HTTP date or an RFC 3339 time."""
    for form in _DATES:
        if match := form.fullmatch(text):
            return _from_parts(match)
    if ":" not in text:
        return None  # `fromisoformat` also takes a bare number for a date
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _from_parts(match: re.Match[str]) -> datetime | None:
    year = int(match["year"])
    if len(match["year"]) == 2:  # noqa: PLR2004 (RFC 850 has two digits)
        year += 1900 if year >= _PIVOT_YEAR else 2000
    hour, minute, second = (int(part) for part in match["time"].split(":"))
    try:
        month = _MONTHS.index(match["month"].lower()) + 1
        return datetime(year, month, int(match["day"]), hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _until_s(text: str, headers: Mapping[str, str]) -> float | None:
    """Give the seconds from the response's own date to a point in time; one that has passed is 0."""
    moment, now = _moment(text), _moment(headers.get("date", "").strip())
    if moment is None or now is None:
        return None
    return max(0.0, (moment - now) / timedelta(seconds=1))


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value.strip() for name, value in headers.items()}


# --- delay -------------------------------------------------------------------------------------------------------


def retry_after_s(headers: Mapping[str, str], body: object = None) -> float | None:
    """Give the delay in seconds that the provider asked for, or None.

    Read, in this order: `retry-after-ms` and `x-ms-retry-after-ms` (milliseconds), `retry-after` (seconds, also with a
    fraction, or an HTTP date relative to the `date` header), and `retryDelay` of a `google.rpc.RetryInfo` in the parsed
    body. A negative, infinite, absurd or unreadable value counts as absent; a date in the past is 0.
    """
    lowered = _lower(headers)
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _sane(_number(lowered.get(name, "")))
        if milliseconds is not None:
            return milliseconds / 1000
    text = lowered.get("retry-after", "")
    for delay_s in (_number(text), _until_s(text, lowered), _retry_info_s(body)):
        if _sane(delay_s) is not None:
            return delay_s
    return None


def _retry_info_s(body: object) -> float | None:
    for item in as_list(body) or [body]:
        for detail in as_list(as_object(as_object(item).get("error")).get("details")):
            delay_s = _duration_s(as_text(as_object(detail).get("retryDelay")))
            if delay_s is not None:
                return delay_s
    return None


def _delay_in_text_s(message: str) -> float | None:
    """Read `Please retry after 33 seconds` (Azure) or `try again in 1.2s` (OpenAI) out of an error's message."""
    match = _WAIT_IN_TEXT.search(message)
    number = _number(match[1].rstrip(".")) if match else None
    return number * _UNIT_S[(match[2] or "s").lower()] if match and number is not None else None


# --- limits ------------------------------------------------------------------------------------------------------

# (limit, remaining, reset), the first family with any header wins. Sources: Anthropic, "Rate limits: response headers";
# OpenAI, "Rate limits in headers"; Azure names the last one without the hyphen.
_REQUEST_FAMILIES = (
    (
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
)
_TOKEN_FAMILIES = (
    ("anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    (
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ),
    (
        "anthropic-ratelimit-output-tokens-limit",
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ),
    ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-rate-limit-limit-tokens", "x-rate-limit-remaining-tokens", "x-rate-limit-reset-tokens"),
)
_Family = tuple[int | None, int | None, float | None]


def limits(headers: Mapping[str, str]) -> Limits | None:
    """Give the rate limits that the headers tell, or None where they tell nothing readable.

    Resets come as durations (`6m0s`, `120ms`), seconds, RFC 3339 times or Unix times; the last two are relative to the
    `date` header. Unreadable and negative values count as absent.
    """
    names = " ".join(headers).lower()
    if "ratelimit" not in names and "rate-limit" not in names:
        return None
    lowered = _lower(headers)
    requests, tokens = _family(lowered, _REQUEST_FAMILIES), _family(lowered, _TOKEN_FAMILIES)
    if requests == tokens == (None, None, None):
        return None
    return Limits(
        limit_requests=requests[0],
        remaining_requests=requests[1],
        reset_requests_s=requests[2],
        limit_tokens=tokens[0],
        remaining_tokens=tokens[1],
        reset_tokens_s=tokens[2],
    )


def _family(headers: Mapping[str, str], families: tuple[tuple[str, str, str], ...]) -> _Family:
    for limit, remaining, reset in families:
        found = (_whole(headers.get(limit, "")), _whole(headers.get(remaining, "")), _reset_s(headers, reset))
        if found != (None, None, None):
            return found
    return (None, None, None)


def _whole(text: str) -> int | None:
    value = _number(text)
    return count_of(value) if value is not None else None


def _reset_s(headers: Mapping[str, str], name: str) -> float | None:
    text = headers.get(name, "")
    value = _duration_s(text)
    if value is not None and value >= _EPOCH_S and _number(text) is not None:
        return _epoch_s(value / 1000 if value >= _EPOCH_MS else value, headers)
    return _sane(value if value is not None else _until_s(text, headers))


def _epoch_s(unix_s: float, headers: Mapping[str, str]) -> float | None:
    now = _moment(headers.get("date", ""))
    return _sane(max(0.0, unix_s - now.timestamp())) if now is not None else None


def _exhausted_reset_s(found: Limits | None) -> float | None:
    """Give the longest reset among the limits of which nothing remains."""
    if found is None:
        return None
    pairs = ((found.remaining_requests, found.reset_requests_s), (found.remaining_tokens, found.reset_tokens_s))
    resets = [reset for remaining, reset in pairs if remaining == 0 and reset is not None]
    return max(resets) if resets else None


# --- classes -----------------------------------------------------------------------------------------------------

_CODES: dict[type[ProviderError], str] = {
    AuthFailed: """authentication_error permission_error invalid_api_key invalid_authentication incorrect_api_key
        invalid_organization account_deactivated unauthorized unauthenticated permission_denied forbidden
        access_denied accessdenied unrecognizedclientexception accessdeniedexception expiredtokenexception""",
    RateLimited: """rate_limit_error rate_limit_exceeded rate_limited rate_limit ratelimitreached too_many_requests
        resource_exhausted throttlingexception requests tokens requests_per_minute tokens_per_minute""",
    QuotaExhausted: """billing_error insufficient_quota billing_hard_limit_reached billing_not_active
        enforced_spend_limit_reached insufficient_balance insufficient_credits insufficient_credit payment_required
        credit_balance_too_low""",
    Overloaded: """overloaded_error overloaded engine_overloaded engine_overloaded_error server_overloaded slow_down
        service_unavailable unavailable serviceunavailableexception capacity_exceeded model_overloaded
        model_not_ready modelnotreadyexception""",
    ModelNotFound: """not_found_error model_not_found model_not_available invalid_model unknown_model not_found
        deploymentnotfound modelnotfound resourcenotfoundexception model_not_supported""",
    ContextTooLong: """context_length_exceeded exceed_context_size_error too_many_prompt_tokens too_many_tokens
        string_above_max_length model_context_window_exceeded""",
    ContentFiltered: """content_filter content_filter_error content_policy_violation moderation_blocked safety
        responsibleaipolicyviolation prohibited_content blocklist image_safety recitation sensitive_content""",
    ServerFault: """api_error server_error internal_server_error internal_error internal timeout_error timeout
        deadline_exceeded internalserverexception modelstreamerrorexception modeltimeoutexception unknown
        upstream_error bad_gateway gateway_timeout""",
}
_BY_CODE: dict[str, type[ProviderError]] = {code: kind for kind, codes in _CODES.items() for code in codes.split()}
# What says little by itself: hosts send it with 401, 404 and 429 too, so the status comes first.
_VAGUE_CODES: dict[str, type[ProviderError]] = dict.fromkeys(
    (
        "invalid_request_error",
        "invalid_request",
        "bad_request",
        "invalid_argument",
        "validationexception",
        "validation",
        "request_too_large",
        "tool_use_failed",
        "failed_precondition",
    ),
    BadRequest,
)
_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthFailed,
    402: QuotaExhausted,
    403: AuthFailed,
    404: ModelNotFound,
    408: ServerFault,
    425: ServerFault,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}
# Seen in recorded answers whose code says no more than "bad request".
_TELLING_MESSAGES: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = (
    (
        re.compile(
            r"prompt (?:is )?too long|context (?:window|length|size)|too many (?:input )?tokens"
            r"|maximum number of tokens|input tokens exceed|input is too long|messages is too long",
            re.IGNORECASE,
        ),
        ContextTooLong,
    ),
    (
        re.compile(
            r"credit balance is too low|insufficient (?:balance|credit|fund)|spend(?:ing)? limit", re.IGNORECASE
        ),
        QuotaExhausted,
    ),
    (re.compile(r"(?:incorrect|invalid) api key|api key (?:is )?(?:not valid|invalid)", re.IGNORECASE), AuthFailed),
    (
        re.compile(
            r"model not found|model .{0,200}(?:does not exist|not found)|not a valid model|invalid model\b",
            re.IGNORECASE,
        ),
        ModelNotFound,
    ),
    (re.compile(r"content filtering policy", re.IGNORECASE), ContentFiltered),
)
_MESSAGE_CHARS = 4096
_OK_BELOW = 400
_SERVER_FAULTS = range(500, 600)
_CLIENT_FAULTS = range(400, 500)
_VAGUE_STATUSES = frozenset((0, 200, 400, 413, 422))


def classify(status: int, code: str, message: str, *, kind: str = "") -> type[ProviderError]:
    """Give the error class for what a provider said.

    `code` and `kind` are its error code and type, in any order and spelling of case. First a telling code decides,
    then the message where the status says no more than "bad request", then the status, then a vague code. A code that
    is itself an HTTP status counts as the status where the real one is no error (an error inside a stream).
    """
    names = [name.lower().replace("-", "_").replace(" ", "_") for name in (code, kind) if name]
    telling = [found for found in map(_BY_CODE.get, names) if found is not None]
    specific = [found for found in telling if found is not ServerFault]
    status = _effective_status(status, names)
    if specific:
        return specific[0]
    if status in _VAGUE_STATUSES:
        for pattern, found in _TELLING_MESSAGES:
            if pattern.search(message[:_MESSAGE_CHARS]):
                return found
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return _by_range(status, names, telling)


def _effective_status(status: int, names: list[str]) -> int:
    if status >= _OK_BELOW:
        return status
    for name in names:
        if len(name) == 3 and name.isascii() and name.isdigit() and int(name) >= _OK_BELOW:  # noqa: PLR2004 (an HTTP status)
            return int(name)
    return status


def _by_range(status: int, names: list[str], telling: list[type[ProviderError]]) -> type[ProviderError]:
    if telling:
        return telling[0]
    if status in _SERVER_FAULTS:
        return ServerFault
    vague = [_VAGUE_CODES[name] for name in names if name in _VAGUE_CODES]
    if vague or status in _CLIENT_FAULTS:
        return BadRequest
    return ServerFault


# --- the error ---------------------------------------------------------------------------------------------------


def provider_error(  # noqa: PLR0913 (what an error answer consists of; the tail is keyword-only)
    status: int,
    headers: Mapping[str, str],
    code: str,
    message: str,
    body: bytes,
    target: Target,
    *,
    kind: str = "",
    request_id: str = "",
    parsed: object = None,
    known: type[ProviderError] | None = None,
    in_stream: bool = False,
) -> ProviderError:
    """Give the typed error for an error answer, or (with status 200) for an error inside a stream.

    `code` and `kind` are the provider's code and type, `message` its words; where it has none, the body is described.
    `parsed` is the body as plain Python, if the caller has it, `known` the class, if the caller knows it.
    `request_id` is the body's own, used where no header has one. `x-should-retry: false` forbids a retry, `true` allows
    one. `in_stream`: the status is one that an error inside a stream names, not the answer's own.
    """
    lowered = _lower(headers)
    parsed = loads(body[:MAX_BODY_BYTES]) if parsed is None else parsed
    error = known or classify(status, code, message, kind=kind)
    delay_s = retry_after_s(headers, parsed)
    if delay_s is None and error in (RateLimited, Overloaded):
        delay_s = _sane(_delay_in_text_s(message[:_MESSAGE_CHARS]))
        delay_s = _exhausted_reset_s(limits(headers)) if delay_s is None else delay_s
    label = heal(code or kind)[:_QUOTE_CHARS]
    return error(
        f"{_lead(target, status, label, in_stream=in_stream)}: {heal(message) or describe(body)}",
        status=status,
        code=label,
        body=body[:MAX_BODY_BYTES].decode("utf-8", "replace"),
        provider=target.provider,
        model=target.model,
        request_id=_request_id(lowered) or request_id,
        retry_safety=_retry_safety(lowered.get("x-should-retry", ""), error),
        retry_after_s=delay_s,
    )


def _lead(target: Target, status: int, label: str, *, in_stream: bool) -> str:
    name = target.provider or "the provider"
    code = f" ({label})" if label and label != str(status) else ""
    if status < _OK_BELOW:
        return f"{name} reported an error{code}"
    return (
        f"{name} reported error {status}{code} in its stream" if in_stream else f"{name} answered HTTP {status}{code}"
    )


def _request_id(headers: Mapping[str, str]) -> str:
    for name in _REQUEST_ID_HEADERS:
        if value := headers.get(name, "").strip():
            return value
    return ""


def request_id(headers: Mapping[str, str]) -> str:
    """Give the provider's id of the request out of the response's headers, or an empty string."""
    names = "".join(headers)
    return _request_id(headers if names == names.lower() else _lower(headers))


def _retry_safety(should_retry: str, error: type[ProviderError]) -> RetrySafety | None:
    if should_retry == "false":
        return "no"
    return "maybe" if should_retry == "true" and error.default_retry_safety == "no" else None


_TITLE = re.compile(rb"<title[^>]{0,200}>(.{0,400}?)</title", re.IGNORECASE | re.DOTALL)


def describe(body: bytes) -> str:
    """Say in a few words what a body is that holds no error object: an HTML page, a text, nothing."""
    start = body[:MAX_BODY_BYTES].strip()
    if not start:
        return "the body is empty"
    if start[:1] == b"<":
        title = _TITLE.search(start)
        name = _one_line(title[1]) if title else ""
        return f"an HTML page titled {name!r}" if name else "an HTML or XML page"
    return _one_line(start)


def _one_line(text: bytes) -> str:
    line = " ".join(text.decode("utf-8", "replace").split())
    return line[:_QUOTE_CHARS] + ("…" if len(line) > _QUOTE_CHARS else "")


def error_fields(parsed: object) -> tuple[str, str, str]:
    """Give (code, type, message) of an error body of any of the usual shapes, empty where they have none.

    Known shapes: `{error: {code, type, message}}`, `{error: "text"}`, flat `{code, type, message}`, `{detail: "text"}`,
    `{message}`, and a list around any of them.
    """
    items = as_list(parsed)
    outer = as_object(items[0] if items else parsed)
    inner = outer.get("error")
    error = as_object(inner) or outer
    message = (
        as_text(error.get("message")) or as_text(inner) or as_text(outer.get("detail")) or as_text(outer.get("message"))
    )
    code = as_text(error.get("code")) or as_text(outer.get("code"))
    kind = as_text(error.get("type")) or as_text(error.get("status")) or as_text(outer.get("error_type"))
    return code, kind, message
