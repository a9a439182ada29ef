"""Authentication: from credentials to the headers of a wire request.

Contract: a scheme is a function from `Credentials` to an `Authenticator`; one authenticator serves all requests of a
model, at once. A secret stays wrapped until the transport writes it. Tokens are fetched once for many waiters, and
again before they expire. Schemes know no provider; only this package imports the vendors' credential libraries, and
only when a scheme is used. Nothing but a `LoomstreamError` leaves it, whatever such a library raises.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal, Protocol, cast

import msgspec

from loomstream.errors import ConfigError
from loomstream.wire import Secret, WireRequest

API_KEY = "api_key"
"""The name of the provider's key among the settings, for `Credentials.origin`."""

Origin = Literal["argument", "environment", "row", ""]
"""Where a setting's value comes from; `row`: its default, or an entry of `looms.yaml`; empty: nowhere, or a keyring."""


class Credentials(Protocol):
    """What a scheme may ask for: made by the composition root from the provider's row, arguments and environment."""

    @property
    def provider(self) -> str:
        """The provider's name, for errors."""
        ...

    @property
    def settings(self) -> Mapping[str, str]:
        """The plain settings that have a value (region, profile, …)."""
        ...

    def origin(self, name: str) -> Origin:
        """Say where the value of a setting comes from; of `API_KEY` only whether it is an argument."""
        ...

    async def key(self, *, required: bool = True) -> Secret | None:
        """Give the provider's key: argument, environment, keyring; a refreshing callable is called each time.

        None where it is nowhere found. Raises `MissingKey` there if the row needs a key and `required` is True.
        """
        ...

    @property
    def key_is_token(self) -> bool:
        """Whether a callable gives the key: then it is a token that expires."""
        ...

    async def secret(self, name: str) -> Secret | None:
        """Give the secret setting of this name: argument, environment, keyring; None where it is not set."""
        ...


class Authenticator(Protocol):
    """Adds a credential to each wire request of a model."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What was sent so far: no error may show it."""
        ...

    @property
    def discovered(self) -> Mapping[str, str]:
        """Settings that the credentials themselves tell (a project), known after `prepare`."""
        ...

    async def prepare(self) -> None:
        """Find the credential, so that the first `authorize` need not. Raises what `authorize` would."""
        ...

    async def authorize(self, wire_request: WireRequest) -> WireRequest:
        """Give the request with its credential.

        Raises `MissingKey`, `ConfigError` (malformed credentials, a missing extra), `AuthFailed` (refused by who gives
        them out), `ConnectFailed` (who gives them out cannot be reached).
        """
        ...

    async def renew(self, sent: tuple[Secret, ...] = ()) -> bool:
        """Drop a credential that was refused; say whether another one can be had. Called once after a refusal.

        `sent` are the `secrets` as they were when the refused request went out: meanwhile another may have renewed.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what is held."""
        ...


Scheme = Callable[[Credentials], Authenticator]
"""Makes the authenticator of a model."""


def with_headers(wire_request: WireRequest, headers: Mapping[str, str | Secret]) -> WireRequest:
    """Give the request with these headers beside its own, in the place of those of the same name."""
    return msgspec.structs.replace(wire_request, headers={**wire_request.headers, **headers})


class HeaderKey:
    """The provider's key in a header: found once, unless a callable gives it, which is asked for each request."""

    discovered: Mapping[str, str] = MappingProxyType({})

    def __init__(self, credentials: Credentials, *, header: str, prefix: str = "") -> None:
        self._credentials = credentials
        self._header = header
        self._prefix = prefix
        self._key: Secret | None = None
        self._value: Secret | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The key, once it is found."""
        return () if self._key is None else (self._key,)

    async def prepare(self) -> None:
        """Find the key; raises `MissingKey`."""
        key = await self._credentials.key()
        if key is not self._key:
            self._key = key
            self._value = None if key is None else Secret(self._prefix + key.reveal())

    async def authorize(self, wire_request: WireRequest) -> WireRequest:
        """Give the request with the key in its header; as it is where there is none and none is needed."""
        if self._value is None or self._credentials.key_is_token:
            await self.prepare()
        return wire_request if self._value is None else with_headers(wire_request, {self._header: self._value})

    async def renew(self, sent: tuple[Secret, ...] = ()) -> bool:
        """Say whether the next `authorize` sends another key: only where a callable gives one."""
        refused = sent or self.secrets
        await self.prepare()
        return self._key is not None and self._key not in refused

    async def aclose(self) -> None:
        """Nothing is held."""


class NoKey:
    """No credential."""

    secrets: tuple[Secret, ...] = ()
    discovered: Mapping[str, str] = MappingProxyType({})

    async def prepare(self) -> None:
        """Nothing is looked for."""

    async def authorize(self, wire_request: WireRequest) -> WireRequest:
        """Give the request as it is."""
        return wire_request

    async def renew(self, sent: tuple[Secret, ...] = ()) -> bool:  # noqa: ARG002 (the protocol's signature)
        """There is no other credential."""
        return False

    async def aclose(self) -> None:
        """Nothing is held."""


def _no_key(credentials: Credentials) -> Authenticator:  # noqa: ARG001 (the scheme's signature)
    return NoKey()


SCHEMES: dict[str, Scheme | str] = {
    "none": _no_key,
    "bearer": partial(HeaderKey, header="authorization", prefix="Bearer "),
    "x-api-key": partial(HeaderKey, header="x-api-key"),
    "api-key": partial(HeaderKey, header="api-key"),
    "x-goog-api-key": partial(HeaderKey, header="x-goog-api-key"),
    "aws": "loomstream.auth.aws:AWSAuthenticator",
    "azure": "loomstream.auth.azure:AzureAuthenticator",
    "google": "loomstream.auth.google:GoogleAuthenticator",
}
"""The schemes that a provider's row may name; those with libraries of their own are loaded when they are used."""


def scheme(name: str) -> Scheme:
    """Give the scheme of this name, or of a plug-in's `module:function`.

    Raises `ConfigError` where there is none, or it cannot be loaded.
    """
    found = SCHEMES.get(name, name)
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    try:
        return cast("Scheme", getattr(importlib.import_module(module), attribute))
    except (Exception, SystemExit) as error:  # any code may stand in the module
        msg = f"unknown authentication scheme {name!r} ({error}): known are {', '.join(SCHEMES)}, or module:function"
        raise ConfigError(msg) from error
