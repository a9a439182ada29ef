"""`looms models`: what models there are, what they can do and cost; and newer data about them.

Contract: asks no host and needs no key. `loomstream.catalog` knows the models, and what can be asked of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
import msgspec

from loomstream import catalog
from loomstream.catalog import compare
from loomstream.cli.completion_values import providers
from loomstream.cli.config_option import config_option, use_models
from loomstream.cli.help import Teaching
from loomstream.cli.output import note, write_json_line
from loomstream.cli.table import draw
from loomstream.errors import ConfigError
from loomstream.events import Usage

_SHOWN = 40
_EPILOG = """\b
Examples:
  looms models sonnet                          by name, the cheapest first
  looms models -p openai --can vision          what can see, at one provider
  looms models --can tools --context 500000    large windows, everywhere
  looms models gpt --task 20000+500            20,000 tokens in, 500 out
  looms models --max-usd 0.001 --json          below a tenth of a cent
  looms models update                          from genai-prices, installed
  looms models update --from models.json       the same, from a file
"""


def _task(context: click.Context, option: click.Parameter, value: str) -> Usage:
    del context, option
    sent, _, received = value.partition("+")
    if not (sent.isdecimal() and received.isdecimal()):
        msg = f"{value!r}: write tokens in and tokens out, as in 500+1000"
        raise click.BadParameter(msg)
    return Usage(input_tokens=int(sent), output_tokens=int(received))


def _dollars(context: click.Context, option: click.Parameter, value: str | None) -> Decimal | None:
    del context, option
    if value is None:
        return None
    try:
        amount = msgspec.convert(value, Decimal, strict=False)
    except msgspec.ValidationError:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        msg = f"{value!r} is no amount in US dollars"
        raise click.BadParameter(msg)
    return amount


_WORDS = {"parallel_tools": "parallel", "structured_output": "schema"}
"""How the table shows what is too long for it."""
_BY_WORD = {word: name for name, word in _WORDS.items()}


def _abilities(context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    del context, option
    return tuple(_BY_WORD.get(value, value) for value in values)


@click.command(cls=Teaching, name="models", epilog=_EPILOG)
@click.argument("query", nargs=-1)
@click.option(
    "-p", "--provider", multiple=True, metavar="NAME", shell_complete=providers, help="Only models of this provider."
)
@click.option("--can", multiple=True, type=click.Choice((*catalog.CAPABILITIES, *_BY_WORD)), callback=_abilities,
              metavar="ABILITY",
              help=f"Only models known to do this: {', '.join(catalog.CAPABILITIES)}.")  # fmt: skip
@click.option("--context", type=click.IntRange(min=0), default=0, metavar="TOKENS", help="The least window.")
@click.option("--output", type=click.IntRange(min=0), default=0, metavar="TOKENS", help="The least that it may write.")
@click.option("--max-usd", callback=_dollars, metavar="USD", help="The most that the task may cost.")
@click.option("--task", callback=_task, default="500+1000", show_default=True, metavar="IN+OUT",
              help="The tokens that costs are compared by.")  # fmt: skip
@click.option("--all", "ended", is_flag=True, help="Also models that were taken away.")
@click.option("--limit", type=click.IntRange(min=0), default=_SHOWN, show_default=True, help="So many lines; 0 is all.")
@click.option("--from", "file", type=click.Path(path_type=Path), metavar="FILE", help="With `update`: take this file.")
@click.option("--json", is_flag=True, help="Print a JSON list of objects, of all models that fit.")
@config_option
def models(  # noqa: PLR0913 (the options)
    *,
    query: tuple[str, ...],
    provider: Sequence[str],
    can: Sequence[str],
    context: int,
    output: int,
    max_usd: Decimal | None,
    task: Usage,
    ended: bool,
    limit: int,
    file: Path | None,
    json: bool,
) -> None:
    """Search the models: names, windows, abilities, prices.

    Each word of QUERY must occur in PROVIDER:MODEL. Prices are US dollars per million tokens; `task` is what the tokens
    of --task cost. A price that is not known is shown as `?`, and never guessed. What `models:` in looms.yaml says
    counts. `looms models update` writes newer data to models.json in ~/.loom.
    """
    if query == ("update",):
        _update(file, json=json)
        return
    if file is not None:
        msg = "--from goes with `looms models update`"
        raise click.UsageError(msg)
    use_models()
    today = None if ended else datetime.now(UTC).date()
    wanted = compare.Wanted(
        words=query,
        providers=tuple(provider),
        capabilities=tuple(can),
        context_tokens=context,
        output_tokens=output,
        max_usd=max_usd,
        task=task,
        ended_by=today,
    )
    _show(compare.find(wanted), limit, json=json)


def _update(file: Path | None, *, json: bool) -> None:
    from loomstream.catalog.update import update  # noqa: PLC0415 (only where it is asked for)

    done = update(file)
    if json:
        write_json_line(msgspec.json.encode({**done._asdict(), "path": str(done.path)}))
    else:
        note(f"{done.path}: {done.models} models as of {done.as_of}, {done.new} new, {done.changed} with another price")


def _show(found: Sequence[compare.Found], limit: int, *, json: bool) -> None:
    if json:
        write_json_line(msgspec.json.encode(found))
        return
    if not found:
        msg = "no model in the catalog fits: fewer words, or `--all` for those that were taken away"
        raise ConfigError(msg)
    shown = found[:limit] if limit else found
    draw(_TITLES, [_cells(each) for each in shown], right=range(1, 6))
    if len(shown) < len(found):
        note(f"{len(found) - len(shown)} more: --limit 0 shows all, and words and options narrow the search")
    note(f"US dollars per million tokens, as of {catalog.as_of()}; `task` in US dollars")


_TITLES = ("model", "window", "writes", "in", "out", "task", "can", "")


def _cells(found: compare.Found) -> tuple[str, ...]:
    entry = found.entry
    rates = ("free", "free") if entry.free else ("?", "?")
    if entry.price is not None and not entry.free:
        mark = "+" if entry.price.tiers else ""
        rates = (f"{entry.price.input:f}{mark}", f"{entry.price.output:f}{mark}")
    able = [_WORDS.get(name, name) for name in catalog.CAPABILITIES if name != "streaming" and entry.can(name)]
    last = "" if entry.deprecated_on is None else f"until {entry.deprecated_on}"
    task = "?" if found.task_usd is None else f"{found.task_usd:.6f}".rstrip("0").rstrip(".")
    window = (_tokens(entry.context_tokens), _tokens(entry.max_output_tokens))
    return (found.name, *window, *rates, task, ", ".join(able), last)


def _tokens(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1_000_000:.3g}M" if count >= 1_000_000 else f"{count / 1000:.3g}k"  # noqa: PLR2004 (a million)
