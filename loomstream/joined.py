"""Several models as one: failover, balance, hedge, experiment, shadow and route over models instead of handlers.

    async with joined.failover("anthropic:claude-sonnet-4-5", "openai:gpt-4o", "local") as model:
        async with model.stream("Why is the sky blue?") as stream: …

Contract: each function takes specs as `connect` does, models, or `Candidate`s, and gives a `JoinedModel`, which streams
as a model does and may be joined again. Closing it closes the models that it made from specs; those that were given
stay the caller's. What a call costs is told by the model that answers, by its own provider and prices. The combinators
themselves are in `loomstream.middleware`; here is only what makes models of handlers.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from decimal import Decimal
from functools import partial
from typing import Protocol, Unpack, cast

import msgspec

from loomstream import catalog
from loomstream.asking import Asking
from loomstream.endpoint import closed_error
from loomstream.errors import UsageError
from loomstream.events import Cost, Event, Usage
from loomstream.handler import Handler, Middleware, compose, listed
from loomstream.kind_names import kind_of
from loomstream.messages import Prompt, Request, RequestOptions, check_options, make_request
from loomstream.middleware import balance as balancing
from loomstream.middleware import experiment as experimenting
from loomstream.middleware import failover as failing_over
from loomstream.middleware import hedge as hedging
from loomstream.middleware import route as routing
from loomstream.middleware.candidates import Candidate, Place, Placed, places_of
from loomstream.middleware.cost import cost_of
from loomstream.middleware.experiment import COPY_LIMIT_S, MOST_COPIES, Key, Shadows, key_of_request
from loomstream.middleware.failover import When, elsewhere
from loomstream.middleware.outcomes import Observer
from loomstream.middleware.resume import Resume
from loomstream.model import Model, connect
from loomstream.stream import Stream
from loomstream.tools import with_output, with_tools

__all__ = ("JoinedModel", "balance", "experiment", "failover", "hedge", "route", "shadow")

_PLAIN = Request(messages=())
_ACROSS_REGIONS = re.compile(r"\A(us-gov|us|eu|apac|jp|au|global)\.[a-z]")
"""Inference profiles of Amazon Bedrock compute in several regions; the beginning of their ids says where."""


class AnyModel(Protocol):
    """What can be joined: a `Model`, a joined one, a scripted one."""

    @property
    def provider(self) -> str:
        """The provider's name."""
        ...

    @property
    def model(self) -> str:
        """The model's id."""
        ...

    @property
    def handler(self) -> Handler:
        """Request to events."""
        ...


Part = str | AnyModel | Candidate
"""A spec (`provider:model-id`), a model, or a handler under a name."""


