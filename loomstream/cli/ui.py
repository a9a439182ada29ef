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
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource
from msgspec import Struct

from loomstream.cli.choice import Choice, Wishes, choose
from loomstream.cli.config_option import config_option
from loomstream.cli.interrupt import EndsAtOnce
from loomstream.cli.key_options import key_options, read_keys
from loomstream.cli.output import note, warn, write_json_line
from loomstream.cli.standard_input import DASH, read_key
from loomstream.errors import ConfigError

if TYPE_CHECKING:
    from loomstream.messages import RequestOptions
    from loomstream.model import Model
    from loomstream.wire import Secret

_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
_ANY_ADDRESS = frozenset(("0.0.0.0", "::"))  # noqa: S104 (what a user may ask for)
_PORT = 8765
_LEAST_TOKEN_CHARS = 16
_EPILOG = """\b
Examples:
  looms ui
  looms ui --model anthropic:claude-sonnet-4-5-20250929
  looms ui --host 0.0.0.0 --no-open        (for a phone in the same network)
"""


class _Options(Struct, frozen=True, kw_only=True):
    """What was typed, less the keys."""

    host: str
    port: int | None
    provider: str | None
    model: str | None
    system: str | None
    max_tokens: int | None
    base_url: str | None
    token: str | None
    no_token: bool
    allow_host: tuple[str, ...]
    no_open: bool
    no_download: bool
    json: bool


class _Address(Struct, frozen=True):
    """What `--json` prints."""

    url: str
    host: str
    port: int
    token: str | None


@click.command(epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; the default is local.")
@click.option("--port", type=click.IntRange(0, 65535), help=f"Default: {_PORT}, or a free one where that is taken.")
@click.option("-p", "--provider", envvar="LOOM_LLM_PROVIDER", show_envvar=True, help="Who answers to begin with.")
@click.option("-m", "--model", help="A model id, or PROVIDER:MODEL, to begin with; the page can switch.")
@click.option("-s", "--system", help="The system prompt of every conversation.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="At most so many tokens an answer.")
@click.option("--base-url", metavar="URL", help="The address of the provider to begin with.")
@click.option(
    "--token", envvar="LOOMS_UI_TOKEN", show_envvar=True, help="What lets you in; - reads it (default: random)."
)
@click.option("--no-token", is_flag=True, help="Let everybody on this machine in. Only on a loopback address.")
@click.option("--allow-host", metavar="NAME", multiple=True, help="A name under which the page may be reached too.")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@click.option("--no-download", is_flag=True, help="Do not fetch the embedded model.")
@click.option("--json", is_flag=True, help="Print the address as a JSON object.")
@config_option
@key_options
@click.pass_context
def ui(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 (click's parameters)
    """Chat with any configured provider in the browser.

    The page listens on this machine alone, and lets in only who has the token of the address that is printed. Ctrl-C
    ends it.
    """
    typed = _Options(**{name: options[name] for name in _Options.__struct_fields__})
    if typed.no_token and typed.host not in _LOOPBACK:
        msg = f"--no-token would let everybody in who reaches {typed.host}: leave it out, or listen on 127.0.0.1"
        raise click.UsageError(msg)
    keys, taken = read_keys(options)
    if context.get_parameter_source("token") is ParameterSource.COMMANDLINE and typed.token != DASH:
        warn("--token: other users of this machine can see arguments; give it on standard input (--token -)")
    token = None if typed.no_token else _token(typed.token, taken=taken)
    configured = context.get_parameter_source("provider") is ParameterSource.ENVIRONMENT
    wishes = Wishes(
        provider=None if configured else typed.provider,
        configured_provider=typed.provider if configured else None,
        model=typed.model,
        base_url=typed.base_url,
        keys=keys,
    )
    choice = choose(wishes)
    _serve(typed, choice, keys, token)


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


def _serve(typed: _Options, choice: Choice, keys: Mapping[str, Secret], token: str | None) -> None:
    with EndsAtOnce():
        import asyncio  # noqa: PLC0415 (see the module's contract)

        from loomstream.ui.page import app as page  # noqa: PLC0415 (the same)
        from loomstream.ui.page import server  # noqa: PLC0415 (the same)

    first = _first(choice, typed)
    with _bound(server, typed) as bound:
        port = bound.getsockname()[1]
        app = page.make_app(
            lambda spec: _connect(spec, first, typed, choice, keys),
            token=token,
            port=port,
            first=first,
            only_loopback=typed.host in _LOOPBACK,
            hosts=typed.allow_host,
            options=_request_options(typed),
        )
        address = _address(typed, port, token)
        serving = server.make_server(app, started=lambda: _announce(typed, address, app.entrance))
        asyncio.run(serving.serve(sockets=[bound]))


def _bound(server: Any, typed: _Options) -> Any:  # noqa: ANN401 (a module that is not imported yet, and a socket)
    if typed.port is not None:
        return server.bind(typed.host, typed.port)
    try:
        return server.bind(typed.host, _PORT)
    except ConfigError:
        return server.bind(typed.host, 0)


def _first(choice: Choice, typed: _Options) -> str:
    """Give the spec that is chosen to begin with: what `connect` would take."""
    if choice.model_path:
        return f"{choice.spec}:{choice.model_path}"
    if choice.spec and ":" in choice.spec:
        return choice.spec
    from loomstream.model import connect  # noqa: PLC0415 (see the module's contract)

    try:
        model = connect(choice.spec, base_url=typed.base_url, download=not typed.no_download)  # opens nothing
    except ConfigError:
        if choice.spec:
            raise
        return ""  # keys for several providers: the page lists their models
    return f"{model.provider}:{model.model}"


def _connect(spec: str, first: str, typed: _Options, choice: Choice, keys: Mapping[str, Secret]) -> Model:
    from loomstream.model import connect  # noqa: PLC0415 (see the module's contract)

    is_first = spec == first
    return connect(
        choice.spec if is_first and choice.model_path else spec,
        api_key=keys.get(spec.partition(":")[0]),
        base_url=typed.base_url if is_first else None,
        model_path=choice.model_path if is_first else None,
        download=not typed.no_download,
    )


def _request_options(typed: _Options) -> RequestOptions:
    options: RequestOptions = {}
    if typed.system is not None:
        options["system"] = typed.system
    if typed.max_tokens is not None:
        options["max_tokens"] = typed.max_tokens
    return options


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
