import pytest
from hypothesis import given
from hypothesis import strategies as st

from loomstream.dialects import Target
from loomstream.dialects.http_errors import (
    MAX_BODY_BYTES,
    classify,
    describe,
    error_fields,
    limits,
    provider_error,
    request_id,
    retry_after_s,
)
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
    ServerFault,
)
from loomstream.events import Limits

TARGET = Target(provider="acme", model="m-1")
DATE = "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"Retry-After": " 34 "}, 34.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": ".5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ms-retry-after-ms": "1500.5"}, 1.5005),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Sunday, 22-Nov-26 10:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Sun Nov 22 10:00:30 2026", "date": DATE}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Friday, 06-Nov-94 08:49:37 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "yesterday"}, None),
        ({"retry-after": "2026-11-22T10:00:30Z", "date": DATE}, 30.0),
        ({"retry-after": "2026-11-22T10:00:30", "date": DATE}, 30.0),
        ({"retry-after": "20261122", "date": DATE}, None),
        ({"retry-after": "Sun, 22 Nov 99999 10:00:30 GMT", "date": DATE}, None),
        ({"retry-after": "Sun, 32 Nov 2026 10:00:30 GMT", "date": DATE}, None),
        ({"retry-after": "Sun, 22 Foo 2026 10:00:30 GMT", "date": DATE}, None),
        ({"retry-after": "Sun, 22 Nov 9999 10:00:30 GMT", "date": DATE}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e35"}, None),
        ({"retry-after": "9" * 20}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "1, 2"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "1_000"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"details": [{"reason": "x"}, {"retryDelay": "34.4s"}]}}, 34.4),
        ([{"error": {"details": [{"retryDelay": "0.5s"}]}}], 0.5),
        ({"error": {"details": [{"retryDelay": "1m30s"}]}}, 90.0),
        ({"error": {"details": [{"retryDelay": "-3s"}]}}, None),
        ({"error": {"details": [{"retryDelay": None}]}}, None),
        ({"error": {"details": "no list"}}, None),
        ({"error": "text"}, None),
        (["x"], None),
        (7, None),
    ],
)
def test_retry_delay_in_the_body(body: object, expected: float | None) -> None:
    assert retry_after_s({}, body) == expected


def test_limits_of_anthropic() -> None:
    headers = {
        "date": DATE,
        "anthropic-ratelimit-requests-limit": "4000",
        "anthropic-ratelimit-requests-remaining": "3999",
        "anthropic-ratelimit-requests-reset": "2026-11-22T10:00:01Z",
        "anthropic-ratelimit-tokens-limit": "400000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2026-11-22T09:00:00Z",
        "anthropic-ratelimit-input-tokens-limit": "1",
    }
    assert limits(headers) == Limits(
        limit_requests=4000,
        remaining_requests=3999,
        reset_requests_s=1.0,
        limit_tokens=400000,
        remaining_tokens=0,
        reset_tokens_s=0.0,
    )


def test_limits_of_input_tokens_stand_in() -> None:
    found = limits({"anthropic-ratelimit-input-tokens-limit": "7", "anthropic-ratelimit-output-tokens-limit": "9"})
    assert found == Limits(limit_tokens=7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1s", 1.0),
        ("2m59.56s", 179.56),
        ("1h0m0s", 3600.0),
        ("1d", 86400.0),
        ("55", 55.0),
        ("0", 0.0),
        ("-1", None),
        ("soon", None),
        ("99999999s", None),
        ("1795341630", 30.0),
        ("1795341630000", 30.0),
        ("1795341000", 0.0),
    ],
)
def test_resets_of_openai(text: str, expected: float | None) -> None:
    headers = {"x-ratelimit-limit-tokens": "10", "x-ratelimit-reset-tokens": text, "date": DATE}
    assert limits(headers) == Limits(limit_tokens=10, reset_tokens_s=expected)


def test_a_unix_time_without_a_date_is_no_reset() -> None:
    assert limits({"x-ratelimit-limit": "5", "x-ratelimit-reset": "1795341630"}) == Limits(limit_requests=5)


@pytest.mark.parametrize(
    "headers", [{}, {"x-ratelimit-limit-requests": "many"}, {"x-ratelimit-remaining-tokens": "-1"}, {"x-other": "1"}]
)
def test_no_limits(headers: dict[str, str]) -> None:
    assert limits(headers) is None


