"""What a wire cannot honour of a request: one table of sentences for all dialects.

Contract: pure. A dialect names the fields that it honours; of the others, each one that the request sets gives its
sentence. Fields that every wire has, and those whose support differs by model, are the dialects' own business.
"""

from __future__ import annotations

from collections.abc import Collection

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


def unhonoured(request: Request, honoured: Collection[str]) -> list[str]:
    """Give a sentence for each optional field that the request sets and that is not among the honoured ones."""
    return [
        f"{name} is not sent: this wire has none"
        for name, unset in _UNSET.items()
        if name not in honoured and getattr(request, name) != unset
    ]
