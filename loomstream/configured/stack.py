"""The middleware that a configuration names, in the order in which it works.

Contract: outermost first: what `observability` asks for, `cache`, what installed packages bring (in the file's order),
`failover`, then the default stack (`loomstream.middleware.defaults`: cost, retry, rate limit, timeout) with `budget`
and `circuit_breaker` inside of the retries, so that each try counts. A name is one of the table's or an entry point's;
nothing is imported by its path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from loomstream.config.settings import Named, Settings
from loomstream.config.table import MIDDLEWARE_NAMES
from loomstream.configured.choice import trusted
from loomstream.configured.plan import Plan, options_of
from loomstream.errors import ConfigError, LoomstreamError
from loomstream.handler import Handler, Middleware
from loomstream.kind_names import kind_of
from loomstream.middleware.budget import budget
from loomstream.middleware.cache import cache
from loomstream.middleware.cache_store import MemoryCache
from loomstream.middleware.candidates import Candidate
from loomstream.middleware.circuit_breaker import Circuit, circuit_breaker
from loomstream.middleware.cost import AS_NAMED, Pricing
from loomstream.middleware.defaults import default_middleware
from loomstream.middleware.failover import failover
from loomstream.middleware.resume import Resume
from loomstream.middleware.store import MemoryStore
from loomstream.middleware.timeout import timeout as timeout_of
from loomstream.providers import Provider, plugins
from loomstream.telemetry.configured import configured

_spent = MemoryStore()
"""Where all budgets of configurations are counted: those of one file are one budget."""


def fallbacks_of(settings: Settings) -> tuple[str, ...]:
    """Give who is asked next where a model fails: names of entries, or `provider:model-id`.

    Raises `ConfigError` where `failover` names nobody, and where the file of a working folder would have a host of its
    own asked.
    """
    failing_over = next((one for one in settings.middleware if one.name == "failover"), None)
    if failing_over is None:
        return ()
    named = cast("tuple[str, ...]", failing_over.options.get("to", ()))
    if not named:
        msg = f"{_place(failing_over)}: name who is asked next, as in to: [anthropic]"
        raise ConfigError(msg)
    return tuple(trusted(settings, name, "middleware.failover.to") for name in named)


class Site(NamedTuple):
    """What a stack is made for: the row with the limits that hold at its address, whom they are for, what it costs."""

    row: Provider
    model: str
    account: str = ""
    region: str = ""
    pricing: Pricing = AS_NAMED


def stack(settings: Settings, plan: Plan, site: Site, fallbacks: Sequence[Candidate] = ()) -> tuple[Middleware, ...]:
    """Give the middleware of a model; `fallbacks` answer where it fails.

    Raises `ConfigError` for what a middleware refuses, with the place in the file, and for a package's middleware that
    cannot be made.
    """
    cost, retry, limits, timeout = default_middleware(
        site.row, site.model, site.account, retries=plan.retries, limits=plan.limits, pricing=site.pricing
    )
    per_try = options_of(settings, "timeout").get("total_seconds")
    return (
        *configured(settings.observability, site.row.name, site.model),
        *_named(settings, _OUTER, site),
        *(_of_package(named) for named in settings.middleware if named.name not in MIDDLEWARE_NAMES),
        *([_failing_over(settings, site, fallbacks)] if fallbacks else []),
        cost,
        retry,
        *_named(settings, _INNER, site),
        limits,
        timeout if per_try is None else timeout_of(total_s=cast("float", per_try)),
    )


_Make = Callable[[Settings, Mapping[str, Any], Site], Middleware]


def _named(settings: Settings, known: Mapping[str, _Make], site: Site) -> list[Middleware]:
    named = {one.name: one for one in settings.middleware}
    return [_made(settings, named[name], make, site) for name, make in known.items() if name in named]


def _made(settings: Settings, named: Named, make: _Make, site: Site) -> Middleware:
    try:
        return make(settings, named.options, site)
    except ConfigError as error:
        problem = str(error)
    msg = f"{_place(named)}: {problem}"
    raise ConfigError(msg, provider=site.row.name, model=site.model)


def _place(named: Named) -> str:
    return f"{named.where or 'the environment'}: middleware.{named.name}"


def _cache(settings: Settings, options: Mapping[str, Any], site: Site) -> Middleware:
    del settings
    kept = {"ttl_s": options.get("ttl_seconds"), "max_entries": options.get("max_entries")}
    store = MemoryCache(**{name: value for name, value in kept.items() if value is not None})
    return cache(site.row.name, site.model, store=store, scope=site.account, sampled=bool(options.get("sampled")))


def _budget(settings: Settings, options: Mapping[str, Any], site: Site) -> Middleware:
    name = f"budget:{settings.file}"
    given: dict[str, Any] = {"per": "total", **options}
    pricing = site.pricing
    asked = site.model if pricing.by_request else f"the deployment {site.model}"  # whose name tells no price
    provider, model = pricing.provider or site.row.name, pricing.base_model or asked
    return budget(provider, model, store=_spent, name=name, **given)


def _circuit(settings: Settings, options: Mapping[str, Any], site: Site) -> Middleware:
    del settings, site
    given = {name.replace("_seconds", "_s"): value for name, value in options.items()}
    return circuit_breaker(Circuit(**given))


_OUTER: Mapping[str, _Make] = {"cache": _cache}
_INNER: Mapping[str, _Make] = {"budget": _budget, "circuit_breaker": _circuit}


def _failing_over(settings: Settings, site: Site, fallbacks: Sequence[Candidate]) -> Middleware:
    named = next(one for one in settings.middleware if one.name == "failover")
    resume = cast("Resume", named.options.get("resume", "off"))

    def wrap(handler: Handler) -> Handler:
        own = Candidate(f"{site.row.name}:{site.model}", handler, site.row.name, site.model, site.region)
        try:
            return failover([own, *fallbacks], resume=resume)
        except ConfigError as error:
            problem = str(error)
        msg = f"{_place(named)}: {problem}"
        raise ConfigError(msg, provider=site.row.name, model=site.model)

    return wrap


def _of_package(named: Named) -> Middleware:
    """Give the middleware that an installed package makes of its options."""
    make = cast("Callable[..., object]", plugins.middleware(named.name))
    try:
        made = make(**named.options)
    except LoomstreamError:
        raise
    except Exception as error:
        msg = f"{named.where}: middleware.{named.name}: it raised {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
    if not callable(made):
        msg = f"{named.where}: middleware.{named.name}: it gave {kind_of(made)}, no middleware"
        raise ConfigError(msg)
    return cast("Middleware", made)
