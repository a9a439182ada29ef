"""Which addresses are a provider's own: those that its row names.

Contract: pure. A host is a provider's own where it fits the host of an address in the row, with one label in the place
of each `{setting}`, and of the `NAME` in an example. An address whose whole host is a setting is nobody's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from loomstream.errors import ConfigError
from loomstream.providers import Provider
from loomstream.transport.outgoing import check_url

_FIELD = re.compile(r"\{\w+\}|\bNAME\b")
_LABEL = "[a-z0-9-]+"


def is_own_address(row: Provider, url: str) -> bool:
    """Say whether an address is the provider's own; no to what is no address."""
    try:
        target = check_url(url, allow_http=True)
    except ConfigError:
        return False
    return any(
        re.fullmatch(pattern, target.host.lower()) and (scheme, port) == (target.scheme, target.port)
        for scheme, pattern, port in _own(row)
    )


def _own(row: Provider) -> Iterator[tuple[str, str, int]]:
    addresses = [row.base_url or row.address_example, *(profile.base_url for profile in row.profiles)]
    for address in filter(None, addresses):
        parts = urlsplit(_FIELD.sub("FIELD", address))
        host = (parts.hostname or "").replace("field", _LABEL)
        if "." in host.replace(_LABEL, "").strip("."):
            yield parts.scheme, host.replace(".", r"\."), parts.port or (443 if parts.scheme == "https" else 80)
