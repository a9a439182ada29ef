"""Token counts of Cohere-shaped hosts.

The wire counts twice. `tokens` is what the model read and wrote, with what the host itself puts around a prompt (1,508
tokens where 98 were billed, on a recorded tool call); `cached_tokens` is the part of that input which hit the cache,
and is larger than the billed input. `billed_units` is what is charged
(https://docs.cohere.com/docs/how-does-cohere-pricing-work). The counts here are the model's: they alone say how full
the context is, agree with the cache's count and with the reasoning's. Images come on top of the input tokens there: on
recorded requests input without them is the billed text and 495 or 496 tokens, with and without an image. Where `tokens`
is absent, the billed units stand in. `raw` keeps both.
"""

from __future__ import annotations

from msgspec import Raw as RawJSON

from loomstream.dialects.bodies import frozen
from loomstream.dialects.fields import Counter, as_object
from loomstream.events import Usage
from loomstream.wire.json import loads


def usage_of(raw: RawJSON) -> tuple[Usage | None, list[str]]:
    """Give the usage of a whole answer, and the names of its mistyped fields; None where there is none."""
    value = loads(raw)
    fields = as_object(value)
    if not fields:
        return None, [] if isinstance(value, dict) else ["usage"]
    counter = Counter(fields)
    prompt = counter.get("tokens.input_tokens", "billed_units.input_tokens") or 0
    prompt += counter.get("tokens.image_tokens") or 0
    cached = counter.get("cached_tokens") or 0
    reasoning = counter.get("tokens.reasoning_tokens") or 0
    usage = Usage(
        input_tokens=max(0, prompt - cached),
        output_tokens=max(counter.get("tokens.output_tokens", "billed_units.output_tokens") or 0, reasoning),
        cache_read_tokens=cached,
        reasoning_tokens=reasoning,
        final=True,
        raw=frozen(raw),
    )
    return usage, counter.mistyped
