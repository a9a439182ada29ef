"""Candidates of combinators, and where they send: data residency is decided here, before anything is sent.

Contract: a combinator says where it sends by its attribute `places`, so that one within another is bound as well. What
is not known to be allowed is refused when a combinator is made, never while it runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, cast

from loomstream.errors import ConfigError
from loomstream.events import Event
from loomstream.handler import Handler
from loomstream.kind_names import kind_of
from loomstream.messages import Request


class Place(NamedTuple):
    """Where requests go: a provider's name, and its region where it is known (`eu-west-1`)."""

    provider: str
    region: str = ""


UNKNOWN = Place("")
"""Somewhere: allowed only where everything is."""


class Candidate(NamedTuple):
    """A handler under a name that notices use, such as `openai:gpt-4o`.

    `provider`, `model` and `region` say what it asks and where; a combinator as the handler knows its own places.
    `allowed_providers` and `allowed_regions` refuse what they are not told of, and `route` looks up the model's prices
    and abilities by them.
    """

    name: str
    handler: Handler
    provider: str = ""
    model: str = ""
    region: str = ""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it may send; empty where that is not known. What the handler itself says cannot be overruled."""
        said = places_of(self.handler)
        return said or ((Place(self.provider, self.region),) if self.provider else ())


class Placed:
    """A handler that says where it sends: what combinators give.

    Middleware around one hides that; wrap the outcome: `Placed(retry()(chain), chain.places)`.
    """

    __slots__ = ("handler", "places")

    def __init__(self, handler: Handler, places: Iterable[Place]) -> None:
        self.handler = handler
        self.places = tuple(places)

    def __call__(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Give the handler's events."""
        return self.handler(request)


def places_of(handler: object) -> tuple[Place, ...]:
    """Give where a handler says that it sends; empty where it does not say."""
    return tuple(cast("Iterable[Place]", getattr(handler, "places", ())))


def all_places(candidates: Iterable[Candidate]) -> tuple[Place, ...]:
    """Give where any of the candidates may send; an unknown place among them for those that do not say.

    Empty where none says: then whoever wraps the combinator in a `Candidate` may.
    """
    each = [candidate.places for candidate in candidates]
    places = dict.fromkeys(place for places in each for place in places or (UNKNOWN,))
    return tuple(places) if any(each) else ()


def checked(
    candidates: Sequence[Candidate],
    what: str,
    *,
    allowed_providers: Iterable[str] | None = None,
    allowed_regions: Iterable[str] | None = None,
) -> tuple[Candidate, ...]:
    """Give the candidates of a combinator.

    Raises `ConfigError` where there are none, or two of one name, and for one that may send elsewhere than to the
    allowed providers and regions, or does not say where it sends (None: anywhere is allowed).
    """
    for candidate in candidates:
        if not callable(candidate.handler):
            kind = kind_of(candidate.handler)
            msg = f"{what}: the handler of {candidate.name!r} is {kind}: give a model's by its .handler"
            raise ConfigError(msg)
    names = [candidate.name for candidate in candidates]
    if not names:
        msg = f"{what} has no candidates: give at least one"
        raise ConfigError(msg)
    for name in names:
        if names.count(name) > 1:
            msg = f"{what} has two candidates called {name!r}: its notices could mean either"
            raise ConfigError(msg)
    for field, allowed in (("provider", allowed_providers), ("region", allowed_regions)):
        if allowed is not None:
            _check_allowed(candidates, what, field, _names(allowed, field))
    return tuple(candidates)


def _names(allowed: Iterable[str], field: str) -> frozenset[str]:
    if isinstance(allowed, str):
        msg = f"allowed_{field}s={allowed!r}: give a list of names, as in [{allowed!r}]"
        raise ConfigError(msg)
    return frozenset(allowed)


def _check_allowed(candidates: Sequence[Candidate], what: str, field: str, allowed: frozenset[str]) -> None:
    known = ", ".join(sorted(allowed)) or "none"
    for candidate in candidates:
        places = candidate.places
        if not places:
            msg = (
                f"{what}: it is not known where {candidate.name!r} sends, and only these {field}s are allowed: "
                f"{known}; say it by Candidate({field}=…), or wrap its handler in Placed"
            )
            raise ConfigError(msg)
        for place in places:
            value: str = getattr(place, field)
            if value not in allowed:
                at = f"the {field} {value!r}" if value else f"no known {field}"
                by = f" by {place.provider}" if field == "region" and place.provider else ""
                msg = f"{what}: {candidate.name!r} may send to {at}{by}; only these {field}s are allowed: {known}"
                raise ConfigError(msg)
