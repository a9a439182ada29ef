"""Token counts of Responses, in one convention: the wire's input count includes cache reads and writes.

Source: https://platform.openai.com/docs/api-reference/responses/object, field `usage`.
"""

from __future__ import annotations

from msgspec import Raw as RawJSON

from loomstream.dialects.fields import Counter, freeze, is_null, read_object
from loomstream.events import Usage


def read_usage(raw: RawJSON) -> tuple[Usage | None, list[str]]:
    """Give the usage, or None where there are no counts, and the names of mistyped fields."""
    if is_null(raw):
        return None, []
    fields = read_object(raw)
    counter = Counter(fields)
    given, made = counter.get("input_tokens", "prompt_tokens"), counter.get("output_tokens", "completion_tokens")
    if given is None and made is None:
        return None, counter.mistyped or ["usage"]
    read = counter.get("input_tokens_details.cached_tokens", "prompt_tokens_details.cached_tokens") or 0
    write = counter.get("input_tokens_details.cache_write_tokens") or 0
    reasoning = counter.get("output_tokens_details.reasoning_tokens") or 0
    usage = Usage(
        input_tokens=max(0, (given or 0) - read - write),
        output_tokens=max(made or 0, reasoning),
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=reasoning,
        final=True,
        raw=freeze(raw),
    )
    return usage, counter.mistyped
