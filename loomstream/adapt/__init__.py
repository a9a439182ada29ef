"""What stands between a neutral request and a dialect: requests rewritten for what a model lacks, and events back.

Contract: an adaptation is a pure function of the request and its target. It gives None where there is nothing to do,
which costs next to nothing; else the rewritten request, what `Start.warnings` is to say of it, and, where the answer
must be read back, a stage for its events. They are tried in the order of `ADAPTATIONS`, each on what the one before
gave; the events go through their stages in the reverse order. No I/O, no clock, no provider's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from loomstream.dialects import Target
from loomstream.errors import Failure
from loomstream.events import Event
from loomstream.messages import Request


class EventStage(Protocol):
    """Events to the events that take their place; one object per answer."""

    def feed(self, event: Event) -> list[Event]:
        """Take an event, give what is known by now."""
        ...

    def flush(self) -> list[Event]:
        """Give what was held back: an error ends the answer, and nothing that was received may be lost."""
        ...


class Adapted(NamedTuple):
    """A rewritten request; see the module's contract."""

    request: Request
    stage: EventStage | None = None
    warnings: tuple[str, ...] = ()


Adaptation = Callable[[Request, Target], Adapted | None]

ADAPTATIONS: tuple[Adaptation, ...] = ()
"""All of them, in the order in which they are tried."""


class Plan(NamedTuple):
    """A request with all adaptations: the stages are those of one answer, the first one nearest to the provider."""

    request: Request
    stages: tuple[EventStage, ...] = ()
    warnings: tuple[str, ...] = ()


def adapted(request: Request, target: Target) -> Plan:
    """Give the request as the target's dialect is to see it, and how its answer is read back."""
    stages: tuple[EventStage, ...] = ()
    warnings: tuple[str, ...] = ()
    for adaptation in ADAPTATIONS:
        found = adaptation(request, target)
        if found is not None:
            request = found.request
            warnings += found.warnings
            stages = stages if found.stage is None else (found.stage, *stages)
    return Plan(request, stages, warnings)


def staged(stages: tuple[EventStage, ...], events: list[Event | Failure]) -> list[Event | Failure]:
    """Send events through the stages; before a failure they give what they held back."""
    for stage in stages:
        made: list[Event | Failure] = []
        for event in events:
            made += [*stage.flush(), event] if isinstance(event, Failure) else stage.feed(event)
        events = made
    return events
