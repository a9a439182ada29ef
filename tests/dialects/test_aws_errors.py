"""What AWS says went wrong, and which setting to change."""

from __future__ import annotations

import json

import pytest

from loomstream.dialects import Target
from loomstream.dialects.aws_errors import fault, parse_error
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
from loomstream.wire import Frame

TARGET = Target(provider="cloud", model="asked-model")
CORAL = "http://internal.amazon.com/coral/com.amazon.bedrock/"

# (status, x-amzn-errortype, message) to (class, retry safety, what the advice names)
ANSWERS: list[tuple[int, str, str, type[ProviderError], str, str]] = [
    (403, "AccessDeniedException", "User: x is not authorized to perform: y", AuthFailed, "no", "IAM policy"),
    (
        403,
        "AccessDeniedException",
        "You don't have access to the model with the specified model ID.",
        ModelNotFound,
        "no",
        "Model access",
    ),
    (403, "AccessDeniedException", "Model access is denied due to x", ModelNotFound, "no", "Model access"),
    (403, "AccessDeniedException", "Bearer Token has expired", AuthFailed, "no", "renew session_token"),
    (403, "ExpiredTokenException", "The security token is expired", AuthFailed, "no", "renew session_token"),
    (403, "ExpiredToken", "gone", AuthFailed, "no", "renew session_token"),
    (
        403,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        AuthFailed,
        "no",
        "secret_access_key",
    ),
    (
        403,
        "InvalidSignatureException",
        "The request signature we calculated does not match",
        AuthFailed,
        "no",
        "a proxy may have changed",
    ),
    (
        403,
        "InvalidSignatureException",
        "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z",
        AuthFailed,
        "no",
        "clock",
    ),
    (403, "InvalidSignatureException", "Signature not yet current: 1 is still later than 2", AuthFailed, "no", "clock"),
    (403, "RequestTimeTooSkewed", "The difference is too large.", AuthFailed, "no", "clock"),
    (403, "RequestExpired", "Late.", AuthFailed, "no", "clock"),
    (403, "SignatureDoesNotMatch", "No.", AuthFailed, "no", "secret_access_key"),
    (403, "IncompleteSignatureException", "No.", AuthFailed, "no", "secret_access_key"),
    (403, "InvalidClientTokenId", "No.", AuthFailed, "no", "access_key_id"),
    (403, "MissingAuthenticationTokenException", "Missing", AuthFailed, "no", "No credential reached AWS"),
    (404, "ResourceNotFoundException", "Could not resolve the foundation model", ModelNotFound, "no", "region setting"),
    (404, "UnknownOperationException", "", ModelNotFound, "no", "base_url"),
    (429, "ThrottlingException", "Too many requests, please wait.", RateLimited, "yes", "Service Quotas"),
    (429, "ThrottlingException", "Too many tokens per day, please wait.", QuotaExhausted, "no", "Service Quotas"),
    (400, "ServiceQuotaExceededException", "Too much.", QuotaExhausted, "no", "Service Quotas"),
    (429, "ModelNotReadyException", "Loading.", Overloaded, "yes", "try again"),
    (408, "ModelTimeoutException", "Slow.", ServerFault, "maybe", "max_tokens"),
    (424, "ModelErrorException", "It broke.", ServerFault, "maybe", "It broke."),
    (500, "InternalServerException", "Oh.", ServerFault, "maybe", "Oh."),
    (503, "ServiceUnavailableException", "Later.", Overloaded, "yes", "Later."),
    (400, "ValidationException", "Input is too long for requested model.", ContextTooLong, "no", "too long"),
    (400, "ValidationException", "The provided model identifier is invalid.", ModelNotFound, "no", "region setting"),
    (
        400,
        "ValidationException",
        "Invocation of model ID x with on-demand throughput isn't supported.",
        ModelNotFound,
        "no",
        "inference profile",
    ),
    (400, "ValidationException", "Output blocked by content filtering policy", ContentFiltered, "no", "prompt"),
    (400, "ValidationException", "messages: at least one", BadRequest, "no", "at least one"),
    (418, "", "I am a teapot.", BadRequest, "no", "teapot"),
]


@pytest.mark.parametrize(("status", "name", "message", "kind", "retry", "advice"), ANSWERS)
@pytest.mark.parametrize("place", ["header", "type"])
def test_an_answer_is_a_typed_error_that_names_the_setting(
    status: int, name: str, message: str, kind: type[ProviderError], retry: str, advice: str, place: str
) -> None:
    headers = {"X-Amzn-ErrorType": f"{name}:{CORAL}", "x-amzn-RequestId": "r-1"} if place == "header" else {}
    body = {"message": message} | ({"__type": f"com.amazon.coral#{name}"} if place == "type" else {})
    error = parse_error(status, headers, json.dumps(body).encode(), TARGET)
    assert type(error) is kind
    assert (error.status, error.code, error.retry_safety) == (status, name, retry)
    assert message in str(error)
    assert advice in str(error)
    assert error.request_id == ("r-1" if headers else "")


@pytest.mark.parametrize(
    ("body", "words", "code"),
    [
        (b'{"Message":"in capitals"}', "in capitals", ""),
        (b'{"error":{"message":"from a gateway","type":"api_error"}}', "from a gateway", "api_error"),
        (b'{"Output":{"__type":"x#UnknownOperationException"},"Version":"1.0"}', "Output", "UnknownOperationException"),
        (b"<html><title>Bad Gateway</title>", "Bad Gateway", ""),
        (b"", "empty", ""),
        (b"\xff", "\ufffd", ""),
        (b"[[", "[[", ""),
    ],
)
def test_a_body_of_any_kind_is_an_error(body: bytes, words: str, code: str) -> None:
    error = parse_error(502, {}, body, TARGET)
    assert words in str(error)
    assert error.code == code


def test_a_delay_is_read() -> None:
    error = parse_error(429, {"x-amzn-errortype": "ThrottlingException", "retry-after": "3"}, b"{}", TARGET)
    assert error.retry_after_s == 3


@pytest.mark.parametrize(
    ("headers", "name", "payload", "kind", "words"),
    [
        ({}, "throttlingException", {"message": "slow"}, RateLimited, "slow"),
        ({}, "validationException", {"Message": "prompt is too long"}, ContextTooLong, "prompt is too long"),
        ({":error-message": "oh"}, "InternalFailure", None, ServerFault, "oh"),
        (
            {},
            "modelStreamErrorException",
            {"message": "It failed.", "originalStatusCode": 400, "originalMessage": "bad tool"},
            BadRequest,
            "It failed. (bad tool)",
        ),
        (
            {},
            "modelStreamErrorException",
            {"message": "It failed.", "originalStatusCode": "529", "originalMessage": "It failed."},
            Overloaded,
            "It failed.",
        ),
        ({}, "modelStreamErrorException", {"message": "x", "originalStatusCode": 200}, ServerFault, "x"),
        ({}, "", None, ServerFault, "the body is empty"),
    ],
)
def test_a_fault_in_a_stream_is_a_typed_error(
    headers: dict[str, object], name: str, payload: object, kind: type[ProviderError], words: str
) -> None:
    data = b"" if payload is None else json.dumps(payload).encode()
    error = fault(Frame(name, data), headers, TARGET).error
    assert type(error) is kind
    assert isinstance(error, ProviderError)
    assert (error.status, error.code, error.provider, error.model) == (200, name, "cloud", "asked-model")
    assert words in str(error)
