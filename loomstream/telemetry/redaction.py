"""What leaves this machine with a span has no credentials and no personal data in it, as far as patterns can tell.

Contract: pure; gives new values and changes none. Names of credentials lose their attribute, at every depth; token
counts (`llm.tokens.…`) are none. Values that look like keys, e-mail addresses, telephone, social security and card
numbers are replaced inside texts, at every depth. Patterns find what looks like it, no more: content that must not
leave must not be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from loomstream.transport.record import SECRET_PATTERNS

_NAMES = frozenset(
    (
        "password",
        "api_key",
        "token",
        "secret",
        "authorization",
        "access_token",
        "refresh_token",
        "bearer",
        "apikey",
        "client_secret",
        "private_key",
        "ssh_key",
        "aws_secret",
    )
)
_PARTS = ("password", "secret", "token")
_COUNTS = "llm.tokens."

_WEB_SIGNED = r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
_KEYS = re.compile("|".join((*SECRET_PATTERNS, _WEB_SIGNED)))
_PERSONAL = (
    (re.compile(r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}\.[A-Za-z]{2,24}\b"), "[EMAIL_REDACTED]"),
    (re.compile(r"\b\d{3}[-.]?\d{3}[-.]?\d{4}\b"), "[PHONE_REDACTED]"),
    (re.compile(r"\b\d{3}-\d{2}-\d{4}\b"), "[SSN_REDACTED]"),
    (re.compile(r"\b\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}\b"), "[CARD_REDACTED]"),
)
"""In the order of the seed system, whose words these are."""


def is_credential(name: str) -> bool:
    """Say whether an attribute of this name holds a credential."""
    lower = name.lower()
    if lower.startswith(_COUNTS):
        return False
    return lower in _NAMES or any(part in lower for part in _PARTS) or ("key" in lower and "api" in lower)


def redacted(attributes: Mapping[str, object], *, personal: bool = True) -> dict[str, object]:
    """Give the attributes without credentials, and with `personal` also without personal data."""
    return {name: _value(value, personal) for name, value in attributes.items() if not is_credential(name)}


def _value(value: object, personal: bool) -> object:  # noqa: FBT001 (of this module alone)
    match value:
        case str():
            return _text(value, personal)
        case Mapping():
            return redacted(cast("Mapping[str, object]", value), personal=personal)
        case list() | tuple():
            return [_value(each, personal) for each in cast("list[object]", value)]
        case _:
            return value


def _text(text: str, personal: bool) -> str:  # noqa: FBT001 (the same)
    text = _KEYS.sub("[SECRET_REDACTED]", text)
    for pattern, word in _PERSONAL if personal else ():
        text = pattern.sub(word, text)
    return text
