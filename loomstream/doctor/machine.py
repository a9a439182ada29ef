"""What this machine has: versions, extras, the keyring.

Contract: looks at what is installed; imports no extra, sends nothing, reads no key.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator, Mapping

from loomstream.config.keyring_store import backend
from loomstream.doctor import Finding
from loomstream.providers import Provider

_LIBRARIES: Mapping[str, str] = {
    "bedrock": "aiobotocore",
    "azure": "azure.identity",
    "vertex": "google.auth",
    "local": "xllamacpp",
    "otel": "opentelemetry.sdk",
    "redis": "redis",
    "serve": "starlette",
}
"""Each extra with the library that it brings."""

_EXTRA_OF: Mapping[str, str] = {"aws": "bedrock", "azure": "azure", "google": "vertex"}
"""The extras that other credentials than keys need, by authentication scheme."""

_SHOWN = ("anyio", "aiohttp", "httpx", "msgspec", "keyring", "click")


def machine(row: Provider | None) -> Iterator[Finding]:
    """Give what is said of this machine; `row` is the provider that is used, for the extras that it needs."""
    yield _versions()
    yield _extras(row)
    yield _keyring()


def _versions() -> Finding:
    own = importlib.metadata.version("loomstream")
    others = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _SHOWN)
    system = f"{platform.system()} {platform.machine()}"
    python = ".".join(str(part) for part in sys.version_info[:3])
    return Finding(name="versions", status="ok", said=f"loomstream {own}, Python {python}, {system}, {others}")


def _extras(row: Provider | None) -> Finding:
    there = [extra for extra, library in _LIBRARIES.items() if _is_installed(library)]
    said = f"installed: {', '.join(there) or 'none'}"
    needed = "" if row is None else "local" if row.launch else _EXTRA_OF.get(row.auth, "")
    if not needed or needed in there:
        return Finding(name="extras", status="ok", said=said)
    status = "problem" if row is not None and row.launch else "warning"
    use = "to run" if row is not None and row.launch else "for other credentials than a key"
    return Finding(
        name="extras",
        status=status,
        said=f"{said}; {needed} is missing, which {row.name if row else ''} needs {use}",
        fix=f"pip install 'loomstream[{needed}]'",
    )


def _is_installed(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ImportError:  # its parent is not there
        return False


def _keyring() -> Finding:
    found = backend()
    notes = "; ".join(found.notes)
    if found.name:
        return Finding(name="keyring", status="ok", said=f"{found.name}{f' ({notes})' if notes else ''}")
    return Finding(
        name="keyring",
        status="warning",
        said=notes or "there is none on this machine, as is usual without a desktop",
        fix="set keys by variables; or install a keyring (Linux: gnome-keyring, started under dbus-run-session)",
    )
