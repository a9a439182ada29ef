"""`looms bench`: latency, throughput and cost of models side by side.

Contract: reads arguments, shows progress on standard error and the table on standard output, writes files. What is
measured and how is decided by `loomstream.bench`.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

import click
import msgspec

from loomstream.cli.completion_values import providers_and_models
from loomstream.cli.help import Teaching
from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.output import Channel, write_json_line
from loomstream.cli.terminal import one_line
from loomstream.errors import ConfigError

if TYPE_CHECKING:
    from loomstream.bench import Progress, Report, Sample, Verdict

_FAILED = 1
_EPILOG = """\b
Examples:
  looms bench local
  looms bench openai:gpt-4o anthropic --max-cost 0.50 --html report.html
  looms bench openai:gpt-4o --connections both --input-tokens 2000
  looms bench simulated:openai simulated:anthropic --html demo.html
  looms bench local --save monday.json
  looms bench --compare monday.json tuesday.json

A SPEC is provider:model, a provider (its default model), local (a small model on this machine), or
simulated:provider (a made-up pace on this machine; says nothing about the provider).
"""


@click.command(cls=Teaching, epilog=_EPILOG)
@click.argument("specs", nargs=-1, metavar="SPEC...", shell_complete=providers_and_models)
@click.option("--runs", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Answers of each model.")
@click.option("--concurrency", type=click.IntRange(1, 1_000), default=1, show_default=True, help="Rounds at once.")
@click.option("--prompt", metavar="TEXT", help="What every model is asked.")
@click.option("--input-tokens", type=click.IntRange(1, 1_000_000), metavar="N", help="A prompt of about N tokens.")
@click.option(
    "--output-tokens",
    "--max-tokens",
    "max_tokens",
    type=click.IntRange(1, 1_000_000),
    default=200,
    show_default=True,
    metavar="N",
    help="Longest answer.",
)
@click.option("--max-cost", metavar="USD", help="A budget for all together, which is never exceeded.")
@click.option(
    "--connections",
    type=click.Choice(["warm", "cold", "both"]),
    default="warm",
    show_default=True,
    help="Kept from answer to answer, a new one for each, or a row of either.",
)
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
    if options["prompt"] is not None and options["input_tokens"] is not None:
        msg = "--prompt and --input-tokens exclude each other: the one is the text, the other its size"
        raise click.UsageError(msg)
    _check_paths(options)
    watch = _Watch()

    async def run() -> Report:
        return await measuring.measure(
            specs or ("local",),
            runs=options["runs"],
            concurrency=options["concurrency"],
            prompt=options["prompt"],
            input_tokens=options["input_tokens"],
            max_tokens=options["max_tokens"],
            max_cost_usd=_amount(options["max_cost"]),
            connections=options["connections"],
            seed=options["seed"],
            progress=watch.show,
        )

    try:
        with watch:
            report = anyio.run(run)
    except KeyboardInterrupt:
        if watch.so_far is not None:
            _tell(watch.so_far(), options)
        raise
    _tell(report, options)
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
    for name in _FILES:
        path = options[name]
        if path is not None and not _may_be_written(Path(path)):
            msg = f"{path} cannot be written: give a file in a folder that exists"
            raise ConfigError(msg)
    _check_twice([path for name in _FILES if (path := options[name]) is not None])
    if options["svg_folder"] is not None:
        folder = Path(options["svg_folder"])
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{folder} is no folder, and cannot be made: {error.strerror or error}"
            raise ConfigError(msg) from error
        if not os.access(folder, os.W_OK):
            msg = f"{folder} is a folder in which nothing can be written: give another"
            raise ConfigError(msg)


_FILES = ("csv_path", "html_path", "save_path")
"""Options that name a file of the report."""


def _check_twice(paths: Sequence[str]) -> None:
    """Raise `click.UsageError` where one file of the report would be written over by another."""
    files = [where for path in paths if (where := Path(path).resolve()).is_file() or not where.exists()]
    twice = next((where for where in files if files.count(where) > 1), None)
    if twice is not None:
        msg = f"{twice} is named twice: one file of the report would be written over by the other"
        raise click.UsageError(msg)


def _may_be_written(path: Path) -> bool:
    """Say whether a file can be made or written over; it may be a device, such as /dev/stdout."""
    return os.access(path, os.W_OK) and not path.is_dir() if path.exists() else os.access(path.parent, os.W_OK)


# --- progress ------------------------------------------------------------------------------------


class _Watch:
    """The live table of a terminal; in a pipe, a line for each answer."""

    def __init__(self) -> None:
        self._channel = Channel("stderr")
        self._rows: dict[int, tuple[str, list[Sample]]] = {}
        self._spent = Decimal(0)
        self._live: Any = None
        self.so_far: Callable[[], Report] | None = None

    def __enter__(self) -> Self:
        if self._channel.is_terminal:
            from rich.console import Console  # noqa: PLC0415 (only at a terminal)
            from rich.live import Live  # noqa: PLC0415 (the same)

            self._live = Live("connecting", console=Console(stderr=True), refresh_per_second=8, transient=True)
        self._context: AbstractContextManager[object] = self._live or nullcontext()
        self._context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def show(self, progress: Progress) -> None:
        """Take one answer."""
        from loomstream.bench.page import seconds  # noqa: PLC0415 (see `bench`)

        self.so_far = progress.so_far
        sample = progress.sample
        if sample is not None:
            self._rows.setdefault(progress.row, (progress.label, []))[1].append(sample)
            self._spent += (progress.kind == "live" and sample.cost_usd) or 0
        if self._live is not None:
            self._live.update(self._table(progress))
            return
        said = "cannot be measured" if sample is None else sample.error or f"{seconds(sample.total_s)}"
        self._channel.line(f"{progress.done}/{progress.of} {progress.label}: {said}")

    def _table(self, progress: Progress) -> object:
        from rich.console import Group  # noqa: PLC0415 (see above)
        from rich.markup import escape  # noqa: PLC0415 (see above)
        from rich.progress_bar import ProgressBar  # noqa: PLC0415 (see above)
        from rich.table import Table  # noqa: PLC0415 (see above)

        from loomstream.bench.page import dollars  # noqa: PLC0415 (see `bench`)

        head = Table.grid(padding=(0, 1))
        spent = f", {dollars(self._spent)}" if self._spent else ""
        head.add_row(
            ProgressBar(total=progress.of, completed=progress.done, width=_BAR_WIDTH),
            f"{progress.done} of {progress.of} answers{spent}",
        )
        table = Table(box=None, pad_edge=False)
        table.add_column("model")
        for title in ("answers", "first text p50", "total p50", "errors"):
            table.add_column(title, justify="right", no_wrap=True)
        for _, (label, samples) in sorted(self._rows.items()):
            errors = str(sum(not one.ok for one in samples))
            times = (_middle(samples, "first_text_s"), _middle(samples, "total_s"))
            table.add_row(escape(one_line(label)), str(len(samples)), *times, errors)
        return Group(head, table)


_BAR_WIDTH = 30


def _middle(samples: list[Sample], name: str) -> str:
    from loomstream.bench.page import seconds  # noqa: PLC0415 (see `bench`)

    values: list[float] = [value for one in samples if (value := getattr(one, name)) is not None]
    return seconds(median(values) if values else None)


# --- the end -------------------------------------------------------------------------------------


def _tell(report: Report, options: dict[str, Any]) -> None:
    _show(report, as_json=options["as_json"])
    _write(report, options)


def _show(report: Report, *, as_json: bool) -> None:
    from loomstream.bench import summary, verdicts  # noqa: PLC0415 (see `bench`)
    from loomstream.bench.page import COLUMNS, cells, notes  # noqa: PLC0415 (the same)

    if as_json:
        figures = [{"label": row.label, **msgspec.to_builtins(summary(row))} for row in report.rows]
        told = {"report": report, "summaries": figures, "verdicts": verdicts(report)}
        write_json_line(msgspec.json.encode(told))
        return
    measured = [row for row in report.rows if row.samples]
    if measured:
        _draw([COLUMNS, *([value for value, _ in cells(row, summary(row))] for row in measured)])
    for row in report.rows:
        if row.failure:
            _line(f"{row.label}: {row.failure}")
    _say(verdicts(report))
    for note in notes(report):
        _line(note)


def _draw(rows: Sequence[Sequence[str]]) -> None:
    """Write the table; at a terminal too narrow for it, as several, each with the models' names."""
    from loomstream.cli.table import draw  # noqa: PLC0415 (only for people)

    columns = list(zip(*rows, strict=True))
    if Channel("stdout").is_terminal:
        room = shutil.get_terminal_size().columns
        columns[0] = tuple(_cut(name, room // 2) for name in columns[0])
    else:
        room = sum(map(len, map("".join, columns)))
    widths = [max(map(len, column)) + 2 for column in columns]
    for number, block in enumerate(_blocks(widths, room)):
        if number:
            Channel("stdout").write("\n")
        titles, *shown = zip(*(columns[column] for column in (0, *block)), strict=True)
        draw(titles, shown, right=range(1, len(block) + 1))


def _cut(label: str, room: int) -> str:
    """Give a row's label; where it is too long its name loses its middle, and its mark stays."""
    name, opening, mark = label.rpartition(" [")
    keep = max(room - len(opening + mark), _SHORTEST)
    if len(name) <= keep:
        return label
    return f"{name[: keep // 2]}…{name[len(name) - (keep - 1 - keep // 2) :]}{opening}{mark}"


_SHORTEST = 11
"""Characters of a name that say which model it is."""


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Divide the columns behind the first so that each block fits beside it; a block has at least one."""
    blocks: list[list[int]] = [[]]
    left = room - widths[0]
    for column in range(1, len(widths)):
        if blocks[-1] and widths[column] > left + 2:
            blocks.append([])
            left = room - widths[0]
        blocks[-1].append(column)
        left -= widths[column]
    return blocks


def _say(verdicts: list[Verdict]) -> None:
    from loomstream.bench.summary import told  # noqa: PLC0415 (see `bench`)

    for line in told(verdicts):
        _line(one_line(line))


def _line(text: str) -> None:
    """Write a line; at a terminal it is broken between words."""
    channel = Channel("stdout")
    if channel.is_terminal:
        text = textwrap.fill(text, shutil.get_terminal_size().columns - 1, break_on_hyphens=False)
    channel.write(text + "\n")


def _write(report: Report, options: dict[str, Any]) -> None:
    """Write the files; one that cannot be written any more keeps no other from it."""
    from loomstream.bench import csv_text, html, plots, save  # noqa: PLC0415 (see `bench`)
    from loomstream.bench.samples import write_text  # noqa: PLC0415 (the same)

    jobs: list[Callable[[], None]] = []
    if options["save_path"] is not None:
        jobs.append(partial(save, report, options["save_path"]))
    if options["csv_path"] is not None:
        jobs.append(partial(write_text, options["csv_path"], csv_text(report)))
    if options["html_path"] is not None:
        jobs.append(partial(write_text, options["html_path"], html(report)))
    if options["svg_folder"] is not None:
        folder = Path(options["svg_folder"])
        jobs += [partial(write_text, folder / f"{name}.svg", drawn + "\n") for name, drawn in plots(report).items()]
    failures = [failure for job in jobs if (failure := _failure(job))]
    if failures:
        raise ConfigError("; ".join(failures))


def _failure(job: Callable[[], None]) -> str:
    try:
        job()
    except ConfigError as error:
        return str(error)
    return ""


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
