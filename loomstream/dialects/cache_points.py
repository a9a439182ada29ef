"""Where the breakpoints of a prompt's cache go, for wires that take a few of them, each with its own time.

Contract: pure. A prompt is a row of slots, in the order in which the provider reads them: tools, system, messages. A
breakpoint on a slot caches the prompt up to and with it. Knows no wire: a dialect adds its slots to `Slots` while it
writes the prompt, and then writes the breakpoints that it is given.

Source of the rules: https://platform.claude.com/docs/en/build-with-claude/prompt-caching; Bedrock has the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from loomstream.messages import CachePoint, CacheTTL

MOST = 4
"""How many breakpoints a request may have."""


_Slot = TypeVar("_Slot")


class Breakpoint(NamedTuple):
    """A breakpoint behind a slot, for so long."""

    slot: int
    ttl: CacheTTL


class Wanted(NamedTuple):
    """The breakpoints that a request asks for.

    `own` are those of the user. `automatic` are the slots that get one where there is room, the most useful first, for
    `ttl`. The first `head` slots are tools and system; `longest` is the longest time that the model knows.
    """

    own: Sequence[Breakpoint]
    automatic: Sequence[int] = ()
    ttl: CacheTTL = "5m"
    head: int = 0
    longest: CacheTTL = "1h"


class Slots(Generic[_Slot]):
    """The slots of one prompt, and the breakpoints that are asked for while it is written."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._slots: list[_Slot] = []
        self._own: list[Breakpoint] = []
        self._ends: dict[str, list[int]] = {}
        self._passed = False
        """Whether a block without a slot stands behind the last one."""

    def add(self, slot: _Slot) -> None:
        """Add a slot behind the others."""
        self._slots.append(slot)
        self._passed = False

    def skip(self) -> None:
        """Say that a block comes that cannot carry a breakpoint."""
        self._passed = True

    def end(self, section: str, *, joined: bool = False) -> None:
        """Say that a part of the prompt ends behind the last slot: `tools`, `system`, or the turn of a role.

        `joined`: it is the turn that ended before, which goes on.
        """
        ends = self._ends.setdefault(section, [])
        if joined and ends:
            ends.pop()
        if self._slots:
            ends.append(len(self._slots) - 1)

    def point(self, point: CachePoint) -> None:
        """Ask for a breakpoint behind the last slot."""
        if not self._slots:
            self.warnings.append("a cache point is not sent: nothing that can be cached stands before it")
            return
        if self._passed:
            self.warnings.append("a cache point behind reasoning is sent before it: reasoning cannot carry one")
        self._own.append(Breakpoint(len(self._slots) - 1, point.ttl or "5m"))

    def breakpoints(self, automatic: CacheTTL | None, longest: CacheTTL) -> list[tuple[_Slot, CacheTTL]]:
        """Give the slots that get a breakpoint, in their order; `automatic` asks for those that nobody set."""
        slots = self._automatic() if automatic else ()
        if automatic and not slots:
            self.warnings.append("cache_prompt is not sent: this model has no cache for what the request holds")
        head = max((end + 1 for name in ("tools", "system") for end in self._ends.get(name, ())), default=0)
        points, warnings = planned(Wanted(self._own, slots, automatic or "5m", head, longest))
        self.warnings += warnings
        return [(self._slots[slot], ttl) for slot, ttl in points]

    def _automatic(self) -> list[int]:
        """Give the ends of the last user turn, the system, the user turn before it, and the tools."""
        users = self._ends.get("user", [])[-2:]
        order = (users[-1:], self._ends.get("system", [])[-1:], users[:-1], self._ends.get("tools", [])[-1:])
        return list(dict.fromkeys(slot for slots in order for slot in slots))


def planned(wanted: Wanted) -> tuple[list[Breakpoint], list[str]]:
    """Give the breakpoints in the order of their slots, and what of the wish they do not fulfil.

    Of too many, those in tools and system stay, and of the rest the last ones: a provider looks back from each of them
    for what it holds already. An hour cannot stand behind 5 minutes: such a breakpoint is for 5 minutes.
    """
    asked = _joined(wanted.own)
    kept = _few(asked, wanted.head)
    warnings: list[str] = []
    if len(kept) < len(asked):
        left_out = len(asked) - len(kept)
        warnings.append(f"{left_out} of {len(asked)} cache points are not sent: a request takes {MOST}")
    shown = _falling(_known(kept, wanted.longest, warnings), warnings)
    for slot in wanted.automatic:
        if len(shown) < MOST and slot not in shown:
            ttl = wanted.ttl if wanted.longest == "1h" else "5m"
            shown[slot] = _fitting(slot, ttl, shown)
            if shown[slot] != wanted.ttl:
                warnings.append(_changed("cache_prompt", wanted, shown[slot]))
    return [Breakpoint(slot, shown[slot]) for slot in sorted(shown)], list(dict.fromkeys(warnings))


def _joined(own: Sequence[Breakpoint]) -> dict[int, CacheTTL]:
    """Give the times by slot; of two behind one slot the longer one counts."""
    joined: dict[int, CacheTTL] = {}
    for slot, ttl in own:
        joined[slot] = "1h" if "1h" in (ttl, joined.get(slot)) else ttl
    return dict(sorted(joined.items()))


def _few(asked: dict[int, CacheTTL], head: int) -> dict[int, CacheTTL]:
    first = [slot for slot in asked if slot < head][-MOST:]
    rest = [slot for slot in asked if slot >= head]
    last = rest[len(rest) - min(len(rest), MOST - len(first)) :]
    return {slot: asked[slot] for slot in (*first, *last)}


def _known(asked: dict[int, CacheTTL], longest: CacheTTL, warnings: list[str]) -> dict[int, CacheTTL]:
    if longest == "1h" or "1h" not in asked.values():
        return asked
    warnings.append("a cache point of 1h is sent as one of 5m: this model has none")
    return dict.fromkeys(asked, "5m")


def _falling(asked: dict[int, CacheTTL], warnings: list[str]) -> dict[int, CacheTTL]:
    """Give the times so that none is longer than one before it."""
    falling: dict[int, CacheTTL] = {}
    for slot, ttl in asked.items():
        falling[slot] = "5m" if "5m" in falling.values() else ttl
        if falling[slot] != ttl:
            warnings.append("a cache point of 1h behind one of 5m is sent as one of 5m: longer ones must stand first")
    return falling


def _fitting(slot: int, ttl: CacheTTL, shown: dict[int, CacheTTL]) -> CacheTTL:
    """Give the time that can stand there among the others."""
    if any(other < slot and shown[other] == "5m" for other in shown):
        return "5m"
    if any(other > slot and shown[other] == "1h" for other in shown):
        return "1h"
    return ttl


def _changed(name: str, wanted: Wanted, ttl: CacheTTL) -> str:
    if wanted.longest != "1h":
        return f"{name} {wanted.ttl} is sent as {ttl}: this model knows no longer one"
    return f"{name} {wanted.ttl} is sent as {ttl} where the request's own cache points leave no other"
