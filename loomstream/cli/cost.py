"""`looms cost`: what a prompt would cost at several models, and what past calls would have.

Contract: asks no host and needs no key; nothing is sent. Tokens of a prompt are reckoned by characters, and said to be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
import msgspec

from loomstream.catalog import CAPABILITIES, Entry, as_of, compare
from loomstream.cli.completion_values import models, providers
from loomstream.cli.config_option import config_option, use_models
from loomstream.cli.help import Teaching
from loomstream.cli.output import note, warn, write_json_line
from loomstream.cli.table import draw
from loomstream.errors import ConfigError
from loomstream.events import Usage
from loomstream.messages import Request, user
from loomstream.middleware.estimates import CHARS_PER_TOKEN, prompt_tokens
from loomstream.telemetry.audit_log import files_of, lines_of
from loomstream.telemetry.records import AuditRecord, Reading

_MOST_TOKENS = 1_000_000_000
_OUTPUT_TOKENS = 1000
_SHOWN = 20
_RANKED = 5
_EPILOG = """\b
Examples:
  looms cost "Hi" --models openai:gpt-4o,anthropic:claude-haiku-5-5
  looms cost --max-tokens 500 < prompt.txt      the cheapest of all models
  looms cost "Hi" --can vision -p gemini        of one provider's that can see
  looms cost --input-tokens 20000               a size in the place of a prompt
  looms cost --from-log ~/.loom/audit.jsonl     what past calls cost elsewhere
