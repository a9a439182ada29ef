"""What each fault looks like on each wire: bodies written by hand from the vendors' documentation.

A shape is the form of a vendor's error objects. `answer(shape, fault)` gives the response of a fault that is a status;
`MIDSTREAM` the bytes of an error inside a stream that has begun.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from loomstream.errors import (
    AuthFailed,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    LoomstreamError,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    ServerFault,
)


class Status(NamedTuple):
    """A fault that is an HTTP status: what it becomes, and whether sending again is safe."""

    status: int
    error: type[LoomstreamError]
    retry_safety: str
    retry_after_s: float | None = None


STATUSES: dict[str, Status] = {
    "401 wrong key": Status(401, AuthFailed, "no"),
    "403 forbidden": Status(403, AuthFailed, "no"),
    "404 no such model": Status(404, ModelNotFound, "no"),
    "400 prompt too long": Status(400, ContextTooLong, "no"),
    "400 filtered": Status(400, ContentFiltered, "no"),
    "413 too large": Status(413, BadRequest, "no"),
    "429 with Retry-After": Status(429, RateLimited, "yes", 7.0),
    "429 without": Status(429, RateLimited, "yes"),
    "quota used up": Status(429, QuotaExhausted, "no"),
    "500 fault": Status(500, ServerFault, "maybe"),
    "503 unavailable": Status(503, Overloaded, "yes"),
    "529 overloaded": Status(529, Overloaded, "yes"),
}


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Fields = tuple[str, str, str]
"""Code, type and message."""

Write = Callable[[int, Fields], tuple[Mapping[str, str], object]]
"""Gives the headers and the body of an error."""


def _openai(status: int, fields: Fields) -> tuple[Mapping[str, str], object]:
    del status
    code, kind, message = fields
    return {}, {"error": {"message": message, "type": kind, "param": None, "code": code or None}}


def _anthropic(status: int, fields: Fields) -> tuple[Mapping[str, str], object]:
    del status
    _, kind, message = fields
    return {"request-id": "req_1"}, {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def _google(status: int, fields: Fields) -> tuple[Mapping[str, str], object]:
    code, kind, message = fields
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code}] if code else []
    return {}, {"error": {"code": status, "message": message, "status": kind, "details": details}}


def _aws(status: int, fields: Fields) -> tuple[Mapping[str, str], object]:
    del status
    _, kind, message = fields
    return {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/"}, {"message": message}


def _plain(status: int, fields: Fields) -> tuple[Mapping[str, str], object]:
    del status
    return {}, {"error": fields[2]}


def _flat(status: int, fields: Fields) -> tuple[Mapping[str, str], object]:
    del status
    return {}, {"message": fields[2]}


def _mistral(status: int, fields: Fields) -> tuple[Mapping[str, str], object]:
    _, kind, message = fields
    return {}, {"object": "error", "message": message, "type": kind, "code": "1500", "raw_status_code": status}


class Shape(NamedTuple):
    """How a vendor writes an error, and the code, type and message of each fault."""

    write: Write
    fields: Mapping[str, Fields]
    statuses: Mapping[str, int] = {}
    """Where the vendor sends another status."""


_OPENAI: dict[str, Fields] = {
    "401 wrong key": ("invalid_api_key", "invalid_request_error", "Incorrect API key provided: sk-abc."),
    "403 forbidden": ("", "permission_error", "You have insufficient permissions for this operation."),
    "404 no such model": ("model_not_found", "invalid_request_error", "The model `m` does not exist."),
    "400 prompt too long": ("context_length_exceeded", "invalid_request_error", "Maximum context length is 8192."),
    "400 filtered": ("content_filter", "invalid_request_error", "The prompt was filtered by the content policy."),
    "413 too large": ("", "invalid_request_error", "Payload too large."),
    "429 with Retry-After": ("rate_limit_exceeded", "requests", "Rate limit reached for m."),
    "429 without": ("rate_limit_exceeded", "requests", "Rate limit reached for m."),
    "quota used up": ("insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "500 fault": ("", "server_error", "The server had an error."),
    "503 unavailable": ("", "server_overloaded", "The engine is currently overloaded."),
    "529 overloaded": ("", "overloaded_error", "Overloaded."),
}
_ANTHROPIC: dict[str, Fields] = {
    "401 wrong key": ("", "authentication_error", "invalid x-api-key"),
    "403 forbidden": ("", "permission_error", "Your API key does not have permission to use the resource."),
    "404 no such model": ("", "not_found_error", "model: m"),
    "400 prompt too long": ("", "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    "400 filtered": ("", "invalid_request_error", "Output blocked by content filtering policy"),
    "413 too large": ("", "request_too_large", "Request exceeds the maximum size"),
    "429 with Retry-After": ("", "rate_limit_error", "This request would exceed your rate limit."),
    "429 without": ("", "rate_limit_error", "This request would exceed your rate limit."),
    "quota used up": ("", "invalid_request_error", "Your credit balance is too low to access the API."),
    "500 fault": ("", "api_error", "Internal server error"),
    "503 unavailable": ("", "overloaded_error", "Service unavailable"),
    "529 overloaded": ("", "overloaded_error", "Overloaded"),
}
_GOOGLE: dict[str, Fields] = {
    "401 wrong key": ("ACCESS_TOKEN_EXPIRED", "UNAUTHENTICATED", "Request had invalid authentication credentials."),
    "403 forbidden": ("IAM_PERMISSION_DENIED", "PERMISSION_DENIED", "Permission denied on resource."),
    "404 no such model": ("", "NOT_FOUND", "models/m is not found for API version v1beta."),
    "400 prompt too long": ("", "INVALID_ARGUMENT", "The input token count exceeds the maximum number of tokens."),
    "400 filtered": ("", "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "413 too large": ("", "INVALID_ARGUMENT", "Request payload size exceeds the limit."),
    "429 with Retry-After": ("", "RESOURCE_EXHAUSTED", "Resource has been exhausted."),
    "429 without": ("", "RESOURCE_EXHAUSTED", "Resource has been exhausted."),
    "quota used up": ("BILLING_DISABLED", "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
    "500 fault": ("", "INTERNAL", "An internal error has occurred."),
    "503 unavailable": ("", "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "529 overloaded": ("", "UNAVAILABLE", "The model is overloaded."),
}
_AWS: dict[str, Fields] = {
    "401 wrong key": ("", "UnrecognizedClientException", "The security token included in the request is invalid."),
    "403 forbidden": ("", "AccessDeniedException", "You are not authorized to perform this action."),
    "404 no such model": ("", "ResourceNotFoundException", "Could not resolve the foundation model."),
    "400 prompt too long": ("", "ValidationException", "Input is too long for requested model."),
    "400 filtered": ("", "ValidationException", "Output blocked by content filtering policy"),
    "413 too large": ("", "ValidationException", "The request payload is too large."),
    "429 with Retry-After": ("", "ThrottlingException", "Too many requests, please wait before trying again."),
    "429 without": ("", "ThrottlingException", "Too many requests, please wait before trying again."),
    "quota used up": ("", "ServiceQuotaExceededException", "Too many tokens per day, please wait."),
    "500 fault": ("", "InternalServerException", "The system encountered an unexpected error."),
    "503 unavailable": ("", "ServiceUnavailableException", "Bedrock is unable to process your request."),
    "529 overloaded": ("", "ModelNotReadyException", "The model is not ready."),
}
_WORDS: dict[str, Fields] = {
    "401 wrong key": ("", "", "invalid api token"),
    "403 forbidden": ("", "", "access denied"),
    "404 no such model": ("", "", "model 'm' not found"),
    "400 prompt too long": ("", "", "too many tokens: size limit exceeded by 4000 tokens"),
    "400 filtered": ("", "", "the request was blocked by our content policy"),
    "413 too large": ("", "", "request body too large"),
    "429 with Retry-After": ("", "", "too many requests"),
    "429 without": ("", "", "too many requests"),
    "quota used up": ("", "", "insufficient balance"),
    "500 fault": ("", "", "internal server error"),
    "503 unavailable": ("", "", "server busy"),
    "529 overloaded": ("", "", "server busy"),
}

SHAPES: dict[str, Shape] = {
    "OpenAI": Shape(_openai, _OPENAI),
    "Anthropic": Shape(_anthropic, _ANTHROPIC, {"quota used up": 400}),
    "Google": Shape(_google, _GOOGLE),
    "AWS": Shape(_aws, _AWS, {"401 wrong key": 403, "quota used up": 400}),
    "Ollama": Shape(_plain, _WORDS, {"quota used up": 402}),
    "Cohere": Shape(_flat, _WORDS, {"quota used up": 402}),
    "Mistral": Shape(
        _mistral, {**_WORDS, "404 no such model": ("", "invalid_model", "Invalid model: m")}, {"quota used up": 402}
    ),
}

OF_DIALECT = {
    "anthropic_messages": "Anthropic",
    "bedrock_converse": "AWS",
    "bedrock_invoke": "AWS",
    "cohere_chat": "Cohere",
    "gemini": "Google",
    "ollama_chat": "Ollama",
    "openai_chat": "OpenAI",
    "openai_responses": "OpenAI",
}
"""The shape of a dialect's errors."""

