"""The TLS settings of our own connections.

Contract: certificates and host names are always verified, TLS 1.2 is the oldest version, and `SSLKEYLOGFILE` is
ignored: no setting and no variable makes the traffic readable to others. Authorities come from the first of: the CA
bundle given, `SSL_CERT_FILE` and `SSL_CERT_DIR`, the system's store with certifi's as the last resort.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from loomstream.errors import ConfigError

ClientCert = str | tuple[str, str]
"""One file with certificate and key, or the two files."""


def make_context(
    *, ca_bundle: str | None, client_cert: ClientCert | None, environ: Mapping[str, str]
) -> ssl.SSLContext:
    """Build the context for client connections.

    Raises `ConfigError` where a file is missing or is not what it should be.
    """
    # Not ssl.create_default_context: it obeys SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_authorities(context, ca_bundle, environ)
    if client_cert is not None:
        _load_client_cert(context, client_cert)
    return context


def _load_authorities(context: ssl.SSLContext, ca_bundle: str | None, environ: Mapping[str, str]) -> None:
    file, folder = environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None
    if ca_bundle is not None:
        is_folder = os.path.isdir(ca_bundle)  # noqa: PTH112 (a path as the user gave it; pathlib adds nothing here)
        locations = (None, ca_bundle) if is_folder else (ca_bundle, None)
        _load_locations(context, *locations, source="ca_bundle=")
    elif file or folder:
        _load_locations(context, file, folder, source="SSL_CERT_FILE or SSL_CERT_DIR")
    else:
        context.load_default_certs()
        if not context.cert_store_stats()["x509_ca"]:
            import certifi  # noqa: PLC0415 (only where the system has no store of its own)

            context.load_verify_locations(certifi.where())


def _load_locations(context: ssl.SSLContext, file: str | None, folder: str | None, *, source: str) -> None:
    problem = ""
    try:
        context.load_verify_locations(file, folder)
    except ssl.SSLError:
        problem = "holds no PEM certificates"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    if problem:
        msg = f"the authorities of {source} ({file or folder}): the file {problem}"
        raise ConfigError(msg)


def _load_client_cert(context: ssl.SSLContext, client_cert: ClientCert) -> None:
    cert, key = (client_cert, None) if isinstance(client_cert, str) else client_cert
    problem = ""
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except ssl.SSLError:
        problem = "holds no PEM certificate with its unencrypted key"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    if problem:
        msg = f"client_cert= ({cert}{f', {key}' if key else ''}): the file {problem}"
        raise ConfigError(msg)


def _refuse_password() -> str:
    """Answer for OpenSSL, which would otherwise ask on the terminal."""
    return ""
