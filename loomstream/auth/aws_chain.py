"""AWS's own chain of credentials, asked through aiobotocore.

Contract: `AmbientKeys` is called in a thread without an event loop, by a `TokenCache`; each call reads everything anew
(environment, files, SSO login), so a new login counts at once. aiobotocore then runs in an event loop of its own: on
the caller's it would stop every stream for 0.2 to 0.7 s (measured: its import, and the JSON descriptions that a client
of STS or SSO reads), and trio has no place for it. What it would log of answers that hold keys is held back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol, cast

from loomstream.auth.aws_files import region_of
from loomstream.auth.sigv4 import AWSKeys
from loomstream.auth.tokens import FETCH_LIMIT_S, Grant
from loomstream.auth.vendor import Problem, by_class, needing, translated
from loomstream.errors import AuthFailed, ConfigError, ConnectFailed, LoomstreamError, MissingKey
from loomstream.wire import Secret

_SERVER_FAULT = 500
_TOO_MANY = 429
_LOG_IN = "log in again (aws sso login, or aws login, with the profile that you use)"
_UNREACHABLE = Problem(ConnectFailed, "the service that gives out AWS credentials cannot be reached: check the network")
_REFUSED = Problem(AuthFailed, "AWS refused to give out credentials: check the profile, its role and its login")
_FILE = Problem(ConfigError, "change the profile in the AWS config file (AWS_CONFIG_FILE, ~/.aws/config)", quoted=True)

_PROBLEMS = {
    "ClientError": _REFUSED,
    "ConfigNotFound": _FILE,
    "ConfigParseError": _FILE,
    "ConnectionError": _UNREACHABLE,
    "CredentialRetrievalError": _REFUSED,
    "FileNotFoundError": Problem(ConfigError, "a file that the AWS configuration names is missing", quoted=True),
    "HTTPClientError": _UNREACHABLE,
    "InvalidConfigError": _FILE,
    "InvalidRegionError": Problem(ConfigError, "change the setting region", quoted=True),
    "LoginError": Problem(AuthFailed, _LOG_IN),
    "MetadataRetrievalError": _REFUSED,
    "MissingDependencyException": Problem(ConfigError, "install what aiobotocore asks for", quoted=True),
    "NoRegionError": Problem(ConfigError, "set the setting region, or AWS_REGION", quoted=True),
    "PartialCredentialsError": Problem(ConfigError, "set both parts of the access key", quoted=True),
    "ProfileNotFound": Problem(ConfigError, "change the setting profile, or AWS_PROFILE", quoted=True),
    "RefreshWithMFAUnsupportedError": Problem(ConfigError, "use a profile that needs no MFA code"),
    "RuntimeError": Problem(AuthFailed, "AWS gave out what has expired: set this machine's clock, or " + _LOG_IN),
    "SSOError": Problem(AuthFailed, _LOG_IN),
    "SSLError": Problem(ConnectFailed, "the TLS handshake failed: check AWS_CA_BUNDLE and the endpoint"),
    "TimeoutError": _UNREACHABLE,
    "TokenRetrievalError": Problem(AuthFailed, _LOG_IN),
    "UnknownCredentialError": _FILE,
}

_KEYS_WRONG = Problem(AuthFailed, "AWS does not know this access key: change it in the environment or the profile")
_CLOCK = Problem(AuthFailed, "the time of the request is wrong: set this machine's clock")
_EXPIRED = Problem(AuthFailed, "the credentials that the role is assumed with have expired: " + _LOG_IN)

_CODES = {
    "AccessDenied": Problem(AuthFailed, "the role may not be assumed: change role_arn, or the role's trust policy"),
    "AccessDeniedException": Problem(AuthFailed, _LOG_IN),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": Problem(AuthFailed, "the web identity token (AWS_WEB_IDENTITY_TOKEN_FILE) has expired"),
    "ForbiddenException": Problem(AuthFailed, "change sso_account_id or sso_role_name of the profile: no access"),
    "IDPRejectedClaim": Problem(AuthFailed, "the identity provider refused AWS_WEB_IDENTITY_TOKEN_FILE's token"),
    "InvalidClientTokenId": _KEYS_WRONG,
    "InvalidIdentityToken": Problem(AuthFailed, "AWS cannot verify the token in AWS_WEB_IDENTITY_TOKEN_FILE"),
    "RequestExpired": _CLOCK,
    "RequestTimeTooSkewed": _CLOCK,
    "SignatureDoesNotMatch": _KEYS_WRONG,
    "UnauthorizedException": Problem(AuthFailed, _LOG_IN),
    "UnrecognizedClientException": _KEYS_WRONG,
}
"""The codes of STS and of the SSO portal."""

_SOURCES = {
    "container-role": "check AWS_CONTAINER_CREDENTIALS_FULL_URI (or _RELATIVE_URI) and its authorization token",
    "custom-process": "the profile's credential_process failed: run it by hand",
    "iam-role": "the instance's metadata service gave none: check the role of the instance",
}
"""What `CredentialRetrievalError` was about, by botocore's names of its sources."""


