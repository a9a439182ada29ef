"""What stands between a neutral request and a dialect: requests rewritten for what a model lacks, and events back.

Contract: an adaptation is a pure function of the request and its target. It gives None where there is nothing to do,
which costs next to nothing; else the rewritten request, what `Start.warnings` is to say of it, and, where the answer
must be read back, a stage for its events. They are tried in the order of `ADAPTATIONS`, each on what the one before
gave; the events go through their stages in the reverse order. No I/O, no clock, no provider's name.
"""

from __future__ import annotations

from msgspec import Struct

from loomstream.adapt.history import history
from loomstream.adapt.output import output
from loomstream.adapt.plan import Adaptation, Adapted, EventStage, has_calls
from loomstream.adapt.prompted_tools import prompted_tools
from loomstream.adapt.tool_names import tool_names
from loomstream.dialects import Target
from loomstream.errors import Failure
from loomstream.events import Event
from loomstream.messages import Request

__all__ = ("ADAPTATIONS", "Adaptation", "Adapted", "EventStage", "Plan", "adapted", "staged")

ADAPTATIONS: tuple[Adaptation, ...] = (output, history, tool_names, prompted_tools)
"""All of them, in the order in which they are tried."""


class Plan(Struct, frozen=True):
    """A request with all adaptations: the stages are those of one answer, the first one nearest to the provider."""

    request: Request
    stages: tuple[EventStage, ...] = ()
    warnings: tuple[str, ...] = ()


def adapted(request: Request, target: Target) -> Plan:
    """Give the request as the target's dialect is to see it, and how its answer is read back."""
    if request.output is None and not request.tools and not has_calls(request):
        return Plan(request)  # most requests; all adaptations are about these three
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
