"""Token counts of Converse.

`inputTokens` excludes cache reads and writes on this wire already, `outputTokens` includes reasoning. Some hosts send
the cache figures under a second name (`…TokenCount`) beside the first. `cacheDetails` splits the writes by lifetime.
"""

from __future__ import annotations

from msgspec import Raw as RawJSON

from loomstream.dialects.bodies import frozen
from loomstream.dialects.fields import Counter, as_list, as_object, as_text, count_of
from loomstream.events import Usage
from loomstream.wire.json import loads

_LONG = "1h"


def read_usage(raw: RawJSON) -> tuple[Usage, list[str]]:
    """Give the usage, and the names of its mistyped fields."""
    value = loads(raw)
    counter = Counter(as_object(value))
    long, written = _written_long(counter), counter.get("cacheWriteInputTokens", "cacheWriteInputTokenCount") or 0
    usage = Usage(
        input_tokens=counter.get("inputTokens") or 0,
        output_tokens=counter.get("outputTokens") or 0,
        cache_read_tokens=counter.get("cacheReadInputTokens", "cacheReadInputTokenCount") or 0,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(long, written),
        raw=frozen(raw),
    )
    return usage, counter.mistyped if isinstance(value, dict) else ["usage"]


def _written_long(counter: Counter) -> int:
    details = [as_object(item) for item in as_list(counter.usage.get("cacheDetails"))]
    return sum(count_of(item.get("inputTokens")) or 0 for item in details if as_text(item.get("ttl")) == _LONG)