class _Frozen(Protocol):
    access_key: str
    secret_key: str
    token: str | None


class _Credentials(Protocol):
    async def get_frozen_credentials(self) -> _Frozen: ...


class _Session(Protocol):
    def set_config_variable(self, logical_name: str, value: str) -> None: ...

    async def get_credentials(self) -> _Credentials | None: ...


class AmbientKeys:
    """Finds the keys that AWS's own tools would use; `profile` narrows it to one profile."""

    def __init__(self, *, provider: str, profile: str, region: str) -> None:
        self._provider = provider
        self._profile = profile
        self._region = region

    def __call__(self) -> Grant[AWSKeys]:
        """Find them. Raises `ConfigError`, `MissingKey` and whatever aiobotocore does."""
        session = self._session()
        _hold_back()
        in_fetch = _fetching.set(True)
        try:
            return asyncio.run(asyncio.wait_for(self._load(session), FETCH_LIMIT_S))
        finally:
            _fetching.reset(in_fetch)

    def _session(self) -> _Session:
        with needing("bedrock", self._provider):
            from aiobotocore.session import AioSession  # noqa: PLC0415 (an extra; half a second)
        session = cast("_Session", AioSession(profile=self._profile or None))
        region = self._region or region_of(self._profile, provider=self._provider)
        session.set_config_variable("region", region)  # STS needs one too
        return session

    async def _load(self, session: _Session) -> Grant[AWSKeys]:
        credentials = await session.get_credentials()
        if credentials is None:
            raise self._missing()
        frozen = await credentials.get_frozen_credentials()
        token = Secret(str(frozen.token)) if frozen.token else None
        keys = AWSKeys(str(frozen.access_key), Secret(str(frozen.secret_key)), token)
        expires: datetime | None = getattr(credentials, "_expiry_time", None)  # aiobotocore tells it in no other way
        return Grant(keys, None if expires is None else expires.timestamp())

    def _missing(self) -> MissingKey:
        where = (
            f"the profile {self._profile!r}" if self._profile else "the environment, ~/.aws, a container or instance"
        )
        msg = (
            f"no credential for {self._provider}: AWS found none in {where}; set AWS_BEARER_TOKEN_BEDROCK, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the setting profile, or run aws configure"
        )
        return MissingKey(msg, provider=self._provider)

    def failed(self, error: BaseException) -> LoomstreamError:
        """Give our error for what `__call__` raised."""
        response: Mapping[str, Mapping[str, object]] = getattr(error, "response", None) or {}
        code = str(response.get("Error", {}).get("Code", ""))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        known = _CODES.get(code)
        if isinstance(status, int) and (status >= _SERVER_FAULT or status == _TOO_MANY):
            known = _UNREACHABLE
        found = known or _about_source(error) or by_class(error, _PROBLEMS) or _REFUSED
        return translated(error, found, provider=self._provider, code=code)


def _about_source(error: BaseException) -> Problem | None:
    """Say which source failed where botocore tells only its name."""
    about: Mapping[str, object] = getattr(error, "kwargs", None) or {}
    advice = _SOURCES.get(str(about.get("provider", "")))
    return None if advice is None or type(error).__name__ == "PartialCredentialsError" else Problem(AuthFailed, advice)


# --- logs ----------------------------------------------------------------------------------------

_fetching: ContextVar[bool] = ContextVar("loomstream.aws.fetching", default=False)


class _HeldBack(logging.Filter):
    """Lets no debug line pass while credentials are fetched: botocore writes whole answers of STS into them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Give whether the line may be written."""
        return record.levelno > logging.DEBUG or not _fetching.get()


_held_back = _HeldBack()
_CHATTY = ("auth", "credentials", "endpoint", "hooks", "httpchecksum", "httpsession", "parsers", "tokens", "utils")
"""The modules of botocore and aiobotocore that write what they send or receive."""


def _hold_back() -> None:
    for name in _CHATTY:
        for package in ("botocore", "aiobotocore"):
            logging.getLogger(f"{package}.{name}").addFilter(_held_back)  # a second time changes nothing
