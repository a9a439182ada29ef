"""Serves the page until it is told to stop.

Contract: the port is bound before anything else, so that what is announced is true. Ending closes every answer first:
no connection is waited for that waits for us, and none is kept that does not say what it wants. Needs the extra
`serve`; leans on uvicorn's `cycle`, the request under way, and on what that says of itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Protocol

from loomstream.errors import ConfigError
from loomstream.ui.page.guard import Guard

try:
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
except ImportError as error:
    message = "the page needs the extra `serve`: pip install 'loomstream[serve]'"
    raise ConfigError(message) from error

_GRACE_S = 2
"""How long open connections have to end, in seconds."""
PATIENCE_S = 20.0
"""How long a connection may take to say a whole request, in seconds; uvicorn itself waits for ever."""


def bind(host: str, port: int) -> socket.socket:
    """Give a socket that listens there; port 0 stands for any that is free. Raises `ConfigError` where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        msg = f"{host} is no address of this machine: {error.strerror or error}"
        raise ConfigError(msg) from error
    try:
        if os.name == "posix":  # elsewhere it would share the port with whoever has it
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        msg = f"{host} port {port} cannot be used ({error.strerror or error}): choose another with --port"
        raise ConfigError(msg) from error
    return bound


class _Request(Protocol):
    more_body: bool
    response_complete: bool


class _Impatient(AutoHTTPProtocol):
    """Closes a connection that does not get its request said, so that such cannot take all that a process may open."""

    cycle: _Request | None
    transport: asyncio.Transport
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        request = self.cycle
        if request is None or request.more_body or request.response_complete:  # then it is the next one that begins
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop()
        await super().shutdown(sockets)


def make_server(
    app: Guard, *, started: Callable[[], None] = lambda: None, stop: Callable[[], None] | None = None
) -> uvicorn.Server:
    """Give a server for the page; `await server.serve(sockets=[bound])` runs it until SIGINT or SIGTERM.

    `started` is called once it answers, `stop` when it ends.
    """
    config = uvicorn.Config(
        app,
        lifespan="on",
        http=_Impatient,
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return _Server(config, started, stop or app.stop)
