"""`looms decode`: captured bytes of a response to events.

Contract: reads in pieces and writes an event's line before it reads on; offline, no key. `loomstream.decode` does the
work.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

import click

from loomstream.cli.completion_values import models, providers
from loomstream.cli.config_option import config_option
from loomstream.cli.help import Teaching
from loomstream.cli.output import write_json_line

_CHUNK_BYTES = 64 * 1024
_EPILOG = """\b
Examples:
  looms decode --provider openai capture.sse
  curl -sN https://… | looms decode --provider anthropic -
  looms decode -p openai --status 429 --header 'retry-after: 20' body.json
"""


def _read_headers(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for value in values:
        name, colon, text = value.partition(":")
        if not colon or not name.strip():
            msg = f"{value!r} is no header: write it as 'name: value'"
            raise click.BadParameter(msg, context, option)
        headers[name.strip().lower()] = text.strip()
    return headers


@click.command(cls=Teaching, epilog=_EPILOG)
@click.argument("file", type=click.File("rb"))
@click.option(
    "-p", "--provider", required=True, shell_complete=providers, help="Whose answer it is; see `looms providers`."
)
@click.option("--dialect", help="A dialect, by its module name (default: the provider's own for the model).")
@click.option("--content-type", metavar="TYPE", help="What the response's head said (default: found out).")
@click.option("--status", type=click.IntRange(100, 599), default=200, show_default=True, help="The HTTP status.")
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", callback=_read_headers, help="One of the head."
)
@click.option("-m", "--model", shell_complete=models, help="The model that was asked for.")
@config_option
@click.option("--raw-events", is_flag=True, help="Put each frame, as it came, before its events.")
@click.option("--json", is_flag=True, help="Accepted as everywhere; the output is JSON lines in any case.")
def decode(  # noqa: PLR0913 (click's parameters)
    *,
    file: IO[bytes],
    provider: str,
    dialect: str | None,
    content_type: str | None,
    status: int,
    headers: dict[str, str],
    model: str | None,
    raw_events: bool,
    json: bool,  # noqa: ARG001 (see its help)
) -> None:
    """Turn a captured response body into events, as JSON lines.

    FILE may be - for standard input. The events before an error are printed, then the error is named on standard
    error.
    """
    from loomstream.events import encode  # noqa: PLC0415 (not for --help)
    from loomstream.pump import decode as decode_bytes  # noqa: PLC0415 (the same)

    events = decode_bytes(
        provider,
        _chunks(file),
        dialect=dialect,
        content_type=content_type,
        status=status,
        headers=headers,
        model=model,
        raw_events=raw_events,
    )
    for event in events:
        write_json_line(encode(event))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Give what is there as soon as it is there, so that a pipe that is still open is followed."""
    read = file.read1 if isinstance(file, io.BufferedReader) else file.read
    while chunk := read(_CHUNK_BYTES):
        yield chunk
