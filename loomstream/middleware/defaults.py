"""The stacks of middleware that loomstream knows: the one place that says which, and in which order.

Contract: outermost first. `default_middleware` is what a model has where none is named: it counts, and repeats nothing.
`standard_middleware` is what a service wants: `cost` counts what comes out of the tries; `retry` makes them; each try
waits for its turn in `rate_limit`, so that retries count against it too; `timeout` states the limits of each try.
Another order is as legal: a `rate_limit` outside of `retry` lets a call's retries pass at once, a `timeout` outside of
it holds all of them to one total.
"""

from __future__ import annotations

from loomstream.handler import Middleware
from loomstream.middleware.cost import cost
from loomstream.middleware.rate_limit import rate_limit
from loomstream.middleware.retry import retry
from loomstream.middleware.timeout import timeout
from loomstream.providers import Provider, look_up


def default_middleware(provider: Provider, model: str) -> tuple[Middleware, ...]:
    """Give the middleware of a model where none is named."""
    return (cost(provider.name, model),)


def standard_middleware(provider: str | Provider, model: str) -> tuple[Middleware, ...]:
    """Give cost, retry, rate limit and timeout, outermost first, for `connect(middleware=…)`.

    The requests per minute are those of the provider's row, until the provider's headers say otherwise. Raises
    `UnknownProvider` for a name that no row has.
    """
    row = look_up(provider) if isinstance(provider, str) else provider
    return (cost(row.name, model), retry(), rate_limit(row, model), timeout())
