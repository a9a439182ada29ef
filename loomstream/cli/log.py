"""`looms log`: the calls of an audit log, their sums, the greatest of them.

Contract: reads, and writes nothing but its output. A line that is no record is counted and told of, and costs no other.
`loomstream.telemetry` knows the records and what can be asked of them.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec

from loomstream.cli.completion_values import models, providers
from loomstream.cli.help import Teaching
from loomstream.cli.output import Channel, note, warn, write_json_line
from loomstream.cli.table import draw
from loomstream.cli.terminal import one_line
from loomstream.errors import ConfigError
from loomstream.telemetry.audit_log import default_path, files_of, follow, lines_of
from loomstream.telemetry.audit_report import KEYS, MEASURES, Group, Selection, all_in_all, greatest, moment, sums
from loomstream.telemetry.records import AuditRecord, Reading, sent_tokens

_POLL_S = 0.5
_LAST = 20
_EPILOG = """\b
Examples:
  looms log                                    the last 20 calls
  looms log --outcome failed --since 24h       what failed since yesterday
  looms log --totals tag --since 2026-11-01    what each tag has cost since
  looms log --top 20 --by cost                 the dearest calls
  looms log --model 'gpt-4*' --json --last 0   all of some models, as JSON
"""


def _moment(context: click.Context, option: click.Parameter, value: str | None) -> dt.datetime | None:
    del context, option
    return None if value is None else moment(value, dt.datetime.now().astimezone())


@click.command(cls=Teaching, name="log", epilog=_EPILOG)
@click.option("--file", "path", type=click.Path(path_type=Path), help="The log (default: audit.jsonl in ~/.loom).")
@click.option(
    "-p",
    "--provider",
    multiple=True,
    metavar="NAME",
    shell_complete=providers,
    help="Only calls that this provider answered.",
)
@click.option(
    "-m",
    "--model",
    multiple=True,
    metavar="MODEL",
    shell_complete=models,
    help="Only calls of this model, or PROVIDER:MODEL.",
)
@click.option("--tag", multiple=True, metavar="TAG", help="Only calls of this tag.")
@click.option("--who", multiple=True, metavar="NAME", help="Only calls of this user.")
@click.option("--outcome", multiple=True, metavar="WORD", help="whole, failed, cancelled, abandoned, or an error.")
@click.option("--since", metavar="TIME", callback=_moment, help="From then on: 2026-11-22, 2026-11-22T18:00, 24h, 7d.")
@click.option("--until", metavar="TIME", callback=_moment, help="Before that time.")
@click.option("--totals", type=click.Choice(tuple(KEYS)), help="Sums instead of calls.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="The N calls with most of --by.")
@click.option("--by", type=click.Choice(tuple(MEASURES)), default="cost", show_default=True, help="What --top is by.")
@click.option("--last", type=click.IntRange(min=0), metavar="N", default=_LAST, show_default=True,
              help="Only the last N calls; 0 is all.")  # fmt: skip
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("--json", is_flag=True, help="Records as JSON lines; sums as one list.")
def log(
    *,
    path: Path | None,
    totals: str | None,
    top: int | None,
    by: str,
    last: int,
    following: bool,
    json: bool,
    **asked: Any,  # noqa: ANN401 (the filters)
) -> None:
    """Show the calls of an audit log, their sums, or the greatest of them.

    Names may be patterns of the shell's kind ('gpt-4*'), and an option may be repeated.
    """
    if following and (totals or top):
        msg = "--follow shows calls: leave out --totals and --top"
        raise click.UsageError(msg)
    path = path or default_path()
    selection = _selection(**asked)
    if following:
        _follow(path, selection, last, json=json)
        return
    reading = Reading(lines_of(_existing(path)))
    records = (record for record in reading if selection.has(record))
    if totals:
        _show_sums(sums(records, totals), totals, json=json)
    else:
        _show(greatest(records, by, top) if top else _last(records, last), json=json)
    _warn_of(reading)


def _selection(
    *,
    provider: Sequence[str],
    model: Sequence[str],
    tag: Sequence[str],
    who: Sequence[str],
    outcome: Sequence[str],
    since: dt.datetime | None,
    until: dt.datetime | None,
) -> Selection:
    return Selection(
        providers=tuple(provider),
        models=tuple(model),
        tags=tuple(tag),
        who=tuple(who),
        outcomes=tuple(outcome),
        since=since,
        until=until,
    )


def _existing(path: Path) -> Path:
    if not files_of(path):
        msg = f"there is no audit log at {path}: name it by --file; docs/how-to/audit-log.md says how one is kept"
        raise ConfigError(msg)
    return path


def _last(records: Iterable[AuditRecord], count: int) -> Iterable[AuditRecord]:
    return deque(records, maxlen=count) if count else records


def _warn_of(reading: Reading) -> None:
    if reading.skipped:
        lines = "line is no record and was" if reading.skipped == 1 else "lines are no records and were"
        warn(f"{reading.skipped} {lines} skipped")


def _follow(path: Path, selection: Selection, last: int, *, json: bool) -> None:
    before: deque[AuditRecord] = deque(maxlen=last or None)
    followed = follow(path, lambda: time.sleep(_POLL_S))
    old = Reading(_until_now(followed))
    before.extend(record for record in old if selection.has(record))
    _show(before, json=json)
    _warn_of(old)
    _show((record for record in Reading(filter(None, followed)) if selection.has(record)), json=json)


def _until_now(lines: Iterator[bytes | None]) -> Iterator[bytes]:
    for line in lines:
        if line is None:
            return
        yield line


# --- how it appears ------------------------------------------------------------------------------


def _show(records: Iterable[AuditRecord], *, json: bool) -> None:
    out = Channel("stdout")
    shown = False
    for record in records:
        shown = True
        if json:
            write_json_line(msgspec.json.encode(record))
        else:
            out.write(one_line(_line(record)) + "\n")
    if not shown and not json:
        note("no call fits")


def _line(record: AuditRecord) -> str:
    said: list[str] = [
        f"{record.began.astimezone():%Y-%m-%d %H:%M:%S}",
        KEYS["model"](record) or record.requested or "?",
        record.error or (record.stop if record.outcome == "whole" else record.outcome),
        _tokens(record),
        _money(record.cost_usd, exact=record.cost_exact),
        _times(record),
        f"{len(record.attempts)} tries" if len(record.attempts) > 1 else "",
        f"[{record.tag}]" if record.tag else "",
        record.who,
    ]
    return " · ".join(filter(None, said))


def _tokens(record: AuditRecord) -> str:
    return "" if record.usage is None else f"{sent_tokens(record.usage)} → {record.usage.output_tokens} tokens"


def _money(amount: Decimal | None, *, exact: bool = True) -> str:
    return "cost unknown" if amount is None else f"{'' if exact else '~'}${amount:f}"


def _times(record: AuditRecord) -> str:
    first = "" if record.first_event_s is None else f"{record.first_event_s:.2f} s to first, "
    return f"{first}{record.total_s:.2f} s"


def _sum_of_money(group: Group) -> str:
    totals = group.totals
    return "-" if totals.unknown == totals.calls else _money(totals.amount_usd, exact=totals.exact)


def _counted(calls: int) -> str:
    return f"{calls} call{'' if calls == 1 else 's'}" if calls else "-"


_TITLES: tuple[tuple[str, Callable[[Group], str]], ...] = (
    ("calls", lambda group: f"{group.totals.calls}"),
    ("failed", lambda group: f"{group.failed}"),
    ("unfinished", lambda group: f"{group.unfinished}"),
    ("tokens in", lambda group: f"{sent_tokens(group.totals)}"),
    ("tokens out", lambda group: f"{group.totals.output_tokens}"),
    ("cost", _sum_of_money),
    ("unknown cost", lambda group: _counted(group.totals.unknown)),
)


def _show_sums(groups: list[Group], by: str, *, json: bool) -> None:
    if json:
        write_json_line(msgspec.json.encode(groups))
        return
    if not groups:
        note("no call fits")
        return
    rows = [[one_line(group.name) or "-", *(show(group) for _, show in _TITLES)] for group in groups]
    rows += [["total", *(show(all_in_all(groups)) for _, show in _TITLES)]] if len(groups) > 1 else []
    draw([by, *(title for title, _ in _TITLES)], rows, right=range(1, len(_TITLES) + 1))
