"""Route: the cheapest candidate that meets a request's constraints, and why.

Contract: a combinator of handlers. Each call looks at the catalog's entry of every candidate, at an estimate of the
request's tokens, and at how soon each began to answer lately; those that fit are asked in the order of what they would
cost, as `failover` does. The decision is a `route` notice before anything else, and so `Response.route`; as a value it
goes to `on_decision`, whose failure is logged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import NamedTuple

import anyio
from msgspec import Struct

from loomstream import catalog
from loomstream.errors import ConfigError, Unsupported
from loomstream.events import Event, Notice, Usage
from loomstream.handler import Handler
from loomstream.messages import Request
from loomstream.middleware.candidates import Candidate, all_places, checked
from loomstream.middleware.estimates import prompt_tokens
from loomstream.middleware.failover import When, elsewhere, in_turn
from loomstream.middleware.outcomes import RECENT_S, Measure, measured
from loomstream.numerals import is_number

OUTPUT_TOKENS = 512
"""What an answer is taken for whose request names no `max_tokens`."""

_NEWEST = 0.3
"""The share of the newest time in the moving average."""
_ZERO = Decimal(0)
_log = logging.getLogger(__name__)


class Figures(Struct, frozen=True, kw_only=True):
    """What is known of a candidate for one request; None where it is not known.

    `cost_usd` is what the request would cost by the estimate, `first_event_s` how soon it began to answer lately,
    `context_tokens` its window. `refused` says which constraint it does not meet, empty where it meets all.
    """

    name: str
    cost_usd: Decimal | None = None
    first_event_s: float | None = None
    context_tokens: int | None = None
    refused: str = ""

    def __str__(self) -> str:
        cost = "price unknown" if self.cost_usd is None else f"about ${self.cost_usd:.6f}"
        late = "not yet timed" if self.first_event_s is None else f"first content after {self.first_event_s:.3g} s"
        window = "window unknown" if self.context_tokens is None else f"window {self.context_tokens}"
        refused = f"; left out: {self.refused}" if self.refused else ""
        return f"{self.name} ({cost}, {late}, {window}{refused})"


class Decision(Struct, frozen=True, kw_only=True):
    """How one call was routed: the chosen candidate's name, why, and all candidates in the order of preference."""

    chosen: str
    reason: str
    prompt_tokens: int
    output_tokens: int
    candidates: tuple[Figures, ...]

    def __str__(self) -> str:
        request = f"about {self.prompt_tokens} tokens in and {self.output_tokens} out"
        return f"{self.chosen}: {self.reason}, for {request}: {'; '.join(map(str, self.candidates))}"


class Constraints(NamedTuple):
    """What a candidate must meet beside what the request itself needs."""

    max_latency_s: float | None
    max_cost_usd: Decimal | None


def route(  # noqa: PLR0913 (each constraint is one; all are keyword-only but the candidates)
    candidates: Sequence[Candidate],
    *,
    max_latency_s: float | None = None,
    max_cost_usd: Decimal | float | None = None,
    entries: Mapping[str, catalog.Entry] | None = None,
    on_decision: Callable[[Decision], object] | None = None,
    when: When = elsewhere,
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
) -> Route:
    """Give the handler that asks the cheapest candidate which fits.

    One fits whose window holds the prompt and the answer, which writes as many tokens as are asked for, which calls
    tools and streams where the request does, which began to answer within `max_latency_s` seconds lately, and whose
    estimated cost for the request is at most `max_cost_usd`. What the catalog does not know of a candidate refuses it
    only where it is a price under `max_cost_usd`; an unknown price comes last. Where the cheapest fails before its
    first content and `when` allows (as in `failover`), the next one follows.

    Candidates name their `provider` and `model`; `entries` by candidates' names take the place of the catalog's.

    Reading a stream raises `Unsupported` with all figures where no candidate fits. Raises `ConfigError` for no
    candidates, two of one name, one without a provider and model or an entry, one that may send elsewhere than to
    `allowed_providers` and `allowed_regions`, entries of unknown candidates, and limits that are not above 0.
    """
    chain = checked(candidates, "route", allowed_providers=allowed_providers, allowed_regions=allowed_regions)
    limits = {"max_latency_s": max_latency_s, "max_cost_usd": max_cost_usd}
    for name, limit in limits.items():
        is_figure = limit.is_finite() if isinstance(limit, Decimal) else is_number(limit)
        if limit is not None and not (is_figure and limit > 0):
            msg = f"route({name}={limit!r}): give a number above 0"
            raise ConfigError(msg)
    given = dict(entries or {})
    for name in given:
        if name not in [candidate.name for candidate in chain]:
            names = ", ".join(candidate.name for candidate in chain)
            msg = f"route(entries=…) names {name!r}, which is no candidate: they are {names}"
            raise ConfigError(msg)
    for candidate in chain:
        if candidate.name not in given and not (candidate.provider and candidate.model):
            msg = f"route: {candidate.name!r} does not say its provider and model, nor has it an entry in entries"
            raise ConfigError(msg)
    most = None if max_cost_usd is None else Decimal(str(max_cost_usd))
    return Route(chain, Constraints(max_latency_s, most), given, on_decision, when)


