"""Texts that name values in braces: the addresses, paths and headers of a provider's row.

Contract: `{name}` stands for a value, and there is nothing else in braces: no format, no attribute, no escape. A value
never changes the shape of what it is filled into: in a path it is percent-encoded and no dot segment, in a host it is
a plain part of a host's name. Pure; it knows no provider.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote

from loomstream.errors import ConfigError, LoomstreamError, RequestError

MODEL = "model"
"""The name that stands for the model's id; every other name is a setting's."""

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PART_OF_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_PATH = re.compile(r"/[!-~]*")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER = re.compile(r"[\t -~]*")


@lru_cache(maxsize=256)
def fields(template: str) -> tuple[str, ...]:
    """Give the names in a template, in order. Raises `ConfigError` where a brace belongs to no `{name}`."""
    if re.search(r"[{}]", _FIELD.sub("", template)):
        msg = f"{template!r} is no template: a brace may only stand around a name, as in {{name}}"
        raise ConfigError(msg)
    return tuple(_FIELD.findall(template))


def filled(template: str, value: Callable[[str], str]) -> str:
    """Give the template with `value(name)` for each of its names. Raises `ConfigError` where it is none."""
    fields(template)
    return _FIELD.sub(lambda found: value(found[1]), template)


def fill_address(base_url: str, settings: Mapping[str, str], *, provider: str) -> str:
    """Give a base URL with the settings that it names, in its host and in its path.

    Raises `ConfigError` for a value that cannot stand there, and `KeyError` for a name without a value.
    """
    fields(base_url)
    scheme, mark, rest = base_url.rpartition("://")
    host, slash, path = rest.partition("/")
    named_host = filled(host, lambda name: host_value(name, settings[name], provider=provider))
    named_path = filled(path, lambda name: path_value(name, settings[name], provider=provider))
    return scheme + mark + named_host + slash + named_path


def host_value(name: str, value: str, *, provider: str) -> str:
    """Give a setting as it stands in a host's name; `ConfigError` where it is anything but a part of one."""
    if _PART_OF_HOST.fullmatch(value):
        return value
    raise _refused(name, value, provider, "it is part of a host's name: letters, digits, '-', '_' and '.'")


def path_value(name: str, value: str, *, provider: str) -> str:
    """Give a model's id or a setting as it stands in a path, percent-encoded.

    Raises `RequestError` for a model, `ConfigError` for a setting, where it is a dot segment, which names another path
    (RFC 3986 section 5.2.4), or holds half of a character.
    """
    if value in {".", ".."}:
        raise _refused(name, value, provider, "it would name another path")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise _refused(name, value, provider, "it holds half of a character (a lone surrogate)") from None


def _refused(name: str, value: str, provider: str, reason: str) -> LoomstreamError:
    if name == MODEL:
        return RequestError(f"{value!r} cannot be a model of {provider}: {reason}", provider=provider)
    return ConfigError(f"the setting {name!r} of {provider} cannot be {value!r}: {reason}", provider=provider)


# --- checks --------------------------------------------------------------------------------------


def check_fields(template: str, known: Iterable[str]) -> None:
    """Raise `ConfigError` where a text is no template, or names anything but these."""
    known = tuple(known)
    for name in fields(template):
        if name not in known:
            only = f"only {', '.join(known)} can stand there" if known else "nothing can stand there"
            msg = f"{template!r} names {name!r}: {only}"
            raise ConfigError(msg)


def check_path(template: str, known: Iterable[str]) -> None:
    """The same for a path; it also begins with a slash and is printable ASCII."""
    if template and not _PATH.fullmatch(template):
        msg = f"{template!r} is no path: it begins with '/' and holds printable ASCII characters without blanks"
        raise ConfigError(msg)
    check_fields(template, known)


def check_header(name: str, template: str, known: Iterable[str]) -> None:
    """The same for a header, whose name and value are what HTTP allows."""
    if not _HEADER_NAME.fullmatch(name):
        msg = f"{name!r} is not the name of an HTTP header"
        raise ConfigError(msg)
    if not _HEADER.fullmatch(template):
        msg = f"the header {name!r} holds a line break, a control character or a character beyond ASCII"
        raise ConfigError(msg)
    check_fields(template, known)
