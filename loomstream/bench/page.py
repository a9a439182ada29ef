"""A report as a page, as CSV and as single plots.

Contract: pure, text in and text out. The page holds everything it needs: no script, nothing from another host; text
from outside is escaped. Each line and plot of a simulated row says that it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from statistics import median

from loomstream.bench.plots import SECONDS, Point, Series, distributions, scatter, shown, timelines
from loomstream.bench.samples import Report, Row, Sample
from loomstream.bench.statistics import Interval
from loomstream.bench.summary import Summary, summary, told, verdicts

NONE = "-"
COLUMNS = (
    "model",
    "runs",
    "connect",
    "first event",
    "first text",
    "total p50",
    "total p95",
    "tokens/s",
    "gap p50",
    "gap p95",
    "gap p99",
    "longest",
    "tokens in/out",
    "errors",
    "cost",
)
"""The columns of the table, here and in the terminal."""
SIMULATED_NOTE = (
    "Rows marked simulated are answers of a simulator on this machine at a made-up pace: they show what a report "
    "looks like and say nothing about a provider. Nobody charged their cost: it is the catalog's for so many tokens."
)
EMBEDDED_NOTE = "Rows marked embedded were measured on a small model on this machine."
LIVE_NOTE = "Rows marked live were measured on a provider's own service, or what stands at its address."
COUNTED = {
    "warm": "Connections were warm: kept from answer to answer where the server left them open (0 ms to connect).",
    "cold": "Connections were cold: every request opened its own.",
    "both": "Rows marked warm kept what connections the server left open, rows marked cold opened one each.",
}
"""What to know about each setting of `connections`."""
_BELOW_S = 1.0
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#667085;--line:#d8dde6;--paper:#fff;--tint:#f6f7f9;--mark:#9a6700}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#98a2b3;--line:#364152;--paper:#151a21;
--tint:#1c232d;--mark:#e5b755}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
body{max-width:1320px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.4rem 0}.soft{color:var(--soft)}
.note{border-left:3px solid var(--mark);background:var(--tint);padding:.5rem .8rem;margin:1rem 0}
.wide{overflow-x:auto}table{border-collapse:separate;border-spacing:0;width:100%;font-variant-numeric:tabular-nums;font-size:12.5px}
th,td{padding:.4rem .35rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}
th{color:var(--soft);font-weight:500}th:first-child,td:first-child{text-align:left;white-space:normal;min-width:9rem}
td small{display:block;color:var(--soft);white-space:normal}th,td:last-child,td:nth-last-child(2){white-space:normal}
th:first-child,td:first-child{position:sticky;left:0;background:var(--paper)}td:first-child{overflow-wrap:anywhere}
.failed{color:var(--mark);text-align:left;white-space:normal}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:1rem}
.plots svg{width:100%;height:auto;border:1px solid var(--line);border-radius:8px}
@media(max-width:600px){.plots{display:block;overflow-x:auto}.plots svg{width:560px;margin-bottom:1rem}}
li{margin:.2rem 0}blockquote{margin:.4rem 0;padding:.3rem .8rem;border-left:3px solid var(--line);white-space:pre-wrap}
"""


def seconds(value: float | None) -> str:
    """Give a time as a reader wants it: milliseconds below a second."""
    if value is None:
        return NONE
    return f"{value:.2f} s" if value >= _BELOW_S else f"{value * 1000:.3g} ms"


def dollars(value: Decimal | None) -> str:
    """Give an amount of money."""
    return NONE if value is None else f"${value:.6f}".rstrip("0").rstrip(".") if value else "$0"


def cells(row: Row, figures: Summary) -> list[tuple[str, str]]:
    """Give the row's cells under `COLUMNS`: each a figure, and what stands below it in small."""
    gaps = figures.gaps
    errors = f"{figures.errors}" + (f" ({figures.truncated} cut off)" if figures.truncated else "")
    cost = dollars(figures.cost_usd) + ("" if figures.cost_is_whole or figures.cost_usd is None else " or more")
    return [
        (row.label, row.failure),
        (str(figures.counted), f"of {figures.runs}" if figures.runs != figures.counted else ""),
        (_value(figures.connect), _opened(figures)),
        (_value(figures.first_event), _bounds(figures.first_event, seconds)),
        (_value(figures.first_text), _bounds(figures.first_text, seconds)),
        (_value(figures.total), _bounds(figures.total, seconds)),
        (seconds(figures.total_p95_s), ""),
        (_rate(figures.tokens_per_s), _bounds(figures.tokens_per_s, lambda value: f"{value:.1f}")),
        *((seconds(value), "") for value in (gaps or (None, None, None, None))),
        (
            f"{_count(figures.input_tokens)}/{_count(figures.output_tokens)}",
            f"{_count(figures.cached_tokens)} cached" if figures.cached_tokens else "",
        ),
        (errors, ""),
        (cost, ""),
    ]


