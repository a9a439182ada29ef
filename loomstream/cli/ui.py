"""`looms ui`: a chat in the browser.

Contract: reads arguments, prints the address, serves until it is told to stop. What the page does is in
`loomstream.ui.page`; it and the web server are imported when the command runs.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource
from msgspec import Struct

from loomstream.cli.choice import choose
from loomstream.cli.config_option import config_option
from loomstream.cli.help import Teaching
from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.model_options import (
    Connection,
    open_model,
    read_connection,
    read_typed,
    request_options,
    to_another,
    where_options,
    who_options_without_files,
)
from loomstream.cli.output import note, warn, write_json_line
from loomstream.cli.progress import FetchProgress
from loomstream.cli.standard_input import DASH, read_key
from loomstream.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from loomstream.cli.tool_file import Tools
    from loomstream.messages import RequestOptions
    from loomstream.model import Model

_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
_ANY_ADDRESS = frozenset(("0.0.0.0", "::"))  # noqa: S104 (what a user may ask for)
_PORT = 8765
_LEAST_TOKEN_CHARS = 16
_EPILOG = """\b
Examples:
  looms ui
  looms ui --model anthropic:claude-sonnet-4-5-20250929
  looms ui --tools weather.py              asks before each call; --yes does not
  looms ui --host 0.0.0.0 --no-open        for a phone in the same network
