"""Signature Version 4: the signature by which AWS knows who sent a request and that nobody changed it.

Contract: pure; the time is passed in. The URL is signed exactly as it is sent: its path is encoded once more for the
signature, as AWS says for every service but S3, so a `%3A` counts as `%253A`. Signed are the host, the content type and
every header whose name begins with `x-amz`; others may be changed on the way. Written out here because botocore's
signer costs several times as much per request and half a second to import; it is the oracle of the tests.
https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from loomstream.auth import with_headers
from loomstream.wire import Secret, WireRequest

_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNED = ("content-type", "x-amz")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AWSKeys(NamedTuple):
    """An access key; temporary ones come with a session token."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


class Signer:
    """Signs requests to one service in one region."""

    def __init__(self, keys: AWSKeys, *, region: str, service: str) -> None:
        self._keys = keys
        self._region = region
        self._service = service
        self._signing_key: tuple[str, bytes] = ("", b"")

    def sign(self, wire_request: WireRequest, *, at: float) -> WireRequest:
        """Give the request with its signature; `at` is the time in seconds since 1970."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
        headers: dict[str, str | Secret] = {"x-amz-date": stamp}
        if self._keys.session_token is not None:
            headers["x-amz-security-token"] = self._keys.session_token
        headers["authorization"] = self._authorization(with_headers(wire_request, headers), stamp)
        return with_headers(wire_request, headers)

    def _authorization(self, wire_request: WireRequest, stamp: str) -> Secret:
        day = stamp[:8]
        signed, canonical = _canonical(wire_request)
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
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


def _canonical(wire_request: WireRequest) -> tuple[str, str]:
    """Give the names of the signed headers, and the canonical request."""
    host, path, query = _canonical_url(wire_request.url)
    headers = {"host": host, **_signed_headers(wire_request.headers)}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    digest = sha256(wire_request.body).hexdigest()
    return names, f"{wire_request.method}\n{path}\n{query}\n{lines}\n{names}\n{digest}"


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
    parts = urlsplit(url)
    return _host(parts), quote(_without_dots(parts.path), safe="/~"), _sorted_query(parts.query)


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
