"""Requests to InvokeModel: Messages bodies, for another address.

Contract: that of `loomstream.dialects.anthropic_messages.request`, which writes the body. Beta features, which
Anthropic's own API takes as the header `anthropic-beta`, go into the body. Labels, latency and service tier are headers
here, as guardrails are: `x-amzn-bedrock-guardrailidentifier` and the like go by `extra_headers`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from loomstream.dialects import Target, anthropic_messages, host_headers
from loomstream.dialects.aws_metadata import checked_metadata
from loomstream.dialects.bodies import encode_body, merge
from loomstream.dialects.honoured import unhonoured
from loomstream.messages import Request
from loomstream.wire import WireRequest
from loomstream.wire.aws import MEDIA_TYPE

HONOURED = frozenset({"output", "cache_prompt", "metadata", "service_tier", "latency"})
"""The optional fields of a request (see `loomstream.dialects.honoured`) that this wire has a place for."""

API_VERSION = "bedrock-2023-05-31"
"""The only version of the body's form."""

DEFAULT_MAX_TOKENS = 4096
"""The limit on output tokens, which the body must have, where neither the request nor the host's row has one."""

_BETA = "anthropic-beta"
_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_STREAM_HEADERS = {
    "content-type": "application/json",
    "accept": f"{MEDIA_TYPE}, application/json",
    "x-amzn-bedrock-accept": "application/json",
}


def build_request(request: Request, target: Target) -> WireRequest:
    """Give the wire request for `POST {base_url}/model/{model}/invoke-with-response-stream`, or `/invoke`.

    The model is an id, the id of an inference profile or an ARN; it is percent-encoded. Raises `RequestError` where
    the body cannot be written as JSON or a label cannot be kept, `Unsupported`, with its place, for an image or a
    document by URL or of an unknown type.
    """
    betas, headers = _split_betas(request.extra_headers)
    extra_body = merge({"anthropic_beta": betas}, request.extra_body) if betas else request.extra_body
    plain = msgspec.structs.replace(
        request,
        extra_headers={},
        extra_body=extra_body,
        metadata={},
        service_tier="",
        latency=None,
        end_user_id="",
    )
    written = anthropic_messages.build_request(plain, _inner(target))
    own = _STREAM_HEADERS if request.stream else _HEADERS
    return msgspec.structs.replace(
        written,
        headers={**own, **_options(request), **host_headers(target), **headers},
        warnings=tuple(dict.fromkeys((*written.warnings, *unhonoured(request, HONOURED)))),
    )


def _options(request: Request) -> dict[str, str]:
    """Give the options that are headers. Source: `InvokeModelRequest` of the API's service model."""
    metadata = checked_metadata(request.metadata)
    options = {
        "x-amzn-bedrock-performanceconfig-latency": request.latency or "",
        "x-amzn-bedrock-service-tier": request.service_tier,
        "x-amzn-bedrock-request-metadata": encode_body(metadata, {}).decode() if metadata else "",
    }
    return {name: value for name, value in options.items() if value}


def _inner(target: Target) -> Target:
    quirks = target.quirks
    quirks = msgspec.structs.replace(
        quirks,
        anthropic_version=quirks.anthropic_version or API_VERSION,
        model_in_body=False,
        stream_in_body=False,
        url_sources=False,
        path=quirks.path or "/model/{model}/invoke",
        stream_path=quirks.stream_path or "/model/{model}/invoke-with-response-stream",
        needs_max_tokens=quirks.needs_max_tokens or DEFAULT_MAX_TOKENS,
    )
    return msgspec.structs.replace(target, quirks=quirks)


def _split_betas(headers: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Give the beta features that the headers name, and the other headers."""
    named = [value for name, value in headers.items() if name.lower() == _BETA]
    betas = [beta.strip() for value in named for beta in value.split(",") if beta.strip()]
    return betas, {name: value for name, value in headers.items() if name.lower() != _BETA}
