"""Azure: an API key, an Entra token, or whatever identity azure-identity finds.

Contract: in this order: a key that is passed as an argument (in the header `api-key`; a callable's is a token, and goes
as a bearer token); the secret setting `entra_token`; a key found elsewhere; azure-identity's default chain
(environment, workload and managed identity, developer tools), which alone needs the extra `azure`. Its blocking form
runs in a thread, on asyncio and trio alike: its import takes 0.4 s, and developer tools are processes. Each fetch
builds the chain anew, so that a refused token is not given again out of its caches. The settings read are `scope` and
`client_id` (of a managed identity).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Protocol, cast
from urllib.parse import urlsplit

from loomstream.auth import API_KEY, Authenticator, Credentials, HeaderKey
from loomstream.auth.choice import Choice
from loomstream.auth.tokens import Fixed, Grant, SentHeaders, TokenCache, TokenHeaders, bearer
from loomstream.auth.vendor import Problem, by_class, needing, quieten, translated
from loomstream.errors import AuthFailed, ConfigError, ConnectFailed, LoomstreamError, MissingKey

SCOPE = "https://cognitiveservices.azure.com/.default"
"""What tokens are asked for; the v1 endpoint also takes `https://ai.azure.com/.default`.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/managed-identity
"""

_RETRIES = 2
"""azure-identity would try ten times, for minutes."""

_LOG_IN = "run az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"

_PROBLEMS = {
    "ClientAuthenticationError": Problem(
        AuthFailed, f"Entra refused the identity that was found: check what AZURE_… variables name, or {_LOG_IN}"
    ),
    "CredentialUnavailableError": Problem(MissingKey, f"set the setting entra_token or the API key, or {_LOG_IN}"),
    "HttpResponseError": Problem(
        ConnectFailed, "the service that gives out tokens failed: try again, or check AZURE_AUTHORITY_HOST"
    ),
    "ServiceRequestError": Problem(
        ConnectFailed, "Entra cannot be reached: check the network, and AZURE_AUTHORITY_HOST"
    ),
    "ServiceResponseError": Problem(ConnectFailed, "Entra broke off its answer: check the network"),
    "ValueError": Problem(
        ConfigError, "a value cannot be used: check AZURE_TENANT_ID, AZURE_AUTHORITY_HOST and the setting scope"
    ),
}
_UNKNOWN = Problem(AuthFailed, f"azure-identity failed: {_LOG_IN}")

_CODES = {
    "AADSTS50034": Problem(AuthFailed, "the user is not in this tenant: change AZURE_USERNAME or AZURE_TENANT_ID"),
    "AADSTS50076": Problem(AuthFailed, "the account wants a second factor: run az login"),
    "AADSTS50173": Problem(AuthFailed, "the login was revoked: run az login"),
    "AADSTS65001": Problem(AuthFailed, "the app has no consent for this scope: have an administrator grant it"),
    "AADSTS70011": Problem(ConfigError, "the scope is not valid: change the setting scope"),
    "AADSTS70043": Problem(AuthFailed, "the login has expired: run az login"),
    "AADSTS700016": Problem(AuthFailed, "the tenant has no such app: change AZURE_CLIENT_ID or AZURE_TENANT_ID"),
    "AADSTS700024": Problem(AuthFailed, "the assertion is not valid at this time: set this machine's clock"),
    "AADSTS700027": Problem(AuthFailed, "the app does not know this certificate: change AZURE_CLIENT_CERTIFICATE_PATH"),
    "AADSTS700082": Problem(AuthFailed, "the login has expired: run az login"),
    "AADSTS7000215": Problem(
        AuthFailed, "the client secret is wrong: change AZURE_CLIENT_SECRET to its value, not its id"
    ),
    "AADSTS7000222": Problem(AuthFailed, "the client secret has expired: make another and change AZURE_CLIENT_SECRET"),
    "AADSTS90002": Problem(AuthFailed, "there is no such tenant: change AZURE_TENANT_ID"),
    "AADSTS900023": Problem(ConfigError, "the tenant's name is malformed: change AZURE_TENANT_ID"),
}
"""Entra's codes. https://learn.microsoft.com/entra/identity-platform/reference-error-codes"""

_CODE = re.compile(r"AADSTS\d+")


class _Token(Protocol):
    token: str
    expires_on: int


