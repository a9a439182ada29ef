"""Which addresses are a provider's own, whoever asks; and which settings say whose account it is there.

Contract: pure. A host is a provider's own where it fits the host of an address in the row, with one label in the place
of each `{setting}` that is a place (a region). An address that somebody rents (a resource, an account, a workspace in
its host) is its tenant's, and one whose whole host is a setting is nobody's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from loomstream.dialects.templates import fields
from loomstream.errors import ConfigError
from loomstream.providers import Provider
from loomstream.transport.outgoing import check_url

_OF_AN_ACCOUNT = frozenset(
    ("account", "account_id", "client_id", "organization", "profile", "project", "quota_project", "role", "scope",
     "subscription", "tenant", "workspace")
)  # fmt: skip
"""What settings are called that say who is asked and who pays: an account, a tenant, an identity of this machine."""

_FIELD = re.compile(r"\{\w+\}")
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
    for address in filter(None, (row.base_url, *(profile.base_url for profile in row.profiles))):
        parts = urlsplit(_FIELD.sub("FIELD", address))
        host = (parts.hostname or "").replace("field", _LABEL)
        is_rented = not _OF_AN_ACCOUNT.isdisjoint(fields(urlsplit(address).netloc))
        if "." in host.replace(_LABEL, "").strip(".") and not is_rented:
            yield parts.scheme, host.replace(".", r"\."), parts.port or (443 if parts.scheme == "https" else 80)


def names_account(header: str) -> bool:
    """Say whether a header seems to say whose account it is, as `OpenAI-Project` and `x-goog-user-project` do."""
    return not _OF_AN_ACCOUNT.isdisjoint(re.split(r"[-_]", header.lower()))


def accounts_of(row: Provider) -> tuple[str, ...]:
    """Give the settings of a row that say whose account it is, or which identity is used."""
    return tuple(setting.name for setting in row.settings if setting.name in _OF_AN_ACCOUNT and not setting.keyring)
