"""Token counts of Anthropic-shaped hosts.

`input_tokens` excludes cache reads and writes on this wire already, and `output_tokens` includes thinking. Every usage
object is cumulative: a field that comes again replaces the earlier figure, it is never added. Fields that do not come
again keep theirs. `iterations` (compaction, advisor, fallback) stay in `raw`.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw as RawJSON

from loomstream.dialects.bodies import members
from loomstream.dialects.fields import Counter, JSONObject, as_object, is_null
from loomstream.events import Usage
from loomstream.wire.json import loads


class UsageFold:
    """The usage of one message so far."""

    def __init__(self) -> None:
        self._fields: JSONObject = {}
        self._raw: dict[str, RawJSON] = {}

    def add(self, raw: RawJSON) -> list[str]:
        """Take a usage object; give the names of its mistyped fields."""
        value = loads(raw)
        fields = as_object(value)
        self._fields |= {name: field for name, field in fields.items() if field is not None}
        self._raw |= {name: field for name, field in members(raw).items() if not is_null(field)}
        counter = Counter(fields)
        _counts(counter)
        return counter.mistyped if isinstance(value, dict) else ["usage"]

    def usage(self, *, final: bool = False) -> Usage | None:
        """Give the usage, or None where the provider has sent none."""
        if not self._fields:
            return None
        counts = _counts(Counter(self._fields))
        return msgspec.structs.replace(counts, final=final, raw=RawJSON(msgspec.json.encode(self._raw)))


def _counts(counter: Counter) -> Usage:
    short = counter.get("cache_creation.ephemeral_5m_input_tokens") or 0
    long = counter.get("cache_creation.ephemeral_1h_input_tokens") or 0
    written = counter.get("cache_creation_input_tokens")
    written = short + long if written is None else written
    return Usage(
        input_tokens=counter.get("input_tokens") or 0,
        output_tokens=counter.get("output_tokens") or 0,
        cache_read_tokens=counter.get("cache_read_input_tokens") or 0,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(long, written),
        reasoning_tokens=counter.get("output_tokens_details.thinking_tokens") or 0,
    )
