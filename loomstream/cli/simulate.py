"""`looms simulate`: a server on this machine that speaks every provider's wire, for tests in any language.

Contract: reads arguments, opens the simulator, tells of each request, ends with Ctrl-C. What it says and how it fails
is decided by `loomstream.testing.server`.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from loomstream.cli.help import Teaching
from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.output import Channel, write_json_line
from loomstream.errors import ConfigError

if TYPE_CHECKING:
    from loomstream.events import Event
    from loomstream.testing.faults import Fault
    from loomstream.testing.pace import Pace
    from loomstream.testing.server import Received, Simulator

_EPILOG = """\b
Examples:
  looms simulate
  looms simulate --port 8900 --answer "Hello there" --profile anthropic
  looms simulate --fault status:429 --fault none --fault cut@500
  looms simulate --fault stall@3 --fault-rate 0.1 --seed 7 --json

\b
Faults: KIND[:STATUS][@AT]
  status:429   an HTTP error
  hang         nothing, not even headers
  stall@3      silence after 3 frames
  error@3      the wire's own error after 3 frames
  malformed@3  a broken frame after 3
  cut@500      closed after 500 bytes
  reset@500    reset after 500 bytes
  drip         every byte alone
"""


@click.command(cls=Teaching, epilog=_EPILOG)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default="a free one", help="The port.")
@click.option("--answer", metavar="TEXT", help="What is answered to every request, a word a frame.")
@click.option(
    "--script",
    "script_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Events to answer with, as `looms ask --events` prints them.",
)
@click.option("--profile", metavar="PROVIDER", help="The made-up pace of a provider, or `each` for every one its own.")
@click.option("--first", "first_s", type=click.FloatRange(0), metavar="SECONDS", help="Time before the first byte.")
@click.option("--tokens-per-s", type=click.FloatRange(0.001), metavar="N", help="Frames a second after that.")
@click.option("--jitter", type=click.FloatRange(0, 5), default=0.0, metavar="X", help="How far gaps scatter, from 0.")
@click.option(
    "--fault", "faults", multiple=True, metavar="FAULT", help="What goes wrong with the next request (again)."
)
@click.option("--fault-rate", type=click.FloatRange(0, 1), default=0.0, metavar="X", help="Share of requests with one.")
@click.option("--api-key", metavar="KEY", help="Refuse requests with another key, as the provider would.")
@click.option("--seed", type=int, default=0, help="Another seed, other times and faults.")
@click.option("--json", "as_json", is_flag=True, help="Print each request as a line of JSON.")
def simulate(**options: Any) -> None:  # noqa: ANN401 (click's parameters)
    """Serve every provider's wire on this machine, from a script, with a pace and faults.

    Prints the base URL that stands for each provider, then a line for each request. It checks no key without --api-key,
    and ends with Ctrl-C.
    """
    if options["answer"] is not None and options["script_path"] is not None:
        msg = "--answer and --script exclude each other"
        raise click.UsageError(msg)
    with EndsAtOnce():
        from loomstream.testing import server  # noqa: PLC0415 (it takes long to import)

    arrived: queue.SimpleQueue[Received] = queue.SimpleQueue()
    scripts = [_events(options["script_path"])] if options["script_path"] else [options["answer"]]
    opened = server.simulator(
        *(script for script in scripts if script is not None),
        pace=_pace(options),
        paces=_paces(options["profile"]),
        faults=_faults(options["faults"]),
        fault_rate=options["fault_rate"],
        seed=options["seed"],
        port=options["port"],
        on_request=arrived.put,
        api_key=options["api_key"],
    )
    with opened:
        _announce(opened, as_json=options["as_json"])
        while True:
            _show(arrived.get(), as_json=options["as_json"])


def _faults(given: Sequence[str]) -> list[Fault | None]:
    from loomstream.testing.faults import read_fault  # noqa: PLC0415 (see above)

    try:
        return [read_fault(text) for text in given]
    except ConfigError as error:  # here it is an argument that is wrong, no configuration
        raise click.BadParameter(str(error), param_hint="--fault") from error


def _events(path: str) -> list[Event]:
    from loomstream.events import decode  # noqa: PLC0415 (only with a script)

    with open(path, "rb") as lines:  # noqa: PTH123 (pathlib is slow to import)
        try:
            return [decode(line) for line in lines if line.strip()]
        except msgspec.DecodeError as error:
            msg = f"{path} holds what is no event: {error}; `looms ask --events` writes such files"
            raise ConfigError(msg) from error


def _pace(options: dict[str, Any]) -> Pace:
    from loomstream.testing.pace import Pace, typical_pace  # noqa: PLC0415 (see above)

    profile = options["profile"]
    pace = Pace() if profile is None else typical_pace(_provider(profile))
    first_s, rate = options["first_s"], options["tokens_per_s"]
    return Pace(
        first_s=pace.first_s if first_s is None else first_s,
        gap_s=pace.gap_s if rate is None else 1 / rate,
        jitter=options["jitter"],
        spread=pace.spread,
    )


def _provider(profile: str) -> str:
    from loomstream.providers import look_up  # noqa: PLC0415 (see above)

    return "" if profile == "each" else look_up(profile).name


def _paces(profile: str | None) -> dict[str, Pace]:
    from loomstream.testing.pace import TYPICAL  # noqa: PLC0415 (see above)

    return TYPICAL if profile == "each" else {}


def _announce(server: Simulator, *, as_json: bool) -> None:
    from loomstream.providers.table import TABLE  # noqa: PLC0415 (see above)

    addresses = {row.name: server.url(row.name) for row in TABLE if not row.launch}
    if as_json:
        write_json_line(msgspec.json.encode({"type": "listening", "port": server.port, "base_urls": addresses}))
        return
    channel = Channel("stdout")
    width = max(map(len, addresses))
    channel.write("".join(f"{name:<{width}}  {address}\n" for name, address in addresses.items()))
    keyless = next(row.name for row in TABLE if row.key_optional and row.name in addresses and row.base_url)
    channel.write(f'\nlooms ask "Hello" --provider {keyless} --base-url {addresses[keyless]}\n', dim=True)


def _show(received: Received, *, as_json: bool) -> None:
    fault = received.fault.kind if received.fault is not None else None
    told = {
        "type": "request",
        "number": received.number,
        "method": received.method,
        "target": received.target,
        "provider": received.provider,
        "dialect": received.dialect,
        "model": received.model,
        "stream": received.streams,
        "fault": fault,
        "body": received.json,
    }
    if as_json:
        write_json_line(msgspec.json.encode(told))
        return
    form = "stream" if received.streams else "whole"
    what = f"{received.dialect} {received.model} {form}" if received.dialect else "no such address"
    Channel("stdout").line(
        f"{received.number} {received.method} {received.target}  {what}{f'  {fault}' if fault else ''}"
    )
