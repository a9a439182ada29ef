"""Serves the page until it is told to stop.

Contract: the port is bound before anything else, so that what is announced is true. Ending closes every answer first:
no connection is waited for that waits for us. Needs the extra `serve`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from loomstream.errors import ConfigError
from loomstream.ui.page.guard import Guard

try:
    import uvicorn
except ImportError as error:
    message = "the page needs the extra `serve`: pip install 'loomstream[serve]'"
    raise ConfigError(message) from error

_GRACE_S = 2
"""How long open connections have to end, in seconds."""


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
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return _Server(config, started, stop or app.stop)
