"""Models side by side: found by what they can do, and priced for one task or for the calls of the past.

Contract: pure functions over entries and token counts. An unknown price is never taken for a low one: it comes last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from loomstream import catalog
from loomstream.catalog.entry import Entry, at_size, price
from loomstream.errors import ConfigError
from loomstream.events import Usage

TYPICAL = Usage(input_tokens=500, output_tokens=1000)
"""The task that prices are compared by where none is given."""

_ZERO = Decimal(0)


class Wanted(Struct, frozen=True, kw_only=True):
    """What models are looked for; what is empty or None is not asked for.

    Each of `words` occurs in `provider:model`, whatever the case. `capabilities` are of `CAPABILITIES`: a model of
    which it is not known is left out. `context_tokens` and `output_tokens` are the least, `max_usd` the most that
    `task` may cost. `holds_task` leaves out models that are known to be too small for it, `ended_by` those that were
    taken away before that day.
    """

    words: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    context_tokens: int = 0
    output_tokens: int = 0
    max_usd: Decimal | None = None
    task: Usage = TYPICAL
    holds_task: bool = False
    ended_by: date | None = None


class Found(Struct, frozen=True, kw_only=True):
    """A model, and what the task would cost it: None where that is not known."""

    entry: Entry
    task_usd: Decimal | None

    @property
    def name(self) -> str:
        """The model as `connect` takes it."""
        return f"{self.entry.provider}:{self.entry.model}"


def find(wanted: Wanted, entries: Iterable[Entry] | None = None) -> list[Found]:
    """Give the models that fit, the cheapest for the task first; those of unknown price last, else by name."""
    known = catalog.entries() if entries is None else entries
    found = [Found(entry=entry, task_usd=cost(entry, wanted.task)) for entry in known if _fits(entry, wanted)]
    if wanted.max_usd is not None:
        found = [each for each in found if each.task_usd is not None and each.task_usd <= wanted.max_usd]
    return sorted(found, key=lambda each: (each.task_usd is None, each.task_usd or _ZERO, each.name))


def _fits(entry: Entry, wanted: Wanted) -> bool:
    name = f"{entry.provider}:{entry.model}".lower()
    names = (name, *(f"{entry.provider}:{alias}".lower() for alias in entry.aliases))
    return (
        (not wanted.providers or entry.provider in wanted.providers)
        and any(all(word.lower() in each for word in wanted.words) for each in names)
        and all(entry.can(capability) for capability in wanted.capabilities)
        and (entry.context_tokens or 0) >= wanted.context_tokens
        and (entry.max_output_tokens or 0) >= wanted.output_tokens
        and (not wanted.holds_task or _holds(entry, wanted.task))
        and not (wanted.ended_by and entry.deprecated_on and entry.deprecated_on < wanted.ended_by)
    )


def _holds(entry: Entry, usage: Usage) -> bool:
    """Say whether a prompt and its answer fit, by what is known."""
    prompt, answer = _prompt(usage), usage.output_tokens
    return (entry.context_tokens is None or entry.context_tokens >= prompt + answer) and (
        entry.max_output_tokens is None or entry.max_output_tokens >= answer
    )


def _prompt(usage: Usage) -> int:
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens


def cost(entry: Entry, usage: Usage) -> Decimal | None:
    """Give what token counts cost at a model, nothing where nobody bills; None where the price is not known."""
    return _ZERO if entry.free else price(entry, usage)


def named(names: Sequence[str]) -> list[Entry]:
    """Give the entries of models named as `provider:model`.

    Raises `ConfigError` for a name of another form, and for a model that the catalog does not know.
    """
    return [_named(name) for name in names]


def _named(name: str) -> Entry:
    provider, _, model = name.partition(":")
    if not provider or not model:
        msg = f"{name!r} names no model: write PROVIDER:MODEL, as in openai:gpt-4o"
        raise ConfigError(msg)
    entry = catalog.look_up(provider, model)
    if entry is None:
        msg = f"the catalog does not know {name}: `looms models {model}` looks for what it knows"
        raise ConfigError(msg)
    return replace(entry, model=model)


# --- the calls of the past -----------------------------------------------------------------------


class Past(Struct, frozen=True, kw_only=True):
    """A call of the past: who answered, what was counted and what it cost, None where that is not known.

    `used_tools`: it called a tool, which another model must be able to do as well.
    """

    provider: str
    model: str
    usage: Usage | None
    cost_usd: Decimal | None = None
    used_tools: bool = False


class Alternative(Struct, frozen=True, kw_only=True):
    """What the same tokens would have cost at another model; `saved_usd` is below 0 where it is dearer."""

    model: str
    cost_usd: Decimal
    saved_usd: Decimal
    saved_share: Decimal


class Repriced(Struct, frozen=True, kw_only=True):
    """The calls to one model, and what they would have cost at others, the largest saving first.

    `cost_usd` is of the `calls` alone: `left_out` is how many others had no count of tokens or no known cost.
    """

    model: str
    calls: int
    left_out: int
    cost_usd: Decimal
    alternatives: tuple[Alternative, ...]


class _Calls(NamedTuple):
    usages: list[Usage]
    costs: list[Decimal]
    tools: bool
    left_out: int

    def largest(self) -> tuple[Usage, ...]:
        """Give the call that needs the largest window, and the one with the longest answer."""
        if not self.usages:
            return ()
        longest = max(self.usages, key=lambda usage: _prompt(usage) + usage.output_tokens)
        return longest, max(self.usages, key=lambda usage: usage.output_tokens)


def reprice(past: Iterable[Past], models: Sequence[Entry] | None = None) -> list[Repriced]:
    """Price the calls of the past again, at each of `models`, or at all that can do what was done.

    A model can where each prompt with its answer fits into it, by what is known of it, and where it calls tools if the
    calls did. Tokens are taken as they were counted: another model counts the same text
    otherwise, and without a price for cached tokens of its own it has no figure. What costs most comes first.
    """
    groups: dict[str, _Calls] = {}
    for call in past:
        key = f"{call.provider}:{call.model}"
        groups[key] = _with(groups.get(key, _Calls([], [], tools=False, left_out=0)), call)
    known = catalog.entries() if models is None else models
    repriced = [_repriced(name, calls, known) for name, calls in groups.items()]
    return sorted(repriced, key=lambda each: (-each.cost_usd, each.model))


def _with(calls: _Calls, call: Past) -> _Calls:
    tools = calls.tools or call.used_tools
    paid = call.cost_usd
    if paid is None and call.usage is not None and (entry := catalog.look_up(call.provider, call.model)) is not None:
        paid = cost(entry, call.usage)
    if call.usage is None or paid is None:
        return _Calls(calls.usages, calls.costs, tools=tools, left_out=calls.left_out + 1)
    calls.usages.append(call.usage)
    calls.costs.append(paid)
    return _Calls(calls.usages, calls.costs, tools=tools, left_out=calls.left_out)


def _repriced(name: str, calls: _Calls, known: Sequence[Entry]) -> Repriced:
    total = sum(calls.costs, _ZERO)
    sizes = _sizes(calls.usages, known)
    largest = calls.largest()
    able = [entry for entry in known if largest and _could(entry, largest, tools=calls.tools)]
    found = [each for entry in able if (each := _alternative(entry, sizes, total)) is not None]
    return Repriced(
        model=name,
        calls=len(calls.usages),
        left_out=calls.left_out,
        cost_usd=total,
        alternatives=tuple(sorted((e for e in found if e.model != name), key=lambda e: (-e.saved_usd, e.model))),
    )


class _Size(NamedTuple):
    """Calls whose prompts are priced alike at every model: one of them, and the tokens of all."""

    one: Usage
    all: Usage


_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")


def _sizes(usages: Sequence[Usage], known: Iterable[Entry]) -> list[_Size]:
    """Put calls together between the lengths at which some model changes its rates: logs are long, and models many."""
    bounds = sorted({tier.above_tokens for entry in known if entry.price for tier in entry.price.tiers})
    between: dict[int, list[Usage]] = {}
    for usage in usages:
        between.setdefault(bisect_left(bounds, _prompt(usage)), []).append(usage)
    return [_Size(group[0], _summed(group)) for group in between.values()]


def _summed(usages: Sequence[Usage]) -> Usage:
    return replace(Usage(), **{name: sum(getattr(usage, name) for usage in usages) for name in _COUNTS})


def _could(entry: Entry, largest: Iterable[Usage], *, tools: bool) -> bool:
    able = entry.model != catalog.ANY_MODEL and (not tools or entry.can("tools") is True)
    return able and all(_holds(entry, usage) for usage in largest)


def _alternative(entry: Entry, sizes: Sequence[_Size], total: Decimal) -> Alternative | None:
    costs = [cost(replace(entry, price=entry.price and at_size(entry.price, size.one)), size.all) for size in sizes]
    if None in costs:
        return None
    amount = sum((each for each in costs if each is not None), _ZERO)
    saved = total - amount
    return Alternative(
        model=f"{entry.provider}:{entry.model}",
        cost_usd=amount,
        saved_usd=saved,
        saved_share=saved / total if total else _ZERO,
    )
