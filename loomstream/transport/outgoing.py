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
_PORTS = {"http": 80, "https": 443}
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 (nothing is bound)
_UNSPECIFIED = re.compile(r"^(https?://)(0\.0\.0\.0|\[::\])(?=[:/]|$)")
_NOT_YOURS = frozenset({"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers that frame a message or belong to the connection: only the HTTP client may write them (RFC 9112)."""


@lru_cache(maxsize=256)
def check_url(url: str, *, allow_http: bool) -> Target:
    """Give where a URL leads. Raises `ConfigError` for one that must not be used; see the module's contract."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        raise _no_url(url)
    if parts.scheme not in _PORTS:
        msg = f"the URL of {parts.hostname} has the scheme {parts.scheme!r}: use https"
        raise ConfigError(msg)
    if "@" in parts.netloc:
        msg = f"the URL of {parts.hostname} holds credentials: pass them as api_key=, not inside the URL"
        raise ConfigError(msg)
    if parts.scheme == "http" and not (allow_http or is_loopback(parts.hostname)):
        msg = (
            f"http://{parts.hostname} would send the prompt, and any key, unencrypted: use https, or pass "
            "allow_http=True"
        )
        raise ConfigError(msg)
    return Target(parts.scheme, parts.hostname, _PORTS[parts.scheme] if parts.port is None else parts.port)


def check_base_url(text: str, *, usual: str = "") -> str:
    """Give a base URL to which a path can be appended; `localhost:11434` means plain http.

    `usual` is the provider's own address, or an example of one: another host without a scheme has its scheme, a host
    alone its port. An address that stands for all of a machine's own (`0.0.0.0`, which servers listen at) means this
    machine.

    Raises `ConfigError` for a single word, which is a typing error more often than a host, and for a query or a
    fragment, which would swallow the path.
    """
    url = text.strip().rstrip("/")
    if "://" not in url:
        if not _names_a_host(url):
            raise _no_url(url)
        url = f"{_scheme(url, usual)}://{_with_port(url, usual)}"
    url = _UNSPECIFIED.sub(lambda found: found[1] + _LOOPBACK[found[2]], url)
    for mark, what in (("?", "query"), ("#", "fragment")):
        if mark in url:
            msg = f"the base URL {_shown(url)!r} has a {what}: write it without the {mark!r} and what follows"
            raise ConfigError(msg)
    return url


def is_loopback_url(url: str) -> bool:
    """Say whether a URL leads to this machine; no to what is no URL."""
    parts = _split(url)
    return parts is not None and is_loopback(parts.hostname or "")


def _scheme(address: str, usual: str) -> str:
    host = re.split(r"[/:]", address, maxsplit=1)[0]
    local = is_loopback(host) or host in _LOOPBACK or address.startswith("[")
    return "http" if local else usual.partition("://")[0] or "http"


def _with_port(address: str, usual: str) -> str:
    host, slash, path = address.partition("/")
    port = re.search(r":\d+$", usual)
    return address if port is None or re.search(r":\d*$", host) else host + port[0] + slash + path


def _names_a_host(text: str) -> bool:
    host = re.split(r"[/?#]", text, maxsplit=1)[0]
    return any(mark in host for mark in ".:[") or is_loopback(host)


def _no_url(url: str) -> ConfigError:
    return ConfigError(f"{_shown(url)!r} is not a URL: write the base URL as https://host/path")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return None if port == 0 or _has_forbidden(url) else parts


def _has_forbidden(url: str) -> bool:
    return any(character <= " " or character == "\x7f" for character in url)


def _shown(url: str) -> str:
    """Give a URL for a message: without what may be a credential."""
    return re.split(r"[?#]", url, maxsplit=1)[0].rsplit("@", 1)[-1][:80]


def reveal_headers(headers: Mapping[str, str | Secret]) -> list[tuple[bytes, bytes]]:
    """Give the headers as they go to the wire. Raises `ConfigError` for a name or a value that HTTP does not allow."""
    revealed = _revealed(headers)
    if isinstance(revealed, str):
        raise ConfigError(revealed)
    return revealed


def _revealed(headers: Mapping[str, str | Secret]) -> list[tuple[bytes, bytes]] | str:
    """Give the headers, or what is wrong with one: who raises holds no value."""
    pairs: list[tuple[bytes, bytes]] = []
    for name, value in headers.items():
        pair = _encoded(name, value.reveal()) if isinstance(value, Secret) else _encoded_once(name, value)
        if isinstance(pair, str):
            return pair
        pairs.append(pair)
    return pairs


def _encoded(name: str, value: str) -> tuple[bytes, bytes] | str:
    """Give a header as it goes to the wire, or what is wrong with it."""
    return _problem_of_name(name) or _problem_of_value(name, value) or (name.encode(), value.strip(" \t").encode())


_encoded_once = lru_cache(maxsize=256)(_encoded)
"""The same, for what is no secret: most requests have the headers of the one before."""


@lru_cache(maxsize=256)
def _problem_of_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        return f"{name[:80]!r} is not the name of an HTTP header"
    if name.lower() in _NOT_YOURS:
        return f"the header {name!r} is set by the HTTP client alone: leave it out of extra_headers"
    return ""


def _problem_of_value(name: str, value: str) -> str:
    if value.isascii() and value.replace("\t", " ").isprintable():
        return ""
    return (
        f"the value of the header {name!r} holds a line break, a control character or a character beyond ASCII: "
        "look for a stray character in the key or setting that it comes from"
    )
