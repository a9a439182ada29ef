"""Which proxy a URL is sent through.

Contract: pure look-ups over an environment that is read once. An explicit proxy wins over every variable. Among the
variables the lower-case name wins, an empty value switches the upper-case one off, and `HTTP_PROXY` is ignored where
`REQUEST_METHOD` is set, because a CGI server fills it from the request's `Proxy` header (httpoxy, CVE-2016-5385).
Plain http to this machine never goes through a proxy from the environment: those bytes must not leave it. A proxy's
credentials are a `Secret` and stand in no message.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

from loomstream.errors import ConfigError
from loomstream.wire import Secret

_DEFAULT_PORTS = {"http": 80, "https": 443}
_Network = IPv4Network | IPv6Network


class Proxy(Struct, frozen=True):
    """A proxy: its URL without credentials, and the `Proxy-Authorization` value for it."""

    url: str
    authorization: Secret | None = None


class Target(Struct, frozen=True):
    """Where a request goes."""

    scheme: str
    host: str
    port: int


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this machine (RFC 6761 section 6.3, RFC 1122 section 3.2.1.3)."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def parse_proxy(text: str, source: str) -> Proxy:
    """Read a proxy's URL; `source` says in messages where it stands. Without a scheme it is `http`.

    Raises `ConfigError` where it is no URL, or asks for a scheme other than http and https (SOCKS).
    """
    url = text if "://" in text else f"http://{text}"
    parts = _split(url)
    if parts is None or not parts.hostname:
        msg = f"{source} is not the URL of a proxy: write it as http://host:port"
        raise ConfigError(msg)
    if parts.scheme not in _DEFAULT_PORTS:
        msg = f"{source} asks for a {parts.scheme} proxy: only http and https proxies are supported"
        raise ConfigError(msg)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    return Proxy(f"{parts.scheme}://{host}:{port}", _authorization(parts))


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return None if port == 0 else parts


def _authorization(parts: SplitResult) -> Secret | None:
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Secret(f"Basic {b64encode(pair.encode()).decode()}")


def _variable(environ: Mapping[str, str], name: str) -> str:
    lower = environ.get(name)
    if lower is not None:
        return lower.strip()
    if name == "http_proxy" and "REQUEST_METHOD" in environ:
        return ""
    return environ.get(name.upper(), "").strip()


class ProxyTable:
    """Finds the proxy of a target; see the module's contract."""

    def __init__(self, *, proxy: str | None, environ: Mapping[str, str]) -> None:
        self._explicit = None if proxy is None else parse_proxy(proxy, "proxy=")
        self._by_scheme: dict[str, Proxy] = {}
        self._exceptions: tuple[Callable[[Target], bool], ...] = ()
        if self._explicit is None:
            self._by_scheme = _proxies_by_scheme(environ)
            self._exceptions = tuple(map(_exception, _variable(environ, "no_proxy").replace(",", " ").split()))

    def find(self, target: Target) -> Proxy | None:
        """Give the proxy that a target is sent through, or None for a direct connection."""
        if self._explicit is not None:
            return self._explicit
        if target.scheme == "http" and is_loopback(target.host):
            return None
        proxy = self._by_scheme.get(target.scheme)
        if proxy is None or any(matches(target) for matches in self._exceptions):
            return None
        return proxy


def _proxies_by_scheme(environ: Mapping[str, str]) -> dict[str, Proxy]:
    found: dict[str, Proxy] = {}
    for scheme in _DEFAULT_PORTS:
        for name in (f"{scheme}_proxy", "all_proxy"):
            value = _variable(environ, name)
            if value:
                found[scheme] = parse_proxy(value, f"the environment variable {name.upper()}")
                break
    return found


def _exception(entry: str) -> Callable[[Target], bool]:
    """Give the test for one entry of NO_PROXY: `*`, an address, a network, a host or a suffix; a port may follow."""
    if entry == "*":
        return lambda _: True
    network = _network(entry)
    if network is not None:
        return lambda target: _is_within(target.host, network)
    name, _, port = entry.rpartition(":") if _ends_in_port(entry) else (entry, "", "")
    network = _network(name.strip("[]"))
    if network is not None:
        return lambda target: _is_within(target.host, network) and _has_port(target, port)
    suffix = name.lower().removeprefix("*").strip(".")
    return lambda target: _is_named(target.host, suffix) and _has_port(target, port)


def _ends_in_port(entry: str) -> bool:
    name, colon, port = entry.rpartition(":")
    return bool(colon and name and port.isdecimal())


def _network(text: str) -> _Network | None:
    try:
        return ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _is_within(host: str, network: _Network) -> bool:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address in network


def _is_named(host: str, suffix: str) -> bool:
    name = host.rstrip(".").lower()
    return bool(suffix) and (name == suffix or name.endswith(f".{suffix}"))


def _has_port(target: Target, port: str) -> bool:
    return not port or target.port == int(port)
