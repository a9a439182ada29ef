"""Signature Version 4: the signature by which AWS knows who sent a request and that nobody changed it.

Contract: pure; the time is passed in. The URL is signed exactly as it is sent: its path is encoded once more for the
signature, as AWS says for every service but S3, so a `%3A` counts as `%253A`. Signed are the host, the content type and
every header whose name begins with `x-amz`; others may be changed on the way. Written out here because botocore's
signer costs several times as much per request and half a second to import; it is the oracle of the tests. What cannot
be signed is a `ConfigError` before a secret is revealed, so that no frame that raises holds one.
https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from loomstream.auth import with_headers
from loomstream.errors import ConfigError
from loomstream.wire import Secret, WireRequest

_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNED = ("content-type", "x-amz")
_KEY = re.compile(r"[!-~]*")
_URL = re.compile(r"[!-~]+")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~]*")
_REGION = re.compile(r"[A-Za-z0-9._-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AWSKeys(NamedTuple):
    """An access key; temporary ones come with a session token."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None

    def __repr__(self) -> str:
        """Show nothing: where the parts were mixed up, the id is the secret."""
        return "AWSKeys('…')"


class Signer:
    """Signs requests to one service in one region.

    Raises `ConfigError` for a part of the key, or a region, with characters that there cannot be.
    """

    def __init__(self, keys: AWSKeys, *, region: str, service: str) -> None:
        if name := _unusable(keys):
            msg = (
                f"the AWS {name} holds a blank, a control character or a character beyond ASCII: copy it again (the "
                f"setting {name}, AWS_{name.upper()}, or the profile)"
            )
            raise ConfigError(msg)
        if not _REGION.fullmatch(region):
            msg = f"the setting region cannot be {region!r}: it is letters, digits and '-', as in us-west-2"
            raise ConfigError(msg)
        self._keys = keys
        self._region = region
        self._service = service
        self._signing_key: tuple[str, bytes] = ("", b"")

    def sign(self, wire_request: WireRequest, *, at: float) -> WireRequest:
        """Give the request with its signature; `at` is the time in seconds since 1970.

        Raises `ConfigError` for a URL or a header that cannot be signed.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
        headers: dict[str, str | Secret] = {"x-amz-date": stamp}
        if self._keys.session_token is not None:
            headers["x-amz-security-token"] = self._keys.session_token
        headers["authorization"] = self._authorization(with_headers(wire_request, headers), stamp)
        return with_headers(wire_request, headers)

    def _authorization(self, wire_request: WireRequest, stamp: str) -> Secret:
        day = stamp[:8]
        _check_headers(wire_request.headers)
        signed, digest = _canonical(wire_request)
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
        signature = hmac.digest(self._key_of(day), text.encode(), "sha256").hex()
        return Secret(
            f"{_ALGORITHM} Credential={self._keys.access_key_id}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )

    def _key_of(self, day: str) -> bytes:
        """Derive the key of a day; it serves all its requests."""
        if self._signing_key[0] != day:
            key = f"AWS4{self._keys.secret_access_key.reveal()}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._signing_key = (day, key)
        return self._signing_key[1]


def _unusable(keys: AWSKeys) -> str:
    """Give the name of the first part that no AWS key can be; in a frame of its own, for it reveals them."""
    token = keys.session_token.reveal() if keys.session_token else ""
    values = (keys.access_key_id, keys.secret_access_key.reveal(), token)
    return next((name for name, value in zip(keys._fields, values, strict=True) if not _KEY.fullmatch(value)), "")


def _check_headers(headers: Mapping[str, str | Secret]) -> None:
    for name, value in headers.items():
        if name.lower().startswith(_SIGNED) and not (_NAME.fullmatch(name) and _is_plain(value)):
            msg = f"the header {name!r} holds a line break, a control character or a character beyond ASCII"
            raise ConfigError(msg)


def _is_plain(value: str | Secret) -> bool:
    return _VALUE.fullmatch(value.reveal() if isinstance(value, Secret) else value) is not None


def _canonical(wire_request: WireRequest) -> tuple[str, str]:
    """Give the names of the signed headers, and the digest of the canonical request."""
    host, path, query = _canonical_url(wire_request.url)
    headers = {"host": host, **_signed_headers(wire_request.headers)}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    body = sha256(wire_request.body).hexdigest()
    canonical = f"{wire_request.method}\n{path}\n{query}\n{lines}\n{names}\n{body}"
    return names, sha256(canonical.encode()).hexdigest()


def _signed_headers(headers: Mapping[str, str | Secret]) -> dict[str, str]:
    """Give the headers that are signed, white space in them reduced to single blanks."""
    revealed = (
        (name.lower(), value.reveal() if isinstance(value, Secret) else value)
        for name, value in headers.items()
        if name.lower().startswith(_SIGNED)
    )
    return {name: " ".join(value.split()) for name, value in revealed}


@lru_cache(maxsize=256)
def _canonical_url(url: str) -> tuple[str, str, str]:
    parts, host = _split(url)
    return host, quote(_without_dots(parts.path), safe="/~"), _sorted_query(parts.query)


def _split(url: str) -> tuple[SplitResult, str]:
    """Give the URL's parts and its Host header. The error does not quote it: its host may hold a password."""
    try:
        parts = urlsplit(url)
        host = _host(parts) if _URL.fullmatch(url) else ""
    except ValueError:
        host, parts = "", SplitResult("", "", "", "", "")
    if not host:
        msg = "the request cannot be signed, for its URL is none: write the base URL as https://host/path, in ASCII"
        raise ConfigError(msg)
    return parts, host


def _host(parts: SplitResult) -> str:
    """Give the Host header as HTTP clients send it: the port only where it is not the scheme's own."""
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    return host if port is None or port == _DEFAULT_PORTS.get(parts.scheme) else f"{host}:{port}"


def _without_dots(path: str) -> str:
    """Resolve `.` and `..` and drop empty segments: AWS signs the path that is meant."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    end = "/" if kept and path.endswith("/") else ""
    return f"/{'/'.join(kept)}{end}"


def _sorted_query(query: str) -> str:
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&")) if query else []
    return "&".join(f"{name}={value}" for name, value in pairs)
