"""What leaves: the checks on a wire request's URL and headers, and the one place where secrets are revealed.

Contract: no error shows a header's value, and no frame that raises holds one. A URL has scheme http or https, a host,
no credentials; plain http goes to this machine only, unless it was allowed. A header's value is printable ASCII:
what lies beyond has no agreed encoding (RFC 9110 section 5.5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from loomstream.errors import ConfigError
from loomstream.transport.proxies import Target, is_loopback
from loomstream.wire import Secret

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_PORTS = {"http": 80, "https": 443}


@lru_cache(maxsize=256)
def check_url(url: str, *, allow_http: bool) -> Target:
    """Give where a URL leads. Raises `ConfigError` for one that must not be used; see the module's contract."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        msg = f"{_shown(url)!r} is not a URL: write the base URL as https://host/path"
        raise ConfigError(msg)
    if parts.scheme not in _PORTS:
        msg = f"the URL of {parts.hostname} has the scheme {parts.scheme!r}: use https"
        raise ConfigError(msg)
    if "@" in parts.netloc:
        msg = f"the URL of {parts.hostname} holds credentials: pass them as api_key=, not inside the URL"
        raise ConfigError(msg)
    if parts.scheme == "http" and not (allow_http or is_loopback(parts.hostname)):
        msg = f"http://{parts.hostname} would carry the key unencrypted: use https, or allow it with allow_http=True"
        raise ConfigError(msg)
    return Target(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return None if _has_forbidden(url) else parts


def _has_forbidden(url: str) -> bool:
    return any(character <= " " or character == "\x7f" for character in url)


def _shown(url: str) -> str:
    """Give a URL for a message: without what may be a credential."""
    return url.split("?", 1)[0].rsplit("@", 1)[-1][:80]


def reveal_headers(headers: Mapping[str, str | Secret]) -> list[tuple[bytes, bytes]]:
    """Give the headers as they go to the wire. Raises `ConfigError` for a name or a value that HTTP does not allow."""
    for name, value in headers.items():
        problem = _problem(name, value)
        if problem:
            raise ConfigError(problem)
    return [(name.encode(), _reveal(value).strip(" \t").encode()) for name, value in headers.items()]


def _reveal(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _problem(name: str, value: str | Secret) -> str:
    if not _NAME.fullmatch(name):
        return f"{name[:80]!r} is not the name of an HTTP header"
    if _VALUE.fullmatch(_reveal(value)):
        return ""
    return (
        f"the value of the header {name!r} holds a line break, a control character or a character beyond ASCII: "
        "look for a stray character in the key or setting that it comes from"
    )
