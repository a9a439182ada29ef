"""Google Cloud: an API key (express mode), or a token of the credentials that google-auth reads or finds.

Contract: in this order: the key, in the header `x-goog-api-key`; the secret setting `credentials`, which is the JSON of
a service account, an authorized user, a workload identity (`external_account`) or an impersonation, or the path of such
a file; the application's default credentials (GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, the metadata server). All
but the key need the extra `vertex`. google-auth blocks, so it runs in a thread, over its own transport on `requests`,
which it needs for the metadata server in any case. Each fetch reads the credentials anew. The settings read are
`quota_project`; `project` is discovered.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from loomstream.auth import Authenticator, Credentials, HeaderKey
from loomstream.auth.choice import Choice
from loomstream.auth.tokens import Grant, SentHeaders, TokenCache, TokenHeaders, bearer
from loomstream.auth.vendor import Problem, by_class, needing, translated
from loomstream.errors import AuthFailed, ConfigError, ConnectFailed, LoomstreamError, MissingKey
from loomstream.wire import Secret

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""What tokens are asked for; Vertex AI wants no other."""

EXPRESS = MappingProxyType({"express": "yes"})
"""What a key without a project discovers: express mode, whose addresses name none."""

_LOG_IN = "run gcloud auth application-default login"
_MALFORMED = Problem(
    ConfigError,
    "they lack a field or hold a malformed one: change the setting credentials or the file that "
    "GOOGLE_APPLICATION_CREDENTIALS names",
)
_PROBLEMS = {
    "AttributeError": _MALFORMED,
    "DefaultCredentialsError": Problem(
        MissingKey,
        "none were found that can be read: pass the setting credentials, set GOOGLE_APPLICATION_CREDENTIALS to a "
        f"readable file, or {_LOG_IN}",
    ),
    "InvalidResource": _MALFORMED,
    "InvalidType": _MALFORMED,
    "InvalidValue": _MALFORMED,
    "KeyError": _MALFORMED,
    "MalformedError": _MALFORMED,
    "OAuthError": Problem(AuthFailed, "the token service refused the workload's identity: check its pool and provider"),
    "ReauthFailError": Problem(AuthFailed, f"Google wants you to log in again: {_LOG_IN}"),
    "RefreshError": Problem(AuthFailed, "the token service refused them: check the setting credentials"),
    "TransportError": Problem(ConnectFailed, "the token service cannot be reached: check the network"),
    "TimeoutError": Problem(ConnectFailed, "the token service does not answer: check the network"),
    "TypeError": _MALFORMED,
    "ValueError": _MALFORMED,
}
_UNKNOWN = Problem(AuthFailed, "google-auth failed: check the setting credentials")

_CODES = {
    "Reauthentication": Problem(AuthFailed, f"Google wants you to log in again: {_LOG_IN}"),
    "invalid_rapt": Problem(AuthFailed, f"Google wants you to log in again: {_LOG_IN}"),
    "invalid_client": Problem(AuthFailed, f"Google does not know the client in the credentials: {_LOG_IN}"),
    "invalid_grant": Problem(
        AuthFailed,
        "the key or login was revoked or has expired, or this machine's clock is wrong: make another service account "
        f"key, or {_LOG_IN}",
    ),
    "invalid_scope": Problem(AuthFailed, "these credentials may not have the scope cloud-platform: use others"),
    "invalid_target": Problem(ConfigError, "the audience names no pool or provider: change it in the credentials"),
    "unauthorized_client": Problem(AuthFailed, "this account may not ask for tokens: enable it, or use another"),
}
"""Codes of the token services (RFC 6749 section 5.2, and Google's own); the first that an error names counts."""

_NO_TOKEN = Problem(
    ConnectFailed, "the service that gives out tokens failed, or no service account is attached to this machine"
)
_AWS_IDENTITY = "urn:ietf:params:aws:token-type:aws4_request"
_MISSING_FIELDS = re.compile(r"missing fields? ([\w, ]+)")

