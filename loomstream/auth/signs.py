"""Signs that this machine has an identity of its own at a cloud: a variable, a file. Nothing is asked.

Contract: no request leaves, no file is read, nothing is imported: a sign is a name that is set, or a file that is
there. What only a request would tell (the role of a virtual machine) has no sign. It says nothing of whether the
identity may ask a model.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping

_AWS = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
_AZURE = ("AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH", "IDENTITY_ENDPOINT",
          "MSI_ENDPOINT")  # fmt: skip
_WINDOWS = "win32"


def sign_of(scheme: str, environ: Mapping[str, str]) -> str:
    """Give the first sign of an identity that a scheme of authentication would use; empty where there is none.

    Also empty where the package is not installed that the scheme asks for it.
    """
    found = _SCHEMES.get(scheme)
    if found is None:
        return ""
    package, look = found
    sign = look(environ)
    return sign if sign and _is_installed(package) else ""


def _aws(environ: Mapping[str, str]) -> str:
    variable = "AWS_SHARED_CREDENTIALS_FILE"  # botocore expands a tilde in it; Google's library leaves its own as it is
    named = _expanded(environ, environ.get(variable, "").strip())
    return _set(environ, _AWS) or _file({**environ, variable: named}, variable, "~/.aws/credentials")


def _azure(environ: Mapping[str, str]) -> str:
    folder = environ.get("AZURE_CONFIG_DIR", "").strip() or "~/.azure"
    return _set(environ, _AZURE) or _file(environ, "", os.path.join(folder, "azureProfile.json"))  # noqa: PTH118 (pure text)


def _google(environ: Mapping[str, str]) -> str:
    usual = os.path.join(environ.get("APPDATA", ""), "gcloud") if sys.platform == _WINDOWS else "~/.config/gcloud"  # noqa: PTH118 (the same)
    folder = environ.get("CLOUDSDK_CONFIG", "").strip() or usual
    written = os.path.join(folder, "application_default_credentials.json")  # noqa: PTH118 (the same)
    return _file(environ, "GOOGLE_APPLICATION_CREDENTIALS", written)


_SCHEMES: Mapping[str, tuple[str, Callable[[Mapping[str, str]], str]]] = {
    "aws": ("aiobotocore", _aws),
    "azure": ("azure.identity", _azure),
    "google": ("google.auth", _google),
}
"""By scheme: the package that asks for the identity, and where its signs are."""


def _set(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((name for name in names if environ.get(name, "").strip()), "")


def _file(environ: Mapping[str, str], variable: str, usual: str) -> str:
    """Give the variable that names a file which is there, or the usual file."""
    named = environ.get(variable, "").strip()
    path = named or _expanded(environ, usual)
    return (variable if named else usual) if os.path.isfile(path) else ""  # noqa: PTH113 (raises nothing)


def _expanded(environ: Mapping[str, str], path: str) -> str:
    """Give the path with the own home for `~`, and another user's for `~user`; as it is where there is no such home."""
    home = environ.get("HOME", "").strip()
    if home and path.startswith("~/"):
        return home + path[1:]
    return os.path.expanduser(path)  # noqa: PTH111 (no error where there is no home)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # the package above it is not there, or is broken
        return False