OF_PROVIDER = {"mistral": "Mistral", "venice": "Ollama"}
"""The hosts whose errors have another shape than their dialect's."""

UNSAID = {
    ("Ollama", "400 filtered"),
    ("Cohere", "400 filtered"),
    ("Mistral", "400 filtered"),
    ("Google", "400 filtered"),
}
"""Faults that a vendor has no telling error for: a plain `BadRequest` is what can be known."""


def answer(shape: str, fault: str) -> Answer:
    """Give the response of a fault that is a status."""
    status = SHAPES[shape].statuses.get(fault, STATUSES[fault].status)
    headers, body = SHAPES[shape].write(status, SHAPES[shape].fields[fault])
    after = {"retry-after": "7"} if fault == "429 with Retry-After" else {}
    return Answer(status, {"content-type": "application/json", **headers, **after}, json.dumps(body).encode())


# --- inside a stream -----------------------------------------------------------------------------


def _sse(body: object, name: str = "") -> bytes:
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {json.dumps(body)}\n\n".encode()


def _message(headers: Mapping[str, str], body: object) -> bytes:
    """Give a message of an AWS event stream (the frame of the SDKs' `application/vnd.amazon.eventstream`)."""
    written = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    payload = json.dumps(body).encode()
    prelude = struct.pack(">II", 16 + len(written) + len(payload), len(written))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    whole = prelude + written + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


_THROTTLED = _message(
    {":message-type": "exception", ":exception-type": "throttlingException", ":content-type": "application/json"},
    {"message": "Too many tokens, please wait before trying again."},
)

MIDSTREAM: dict[str, tuple[bytes, type[LoomstreamError]]] = {
    "anthropic_messages": (
        _sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error"),
        Overloaded,
    ),
    "bedrock_converse": (_THROTTLED, RateLimited),
    "bedrock_invoke": (_THROTTLED, RateLimited),
    "cohere_chat": (
        _sse({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "the model failed"}}, "message-end"),
        ServerFault,
    ),
    "gemini": (
        _sse({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}),
        Overloaded,
    ),
    "ollama_chat": (b'{"error":"an error was encountered while running the model"}\n', ServerFault),
    "openai_chat": (_sse({"error": {"message": "The server had an error.", "type": "server_error"}}), ServerFault),
    "openai_responses": (
        _sse({"type": "error", "code": "server_error", "message": "The server had an error.", "param": None}, "error"),
        ServerFault,
    ),
}
"""An error inside a stream of each dialect, and what it becomes."""
