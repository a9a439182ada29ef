"""What a model has where no middleware is named: the one place that says which, and in which order.

Contract: outermost first. `cost` counts what comes out of the tries; `retry` makes them; each try waits for its turn in
`rate_limit`, so that retries count against it too; `timeout` states the limits of each try. Another order is as legal:
a `rate_limit` outside of `retry` lets a call's retries pass at once, a `timeout` outside of it holds all of them to one
total.

All models of one provider, account and model in a process share one stack: their calls wait in one line, and an outage
that they all meet is not amplified by the number of objects that a program made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from loomstream.handler import Middleware
from loomstream.middleware.cost import AS_NAMED, Pricing, cost
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.retry import retry
from loomstream.middleware.timeout import timeout
from loomstream.providers import Provider, look_up

MOST_SHARED = 1_024
"""So many stacks are remembered; the one that was asked for longest ago is forgotten, and begun anew when asked for."""

Stack = tuple[Middleware, Middleware, Middleware, Middleware]
"""Cost, retry, rate limit and timeout."""

_lock = threading.Lock()
_shared: OrderedDict[tuple[object, ...], Stack] = OrderedDict()


def default_middleware(
    provider: str | Provider,
    model: str,
    account: str = "",
    *,
    retries: Mapping[str, object] | None = None,
    limits: Mapping[str, object] | None = None,
    pricing: Pricing = AS_NAMED,
) -> Stack:
    """Give cost, retry, rate limit and timeout, outermost first: the same for the same provider, model and account.

    The requests per minute are those of the provider's row, until the provider's headers say otherwise. `account` tells
    those apart who have limits of their own. `retries` are arguments of `retry`, `limits` of `rate_limit`. `pricing`
    says how the catalog is asked for prices.

    Raises `UnknownProvider` for a name that no row has, `ConfigError` for what `retry` and `rate_limit` refuse.
    """
    row = look_up(provider) if isinstance(provider, str) else provider
    retries, limits = dict(retries or {}), dict(limits or {})
    key = (row.name, row.requests_per_minute, model, account, pricing, *_marks(retries), *_marks(limits))
    with _lock:
        found = _shared.get(key)
        if found is None:
            found = _shared[key] = _made(row, model, account, retries, limits, pricing)
        _shared.move_to_end(key)
        if len(_shared) > MOST_SHARED:
            _shared.popitem(last=False)
    return found


def _marks(options: Mapping[str, object]) -> tuple[object, ...]:
    return (len(options), *sorted(options.items()))


def _made(
    row: Provider, model: str, account: str, retries: dict[str, Any], limits: dict[str, Any], pricing: Pricing
) -> Stack:
    return (
        cost(row.name, model, pricing=pricing),
        retry(**retries),
        rate_limit(row, model, account, **limits),
        timeout(),
    )