class _Identity(Protocol):
    def get_token(self, *scopes: str, **options: object) -> _Token: ...

    def close(self) -> None: ...


class _Chain(_Identity, Protocol):
    credentials: tuple[_Identity, ...]


class _Tried:
    """One link of the chain; remembers why it failed, of which the chain only tells the text."""

    def __init__(self, link: _Identity) -> None:
        self._link = link
        self.error: Exception | None = None

    def get_token(self, *scopes: str, **options: object) -> _Token:
        try:
            return self._link.get_token(*scopes, **options)
        except Exception as error:
            self.error = error
            raise

    def close(self) -> None:
        self._link.close()


def _tried(link: _Identity) -> _Tried:
    """Wrap a link in a class of its own name: the chain's log names the class."""
    return type(type(link).__name__, (_Tried,), {})(link)


class AzureAuthenticator(Choice):
    """The scheme `azure`; see the module's contract. `clock` gives seconds since 1970."""

    def __init__(self, credentials: Credentials, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._credentials = credentials
        identity = IdentityToken(
            provider=credentials.provider,
            scope=credentials.settings.get("scope", "") or SCOPE,
            client_id=credentials.settings.get("client_id", ""),
        )
        self._identity = TokenCache(identity, provider=credentials.provider, failed=identity.failed, clock=clock)
        self._token = HeaderKey(credentials, header="authorization", prefix="Bearer ")
        self._key = HeaderKey(credentials, header="api-key")

    async def _choose(self) -> Authenticator:
        credentials = self._credentials
        if credentials.key_is_token:
            return self._token
        if credentials.origin(API_KEY) == "argument":
            return self._key
        token = await credentials.secret("entra_token")
        if token:
            return TokenHeaders(Fixed(bearer(_without_prefix(token.reveal()))))
        return self._key if await credentials.key(required=False) else TokenHeaders(self._identity)


def _without_prefix(token: str) -> str:
    return token[len("bearer ") :].lstrip() if token.lower().startswith("bearer ") else token


class IdentityToken:
    """Asks azure-identity's default chain for a token. Called in a thread."""

    def __init__(self, *, provider: str, scope: str, client_id: str) -> None:
        self._provider = provider
        self._scope = scope
        self._client_id = client_id

    def __call__(self) -> Grant[SentHeaders]:
        """Find an identity and get its token. Raises `ConfigError` and whatever azure-identity does."""
        chain = self._chain()
        chain.credentials = tried = tuple(_tried(link) for link in chain.credentials)
        try:
            token = chain.get_token(self._scope)
        except Exception as error:  # noqa: BLE001 (it is raised again, or what it wraps)
            # The link that was refused; where there is none, the last of those that found nothing.
            told = next((link.error for link in reversed(tried) if link.error is not None), error)
            raise told from told.__cause__
        finally:
            for link in tried:
                link.close()
        return Grant(bearer(token.token), float(token.expires_on))

    def _chain(self) -> _Chain:
        quieten("azure")
        with needing("azure", self._provider):
            from azure.identity import AzureAuthorityHosts, DefaultAzureCredential  # noqa: PLC0415 (an extra; 0.4 s)
        options: dict[str, object] = {"retry_total": _RETRIES}
        if self._client_id:
            options["managed_identity_client_id"] = self._client_id
        known = {value for name, value in vars(AzureAuthorityHosts).items() if name.startswith("AZURE_")}
        if _authority() not in {"", *known}:  # a cloud of one's own, which Microsoft's directory does not list
            options["disable_instance_discovery"] = True
        return cast("_Chain", DefaultAzureCredential(**options))

    def failed(self, error: BaseException) -> LoomstreamError:
        """Give our error for what `__call__` raised."""
        codes = _CODE.findall(str(error))
        code = next((code for code in codes if code in _CODES), "".join(codes[:1]))
        cause = error.__cause__  # what azure-identity wraps as if it had been refused
        found = _CODES.get(code) or (by_class(cause, _PROBLEMS) if cause is not None else None)
        return translated(error, found or by_class(error, _PROBLEMS) or _UNKNOWN, provider=self._provider, code=code)


def _authority() -> str:
    host = os.environ.get("AZURE_AUTHORITY_HOST", "").strip()
    return urlsplit(host if "://" in host else f"https://{host}").netloc if host else ""
