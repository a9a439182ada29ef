"""Errors of AWS services: HTTP answers, and `exception` and `error` messages inside an event stream.

Contract: pure, and nothing here raises. Each error says in AWS's own words what happened and then which setting to
change. The class of an HTTP error stands in the header `x-amzn-errortype` (`Name:url`), in the body's `__type`
(`namespace#Name`) or nowhere; its words in `message` or `Message`. Knows no dialect. Source:
https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html, the operations' own errors in botocore's
model of `bedrock-runtime`, and recorded answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from loomstream.dialects import Target
from loomstream.dialects.fields import JSONObject, as_object, as_text, count_of
from loomstream.dialects.http_errors import classify, error_fields, provider_error
from loomstream.errors import (
    AuthFailed,
    ContentFiltered,
    Failure,
    ModelNotFound,
    ProviderError,
    QuotaExhausted,
    ServerFault,
)
from loomstream.wire import Frame
from loomstream.wire.aws import Headers
from loomstream.wire.json import loads

_OK = 200
_ERROR = 400
_ERROR_TYPE = "x-amzn-errortype"


class _Meaning(NamedTuple):
    """What an error is, where its name and status do not say so (None: they do), and what to do about it."""

    kind: type[ProviderError] | None
    hint: str


_CREDENTIALS = (
    "check access_key_id and secret_access_key, and session_token, which temporary credentials need; or set profile, "
    "or a bearer token as api_key"
)
_SIGNATURE = f"{_CREDENTIALS}; check the region setting and this machine's clock; a proxy may have changed the request"
_CLOCK = "this machine's clock differs from AWS's: set it right (NTP), as signatures hold for minutes only"
_MODEL = (
    "check the model id and the region setting; most newer models are called by the id of an inference profile "
    "(us., eu., apac. or global. before the model's id) or its ARN"
)
_ENABLE = (
    "enable access to the model for this account in the region that the region setting names (Bedrock console, Model "
    "access), and allow bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream in the IAM policy"
)
_QUOTA = "ask for a higher quota (Service Quotas), or use a cross-region inference profile as the model id"
_EXPIRED = "the credentials have expired: renew session_token, the profile's login (aws sso login) or the bearer token"

_BY_NAME: dict[str, _Meaning] = {
    "accessdeniedexception": _Meaning(AuthFailed, _ENABLE),
    "expiredtokenexception": _Meaning(AuthFailed, _EXPIRED),
    "expiredtoken": _Meaning(AuthFailed, _EXPIRED),
    "unrecognizedclientexception": _Meaning(AuthFailed, _CREDENTIALS),
    "invalidclienttokenid": _Meaning(AuthFailed, _CREDENTIALS),
    "invalidsignatureexception": _Meaning(AuthFailed, _SIGNATURE),
    "signaturedoesnotmatch": _Meaning(AuthFailed, _SIGNATURE),
    "incompletesignatureexception": _Meaning(AuthFailed, _CREDENTIALS),
    "missingauthenticationtokenexception": _Meaning(AuthFailed, f"no credential reached AWS: {_CREDENTIALS}"),
    "requesttimetooskewed": _Meaning(AuthFailed, _CLOCK),
    "requestexpired": _Meaning(AuthFailed, _CLOCK),
    "resourcenotfoundexception": _Meaning(ModelNotFound, _MODEL),
    "unknownoperationexception": _Meaning(ModelNotFound, "this endpoint has no such operation: check region, base_url"),
    "throttlingexception": _Meaning(None, _QUOTA),
    "servicequotaexceededexception": _Meaning(QuotaExhausted, _QUOTA),
    "modelerrorexception": _Meaning(ServerFault, ""),
    "modelnotreadyexception": _Meaning(None, "the model is being loaded: try again in a few minutes"),
    "modeltimeoutexception": _Meaning(ServerFault, "ask for a shorter answer (max_tokens), or stream it"),
}
_BY_WORDS: tuple[tuple[re.Pattern[str], _Meaning], ...] = tuple(
    (re.compile(words, re.IGNORECASE), meaning)
    for words, meaning in (
        (r"signature (?:expired|not yet current)|is now (?:earlier|later) than", _Meaning(AuthFailed, _CLOCK)),
        (r"(?:token|key) (?:\w+ ){0,6}expired", _Meaning(AuthFailed, _EXPIRED)),
        (r"per day\b", _Meaning(QuotaExhausted, _QUOTA)),
        (r"access to the model|model access is denied", _Meaning(ModelNotFound, _ENABLE)),
        (r"model identifier is invalid|on-demand throughput|end of its life", _Meaning(ModelNotFound, _MODEL)),
        (r"content filtering policy", _Meaning(ContentFiltered, "change the prompt")),
    )
)
"""What tells more than the name does: asked first."""
_NOTHING = _Meaning(None, "")
_MESSAGE_CHARS = 4096


def parse_error(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Give the typed error of an error response, whatever its body holds."""
    parsed = loads(body)
    code, kind, message = error_fields(parsed)
    outer = as_object(parsed)
    outer = as_object(outer.get("Output")) or outer
    said = next((value for name, value in headers.items() if name.lower() == _ERROR_TYPE), "")
    name = said.partition(":")[0] or as_text(outer.get("__type")).rpartition("#")[2] or code or kind
    return _error(status, headers, name.strip(), message or as_text(outer.get("Message")), body, target)


def fault(frame: Frame, headers: Headers, target: Target) -> Failure:
    """Give the typed error of a message whose `loomstream.wire.aws.fault_kind` is not empty.

    Its `status` is 200, which is what the response's head said.
    """
    fields = as_object(loads(frame.data))
    message = as_text(fields.get("message")) or as_text(fields.get("Message")) or as_text(headers.get(":error-message"))
    return Failure(_error(_OK, {}, frame.name, message, frame.data, target, fields))


def _error(
    status: int,
    headers: Mapping[str, str],
    name: str,
    message: str,
    body: bytes,
    target: Target,
    fields: JSONObject | None = None,
) -> ProviderError:
    meaning = _meaning(name, message)
    cause = fields or as_object(loads(body))
    original = as_text(cause.get("originalMessage"))
    words = f"{message} ({original})" if original and original != message else message
    known = _original(cause, words) or meaning.kind
    error = provider_error(status, headers, name, words, body, target, known=known)
    if meaning.hint:
        said = str(error)
        error.args = (f"{said}{'' if said.endswith('.') else '.'} {meaning.hint[0].upper()}{meaning.hint[1:]}.",)
    return error


def _meaning(name: str, message: str) -> _Meaning:
    for words, meaning in _BY_WORDS:
        if words.search(message[:_MESSAGE_CHARS]):
            return meaning
    return _BY_NAME.get(name.lower(), _NOTHING)


def _original(cause: JSONObject, words: str) -> type[ProviderError] | None:
    """Give the class of the error that the model itself answered AWS with, where it is told."""
    status = count_of(cause.get("originalStatusCode"))
    return classify(status, "", words) if status is not None and status >= _ERROR else None
