"""AWS: a bearer key, or requests signed with an access key.

Contract: what is passed as an argument comes first: a profile, a bearer key, an access key. Then a profile that the row
names (an entry of `looms.yaml`); a bearer key and an access key of the environment or the keyring; last AWS's own chain
(a profile of the environment, shared files, SSO, roles, web identity, container, instance), see `aws_chain`. Only a
profile and the chain need the extra `bedrock`. The settings read are `region` and `profile`, the secrets
`access_key_id`, `secret_access_key` and `session_token`. Without a region that of the profile in use is told as
`discovered`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import anyio.to_thread

from loomstream.auth import API_KEY, Authenticator, Credentials, HeaderKey
from loomstream.auth.aws_chain import AmbientKeys
from loomstream.auth.aws_files import region_of
from loomstream.auth.choice import Choice
from loomstream.auth.sigv4 import AWSKeys, Signer
from loomstream.auth.tokens import Fixed, Source, TokenCache
from loomstream.errors import ConfigError
from loomstream.wire import Secret, WireRequest

SERVICE = "bedrock"
"""The name in the signature; the runtime's host has another one."""

_KEY_PARTS = ("access_key_id", "secret_access_key")
_BY_RANK = ("profile", API_KEY, *_KEY_PARTS)
"""What may be passed as an argument, the first one that is counts."""


class AWSAuthenticator(Choice):
    """The scheme `aws`; see the module's contract.

    `service` is the one that requests are signed for. `clock` gives seconds since 1970.
    """

    def __init__(
        self, credentials: Credentials, *, service: str = SERVICE, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self._credentials = credentials
        self._service = service
        self._clock = clock
        self._profile = credentials.settings.get("profile", "")
        self._region = credentials.settings.get("region", "")
        ambient = AmbientKeys(provider=credentials.provider, profile=self._profile, region=self._region)
        self._ambient = TokenCache(ambient, provider=credentials.provider, failed=ambient.failed, clock=clock)
        self._bearer = HeaderKey(credentials, header="authorization", prefix="Bearer ")

    @property
    def discovered(self) -> Mapping[str, str]:
        """The region, known after `prepare`."""
        return {"region": self._region} if self._region else {}

    async def _choose(self) -> Authenticator:
        if not self._region:
            find = partial(region_of, self._profile, provider=self._credentials.provider)
            self._region = await anyio.to_thread.run_sync(find)
        origin = self._credentials.origin
        passed = [name for name in _BY_RANK if origin(name) == "argument"]
        if passed:
            return await self._way(passed[0])
        if origin("profile") == "row":
            return await self._way("profile")
        return self._bearer if await self._credentials.key(required=False) else await self._way("access_key_id")

    async def _way(self, name: str) -> Authenticator:
        """Give the authenticator with what this setting belongs to."""
        if name == API_KEY:
            return self._bearer
        keys = None if name == "profile" else await self._given_keys()
        source: Source[AWSKeys] = self._ambient if keys is None else Fixed(keys)
        return SignedRequests(source, region=self._region, service=self._service, clock=self._clock)

    async def _given_keys(self) -> AWSKeys | None:
        names = (*_KEY_PARTS, "session_token")
        access_key_id, secret_access_key, session_token = [await self._credentials.secret(name) for name in names]
        if access_key_id and secret_access_key:
            return AWSKeys(access_key_id.reveal(), secret_access_key, session_token)
        if access_key_id or secret_access_key:
            missing = "secret_access_key" if access_key_id else "access_key_id"
            msg = f"half of an access key is set for {self._credentials.provider}: the setting {missing} is missing"
            raise ConfigError(msg, provider=self._credentials.provider)
        return None


class SignedRequests:
    """An authenticator that signs each request."""

    discovered: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, keys: Source[AWSKeys], *, region: str, service: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._source = keys
        self._region = region
        self._service = service
        self._clock = clock
        self._signer: tuple[AWSKeys, Signer] | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The session tokens sent lately, and the secret keys: AWS explains a wrong signature by what it received."""
        pairs = ((keys.secret_access_key, keys.session_token) for keys in self._source.recent)
        return tuple(secret for pair in pairs for secret in pair if secret is not None)

    async def prepare(self) -> None:
        """Find the keys. Raises `ConfigError` for a part of them, or a region, that cannot be."""
        await self._current()

    async def authorize(self, wire_request: WireRequest) -> WireRequest:
        """Give the request with its signature. Raises what `prepare` does, and `ConfigError` for an unusable URL."""
        return (await self._current()).sign(wire_request, at=self._clock())

    async def _current(self) -> Signer:
        keys = await self._source.get()
        if self._signer is None or self._signer[0] is not keys:
            self._signer = (keys, Signer(keys, region=self._region, service=self._service))
        return self._signer[1]

    async def renew(self, sent: tuple[Secret, ...] = ()) -> bool:  # noqa: ARG002 (the source tells refusals apart by time)
        """Find the keys anew; say whether they are others."""
        return await self._source.renew()

    async def aclose(self) -> None:
        """Forget the keys."""
        self._source.drop()