def _value(found: Interval | None) -> str:
    return NONE if found is None else seconds(found.value)


def _opened(figures: Summary) -> str:
    """Give what stands below the time to connect: how long it took where kept connections were opened."""
    if figures.connect is None or figures.connect.value:
        return _bounds(figures.connect, seconds)
    return "" if figures.cold_connect is None else f"opened: {seconds(figures.cold_connect.value)}"


def _count(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"


def _rate(found: Interval | None) -> str:
    return NONE if found is None else f"{found.value:.1f}"


def _bounds(found: Interval | None, words: Callable[[float], str]) -> str:
    if found is None or found.low is None or found.high is None:
        return ""
    return f"{words(found.low)} to {words(found.high)}"


def notes(report: Report) -> list[str]:
    """Say what was real, and what measuring added."""
    kinds = {row.kind for row in report.rows if row.samples}
    said = [] if report.complete else ["Interrupted: this is what had been measured until then."]
    said += [SIMULATED_NOTE] if "simulated" in kinds else []
    said += [EMBEDDED_NOTE] if "embedded" in kinds else []
    said += [LIVE_NOTE] if "live" in kinds else []
    return [
        *said,
        COUNTED[report.connections],
        f"Measuring added {report.overhead_us:.2f} µs to each event, timed in the same process.",
    ]


# --- plots ---------------------------------------------------------------------------------------


def plots(report: Report) -> dict[str, str]:
    """Give the plots as SVG, by a name for a file."""
    rows = [row for row in report.rows if row.samples]
    if not rows:
        return {}
    drawn = {
        "connect": distributions(
            "Connecting, where a connection was opened", SECONDS, _series(rows, _opening, lambda row: row.samples)
        ),
        "first-text": distributions("Time to first text", SECONDS, _series(rows, lambda one: one.first_text_s)),
        "total": distributions("Whole answer", SECONDS, _series(rows, lambda one: one.total_s)),
        "tokens-per-s": distributions(
            "Output tokens a second, without the wait for the first", "tokens/s", _series(rows, _rate_of)
        ),
        "gaps": distributions("Longest gap of each answer", SECONDS, _series(rows, _longest)),
        "timeline": timelines("When each event came: the middle answer of each", SECONDS, _middle(rows)),
    }
    points = [point for row in rows if (point := _point(row)) is not None]
    if points:
        drawn["cost"] = scatter("Cost against time", ("whole answer, seconds (p50)", "US dollars an answer"), points)
    return drawn


def _opening(sample: Sample) -> float | None:
    return sample.connect_s or None


def _rate_of(sample: Sample) -> float | None:
    return sample.tokens_per_s


def _longest(sample: Sample) -> float | None:
    return max(sample.gaps_s, default=None)


def _counted(row: Row) -> tuple[Sample, ...]:
    return row.counted


def _series(
    rows: Sequence[Row],
    figure: Callable[[Sample], float | None],
    of: Callable[[Row], tuple[Sample, ...]] = _counted,
) -> list[Series]:
    return [
        Series(row.label, [value for one in of(row) if (value := figure(one)) is not None], row.kind == "simulated")
        for row in rows
    ]


def _middle(rows: Iterable[Row]) -> list[Series]:
    chosen: list[Series] = []
    for row in rows:
        counted = sorted(row.counted, key=lambda one: one.total_s or 0.0)
        stamps = counted[len(counted) // 2].stamps_s if counted else ()
        chosen.append(Series(row.label, stamps, row.kind == "simulated"))
    return chosen


def _point(row: Row) -> Point | None:
    costs = [one.cost_usd for one in row.counted if one.cost_usd is not None]
    totals = [one.total_s for one in row.counted if one.total_s is not None]
    if not costs or not totals:
        return None
    return Point(row.label, median(totals), float(median(costs)), row.kind == "simulated")


# --- page ----------------------------------------------------------------------------------------


def html(report: Report) -> str:
    """Give the report as one page."""
    marked = " (with simulated rows)" if report.is_simulated else ""
    how = (
        f"{report.made_at} · loomstream {report.version} · {report.runs} runs, {report.concurrency} at once · "
        f"{_CONNECTIONS[report.connections]} · {_size(report)}at most {report.max_tokens} tokens out"
    )
    drawn = plots(report)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Benchmark{marked}</title><style>{_STYLE}</style></head><body>
<h1>Benchmark{marked}</h1><p class="soft">{shown(how)}</p>
{"".join(f'<p class="note">{shown(note)}</p>' for note in notes(report))}
<h2>Figures</h2><div class="wide">{_table(report)}</div>
<p class="soft">Medians, with the range that holds the true one in 95 of 100 cases (bootstrap). Gaps lie between events
that carry content. Tokens a second leave out the wait for the first. Errors and costs are of all answers, those that
opened connections among them; the other figures are of whole answers.</p>
<h2>Differences</h2>{_verdicts(report)}
<h2>Plots</h2><p class="soft">A dot is an answer, the box holds the middle half, the bar is the median. What is
hollow and dashed was simulated.</p><div class="plots">{"".join(drawn.values())}</div>
{_failures(report)}
<h2>Prompt</h2><details{"" if len(report.prompt) > _LONG else " open"}>
<summary>{len(report.prompt)} characters</summary><blockquote>{shown(report.prompt)}</blockquote></details>
</body></html>
"""


_LONG = 600
_CONNECTIONS = {"warm": "warm connections", "cold": "a new connection each", "both": "warm and cold connections"}


def _size(report: Report) -> str:
    return "" if report.input_tokens is None else f"about {report.input_tokens} tokens in · "


def _table(report: Report) -> str:
    head = "".join(f"<th>{shown(title)}</th>" for title in COLUMNS)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_table_row, report.rows))}</tbody></table>"


def _table_row(row: Row) -> str:
    if row.failure and not row.samples:
        reason = f'<td class="failed" colspan="{len(COLUMNS) - 1}">{shown(row.failure)}</td>'
        return f"<tr><td>{shown(row.label)}</td>{reason}</tr>"
    why = row.label.removeprefix(row.spec).strip() + (f" {row.failure}" if row.failure else "")
    drawn = (
        f"<td>{shown(value)}{f'<small>{_kept_together(small)}</small>' if small else ''}</td>"
        for value, small in cells(row, summary(row))[1:]
    )
    return f"<tr><td>{shown(row.spec)}<small>{shown(why)}</small></td>{''.join(drawn)}</tr>"


_UNIT = re.compile(r"(?<=\d) (?=[mµ]?s\b)")


def _kept_together(text: str) -> str:
    """Give text for a cell that may wrap, but never between a number and its unit."""
    return shown(_UNIT.sub("\N{NO-BREAK SPACE}", text))


def _verdicts(report: Report) -> str:
    found = verdicts(report)
    if not found:
        return '<p class="soft">There is nothing to compare with.</p>'
    lines = "".join(f"<li>{shown(line)}</li>" for line in told(found))
    return f'<ul>{lines}</ul><p class="soft">{shown(_HOW_TOLD)}</p>'


_HOW_TOLD = (
    "Of mean values, round by round, by a permutation test; p is corrected for the number of comparisons. A difference "
    "is claimed below 0.05."
)


def _failures(report: Report) -> str:
    lines = [
        f"<li>{shown(row.label)}, run {one.number}: {shown(one.error)}: {shown(one.message)}</li>"
        for row in report.rows
        for one in row.samples
        if not one.ok
    ]
    return f"<h2>Errors</h2><ul>{''.join(lines)}</ul>" if lines else ""


_CSV_FIELDS = (
    "number",
    "cold",
    "began_s",
    "connect_s",
    "first_event_s",
    "first_text_s",
    "total_s",
    "tokens_per_s",
    "events",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "cost_usd",
    "stop",
    "error",
    "truncated",
    "message",
)


def csv_text(report: Report) -> str:
    """Give every sample as a line of CSV, with its row's spec and kind."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(("spec", "kind", "connection", "provider", "model", *_CSV_FIELDS))
    for row in report.rows:
        for sample in row.samples:
            figures = (getattr(sample, name) for name in _CSV_FIELDS)
            writer.writerow(map(_plain, (row.spec, row.kind, row.connection, row.provider, row.model, *figures)))
    return written.getvalue()


def _plain(value: object) -> object:
    """Give a figure for CSV; a text that a spreadsheet would run as a formula is quoted, none drives a terminal."""
    if isinstance(value, str):
        value = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in value)
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") and value else value