"""


@click.command(cls=Teaching, name="cost", epilog=_EPILOG)
@click.argument("prompt", required=False)
@click.option(
    "--max-tokens",
    type=click.IntRange(0, _MOST_TOKENS),
    default=_OUTPUT_TOKENS,
    show_default=True,
    metavar="N",
    help="The tokens of the answer.",
)
@click.option(
    "--input-tokens", type=click.IntRange(0, _MOST_TOKENS), metavar="N", help="The tokens of the prompt, counted."
)
@click.option("-s", "--system", default="", metavar="TEXT", help="A system prompt, which counts too.")
@click.option(
    "--models",
    "names",
    multiple=True,
    metavar="P:M,…",
    shell_complete=models,
    help="These models, by comma; may be repeated.",
)
@click.option(
    "-p", "--provider", multiple=True, metavar="NAME", shell_complete=providers, help="Only models of this provider."
)
@click.option("--can", multiple=True, type=click.Choice(CAPABILITIES), metavar="ABILITY",
              help=f"Only models known to do this: {', '.join(CAPABILITIES)}.")  # fmt: skip
@click.option("--from-log", type=click.Path(path_type=Path), metavar="FILE", help="Past calls, from an audit log.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="So many lines; 0 is all.")
@click.option("--json", is_flag=True, help="Print a JSON list of objects.")
@config_option
def cost(  # noqa: PLR0913 (the options)
    *,
    prompt: str | None,
    max_tokens: int,
    input_tokens: int | None,
    system: str,
    names: Sequence[str],
    provider: Sequence[str],
    can: Sequence[str],
    from_log: Path | None,
    limit: int | None,
    json: bool,
) -> None:
    """Estimate what a prompt would cost, over models; or what the calls of a log would have cost at others.

    PROMPT, or standard input, is reckoned at four characters to the token, so the figures are estimates. With
    --from-log the tokens are those that were billed, and each model's calls are priced again at every model that could
    have answered them: the largest saving first.
    """
    use_models()
    wanted = compare.Wanted(providers=tuple(provider), capabilities=tuple(can), ended_by=datetime.now(UTC).date())
    chosen = _chosen(names)
    if from_log is not None:
        entries = compare.named(chosen) if chosen else [found.entry for found in compare.find(wanted)]
        _reprice(from_log, entries, _RANKED if limit is None else limit, json=json)
        return
    tokens = _tokens(prompt, system) if input_tokens is None else input_tokens
    task = Usage(input_tokens=tokens, output_tokens=max_tokens)
    last_day = None if chosen else wanted.ended_by  # what is named is shown in any case
    wanted = msgspec.structs.replace(wanted, task=task, holds_task=not chosen, ended_by=last_day)
    found = compare.find(wanted, compare.named(chosen) if chosen else None)
    _show(found, wanted.task, _SHOWN if limit is None else limit, json=json)


def _chosen(names: Sequence[str]) -> list[str]:
    chosen = [name.strip() for each in names for name in each.split(",") if name.strip()]
    for name in chosen:
        if not all(name.partition(":")):
            msg = f"{name!r} names no model: write PROVIDER:MODEL, as in openai:gpt-4o"
            raise click.BadParameter(msg, param_hint="--models")
    return chosen


def _tokens(prompt: str | None, system: str) -> int:
    text = _piped() if prompt is None or prompt == "-" else prompt
    return prompt_tokens(Request(messages=(user(text),), system=system))


def _piped() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        msg = "give a PROMPT, --input-tokens N, or text on standard input"
        raise click.UsageError(msg)
    return sys.stdin.buffer.read().decode("utf-8-sig", "replace")


def _show(found: Sequence[compare.Found], task: Usage, limit: int, *, json: bool) -> None:
    if json:
        rows = [{"model": each.name, "cost_usd": each.task_usd, "as_of": each.entry.as_of} for each in found]
        write_json_line(msgspec.json.encode(rows))
        return
    if not found:
        msg = "no model in the catalog fits"
        raise ConfigError(msg)
    shown = found[:limit] if limit else found
    draw(("model", "US dollars"), [(each.name, _dollars(each.task_usd)) for each in shown], right=(1,))
    if len(shown) < len(found):
        note(f"{len(found) - len(shown)} more: --limit 0 shows all")
    note(
        f"about {_counted(task.input_tokens)} in ({CHARS_PER_TOKEN} characters to the token), "
        f"{task.output_tokens} out; prices as of {as_of()}"
    )


def _counted(tokens: int) -> str:
    return f"{tokens} token" if tokens == 1 else f"{tokens} tokens"


def _dollars(amount: Decimal | None) -> str:
    return "?" if amount is None else f"{amount:.6f}"


# --- past calls ----------------------------------------------------------------------------------


def _reprice(path: Path, entries: Sequence[Entry], limit: int, *, json: bool) -> None:
    if not files_of(path):
        msg = f"there is no audit log at {path}: docs/how-to/audit-log.md says how one is kept"
        raise ConfigError(msg)
    reading = Reading(lines_of(path))
    repriced = compare.reprice(_past(reading), entries)
    if reading.skipped:
        lines = "line of {} is no record" if reading.skipped == 1 else "lines of {} are no records"
        warn(f"{reading.skipped} {lines.format(path)} of a call")
    if json:
        write_json_line(msgspec.json.encode(repriced))
        return
    if not repriced:
        msg = f"{path} holds no calls"
        raise ConfigError(msg)
    rows = [row for each in repriced for row in _rows(each, limit)]
    draw(("model", "calls", "US dollars", "saved", ""), rows, right=range(1, 5))
    note("the same tokens at other prices: another model counts the same text otherwise, and answers otherwise")


def _past(records: Iterable[AuditRecord]) -> Iterator[compare.Past]:
    for record in records:
        yield compare.Past(
            provider=record.provider,
            model=record.model,
            usage=record.counted,
            cost_usd=record.cost_usd,
            used_tools=bool(record.tool_calls),
        )


def _rows(repriced: compare.Repriced, limit: int) -> Iterator[tuple[str, ...]]:
    left_out = f"{repriced.left_out} more without a known cost" if repriced.left_out else ""
    yield repriced.model, str(repriced.calls), _dollars(repriced.cost_usd), "", left_out
    for each in repriced.alternatives[: limit or None]:
        yield f"  {each.model}", "", _dollars(each.cost_usd), _dollars(each.saved_usd), f"{each.saved_share:.0%}"
