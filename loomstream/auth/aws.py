"""AWS: a bearer key, or requests signed with an access key.

Contract: in this order: the profile that a setting names; a bearer key; an access key given as secret settings; AWS's
own chain (environment, shared files, SSO, roles, web identity, container, instance), see `aws_chain`. Only a profile
and the chain need the extra `bedrock`. The settings read are `region` and `profile`, the secrets `access_key_id`,
`secret_access_key` and `session_token`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from loomstream.auth import Authenticator, Credentials, HeaderKey
from loomstream.auth.aws_chain import AmbientKeys
from loomstream.auth.choice import Choice
from loomstream.auth.sigv4 import AWSKeys, Signer
from loomstream.auth.tokens import Fixed, Source, TokenCache
from loomstream.errors import ConfigError
from loomstream.wire import Secret, WireRequest

SERVICE = "bedrock"
"""The name in the signature; the runtime's host has another one."""


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
        settings = credentials.settings
        self._profile = settings.get("profile", "")
        ambient = AmbientKeys(provider=credentials.provider, profile=self._profile, region=settings.get("region", ""))
        self._ambient = TokenCache(ambient, provider=credentials.provider, failed=ambient.failed, clock=clock)
        self._bearer = HeaderKey(credentials, header="authorization", prefix="Bearer ")

    async def _choose(self) -> Authenticator:
        if self._profile:
            return self._signing(self._ambient)
        if self._credentials.key_is_token or await self._credentials.key(required=False):
            return self._bearer
        keys = await self._given_keys()
        return self._signing(self._ambient if keys is None else Fixed(keys))

    async def _given_keys(self) -> AWSKeys | None:
        names = ("access_key_id", "secret_access_key", "session_token")
        access_key_id, secret_access_key, session_token = [await self._credentials.secret(name) for name in names]
        if access_key_id and secret_access_key:
            return AWSKeys(access_key_id.reveal(), secret_access_key, session_token)
        if access_key_id or secret_access_key:
            missing = "secret_access_key" if access_key_id else "access_key_id"
            msg = f"half of an access key is set for {self._credentials.provider}: the setting {missing} is missing"
            raise ConfigError(msg, provider=self._credentials.provider)
        return None

    def _signing(self, keys: Source[AWSKeys]) -> SignedRequests:
        region = self._credentials.settings.get("region", "")
        if not region:
            msg = f"{self._credentials.provider} signs requests for a region: set the setting region, as in us-west-2"
            raise ConfigError(msg, provider=self._credentials.provider)
        return SignedRequests(keys, region=region, service=self._service, clock=self._clock)


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