class Route:
    """The handler that chooses; `route` makes it."""

    def __init__(
        self,
        chain: tuple[Candidate, ...],
        constraints: Constraints,
        entries: Mapping[str, catalog.Entry],
        on_decision: Callable[[Decision], object] | None,
        when: When,
    ) -> None:
        self._chain = chain
        self._constraints = constraints
        self._entries = entries
        self._on_decision = on_decision
        self._when = when
        self._first_event_s: dict[str, tuple[float, float]] = {}
        """By candidate: the moving average, and when it was last added to."""
        self.places = all_places(chain)

    def __call__(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Give the events of the cheapest candidate that fits."""
        decision = self.decide(request)
        fitting = [figures.name for figures in decision.candidates if not figures.refused]
        if not fitting:
            msg = f"no model fits: {decision}; loosen a constraint, shorten the request, or add a candidate"
            raise Unsupported(msg)
        self._tell(decision)
        by_name = {candidate.name: candidate for candidate in self._chain}
        chain = [by_name[name]._replace(handler=self._timed(by_name[name])) for name in fitting]
        return in_turn(chain, request, self._when, Notice("route", str(decision)))

    def decide(self, request: Request) -> Decision:
        """Give what would be done with a request now; nothing is sent. `chosen` is empty where nobody fits."""
        size = _size(request)
        figures = [self._figures(candidate, request, size) for candidate in self._chain]
        ordered = tuple(sorted(figures, key=_preference))
        fitting = [each for each in ordered if not each.refused]
        return Decision(
            chosen=fitting[0].name if fitting else "",
            reason=f"the cheapest of {len(fitting)} that fit" if fitting else "none fits",
            prompt_tokens=size.prompt_tokens,
            output_tokens=size.output_tokens,
            candidates=ordered,
        )

    def _figures(self, candidate: Candidate, request: Request, size: Size) -> Figures:
        entry = self._entries.get(candidate.name) or catalog.look_up(candidate.provider, candidate.model)
        known = Figures(
            name=candidate.name,
            cost_usd=_cost(entry, size),
            first_event_s=self._recent(candidate.name),
            context_tokens=None if entry is None else entry.context_tokens,
        )
        refusals = [*_lacking(entry, request, size), *_beyond(known, self._constraints)]
        return Figures(
            name=known.name,
            cost_usd=known.cost_usd,
            first_event_s=known.first_event_s,
            context_tokens=known.context_tokens,
            refused=", ".join(refusals),
        )

    def _recent(self, name: str) -> float | None:
        average_s, at_s = self._first_event_s.get(name, (0.0, -math.inf))
        return average_s if anyio.current_time() - at_s <= RECENT_S else None

    def _timed(self, candidate: Candidate) -> Handler:
        def note(first_event_s: float) -> None:
            known = self._recent(candidate.name)
            average_s = first_event_s if known is None else known + _NEWEST * (first_event_s - known)
            self._first_event_s[candidate.name] = (average_s, anyio.current_time())

        return measured(candidate.handler, Measure(candidate), on_first=note, observer=None)

    def _tell(self, decision: Decision) -> None:
        try:
            if self._on_decision is not None:
                self._on_decision(decision)
        except Exception:  # noqa: BLE001 (an observer never breaks a stream)
            _log.exception("on_decision failed: the stream goes on")


class Size(NamedTuple):
    """How large a request and its answer are taken for."""

    prompt_tokens: int
    output_tokens: int


def _preference(figures: Figures) -> tuple[bool, Decimal, float]:
    """Those that fit first, the cheapest first, then the soonest; `sorted` keeps the given order among equals."""
    cost = Decimal("Infinity") if figures.cost_usd is None else figures.cost_usd
    return bool(figures.refused), cost, figures.first_event_s or 0.0


def estimated_cost(provider: str, model: str, request: Request) -> Decimal | None:
    """Give about what a request would cost at a model, in US dollars; None where the catalog has no price."""
    return _cost(catalog.look_up(provider, model), _size(request))


def _size(request: Request) -> Size:
    return Size(prompt_tokens(request), OUTPUT_TOKENS if request.max_tokens is None else request.max_tokens)


def _cost(entry: catalog.Entry | None, size: Size) -> Decimal | None:
    if entry is None:
        return None
    if entry.free:
        return _ZERO
    return catalog.price(entry, Usage(input_tokens=size.prompt_tokens, output_tokens=size.output_tokens))


def _lacking(entry: catalog.Entry | None, request: Request, size: Size) -> list[str]:
    """Say what the request needs and the model has not."""
    if entry is None:
        return []
    needed = size.prompt_tokens + (request.max_tokens or 0)
    wanted = request.max_tokens or 0
    native = bool(request.tools) and request.tool_mode == "native"
    checks = {
        f"its window of {entry.context_tokens} tokens is less than about {needed}": (
            entry.context_tokens is not None and entry.context_tokens < needed
        ),
        f"it writes {entry.max_output_tokens} tokens at most, not {wanted}": (
            entry.max_output_tokens is not None and entry.max_output_tokens < wanted
        ),
        "it calls no tools": bool(request.tools) and entry.tools == "none",
        "it calls tools in the prompt alone": native and entry.tools == "prompt",
        "it does not stream": request.stream and entry.streaming is False,
    }
    return [words for words, lacks in checks.items() if lacks]


def _beyond(figures: Figures, constraints: Constraints) -> list[str]:
    """Say which of the combinator's own limits the candidate passes."""
    latency_s, cost_usd = constraints
    checks = {
        f"slower than max_latency_s={latency_s}": (
            latency_s is not None and figures.first_event_s is not None and figures.first_event_s > latency_s
        ),
        f"dearer than max_cost_usd={cost_usd}": (
            cost_usd is not None and figures.cost_usd is not None and figures.cost_usd > cost_usd
        ),
        f"its price is unknown, under max_cost_usd={cost_usd}": cost_usd is not None and figures.cost_usd is None,
    }
    return [words for words, passes in checks.items() if passes]
