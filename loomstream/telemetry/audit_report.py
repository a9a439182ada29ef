"""What an audit log tells: which calls, what they came to in all, which were the greatest.

Contract: pure functions over records; each runs over any number of them in one pass. What is not known counts as that:
an unknown price is in no sum of money but in `unknown`.
"""

from __future__ import annotations

import datetime as dt
import heapq
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from operator import itemgetter

from msgspec import Struct

from loomstream.errors import UsageError
from loomstream.middleware.ledger import Totals
from loomstream.telemetry.records import AuditRecord, sent_tokens

_SPAN = re.compile(r"\A([0-9]{1,6})(m|h|d|w)\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Selection(Struct, frozen=True, kw_only=True):
    """Which records count; of each field empty means all. Patterns are of the shell's kind (`gpt-4*`).

    `models` match the model alone, or `provider:model`. `since` is the first moment that counts, `until` the first one
    that does not.
    """

    providers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    who: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def has(self, record: AuditRecord) -> bool:
        """Say whether a record counts."""
        if (self.since is not None and record.began < self.since) or (self.until and record.began >= self.until):
            return False
        asked = (
            (self.providers, (record.provider,)),
            (self.models, (record.model, f"{record.provider}:{record.model}")),
            (self.tags, (record.tag,)),
            (self.who, (record.who,)),
            (self.outcomes, (record.outcome, record.error)),
        )
        return all(not patterns or _fits(values, patterns) for patterns, values in asked)


def _fits(values: Iterable[str], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(value, pattern) for value in values for pattern in patterns)


def moment(text: str, now: dt.datetime) -> dt.datetime:
    """Give the moment that a text names: a date, a date and time, or a time before `now` (`30m`, `24h`, `7d`, `2w`).

    Without a zone it is that of `now`. Raises `UsageError` for anything else.
    """
    span = _SPAN.match(text.strip())
    try:
        if span:
            return now - dt.timedelta(**{_UNITS[span[2]]: int(span[1])})
        named = dt.datetime.fromisoformat(text.strip())
        return named if named.tzinfo else named.replace(tzinfo=now.tzinfo)
    except (ValueError, OverflowError):
        msg = f"{text!r} is no time: write 2026-11-22, 2026-11-22T18:00, or how long ago, as in 30m, 24h, 7d, 2w"
        raise UsageError(msg) from None


# --- sums ----------------------------------------------------------------------------------------


class Group(Struct, frozen=True, kw_only=True):
    """The calls of one name, taken together; `failed` are those that did not come whole and were not left or cancelled.

    `seconds` is how long they took in all.
    """

    name: str
    totals: Totals
    failed: int = 0
    unfinished: int = 0
    seconds: float = 0.0


KeyOf = Callable[[AuditRecord], str]

KEYS: dict[str, KeyOf] = {
    "model": lambda record: f"{record.provider}:{record.model}".strip(":"),
    "provider": lambda record: record.provider,
    "tag": lambda record: record.tag,
    "who": lambda record: record.who,
    "day": lambda record: record.began.astimezone().date().isoformat(),
    "outcome": lambda record: record.error or record.outcome,
}
"""What sums can be made by; a day is one of this machine's time zone."""


def sums(records: Iterable[AuditRecord], by: str) -> list[Group]:
    """Give the sums by one of `KEYS`: days in their order, the others the dearest first."""
    key_of = KEYS[by]
    groups: dict[str, Group] = {}
    for record in records:
        name = key_of(record)
        groups[name] = _plus(groups.get(name) or Group(name=name, totals=Totals()), record)
    ordered = sorted(groups.values(), key=lambda group: group.name)
    return ordered if by == "day" else sorted(ordered, key=lambda group: -group.totals.amount_usd)


def all_in_all(groups: Iterable[Group]) -> Group:
    """Give the sum of sums."""
    total = Group(name="total", totals=Totals())
    for group in groups:
        total = Group(
            name=total.name,
            totals=total.totals.joined(group.totals),
            failed=total.failed + group.failed,
            unfinished=total.unfinished + group.unfinished,
            seconds=total.seconds + group.seconds,
        )
    return total


def _plus(group: Group, record: AuditRecord) -> Group:
    return Group(
        name=group.name,
        totals=group.totals.plus(record.cost, record.counted),
        failed=group.failed + (record.outcome == "failed"),
        unfinished=group.unfinished + (record.outcome in {"cancelled", "abandoned"}),
        seconds=group.seconds + record.total_s,
    )


# --- the greatest --------------------------------------------------------------------------------


def _cost(record: AuditRecord) -> float | None:
    return None if record.cost_usd is None else float(record.cost_usd)


def _tokens(record: AuditRecord) -> float | None:
    return None if record.usage is None else float(sent_tokens(record.usage) + record.usage.output_tokens)


def _output_ratio(record: AuditRecord) -> float | None:
    """Give the output tokens for each input token."""
    if record.usage is None or not sent_tokens(record.usage):
        return None
    return record.usage.output_tokens / sent_tokens(record.usage)


MEASURES: dict[str, Callable[[AuditRecord], float | None]] = {
    "cost": _cost,
    "tokens": _tokens,
    "output-ratio": _output_ratio,
}
"""What calls can be compared by; None where it is not known of one."""


def greatest(records: Iterable[AuditRecord], by: str, count: int) -> list[AuditRecord]:
    """Give the calls with most of one of `MEASURES`, the greatest first; where it is not known, a call is left out."""
    measured = ((MEASURES[by](record), record) for record in records)
    known = ((value, record) for value, record in measured if value is not None)
    return [record for _, record in heapq.nlargest(count, known, key=itemgetter(0))]
