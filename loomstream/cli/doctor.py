"""`looms doctor`: what keeps a model from answering, and what to do about it.

Contract: prints what `loomstream.doctor` finds; the exit code is 1 where it found a problem.
"""

from __future__ import annotations

import click
import msgspec

from loomstream.cli.completion_values import providers_and_models
from loomstream.cli.config_option import config_option
from loomstream.cli.help import Teaching
from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.output import Channel, write_json_line
from loomstream.cli.terminal import one_line
from loomstream.doctor import Finding

_FAILED = 1
_COLORS = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": None}
_NAME_COLUMNS = 13
_EPILOG = """\b
Examples:
  looms doctor
  looms doctor --provider anthropic --live     asks for a few words, is billed
  looms doctor --offline --json
"""


@click.command(cls=Teaching, epilog=_EPILOG)
@click.option(
    "-p",
    "--provider",
    metavar="SPEC",
    shell_complete=providers_and_models,
    help="Check PROVIDER, or PROVIDER:MODEL, instead of the configured.",
)
@click.option("--offline", is_flag=True, help="Send nothing.")
@click.option("--live", is_flag=True, help="Also ask the model for a few words. This is billed.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, metavar="S",
              help="Seconds that a host may take for each request that is not billed.")  # fmt: skip
@click.option("--json", is_flag=True, help="Print a JSON object.")
@config_option
@click.pass_context
def doctor(
    context: click.Context, *, provider: str | None, offline: bool, live: bool, timeout: float, json: bool
) -> None:
    """Check configuration, keys, connection, model, middleware, versions, extras and keyring.

    Each problem comes with what to do. Nothing that is billed is sent without --live. The exit code is 1 where there is
    a problem.
    """
    with EndsAtOnce():
        import anyio  # noqa: PLC0415 (not for --help)

        from loomstream.doctor.checks import Wish, diagnose  # noqa: PLC0415 (the same)

    wish = Wish(spec=provider, offline=offline, live=live, timeout_s=timeout)
    findings = anyio.run(diagnose, wish)
    problems = [finding for finding in findings if finding.status == "problem"]
    if json:
        write_json_line(msgspec.json.encode({"healthy": not problems, "findings": findings}))
    else:
        _show(findings, len(problems))
    if problems:
        context.exit(_FAILED)


def _show(findings: list[Finding], problems: int) -> None:
    channel = Channel("stdout")
    for finding in findings:
        status = f"{finding.status:<8}"
        label = click.style(status, fg=_COLORS[finding.status]) if channel.styles else status
        click.echo(f"{label} {finding.name:<{_NAME_COLUMNS}} {one_line(finding.said)}")
        if finding.fix:
            click.echo(f"{'':<9}{'':<{_NAME_COLUMNS}} do: {one_line(finding.fix)}")
    click.echo(f"{problems} problem{'' if problems == 1 else 's'}" if problems else "no problems")
