"""Asks several providers at once whether they can be reached, for the list of `looms providers`.

Contract: as `probe`, which asks one; nothing is billed unless `live`.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from msgspec import Struct

from loomstream.config.settings import Settings
from loomstream.doctor.probe import LIMIT_S, ask_live, probe
from loomstream.errors import LoomstreamError

_AT_ONCE = 8


class Reach(Struct, frozen=True, kw_only=True):
    """What came of asking one provider: `reachable` is None where there is nobody to ask."""

    reachable: bool | None
    said: str


async def reach_all(
    names: Sequence[str], settings: Settings, *, live: bool = False, timeout_s: float = LIMIT_S
) -> dict[str, Reach]:
    """Ask the providers of these names, at most eight at once."""
    limiter = anyio.CapacityLimiter(_AT_ONCE)
    found: dict[str, Reach] = {}

    async def ask(name: str) -> None:
        async with limiter:
            found[name] = await _asked(name, settings, live=live, timeout_s=timeout_s)

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(ask, name)
    return found


async def _asked(name: str, settings: Settings, *, live: bool, timeout_s: float) -> Reach:
    try:
        asked = await probe(name, settings, timeout_s=timeout_s)
    except LoomstreamError as error:
        return _failed(error)
    if asked.error is not None:
        return _failed(asked.error)
    if live and (error := await ask_live(name, settings)) is not None:
        return _failed(error)
    if asked.reachable is None:
        return Reach(reachable=None, said="this machine")
    return Reach(reachable=True, said=f"yes, {asked.models} models" if asked.models else "yes")


def _failed(error: LoomstreamError) -> Reach:
    return Reach(reachable=False, said=f"{type(error).__name__}: {error}")