CLASSES = [
    (401, "authentication_error", "", AuthFailed),
    (403, "forbidden", "", AuthFailed),
    (400, "invalid-argument", "Incorrect API key provided.", AuthFailed),
    (401, "", "", AuthFailed),
    (401, "invalid_request_error", "", AuthFailed),
    (402, "", "", QuotaExhausted),
    (429, "insufficient_quota", "", QuotaExhausted),
    (429, "rate_limit_error", "", RateLimited),
    (400, "invalid_request_error", "Your credit balance is too low to access the API", QuotaExhausted),
    (429, "", "", RateLimited),
    (429, "invalid_request_error", "", RateLimited),
    (200, "rate_limit_error", "", RateLimited),
    (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", RateLimited),
    (404, "not_found_error", "model: x", ModelNotFound),
    (400, "model_not_found", "", ModelNotFound),
    (400, "invalid_request_error", "The model `x` does not exist", ModelNotFound),
    (400, "400", "acme/x is not a valid model ID", ModelNotFound),
    (404, "", "", ModelNotFound),
    (400, "invalid_request_error", "prompt is too long: 3 tokens > 2 maximum", ContextTooLong),
    (400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed", ContextTooLong),
    (400, "exceed_context_size_error", "", ContextTooLong),
    (413, "request_too_large", "", BadRequest),
    (400, "content_policy_violation", "", ContentFiltered),
    (400, "invalid_request_error", "temperature: must be a number", BadRequest),
    (422, "", "", BadRequest),
    (409, "", "", BadRequest),
    (503, "", "", Overloaded),
    (529, "overloaded_error", "", Overloaded),
    (200, "overloaded_error", "", Overloaded),
    (500, "api_error", "", ServerFault),
    (502, "", "", ServerFault),
    (504, "timeout_error", "", ServerFault),
    (408, "", "", ServerFault),
    (200, "api_error", "", ServerFault),
    (200, "502", "", ServerFault),
    (200, "429", "", RateLimited),
    (200, "999", "", ServerFault),
    (200, "invalid_request_error", "", BadRequest),
    (200, "", "", ServerFault),
    (200, "who_knows", "", ServerFault),
    (418, "who_knows", "", BadRequest),
]


@pytest.mark.parametrize(("status", "code", "message", "expected"), CLASSES)
def test_classify(status: int, code: str, message: str, expected: type[ProviderError]) -> None:
    assert classify(status, code, message) is expected
    assert classify(status, "", message, kind=code) is expected


def test_a_telling_code_beats_a_vague_type() -> None:
    assert classify(400, "invalid_api_key", "", kind="invalid_request_error") is AuthFailed
    assert classify(429, "insufficient_quota", "", kind="requests") is QuotaExhausted


def test_the_error_says_who_what_and_when() -> None:
    headers = {"Request-Id": "req_7", "retry-after": "3"}
    error = provider_error(429, headers, "", "slow down", b'{"x":1}', TARGET, kind="rate_limit_error")
    assert isinstance(error, RateLimited)
    assert str(error) == "acme answered HTTP 429 (rate_limit_error): slow down"
    assert (error.status, error.code, error.body) == (429, "rate_limit_error", '{"x":1}')
    assert (error.provider, error.model, error.request_id) == ("acme", "m-1", "req_7")
    assert (error.retry_after_s, error.retry_safety) == (3.0, "yes")


def test_the_request_id_of_the_body_stands_in() -> None:
    assert provider_error(500, {}, "", "x", b"", TARGET, request_id="in-body").request_id == "in-body"
    assert provider_error(500, {}, "", "x", b"", TARGET).request_id == ""
    assert request_id({"X-Request-ID": "a", "cf-ray": "b"}) == "a"
    assert request_id({}) == ""


@pytest.mark.parametrize(
    ("message", "headers", "expected"),
    [
        ("Please retry after 33 seconds.", {}, 33.0),
        ("Please try again in 1.5s. Visit …", {}, 1.5),
        ("try again in 120ms", {}, 0.12),
        ("try again in 6m", {}, 360.0),
        ("try again in ... a while", {}, None),
        ("slow down", {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "8s"}, 8.0),
        ("slow down", {"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "8s"}, None),
        (
            "slow down",
            {
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "8s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "9s",
            },
            9.0,
        ),
        ("retry after 33 seconds", {"retry-after": "5"}, 5.0),
    ],
)
def test_the_delay_of_a_rate_limit(message: str, headers: dict[str, str], expected: float | None) -> None:
    assert provider_error(429, headers, "", message, b"", TARGET).retry_after_s == expected


def test_a_delay_in_the_words_counts_only_for_rate_limits() -> None:
    assert provider_error(401, {}, "", "try again in 5s", b"", TARGET).retry_after_s is None


def test_the_provider_may_forbid_or_allow_a_retry() -> None:
    assert provider_error(429, {"x-should-retry": "false"}, "", "", b"", TARGET).retry_safety == "no"
    assert provider_error(400, {"x-should-retry": "true"}, "", "", b"", TARGET).retry_safety == "maybe"
    assert provider_error(429, {"x-should-retry": "true"}, "", "", b"", TARGET).retry_safety == "yes"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "acme answered HTTP 502: the body is empty"),
        (
            b"<html><head><TITLE>502\n Bad Gateway</TITLE>",
            "acme answered HTTP 502: an HTML page titled '502 Bad Gateway'",
        ),
        (b"<Error/>", "acme answered HTTP 502: an HTML or XML page"),
        (b"  upstream\n failed ", "acme answered HTTP 502: upstream failed"),
        (b"\xff\xfe", "acme answered HTTP 502: \ufffd\ufffd"),
    ],
)
def test_a_body_that_is_no_error_object_still_reads_well(body: bytes, expected: str) -> None:
    assert str(provider_error(502, {}, "", "", body, TARGET)) == expected


def test_a_long_body_is_cut() -> None:
    error = provider_error(500, {}, "", "", b"x" * (MAX_BODY_BYTES + 10), TARGET)
    assert len(error.body) == MAX_BODY_BYTES
    assert len(str(error)) < 300
    assert describe(b"y" * 300) == "y" * 200 + "…"


def test_a_code_that_is_the_status_is_not_said_twice() -> None:
    assert str(provider_error(400, {}, "400", "no", b"", TARGET)) == "acme answered HTTP 400: no"


def test_an_error_inside_a_stream_does_not_claim_an_answer_of_that_status() -> None:
    error = provider_error(429, {}, "rate_limit", "slow down", b"", TARGET, in_stream=True)
    assert str(error) == "acme reported error 429 (rate_limit) in its stream: slow down"
    assert str(provider_error(200, {}, "", "no", b"", TARGET, in_stream=True)) == "acme reported an error: no"
    assert (
        str(provider_error(200, {}, "", "no", b"", Target(provider="", model="")))
        == "the provider reported an error: no"
    )


@pytest.mark.parametrize(
    ("parsed", "expected"),
    [
        ({"error": {"code": 5, "type": "t", "message": "m"}}, ("5", "t", "m")),
        ({"error": {"code": 400, "status": "INVALID", "message": "m"}}, ("400", "INVALID", "m")),
        ([{"error": {"message": "m"}}], ("", "", "m")),
        ({"error": "text", "code": "c"}, ("c", "", "text")),
        ({"error": "text", "error_type": "v"}, ("", "v", "text")),
        ({"object": "error", "message": "m", "type": "t", "code": "1500"}, ("1500", "t", "m")),
        ({"detail": "Invalid API Key"}, ("", "", "Invalid API Key")),
        ({"message": "m"}, ("", "", "m")),
        ({}, ("", "", "")),
        ([], ("", "", "")),
        (None, ("", "", "")),
    ],
)
def test_error_fields(parsed: object, expected: tuple[str, str, str]) -> None:
    assert error_fields(parsed) == expected


HEADER_NAMES = [
    "retry-after",
    "retry-after-ms",
    "date",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-limit",
    "x-should-retry",
]


@given(
    st.integers(0, 700),
    st.dictionaries(st.sampled_from(HEADER_NAMES), st.text(max_size=40)),
    st.binary(max_size=200),
    st.text(max_size=60),
)
def test_nothing_but_a_provider_error_whatever_comes(
    status: int, headers: dict[str, str], body: bytes, text: str
) -> None:
    error = provider_error(status, headers, text, text, body, TARGET)
    assert isinstance(error, ProviderError)
    assert error.retry_after_s is None or 0 <= error.retry_after_s < 10**7
    limits(headers)
