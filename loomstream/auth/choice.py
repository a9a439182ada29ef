"""Schemes with several kinds of credentials: the first one found is used from then on.

Contract: looking for them asks nobody on the network; it may be done by many at once, and all find the
same one. This module knows no vendor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from loomstream.auth import Authenticator
from loomstream.wire import Secret, WireRequest


class Choice(ABC):
    """An authenticator that passes everything on to the one that `_choose` gives."""

    def __init__(self) -> None:
        self._chosen: Authenticator | None = None

    @abstractmethod
    async def _choose(self) -> Authenticator:
        """Give the authenticator; where two do this at once, both must get what shares its fetches."""

    async def _found(self) -> Authenticator:
        if self._chosen is None:
            chosen = await self._choose()
            self._chosen = self._chosen or chosen
        return self._chosen

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What was sent lately."""
        return () if self._chosen is None else self._chosen.secrets

    @property
    def discovered(self) -> Mapping[str, str]:
        """What the credential tells, once it was found."""
        return MappingProxyType({}) if self._chosen is None else self._chosen.discovered

    async def prepare(self) -> None:
        """Find the credential and fetch what it needs."""
        await (await self._found()).prepare()

    async def authorize(self, wire_request: WireRequest) -> WireRequest:
        """Give the request with the credential."""
        return await (await self._found()).authorize(wire_request)

    async def renew(self, sent: tuple[Secret, ...] = ()) -> bool:
        """Replace a credential that was refused; say whether there is another one."""
        return await (await self._found()).renew(sent)

    async def aclose(self) -> None:
        """Let go of the credential."""
        chosen, self._chosen = self._chosen, None
        if chosen is not None:
            await chosen.aclose()