"""


class _Options(Struct, frozen=True, kw_only=True):
    """What was typed about the page itself."""

    host: str
    port: int | None
    token: str | None
    no_token: bool
    allow_host: tuple[str, ...]
    no_open: bool
    tool_file: str | None
    yes: bool
    json: bool


class _Address(Struct, frozen=True):
    """What `--json` prints."""

    url: str
    host: str
    port: int
    token: str | None


@click.command(cls=Teaching, epilog=_EPILOG)
@who_options_without_files
@click.option("--yes", "-y", is_flag=True, help="Run tools without asking before each call.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; the default is local.")
@click.option("--port", type=click.IntRange(0, 65535), help=f"Default: {_PORT}, or a free one where that is taken.")
@click.option(
    "--token", envvar="LOOMS_UI_TOKEN", show_envvar=True, help="What lets you in; - reads it (default: random)."
)
@click.option("--no-token", is_flag=True, help="Let everybody on this machine in. Only on a loopback address.")
@click.option("--allow-host", metavar="NAME", multiple=True, help="A name under which the page may be reached too.")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@click.option("--json", is_flag=True, help="Print the address as a JSON object.")
@where_options
@config_option
@click.pass_context
def ui(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 (click's parameters)
    """Chat with any configured provider in the browser.

    What is said of a model is of the one to begin with; the page can switch to any other that has a key here. It
    listens on this machine alone, and lets in only who has the token of the address that is printed. Ctrl-C
    ends it.
    """
    typed = _Options(**{name: options[name] for name in _Options.__struct_fields__})
    if typed.no_token and typed.host not in _LOOPBACK:
        msg = f"--no-token would let everybody in who reaches {typed.host}: leave it out, or listen on 127.0.0.1"
        raise click.UsageError(msg)
    connection, taken = read_connection(context, options)
    if context.get_parameter_source("token") is ParameterSource.COMMANDLINE and typed.token != DASH:
        warn("--token: other users of this machine can see arguments; give it on standard input (--token -)")
    token = None if typed.no_token else _token(typed.token, taken=taken)
    with FetchProgress() as progress:
        _serve(typed, _Models(connection, progress), request_options(read_typed(options)), token)


class _Models:
    """The models of the page: the first one by what was typed, every other one by its spec alone."""

    def __init__(self, connection: Connection, progress: FetchProgress) -> None:
        self._connection = connection
        self._progress = progress
        choice = choose(connection.wishes)
        try:
            self._first: Model | None = open_model(connection, choice, progress)  # opens no connection
        except ConfigError:
            if choice.spec:
                raise
            self._first = None  # keys for several providers: the page lists their models
        self.first = _spec(choice.spec, choice.model_path, self._first)

    def connect(self, spec: str) -> Model:
        """Give the model of a spec, which the page asks for once. Raises what connecting raises."""
        if spec == self.first and self._first is not None:
            return self._first
        another = to_another(self._connection, spec)
        try:
            return open_model(another, choose(another.wishes), self._progress)
        except click.UsageError as error:
            raise UsageError(error.format_message()) from None


def _spec(spec: str | None, model_path: str | None, model: Model | None) -> str:
    """Give what the first model is called in the page; empty where there is none."""
    if model_path:
        return f"{spec}:{model_path}"
    return "" if model is None else f"{model.provider}:{model.model}"


def _token(given: str | None, *, taken: bool) -> str:
    if given is None:
        return secrets.token_urlsafe(32)
    if given == DASH:
        if taken:
            msg = "standard input can hold one thing: a key and --token both ask for it"
            raise click.UsageError(msg)
        given = read_key("token").reveal()
    if len(given) < _LEAST_TOKEN_CHARS:
        msg = f"the token is short: give at least {_LEAST_TOKEN_CHARS} characters, or none for a random one"
        raise click.UsageError(msg)
    return given


def _serve(typed: _Options, models: _Models, options: RequestOptions, token: str | None) -> None:
    with EndsAtOnce():
        import asyncio  # noqa: PLC0415 (see the module's contract)

        from loomstream.ui.page import app as page  # noqa: PLC0415 (the same)
        from loomstream.ui.page import server  # noqa: PLC0415 (the same)

    tools, names = _tools(typed.tool_file)
    with _bound(server, typed) as bound:
        port = bound.getsockname()[1]
        app = page.make_app(
            models.connect,
            token=token,
            port=port,
            first=models.first,
            only_loopback=typed.host in _LOOPBACK,
            hosts=typed.allow_host,
            options=options,
            tools=tools,
            asks=() if typed.yes else names,
        )
        address = _address(typed, port, token)
        serving = server.make_server(app, started=lambda: _announce(typed, address, app.entrance))
        asyncio.run(serving.serve(sockets=[bound]))


def _tools(path: str | None) -> tuple[Tools, tuple[str, ...]]:
    """Give the tools of a file, and their names."""
    if path is None:
        return [], ()
    from loomstream.agent.toolbox import Toolbox  # noqa: PLC0415 (only with tools)
    from loomstream.cli.tool_file import load_tools  # noqa: PLC0415 (the same)

    tools = load_tools(path)
    return tools, tuple(Toolbox(tools).names)


def _bound(server: Any, typed: _Options) -> Any:  # noqa: ANN401 (a module that is not imported yet, and a socket)
    if typed.port is not None:
        return server.bind(typed.host, typed.port)
    try:
        return server.bind(typed.host, _PORT)
    except ConfigError:
        return server.bind(typed.host, 0)


def _address(typed: _Options, port: int, token: str | None) -> _Address:
    host = _own_address() if typed.host in _ANY_ADDRESS else typed.host
    shown = f"[{host}]" if ":" in host else host
    return _Address(f"http://{shown}:{port}/{f'?token={token}' if token else ''}", typed.host, port, token)


def _own_address() -> str:
    """Give the address by which others in the network reach this machine. Nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of nobody's (RFC 5737): asks for the route alone
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _announce(typed: _Options, address: _Address, entrance: Callable[[], str]) -> None:
    if typed.host not in _LOOPBACK:
        warn(f"the page is open to the network on {typed.host}, over plain http: others may read what is said")
    if typed.json:
        write_json_line(msgspec.json.encode(address))
    else:
        click.echo(address.url)
        note("Ctrl-C ends it")
    sys.stdout.flush()
    if not typed.no_open and _has_screen():
        webbrowser.open(address.url.partition("?")[0] + entrance())


def _has_screen() -> bool:
    """Say whether a browser would be a window: one in this terminal would take it over."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