class JoinedModel(Asking):
    """Several models as one; see the module's contract. Safe to use for many streams at once."""

    def __init__(
        self,
        kind: str,
        parts: _Parts,
        handler: Handler,
        middleware: Sequence[Middleware],
        request_defaults: RequestOptions,
    ) -> None:
        self._kind = kind
        self._parts = parts
        self._combinator = handler
        self._handler = Placed(compose(handler, *listed(middleware)), places_of(handler))
        self._defaults: RequestOptions = with_output(with_tools(request_defaults))
        check_options(cast("Mapping[str, object]", self._defaults))
        self._closed = False

    @property
    def provider(self) -> str:
        """How the models are joined: `failover`, `balance` and so on."""
        return self._kind

    @property
    def model(self) -> str:
        """The names of the models, with commas between them."""
        return ", ".join(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, as notices, weights and outcomes use them.

        Each is `provider:model`, with a number behind a second one of the same name.
        """
        return tuple(candidate.name for candidate in self._parts.candidates)

    @property
    def handler(self) -> Handler:
        """Request to events: the building block of combinators."""
        return self._handler

    @property
    def combinator(self) -> Handler:
        """The combinator's own handler, for what it knows: `Balance.load`, `Route.decide`."""
        return self._combinator

    @property
    def places(self) -> tuple[Place, ...]:
        """Where requests may go; empty where one of the models does not say."""
        return self._handler.places

    @property
    def request_defaults(self) -> RequestOptions:
        """What was given for every request; `handler` does not know of it."""
        return self._defaults

    def __repr__(self) -> str:
        return f"<JoinedModel {self._kind}({self.model})>"

    async def aclose(self) -> None:
        """Close the models that were made from specs; safe to call again."""
        self._closed = True
        async with AsyncExitStack() as stack:
            for model in self._parts.made:
                stack.push_async_callback(model.aclose)

    def stream(self, prompt: Prompt, **options: Unpack[RequestOptions]) -> Stream:
        """Give the stream of an answer; nothing is sent before it is read. As `Model.stream`.

        Options win over the defaults given here, and these over the defaults of the models themselves.
        """
        if self._closed:
            raise closed_error()
        request = make_request(prompt, {**self._defaults, **with_output(with_tools(options))})
        return Stream(
            self._handler,
            request,
            cost_of=partial(self._cost_of, max_tokens=request.max_tokens),
            provider=self.provider,
            model=self.model,
        )

    def _cost_of(self, provider: str, model: str, usage: Usage | None, *, max_tokens: int | None) -> Cost:
        asked = [candidate.model for candidate in self._parts.candidates if candidate.provider == provider]
        requested_model = asked[0] if len(asked) == 1 else ""
        return cost_of(provider, model, usage, max_tokens=max_tokens, requested_model=requested_model)


# --- parts ---------------------------------------------------------------------------------------


class _Parts:
    """The candidates, and the models that were made for them."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.made: list[Model] = []
        self.candidates: list[Candidate] = []
        for part in parts:
            candidate = self._candidate(part)
            self.candidates.append(candidate._replace(name=self._unused(candidate.name)))

    def _candidate(self, part: Part) -> Candidate:
        if isinstance(part, Candidate):
            return part
        if isinstance(part, str):
            part = connect(part)
            self.made.append(part)
        if not callable(getattr(part, "handler", None)):
            msg = f"{kind_of(part)} cannot be joined: give a spec, as in 'openai:gpt-4o', a model or a Candidate"
            raise UsageError(msg)
        handler = _prepared(part)
        if isinstance(part, JoinedModel):
            return Candidate(f"{part.provider}({part.model})", handler)
        return Candidate(f"{part.provider}:{part.model}", handler, part.provider, part.model, _region(part))

    def _unused(self, name: str) -> str:
        taken = {candidate.name for candidate in self.candidates}
        names = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 3)))
        return next(each for each in names if each not in taken)


def _region(model: AnyModel) -> str:
    region: str = getattr(model, "region", "")
    across = _ACROSS_REGIONS.match(model.model)
    return across[1] if region and across else region


def _prepared(model: AnyModel) -> Handler:
    """Give the model's handler with what its own `stream` does to a request: its defaults, and not to stream."""
    defaults = cast("Mapping[str, object]", getattr(model, "request_defaults", {}))
    given = make_request("defaults", cast("RequestOptions", defaults)) if defaults else _PLAIN
    entry = catalog.look_up(model.provider, model.model)
    whole = entry is not None and entry.streaming is False and "stream" not in defaults
    if not defaults and not whole:
        return model.handler
    handler = model.handler

    def prepared(request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        unset = {name for name in defaults if getattr(request, name) == getattr(_PLAIN, name)}
        changes = {name: getattr(given, name) for name in unset}
        return handler(msgspec.structs.replace(request, **changes, **({"stream": False} if whole else {})))

    return Placed(prepared, places_of(handler))


# --- joining -------------------------------------------------------------------------------------


def _join(
    kind: str,
    parts: Sequence[Part],
    combine: Callable[[Sequence[Candidate]], Handler],
    middleware: Sequence[Middleware],
    request_defaults: RequestOptions,
) -> JoinedModel:
    made = _Parts(parts)
    return JoinedModel(kind, made, combine(made.candidates), middleware, request_defaults)


def failover(
    *parts: Part,
    when: When = elsewhere,
    resume: Resume = "off",
    middleware: Sequence[Middleware] = (),
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
    **request_defaults: Unpack[RequestOptions],
) -> JoinedModel:
    """Give the model that asks these in order until one begins to answer.

    Each does its own retries first. `when`, `resume` and the allowed places are those of
    `loomstream.middleware.failover`; `middleware`, outermost first, is around all. Raises what that and `connect`
    raise.
    """
    combine = partial(
        failing_over.failover,
        when=when,
        resume=resume,
        allowed_providers=allowed_providers,
        allowed_regions=allowed_regions,
    )
    return _join("failover", parts, combine, middleware, request_defaults)


def balance(
    *parts: Part,
    strategy: balancing.Strategy = "round_robin",
    weights: Mapping[str, float] | None = None,
    when: When = elsewhere,
    middleware: Sequence[Middleware] = (),
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
    **request_defaults: Unpack[RequestOptions],
) -> JoinedModel:
    """Give the model that spreads calls over these; all but `lowest_cost` as in `loomstream.middleware.balance`.

    `weights` are by name, as `JoinedModel.names` has them. `lowest_cost` goes by the catalog's prices. Raises what that
    and `connect` raise.
    """

    def combine(candidates: Sequence[Candidate]) -> Handler:
        by_name = {candidate.name: candidate for candidate in candidates}

        def cost_of_call(name: str, request: Request) -> Decimal | None:
            return routing.estimated_cost(by_name[name].provider, by_name[name].model, request)

        return balancing.balance(
            candidates,
            strategy,
            weights=weights,
            cost_of=cost_of_call,
            when=when,
            allowed_providers=allowed_providers,
            allowed_regions=allowed_regions,
        )

    return _join("balance", parts, combine, middleware, request_defaults)


def hedge(
    *parts: Part,
    delay_s: float = 2.0,
    quantile: float | None = None,
    when: When = elsewhere,
    middleware: Sequence[Middleware] = (),
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
    **request_defaults: Unpack[RequestOptions],
) -> JoinedModel:
    """Give the model that asks the next of these where one is slow; as in `loomstream.middleware.hedge`.

    The same spec twice is a second attempt at the same model. Raises what that and `connect` raise.
    """
    combine = partial(
        hedging.hedge,
        delay_s=delay_s,
        quantile=quantile,
        when=when,
        allowed_providers=allowed_providers,
        allowed_regions=allowed_regions,
    )
    return _join("hedge", parts, combine, middleware, request_defaults)


def experiment(
    *parts: Part,
    name: str = "",
    weights: Mapping[str, float] | None = None,
    key: Key = key_of_request,
    observer: Observer | None = None,
    middleware: Sequence[Middleware] = (),
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
    **request_defaults: Unpack[RequestOptions],
) -> JoinedModel:
    """Give the model that splits calls over these by a key; as in `loomstream.middleware.experiment`.

    `weights` are by name, as `JoinedModel.names` has them. Raises what that and `connect` raise.
    """
    combine = partial(
        experimenting.experiment,
        name=name,
        weights=weights,
        key=key,
        observer=observer,
        allowed_providers=allowed_providers,
        allowed_regions=allowed_regions,
    )
    return _join("experiment", parts, combine, middleware, request_defaults)


def shadow(  # noqa: PLR0913 (as the combinator)
    *parts: Part,
    share: float = 1.0,
    observer: Observer | None = None,
    shadows: Shadows | None = None,
    limit_s: float = COPY_LIMIT_S,
    most: int = MOST_COPIES,
    middleware: Sequence[Middleware] = (),
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
    **request_defaults: Unpack[RequestOptions],
) -> JoinedModel:
    """Give the first model, with a copy of each call to the others; as `loomstream.middleware.experiment.shadow`.

    Leave the `shadows` before the model: their copies need it. Raises what that and `connect` raise.
    """
    combine = partial(
        experimenting.shadow,
        share=share,
        observer=observer,
        shadows=shadows,
        limit_s=limit_s,
        most=most,
        allowed_providers=allowed_providers,
        allowed_regions=allowed_regions,
    )
    return _join("shadow", parts, combine, middleware, request_defaults)


def route(  # noqa: PLR0913 (as the combinator)
    *parts: Part,
    max_latency_s: float | None = None,
    max_cost_usd: Decimal | float | None = None,
    entries: Mapping[str, catalog.Entry] | None = None,
    on_decision: Callable[[routing.Decision], object] | None = None,
    when: When = elsewhere,
    middleware: Sequence[Middleware] = (),
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
    **request_defaults: Unpack[RequestOptions],
) -> JoinedModel:
    """Give the model that asks the cheapest of these which fits; as in `loomstream.middleware.route`.

    `response.route` says what was chosen and why. `entries` are by name, as `JoinedModel.names` has them. Raises what
    that and `connect` raise.
    """
    combine = partial(
        routing.route,
        max_latency_s=max_latency_s,
        max_cost_usd=max_cost_usd,
        entries=entries,
        on_decision=on_decision,
        when=when,
        allowed_providers=allowed_providers,
        allowed_regions=allowed_regions,
    )
    return _join("route", parts, combine, middleware, request_defaults)
