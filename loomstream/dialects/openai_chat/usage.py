"""Token counts of OpenAI-shaped hosts, in one convention.

The wire's prompt count includes cached tokens. Most hosts count reasoning within the completion; xAI does not, which
its total shows. Audio prompt tokens (Mistral) come on top of the prompt count, which the total shows too.
"""

from __future__ import annotations

from typing import Annotated, cast

import msgspec
from msgspec import Meta, Struct
from msgspec import Raw as RawJSON

from loomstream.dialects.fields import Counter, as_object, freeze
from loomstream.events import Usage
from loomstream.wire.json import loads

_CACHE_READ = (
    "prompt_tokens_details.cached_tokens",
    "input_tokens_details.cached_tokens",
    "prompt_cache_hit_tokens",  # DeepSeek
    "cache_read_input_tokens",
    "cached_tokens",
    "num_cached_tokens",  # Mistral
)
_CACHE_WRITE = ("prompt_tokens_details.cache_write_tokens", "cache_creation_input_tokens")
_REASONING = (
    "completion_tokens_details.reasoning_tokens",
    "output_tokens_details.reasoning_tokens",
    "reasoning_tokens",
)


_Count = Annotated[int, Meta(ge=0)]


class _PromptDetails(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    cached_tokens: _Count | None = None
    audio_tokens: _Count | None = None


class _CompletionDetails(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    accepted_prediction_tokens: _Count | None = None
    rejected_prediction_tokens: _Count | None = None


class _Plain(Struct, gc=False, forbid_unknown_fields=True):
    """The object as OpenAI sends it. One with any other key, or of another type, is read field by field."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _PromptDetails = _PromptDetails()
    completion_tokens_details: _CompletionDetails = _CompletionDetails()


_plain = msgspec.json.Decoder(_Plain)


def read_usage(raw: RawJSON) -> tuple[Usage | None, list[str]]:
    """Give the usage, or None where the object holds no counts, and the names of mistyped fields."""
    try:
        counts = _plain.decode(raw)
    except ValueError:
        return _read_leniently(raw)
    prompt, completion = counts.prompt_tokens, counts.completion_tokens
    if counts.total_tokens > prompt + completion:
        return _read_leniently(raw)
    cached = counts.prompt_tokens_details.cached_tokens or 0
    reasoning = counts.completion_tokens_details.reasoning_tokens or 0
    usage = Usage(
        input_tokens=max(0, prompt - cached),
        output_tokens=max(completion, reasoning),
        cache_read_tokens=cached,
        reasoning_tokens=reasoning,
        raw=freeze(raw),
    )
    return usage, []


def _read_leniently(raw: RawJSON) -> tuple[Usage | None, list[str]]:
    read = loads(raw)
    if not isinstance(read, dict):
        return None, ["usage"]
    counter = Counter(as_object(cast("object", read)))
    prompt = counter.get("prompt_tokens", "input_tokens")
    completion = counter.get("completion_tokens", "output_tokens")
    total = counter.get("total_tokens")
    if prompt is None and completion is None and total is None:
        return None, counter.mistyped
    prompt = prompt if prompt is not None else max(0, (total or 0) - (completion or 0))
    completion = completion if completion is not None else max(0, (total or 0) - prompt)
    cached = counter.get(*_CACHE_READ) or 0
    write = counter.get(*_CACHE_WRITE) or 0
    reasoning = counter.get(*_REASONING) or 0
    beside = (total or 0) - prompt - completion
    if beside > 0:
        if beside == counter.get("prompt_tokens_details.audio_tokens"):
            prompt += beside
        else:
            completion += beside
    usage = Usage(
        input_tokens=max(0, prompt - cached - write),
        output_tokens=max(completion, reasoning),
        cache_read_tokens=cached,
        cache_write_tokens=write,
        cache_write_1h_tokens=counter.get("cache_creation.ephemeral_1h_input_tokens") or 0,
        reasoning_tokens=reasoning,
        raw=freeze(raw),
    )
    return usage, counter.mistyped
