"""Errors of Ollama's API: HTTP error bodies, and error lines inside a stream, with what to do about them.

Shape: `{"error": "text"}`, a line of which may end a stream that began with status 200. There are no codes: the words
tell what happened (https://docs.ollama.com/api/errors).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loomstream.dialects import Target
from loomstream.dialects.http_errors import error_fields, provider_error
from loomstream.errors import ProviderError
from loomstream.wire.json import loads

_ADVICE = (
    (
        re.compile(r"\bmodel\b.{0,300}\bnot found\b|\bpull(?:ing)? (?:it|the model) first", re.IGNORECASE),
        "run `ollama pull {model}` where the server runs, or choose a model that `ollama list` shows",
    ),
    (
        re.compile(r"does not support tools", re.IGNORECASE),
        "leave the tools out, or choose a model whose capabilities name tools (`ollama show {model}` lists them)",
    ),
    (
        re.compile(r"does not support thinking", re.IGNORECASE),
        "leave reasoning_effort and reasoning_budget_tokens out, or choose a model whose capabilities name thinking",
    ),
    (
        re.compile(r"does not support (?:chat|completion|generate)", re.IGNORECASE),
        "choose a model that can chat: this one makes embeddings",
    ),
    (
        re.compile(r"requires more (?:system )?memory", re.IGNORECASE),
        "choose a smaller model or quantization, or a smaller options.num_ctx in extra_body",
    ),
    (re.compile(r"\A404 page not found"), "the base URL must be the server's own address, as http://localhost:11434"),
)
"""The server's words to a remedy."""


def parse_error(status: int, headers: Mapping[str, str], body: bytes, target: Target) -> ProviderError:
    """Give the typed error of an error response, or (with status 200) of an error line inside a stream."""
    parsed = loads(body)
    code, kind, message = error_fields(parsed)
    said = message or body[:300].decode("utf-8", "replace").strip()
    advice = next((text for pattern, text in _ADVICE if pattern.search(said)), "")
    if advice:
        message = f"{said}: {advice.format(model=target.model)}"
    return provider_error(status, headers, code, message, body, target, kind=kind, parsed=parsed)