_NEEDED = {
    "service_account": ("client_email", "private_key", "token_uri"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
    "external_account": ("audience", "credential_source", "subject_token_type", "token_url"),
}
"""What credentials of a type cannot do without; google-auth notices some of it only by what it sends."""

_LOADERS = {
    "service_account": ("google.oauth2.service_account", "Credentials.from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "Credentials.from_authorized_user_info"),
    "impersonated_service_account": (
        "google.auth.impersonated_credentials",
        "Credentials.from_impersonated_service_account_info",
    ),
    "external_account_authorized_user": ("google.auth.external_account_authorized_user", "Credentials.from_info"),
    "external_account": ("google.auth.identity_pool", "Credentials.from_info"),
    "external_account of AWS": ("google.auth.aws", "Credentials.from_info"),
    "external_account of an executable": ("google.auth.pluggable", "Credentials.from_info"),
}
"""What a credential file's `type` says, to the module and function that reads it."""


class _Loaded(Protocol):
    """A credential of google-auth."""

    token: str
    expiry: datetime | None

    def refresh(self, request: object) -> None: ...


class GoogleAuthenticator(Choice):
    """The scheme `google`; see the module's contract. `clock` gives seconds since 1970."""

    def __init__(self, credentials: Credentials, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._credentials = credentials
        self._key = HeaderKey(credentials, header="x-goog-api-key")
        self._token = HeaderKey(credentials, header="authorization", prefix="Bearer ")
        self._account = AccountToken(
            provider=credentials.provider, quota_project=credentials.settings.get("quota_project", "")
        )
        self._tokens = TokenCache(
            self._account, provider=credentials.provider, failed=self._account.failed, clock=clock
        )

    async def _choose(self) -> Authenticator:
        if self._credentials.key_is_token:
            return self._token
        if await self._credentials.key(required=False):
            if not self._credentials.settings.get("project"):
                self._key.discovered = EXPRESS
            return self._key
        self._account.given = await self._credentials.secret("credentials")
        return TokenHeaders(self._tokens)


class AccountToken:
    """Asks google-auth for a token; `given` is JSON or a path, None for the default ones. Called in a thread."""

    def __init__(self, *, provider: str, quota_project: str) -> None:
        self.given: Secret | None = None
        self._provider = provider
        self._quota_project = quota_project

    def __call__(self) -> Grant[SentHeaders]:
        """Load the credentials and get a token. Raises `ConfigError` and whatever google-auth does."""
        with needing("vertex", self._provider):
            from google.auth.transport.requests import Request  # noqa: PLC0415 (an extra)
        request = Request()
        with closing(request.session):
            loaded, project = self._default(request) if self.given is None else self._read(self.given)
            self._refresh(loaded, request)
        expires_at = None if loaded.expiry is None else loaded.expiry.replace(tzinfo=UTC).timestamp()
        return Grant(self._sent(loaded, project), expires_at)

    def _refresh(self, loaded: _Loaded, request: object) -> None:
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 (an extra)

        try:
            loaded.refresh(request)
        except GoogleAuthError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError):  # out of an answer that is no token
            raise self._no_token() from None
        if not isinstance(loaded.token, str) or not loaded.token:  # pyright: ignore[reportUnnecessaryIsInstance] (as the service wrote it)
            raise self._no_token()

    def _no_token(self) -> ConnectFailed:
        msg = f"the service that gives out tokens for {self._provider} answered without one: check the credentials"
        return ConnectFailed(msg, provider=self._provider)

    def _default(self, request: object) -> tuple[_Loaded, str]:
        import google.auth  # noqa: PLC0415 (an extra)

        find = cast("Callable[..., tuple[_Loaded, str | None]]", google.auth.default)  # pyright: ignore[reportUnknownMemberType] (its annotations are partial)
        loaded, project = find(scopes=[SCOPE], request=request)
        return loaded, project or ""

    def _read(self, given: Secret) -> tuple[_Loaded, str]:
        info = self._info(given)
        module, function = _LOADERS[self._kind(info)]
        read = cast("Callable[..., _Loaded]", attrgetter(function)(importlib.import_module(module)))
        options = {} if info["type"] == "authorized_user" else {"scopes": [SCOPE]}  # a login has its scopes already
        project = info.get("project_id")
        return read(info, **options), project if isinstance(project, str) else ""

    def _info(self, given: Secret) -> dict[str, object]:
        """Give the JSON object that a setting holds or names; no part of it may be shown."""
        text = given.reveal().strip()
        try:
            info = json.loads(text if text.startswith("{") else Path(text).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError, RuntimeError):  # no such file or user's home; no JSON; too deep a JSON
            info = None
        if not isinstance(info, dict):
            msg = (
                f"the setting credentials of {self._provider} is neither a JSON object nor a path to one: "
                "give what Google Cloud made, or its path"
            )
            raise ConfigError(msg, provider=self._provider)
        return cast("dict[str, object]", info)

    def _kind(self, info: Mapping[str, object]) -> str:
        kind = str(info.get("type", ""))
        if kind == "external_account":
            source = info.get("credential_source")
            if info.get("subject_token_type") == _AWS_IDENTITY:
                kind = "external_account of AWS"
            elif isinstance(source, dict) and "executable" in source:
                kind = "external_account of an executable"
        if kind not in _LOADERS:
            known = ", ".join(name for name in _LOADERS if " " not in name)
            msg = f"the setting credentials of {self._provider} has a type that is not known: known are {known}"
            raise ConfigError(msg, provider=self._provider)
        lacking = [name for name in _NEEDED.get(kind.partition(" ")[0], ()) if not info.get(name)]
        if lacking:
            msg = f"the setting credentials of {self._provider} lacks {', '.join(lacking)}: download the file anew"
            raise ConfigError(msg, provider=self._provider)
        return kind

    def _sent(self, loaded: _Loaded, project: str) -> SentHeaders:
        quota_project = (
            self._quota_project
            or getattr(loaded, "quota_project_id", None)
            or os.environ.get("GOOGLE_CLOUD_QUOTA_PROJECT", "")
        )
        headers = {"x-goog-user-project": quota_project} if quota_project else {}
        return bearer(loaded.token, headers=headers, discovered={"project": project} if project else {})

    def failed(self, error: BaseException) -> LoomstreamError:
        """Give our error for what `__call__` raised."""
        text = str(error)
        code = next((code for code in _CODES if code in text), "")
        found = _CODES.get(code) or _about_service(error) or by_class(error, _PROBLEMS) or _UNKNOWN
        missing = _MISSING_FIELDS.search(text)
        if missing is not None:
            code, found = missing.group(), _MALFORMED
        return translated(error, found, provider=self._provider, code=code)


def _about_service(error: BaseException) -> Problem | None:
    """Say whether it is the service that failed: google-auth raises the same class where it refused."""
    retryable = getattr(error, "retryable", False)
    return _NO_TOKEN if retryable or type(error.__cause__).__name__ == "TransportError" else None
