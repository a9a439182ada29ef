"""`looms bench`: latency, throughput and cost of models side by side.

Contract: reads arguments, shows progress on standard error and the table on standard output, writes files. What is
measured and how is decided by `loomstream.bench`.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import msgspec

from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.output import Channel, write_json_line
from loomstream.errors import ConfigError

if TYPE_CHECKING:
    from loomstream.bench import Progress, Report, Verdict

_FAILED = 1
_EPILOG = """\b
Examples:
  looms bench local
  looms bench openai:gpt-4o anthropic --runs 20 --max-cost 0.50 --html report.html
  looms bench simulated:openai simulated:anthropic --html demo.html
  looms bench local --save monday.json
  looms bench --compare monday.json tuesday.json

A SPEC is provider:model, a provider (its default model), local (a small model on this machine), or
simulated:provider (a made-up pace on this machine; says nothing about the provider).
"""


@click.command(epilog=_EPILOG)
@click.argument("specs", nargs=-1, metavar="SPEC...")
@click.option("--runs", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Answers of each model.")
@click.option("--concurrency", type=click.IntRange(1, 1_000), default=1, show_default=True, help="Rounds at once.")
@click.option("--prompt", metavar="TEXT", help="What every model is asked.")
@click.option("--max-tokens", type=click.IntRange(1), default=200, show_default=True, help="Longest answer.")
@click.option("--max-cost", metavar="USD", help="A budget for all together, which is never exceeded.")
@click.option("--cold", is_flag=True, help="Open a new connection for every request.")
@click.option("--seed", type=int, default=0, help="Another seed, other times of simulated models.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--csv", "csv_path", metavar="FILE", help="Write every answer's figures as CSV.")
@click.option("--html", "html_path", metavar="FILE", help="Write a page with tables and plots.")
@click.option("--svg", "svg_folder", metavar="DIR", help="Write each plot as an SVG file.")
@click.option("--save", "save_path", metavar="FILE", help="Save what was measured, for --compare.")
@click.option("--compare", is_flag=True, help="The arguments are two saved files: what has changed between them?")
def bench(specs: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401 (click's parameters)
    """Measure models side by side: time to first text, gaps, tokens a second, totals, errors, cost.

    Without a SPEC the small model on this machine is measured.
    """
    with EndsAtOnce():
        import anyio  # noqa: PLC0415 (it takes long to import)

        from loomstream import bench as measuring  # noqa: PLC0415 (the same)

    if options["compare"]:
        _compare(specs, as_json=options["as_json"])
        return
    _check_paths(options)
    watch = _Watch()

    async def run() -> Report:
        return await measuring.measure(
            specs or ("local",),
            runs=options["runs"],
            concurrency=options["concurrency"],
            prompt=options["prompt"] or measuring.DEFAULT_PROMPT,
            max_tokens=options["max_tokens"],
            max_cost_usd=_amount(options["max_cost"]),
            cold=options["cold"],
            seed=options["seed"],
            progress=watch.show,
        )

    with watch:
        report = anyio.run(run)
    _show(report, as_json=options["as_json"])
    _write(report, options)
    if not any(row.counted for row in report.rows):
        raise click.exceptions.Exit(_FAILED)


def _amount(text: str | None) -> Decimal | None:
    try:
        amount = None if text is None else Decimal(text.lstrip("$"))
    except InvalidOperation:
        amount = Decimal(-1)
    if amount is not None and not (amount.is_finite() and amount >= 0):
        msg = f"--max-cost {text}: give an amount in US dollars, such as 0.50"
        raise click.UsageError(msg)
    return amount


def _check_paths(options: dict[str, Any]) -> None:
    """Find out that a report cannot be written before anything is spent on it."""
    for name in ("csv_path", "html_path", "save_path"):
        path = options[name]
        if path is None:
            continue
        folder = Path(path).parent
        if not folder.is_dir() or not os.access(folder, os.W_OK) or Path(path).is_dir():
            msg = f"{path} cannot be written: give a file in a folder that exists"
            raise ConfigError(msg)
    if options["svg_folder"] is not None:
        try:
            Path(options["svg_folder"]).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{options['svg_folder']} is no folder, and cannot be made: {error.strerror or error}"
            raise ConfigError(msg) from error


# --- progress ------------------------------------------------------------------------------------


class _Watch:
    """The live table of a terminal; in a pipe, a line for each answer."""

    def __init__(self) -> None:
        self._channel = Channel("stderr")
        self._rows: dict[str, list[Any]] = {}
        self._live: Any = None

    def __enter__(self) -> Self:
        if self._channel.is_terminal:
            from rich.console import Console  # noqa: PLC0415 (only at a terminal)
            from rich.live import Live  # noqa: PLC0415 (the same)

            self._live = Live(console=Console(stderr=True), refresh_per_second=8, transient=True)
        self._context: AbstractContextManager[object] = self._live or nullcontext()
        self._context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def show(self, progress: Progress) -> None:
        """Take one answer."""
        from loomstream.bench.page import seconds  # noqa: PLC0415 (see `bench`)

        sample = progress.sample
        if sample is not None:
            self._rows.setdefault(progress.label, []).append(sample)
        if self._live is not None:
            self._live.update(self._table(progress))
            return
        said = "cannot be measured" if sample is None else sample.error or f"{seconds(sample.total_s)}"
        self._channel.line(f"{progress.done}/{progress.of} {progress.label}: {said}")

    def _table(self, progress: Progress) -> object:
        from rich.markup import escape  # noqa: PLC0415 (see above)
        from rich.table import Table  # noqa: PLC0415 (see above)

        from loomstream.bench.page import seconds  # noqa: PLC0415 (see above)

        table = Table(title=f"{progress.done} of {progress.of} answers", box=None)
        for title in ("model", "answers", "last: first text", "last: total", "errors"):
            table.add_column(title, justify="left" if title == "model" else "right")
        for label, samples in self._rows.items():
            last = samples[-1]
            errors = str(sum(not one.ok for one in samples))
            times = (seconds(last.first_text_s), seconds(last.total_s))
            table.add_row(escape(label), str(len(samples)), *times, errors)
        return table


# --- the end -------------------------------------------------------------------------------------


def _show(report: Report, *, as_json: bool) -> None:
    from loomstream.bench import summary, verdicts  # noqa: PLC0415 (see `bench`)
    from loomstream.bench.page import COLUMNS, cells, notes  # noqa: PLC0415 (the same)
    from loomstream.cli.table import draw  # noqa: PLC0415 (only for people)

    if as_json:
        figures = [{"label": row.label, **msgspec.to_builtins(summary(row))} for row in report.rows]
        told = {"report": report, "summaries": figures, "verdicts": verdicts(report)}
        write_json_line(msgspec.json.encode(told))
        return
    measured = [row for row in report.rows if row.samples]
    if measured:
        rows = [[value for value, _ in cells(row, summary(row))] for row in measured]
        draw(COLUMNS, rows, right=range(1, len(COLUMNS)))
    channel = Channel("stdout")
    for row in report.rows:
        if row.failure:
            channel.line(f"{row.label}: {row.failure}")
    _say(verdicts(report))
    for note in notes(report):
        channel.line(note)


def _say(verdicts: list[Verdict]) -> None:
    channel = Channel("stdout")
    for verdict in verdicts:
        channel.write(verdict.words + "\n")


def _write(report: Report, options: dict[str, Any]) -> None:
    from loomstream.bench import csv_text, html, plots, save  # noqa: PLC0415 (see `bench`)
    from loomstream.bench.samples import write_text  # noqa: PLC0415 (the same)

    if options["save_path"] is not None:
        save(report, options["save_path"])
    if options["csv_path"] is not None:
        write_text(options["csv_path"], csv_text(report))
    if options["html_path"] is not None:
        write_text(options["html_path"], html(report))
    if options["svg_folder"] is not None:
        for name, drawn in plots(report).items():
            write_text(Path(options["svg_folder"]) / f"{name}.svg", drawn + "\n")


def _compare(paths: tuple[str, ...], *, as_json: bool) -> None:
    from loomstream.bench import compare, load  # noqa: PLC0415 (see `bench`)

    if len(paths) != 2:  # noqa: PLR2004 (before and after)
        msg = "--compare takes two saved files: looms bench --compare BEFORE AFTER"
        raise click.UsageError(msg)
    found = compare(load(paths[0]), load(paths[1]))
    if as_json:
        write_json_line(msgspec.json.encode(found))
    elif found:
        _say(found)
    else:
        Channel("stdout").write("the two files have no model in common\n")
