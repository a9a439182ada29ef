"""Sockets of our own connections: their options, and whether something waits to be read.

Contract: TCP keep-alive, so that a peer that vanished without a word, or a router that forgot the connection, is
noticed while nothing is sent: a reasoning model may be silent for minutes.
"""

from __future__ import annotations

import asyncio
import select
import socket

_SECONDS = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
"""First probe after 60 s of silence (`TCP_KEEPALIVE` is macOS's name for it), then five, 60 s apart."""

KEEP_ALIVE: tuple[tuple[int, int, int], ...] = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _SECONDS if hasattr(socket, name)),
)
"""Level, option, value."""


def make_socket(address: tuple[object, ...]) -> socket.socket:
    """Make a socket for one of `getaddrinfo`'s rows."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)  # pyright: ignore[reportArgumentType] (getaddrinfo's rows are looser)
    for option in KEEP_ALIVE:
        made.setsockopt(*option)
    return made


def has_news(transport: asyncio.BaseTransport) -> bool:
    """Say whether bytes, the end or an error have come that the event loop does not know of yet."""
    known = transport.get_extra_info("socket")
    number = -1 if known is None else known.fileno()
    if number < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))
