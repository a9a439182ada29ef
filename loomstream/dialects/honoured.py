"""What a wire cannot honour of a request: one table of sentences for all dialects.

Contract: pure. A dialect names the fields that it honours; of the others, each one that the request sets gives its
sentence. Fields that every wire has, and those whose support differs by model, are the dialects' own business; what
several of them say of those stands here too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from operator import attrgetter

from loomstream.messages import Request

_UNSET: dict[str, object] = {
    "logprobs": None,
    "output": None,
    "cache_prompt": None,
    "prompt_cache_key": "",
    "cached_content": "",
    "metadata": {},
    "end_user_id": "",
    "service_tier": "",
    "latency": None,
    "prediction": "",
    "keep_alive_s": None,
    "context_tokens": None,
    "routing": "",
}
"""The optional fields, and what they are where the request does not set them."""
_values: Callable[[Request], tuple[object, ...]] = attrgetter(*_UNSET)
_PLAIN = tuple(_UNSET.values())

BUDGET_FIRST = "reasoning_effort is not sent: reasoning_budget_tokens is given too"
"""For wires that take one of the two."""

NO_CACHE_TIME = "the time for which to cache is not sent: this host keeps what it caches for at least 30 minutes"
"""For hosts that know cache points, and one time for them all."""


def unhonoured(request: Request, honoured: Collection[str]) -> list[str]:
    """Give a sentence for each optional field that the request sets and that is not among the honoured ones."""
    values = _values(request)
    if values == _PLAIN:
        return []
    return [
        f"{name} is not sent: this wire has none"
        for name, value, unset in zip(_UNSET, values, _PLAIN, strict=True)
        if name not in honoured and value != unset
    ]
